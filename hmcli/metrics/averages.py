"""Averages: one number from the per-frame values of many clips, and how numbers are written where JSON has none."""

from __future__ import annotations

import math


def mean_score(per_clip: list[list[float]], average: str) -> float | None:
    """The mean of clips' per-frame values; None for no clip at all. Infinite stays infinite.

    `frames`: over all frames of all clips; `videos`: over clips of each clip's own mean. Raises ValueError for another
    `average` and for a clip without a value.
    """
    if any(not values for values in per_clip):
        raise ValueError("a clip without a value is in no average: leave it out and count it")
    if average not in ("frames", "videos"):
        raise ValueError(f"average is {average!r}, known: frames, videos")
    if not per_clip:
        return None
    if average == "frames":
        return math.fsum(value for values in per_clip for value in values) / sum(map(len, per_clip))
    return math.fsum(math.fsum(values) / len(values) for values in per_clip) / len(per_clip)


def json_number(value: float | None) -> float | str | None:
    """JSON has no infinity: it is written as the text `inf`, which float() reads back."""
    return None if value is None else float(value) if math.isfinite(value) else str(float(value))
