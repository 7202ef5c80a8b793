"""The perceptual distance from EfficientNet's maps: its definition, and that it grows with what is wrong."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from hmcli.errors import MissingPartError
from hmcli.metrics import perceptual
from hmcli.metrics.backbones import effnet
from hmcli.metrics.perceptual import (
    AT_ONCE,
    distance_maps,
    distances,
    effnet_distances,
    map_distance,
    perceptual_effnet,
)

CAT = data.chelsea()[60:188, 80:272]  # 128x192


def noisy(frame: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def blurred(frame: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(frame.astype(float), (sigma, sigma, 0)).astype(np.uint8)


def shifted(frame: np.ndarray, by: float) -> np.ndarray:
    return data.chelsea()[60:188, 80 + int(by) : 272 + int(by)]


@pytest.mark.parametrize("damage", [noisy, blurred, shifted])
def test_it_grows_with_damage_and_is_nothing_for_equal_frames(damage):
    frames = np.stack([CAT, *(damage(CAT, much) for much in (1, 2, 4, 8, 16))])
    found = perceptual_effnet(prediction=frames, reference=np.stack([CAT] * 6))
    assert found[0] == 0
    assert (np.diff(found) > 0).all(), found
    assert found[-1] < 20


def test_it_is_the_cosine_between_places_of_every_map():
    """Unit vectors are apart by 2 - 2 cos; every place of a map counts alike, and every map."""
    made, true = np.stack([CAT] * (AT_ONCE + 1)), np.stack([noisy(CAT, 5 * number) for number in range(AT_ONCE + 1)])
    network = effnet.load_effnet("cpu")
    for frame, reference, found in zip(made, true, effnet_distances(made, true).values_T, strict=True):
        with torch.inference_mode():
            pairs = zip(
                *(network.taps(torch.tensor(f).permute(2, 0, 1)[None].float()) for f in (frame, reference)), strict=True
            )
            cosines = [torch.cosine_similarity(a.double(), b.double(), dim=1).mean().item() for a, b in pairs]
        assert found == pytest.approx(sum(2 - 2 * cosine for cosine in cosines), abs=1e-5)


def test_channels_count_as_they_are_weighed():
    made, true = torch.tensor([3.0, 4.0])[None, :, None, None], torch.tensor([4.0, 3.0])[None, :, None, None]
    assert map_distance(distance_maps([made], [true])).item() == pytest.approx(2 * 0.2**2)
    assert map_distance(distance_maps([made], [true], [torch.tensor([5.0, 0.0])])).item() == pytest.approx(5 * 0.2**2)
    nothing = torch.zeros(1, 2, 1, 1)
    assert map_distance(distance_maps([nothing], [true])).item() == pytest.approx(1)


def test_frames_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="the prediction has 1 frames, the reference 2"):
        distances(CAT[None], np.stack([CAT, CAT]), lambda pixels: [pixels])


def test_without_the_extra_it_is_a_missing_part(monkeypatch):
    monkeypatch.setitem(sys.modules, effnet.PACKAGE, None)
    perceptual._effnet_taps.cache_clear()
    with pytest.raises(MissingPartError, match="hmcli\\[features\\]"):
        perceptual_effnet(prediction=CAT[None], reference=CAT[None])
