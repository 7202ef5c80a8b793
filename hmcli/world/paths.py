"""Paths: how a subject walks. A path turns with the distance walked, so one shape serves every speed and length.

A path is a function (distance (n,) metres, rng) -> heading relative to the start (n,), radians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_STEPS = 8  # integration steps per frame

Path = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A walker in each of T frames: `position` (T, 3) metres, `heading` (T,) radians, `distance` (T,) metres walked."""

    position: np.ndarray
    heading: np.ndarray
    distance: np.ndarray


def straight(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros_like(distance)


def arc(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wide bend to one side."""
    return distance * rng.choice([-1.0, 1.0]) / rng.uniform(4.0, 8.0)


def loop(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round and round."""
    return distance * rng.choice([-1.0, 1.0]) / rng.uniform(1.4, 2.2)


def weave(distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gentle turns to both sides."""
    return rng.uniform(0.35, 0.7) * np.sin(distance * 2 * np.pi / rng.uniform(3.5, 6.0) + rng.uniform(0, 2 * np.pi))


PATHS: dict[str, Path] = {"straight": straight, "arc": arc, "loop": loop, "weave": weave}


def walk(path: Path, frames: int, fps: float, speed: float, heading: float, rng: np.random.Generator) -> Walk:
    """Walk at `speed` (metres per second), starting at `heading`; the middle of the track is the origin."""
    fine = np.arange((frames - 1) * _STEPS + 1) * (speed / (fps * _STEPS))
    middle = (fine[1:] + fine[:-1]) / 2
    turns = path(np.concatenate([middle, fine]), rng)
    turns = turns - turns[len(middle)] + heading
    steps = np.diff(fine)[:, None] * np.stack([np.cos(turns[: len(middle)]), np.sin(turns[: len(middle)])], -1)
    track = np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])[::_STEPS]
    track = track - (track.max(0) + track.min(0)) / 2
    return Walk(
        position=np.concatenate([track, np.zeros((frames, 1))], 1),
        heading=turns[len(middle) :: _STEPS],
        distance=fine[::_STEPS],
    )
