"""Patterns: shares stay shares, and what is finer than a pixel fades to an even tone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmcli.world.render.patterns import Surface, noise_from, second_share
from hmcli.world.space.shapes import PATTERNS

SHAPED = {"plain", "face", "front", "tips", "segments", "dusted"}  # these follow the shape and have no period


def shares(name: str, pixel: float, period: float = 0.5) -> torch.Tensor:
    """On a wall that faces -y, 12 x 6 metres."""
    rng = np.random.default_rng(0)
    x, z = torch.meshgrid(torch.linspace(-6, 6, 70), torch.linspace(0, 6, 50), indexing="ij")
    position = torch.stack([x.ravel(), torch.full((3500,), 0.3), z.ravel()])
    normal = torch.tensor([[0.0], [-1.0], [0.0]]).expand(3, 3500)
    full = torch.ones(3500)
    surface = Surface(
        position=position, normal=normal, period=full * period, pixel=full * pixel,
        noise=noise_from(rng, torch.device("cpu")),
    )  # fmt: skip
    return second_share(torch.full((3500,), PATTERNS.index(name)), surface)


@pytest.mark.parametrize("name", [name for name in PATTERNS if name != "plain"])
def test_a_share_lies_between_0_and_1(name):
    for pixel in (0.01, 0.3, 2.0):
        share = shares(name, pixel)
        assert share.min() >= 0
        assert share.max() <= 1


@pytest.mark.parametrize("name", [name for name in PATTERNS if name not in SHAPED])
def test_a_pattern_shows_near_by_and_is_even_far_away(name):
    assert shares(name, pixel=0.01).std() > 0.08
    assert shares(name, pixel=3.0).std() < 0.09


def test_random_cells_have_nothing_in_common_with_their_neighbours():
    noise = noise_from(np.random.default_rng(1), torch.device("cpu"))
    x, y = torch.meshgrid(torch.arange(-40.0, 40.0), torch.arange(-40.0, 40.0), indexing="ij")
    values = noise.at(x, y)
    assert 0.45 < values.mean() < 0.55
    assert 0.27 < values.std() < 0.31
    for first, second in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
        assert abs(float(np.corrcoef(first.flatten(), second.flatten())[0, 1])) < 0.1
