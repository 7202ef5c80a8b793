"""How far two frames are apart as a network sees them: distances of its feature maps, place by place.

Zhang et al. (2018): at several scales, channels are brought to unit length at every place, and squared differences are
summed over channels, averaged over places and summed over scales. LPIPS weighs channels by what people said of
pictures; `perceptual-effnet` weighs them alike, on a network whose weights can be installed.
Shape letters here: N frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hmcli.aligned import tensor_of
from hmcli.metrics.contract import LPIPS, PREDICTION, REFERENCE, Metric, check_pair

UNIT_EPSILON = 1e-10  # added to lengths: a place without any feature stays zero
AT_ONCE = 4  # frames: more leave a CPU's caches

Taps = Callable[[Tensor], Sequence[Tensor]]  # (N, 3, H, W) pixels in [0, 255] -> maps (N, C, h, w)


@dataclass(frozen=True, kw_only=True, eq=False)
class Distances:
    """Perceptual distances of T frames: `values_T` (float64) of the whole, and `maps` (T, h, w) of which they are the
    means over places, summed over maps. `size` is the frames' height and width in pixels."""

    values_T: np.ndarray
    maps: tuple[np.ndarray, ...]
    size: tuple[int, int]


def distance_maps(
    made: Sequence[Tensor], true: Sequence[Tensor], weights: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Of two lists of maps (N, C, h, w) the squared distances at every place (N, h, w); `weights` (C,) of each map's
    channels, 1 where not given."""
    found = []
    for number, (ours, theirs) in enumerate(zip(made, true, strict=True)):
        apart = (_unit(ours) - _unit(theirs)) ** 2
        if weights is not None:
            apart = apart * weights[number][:, None, None]
        found.append(apart.sum(dim=1))
    return found


def map_distance(maps: Sequence[Tensor]) -> Tensor:
    """(N,) of distances at every place."""
    total = maps[0].new_zeros(len(maps[0]))
    for apart in maps:
        total = total + apart.mean(dim=(-2, -1))
    return total


def _unit(maps: Tensor) -> Tensor:
    return maps / ((maps**2).sum(dim=1, keepdim=True).sqrt() + UNIT_EPSILON)


def distances(
    prediction: np.ndarray,
    reference: np.ndarray,
    taps: Taps,
    weights: Sequence[Tensor] | None = None,
    device: str = "cpu",
) -> Distances:
    """Of each frame to its reference, at the frames' own size; 0 where they agree."""
    check_pair(prediction, reference)
    values, maps = [], []
    with torch.inference_mode():
        for start in range(0, len(prediction), AT_ONCE):
            made, true = (
                taps(tensor_of(video[start : start + AT_ONCE]).to(device).permute(0, 3, 1, 2).float())
                for video in (prediction, reference)
            )
            apart = distance_maps(made, true, weights)
            values.append(map_distance(apart).double().cpu())
            maps.append([of.float().cpu() for of in apart])
    height, width = prediction.shape[1:3]
    return Distances(
        values_T=torch.cat(values).numpy(), maps=tuple(torch.cat(of).numpy() for of in zip(*maps, strict=True)),
        size=(height, width),
    )  # fmt: skip


def frame_distance(of: Distances) -> np.ndarray:
    """(T,) of the whole frames."""
    return of.values_T


@cache
def _effnet_taps() -> Taps:
    from hmcli.metrics.backbones.effnet import load_effnet

    return load_effnet("cpu").taps


def effnet_distances(prediction: np.ndarray, reference: np.ndarray) -> Distances:
    """`perceptual-effnet` of each frame. Raises MissingPartError without the extra `features`."""
    return distances(prediction, reference, _effnet_taps())


perceptual_effnet = Metric(
    name="perceptual-effnet",
    function=frame_distance,
    shared=effnet_distances,
    needs=(PREDICTION, REFERENCE),
    unit="",
    range=(0, 20),
    better="lower",
    definition="feature maps of EfficientNet-Lite0 (released ImageNet weights efficientnet-lite0-57934424, in float32 "
    "on the CPU) at 1/2, 1/4, 1/8, 1/16 and 1/32 of the frame's own size, pixels as (x - 127) / 128; channels to unit "
    "length (+ 1e-10) at every place, squared differences summed over channels, averaged over places, summed over the "
    "five maps; 0 (identical) to 20; no learned weights of channels: not LPIPS, and not comparable with it",
    order=("truth", "erased", "another"),
)


def lpips_distances(
    prediction: np.ndarray, reference: np.ndarray, lpips: Callable[[np.ndarray, np.ndarray], Distances]
) -> Distances:
    """LPIPS of each frame by its loaded network (hmcli/metrics/lpips.py)."""
    return lpips(prediction, reference)


lpips = Metric(
    name="lpips",
    function=frame_distance,
    shared=lpips_distances,
    needs=(PREDICTION, REFERENCE, LPIPS),
    unit="",
    range=(0, math.inf),
    better="lower",
    definition="LPIPS version 0.1 of each frame at its own size (Zhang et al. 2018): the network's maps after its five "
    "ReLUs, channels to unit length (+ 1e-10) at every place, squared differences weighed by the published weights of "
    "channels, averaged over places, summed; 0 for identical frames",
)
