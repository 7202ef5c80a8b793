"""Intervals: how far a mean over clips could be off, by drawing the clips again with replacement.

Everything is seeded, so that anyone who has the clips' scores gets the same intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean, and between which values the middle 95 % of the resampled means lie."""

    mean: float
    low: float
    high: float


def bootstrap_means(values_N: Sequence[float], seed: int) -> np.ndarray:
    """(RESAMPLES,) means of N values drawn with replacement from `values_N`. Raises ValueError for no value."""
    values = np.asarray(values_N, dtype=np.float64)
    if not len(values):
        raise ValueError("there is no value to draw from")
    picked = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    return values[picked].mean(1)


def interval(mean: float, resampled: np.ndarray) -> Interval:
    """Percentile interval; it takes values that occurred, so that infinite scores stay infinite."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(mean=mean, low=float(low), high=float(high))
