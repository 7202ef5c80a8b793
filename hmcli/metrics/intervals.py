"""Intervals: how far a mean over clips could be off, by drawing the clips again with replacement.

Everything is seeded, so that anyone who has the clips' scores gets the same intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    return values[draws(len(values), seed)].mean(1)


def draws(count: int, seed: int) -> np.ndarray:
    """(RESAMPLES, N) which of `count` = N things each draw with replacement holds. Raises ValueError for none."""
    if not count:
        raise ValueError("there is no value to draw from")
    return np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))


def bootstrap_of(statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int) -> np.ndarray:
    """What `statistic` makes of each draw of `count` things, (R, N) -> (R,); draws without a number are left out."""
    found = statistic(draws(count, seed))
    return found[~np.isnan(found)]


def interval(mean: float, resampled: np.ndarray) -> Interval:
    """Percentile interval; it takes values that occurred, so that infinite scores stay infinite."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Interval(mean=mean, low=float(low), high=float(high))
