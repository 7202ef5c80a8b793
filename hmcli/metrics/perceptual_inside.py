"""Perceptual distances in parts of the picture: `perceptual-effnet` and LPIPS, by regions (regions.py).

The network sees the whole frame once, and its squared differences are averaged over the places that belong to a region.
What it cannot see: where a place ends. Each sees far beyond its part of the frame, so that an error beside a region
counts in it a little, the more the deeper the map (the deepest has 8 places at 64x112).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from hmcli.metrics.contract import LPIPS, Metric
from hmcli.metrics.inside import PAIR, mean_inside
from hmcli.metrics.perceptual import Distances, effnet_distances, lpips_distances
from hmcli.metrics.regions import REGIONS, Region


def distance_in(region: Region, of: Distances, **where: Any) -> np.ma.MaskedArray:
    """(T,) perceptual distance in a region, of networks that see beyond its edge. Raises NothingToJudge."""
    return mean_inside(of.maps, region.pixels((len(of.values_T), *of.size), **where))


_PLACES = (
    "before the average over places, which here weighs each place by how much of the part of the frame that it stands "
    "for belongs to "
)


def _perceptual(region: Region) -> Metric:
    return Metric(
        name=f"perceptual-effnet-{region.name}",
        function=partial(distance_in, region),
        shared=effnet_distances,
        shares=PAIR,
        needs=(*PAIR, *region.needs),
        unit="",
        range=(0, 20),
        better="lower",
        definition=f"perceptual-effnet of the whole frame, {_PLACES}{region.words}",
        partial=True,
        order=region.order,
    )


def _lpips(region: Region) -> Metric:
    return Metric(
        name=f"lpips-{region.name}",
        function=partial(distance_in, region),
        shared=lpips_distances,
        shares=(*PAIR, LPIPS),
        needs=(*PAIR, LPIPS, *region.needs),
        unit="",
        range=(0, math.inf),
        better="lower",
        definition=f"lpips of the whole frame, {_PLACES}{region.words}",
        partial=True,
    )


(
    perceptual_effnet_visible,
    perceptual_effnet_hidden,
    perceptual_effnet_returned,
    perceptual_effnet_outside,
    perceptual_effnet_outside_returned,
) = map(_perceptual, REGIONS)
lpips_visible, lpips_hidden, lpips_returned, lpips_outside, lpips_outside_returned = map(_lpips, REGIONS)
