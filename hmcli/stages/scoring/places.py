"""Who was seen where, as an evaluation keeps it: an item of each clip, beside its scores."""

from __future__ import annotations

import numpy as np

from hmcli.metrics.places import seen_places
from hmcli.stages.scoring.clip import Clip
from hmcli.stages.scoring.layout import FORMAT, Four, PlacedSubject, Places

DIGITS = 2  # of pixels, metres and body lengths


def places_of(clip: Clip, detector: str) -> Places:
    """Raises DataError where nothing can be told of the clip."""
    tracks, cameras, (found, seen) = clip.tracks(), clip.cameras(), clip.seen()
    subjects = tuple(
        PlacedSubject(
            subject=one.subject.name, boxes=tuple(_four(box) for box in one.box_T4),
            places=tuple(_two(place) for place in seen_places(one, tracks, cameras)),
            off=tuple(_one(off) for off in one.distance),
        )
        for one in found.subjects
    )  # fmt: skip
    others = tuple(
        tuple(_rounded(boxes[number].box_4) for number in numbers)
        for boxes, numbers in zip(seen, found.nobodys, strict=True)
    )
    return Places(format=FORMAT, clip=clip.id, detector=detector, subjects=subjects, others=others)


def _rounded(box_4: np.ndarray) -> Four:
    left, top, right, bottom = (round(float(side), DIGITS) for side in box_4)
    return left, top, right, bottom


def _four(box_4: np.ndarray) -> Four | None:
    return _rounded(box_4) if np.isfinite(box_4).all() else None


def _two(place_2: np.ndarray) -> tuple[float, float] | None:
    x, y = (round(float(metres), DIGITS) for metres in place_2)
    return (x, y) if np.isfinite(place_2).all() else None


def _one(value: float) -> float | None:
    return round(float(value), DIGITS) if np.isfinite(value) else None
