"""Paths: how a subject walks. Heading turns with distance walked, pace changes with time; both follow a law.

A path draws the numbers of that law (a `Course`) once per walk. Whoever has watched the walk for a while can tell how
it goes on (hmcli/world/hidden/oracle.py does): nothing in it is decided later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hmcli.world.space.shapes import turn_about_z

_STEPS = 8  # integration steps per frame
_SLOWEST, _FASTEST = 0.3, 1.8  # shares of the subject's pace between which a ramp stays
_EIGHT = 2.405  # radians: a heading that swings this far comes back to where it began, crossing its own way


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """What a path is drawn to fit: the subject's pace (metres per second) and the radius it can turn in (metres)."""

    speed: float
    room: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """The law of one walk.

    heading(s) = turn s + tighten s^2 / 2 + swing wave(2 pi s / length + start), s metres walked, radians;
    pace(t) = brisk (1 + ramp t) gate(t), as a share of the subject's pace, t seconds from the middle of the walk.
    """

    turn: float = 0.0  # radians per metre
    tighten: float = 0.0  # radians per metre, per metre
    swing: float = 0.0  # radians to either side
    length: float = 1.0  # metres of one swing
    sharp: float = 0.0  # 0: a sine; higher: straight legs between short turns
    start: float = 0.0  # radians: where in the swing, or in the beat, the walk begins
    ramp: float = 0.0  # share of the pace gained per second
    beat: float = 0.0  # seconds from one stop to the next; 0: never stops
    brisk: float = 1.0  # the pace between stops, as a multiple of the subject's

    def heading(self, distance: np.ndarray) -> np.ndarray:
        """(n,) metres -> (n,) radians."""
        wave = np.sin(2 * np.pi * distance / self.length + self.start)
        if self.sharp:
            wave = np.tanh(self.sharp * wave) / np.tanh(self.sharp)
        return self.turn * distance + self.tighten * distance**2 / 2 + self.swing * wave

    def pace(self, seconds: np.ndarray) -> np.ndarray:
        """(n,) seconds from the middle -> (n,) shares of the subject's pace."""
        ramp = np.clip(1 + self.ramp * seconds, _SLOWEST, _FASTEST)
        if not self.beat:
            return ramp
        wave = np.sin(2 * np.pi * seconds / self.beat + self.start)
        return (
            self.brisk * ramp * np.clip(0.54 + 0.54 * np.tanh(2.6 * (wave + 0.35)), 0, 1)
        )  # walks, stands still, walks


Path = Callable[[Gauge, np.random.Generator], Course]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A walker in each of T frames: `position` (T, 3) metres, `heading` (T,) radians, `distance` (T,) metres walked."""

    position: np.ndarray
    heading: np.ndarray
    distance: np.ndarray

    def moved(self, offset: np.ndarray) -> Walk:
        """The same walk `offset` (2,) metres further along the ground."""
        return Walk(position=self.position + np.array([*offset, 0.0]), heading=self.heading, distance=self.distance)

    def turned(self, angle: float) -> Walk:
        """The same walk, turned about the world's origin by `angle` radians."""
        turn = turn_about_z(angle)
        return Walk(position=self.position @ turn.T, heading=self.heading + angle, distance=self.distance)


def _side(rng: np.random.Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def straight(gauge: Gauge, rng: np.random.Generator) -> Course:
    return Course()


def pace_change(gauge: Gauge, rng: np.random.Generator) -> Course:
    """Straight on, faster and faster or slower and slower."""
    return Course(ramp=_side(rng) * rng.uniform(0.12, 0.2))


def stop_and_go(gauge: Gauge, rng: np.random.Generator) -> Course:
    """Straight on, with a short stop every other second."""
    return Course(beat=rng.uniform(1.3, 1.8), brisk=rng.uniform(1.25, 1.45), start=rng.uniform(0, 2 * np.pi))


def arc(gauge: Gauge, rng: np.random.Generator) -> Course:
    """A wide bend to one side."""
    return Course(turn=_side(rng) / (gauge.room * rng.uniform(2.2, 4.5)))


def loop(gauge: Gauge, rng: np.random.Generator) -> Course:
    """Round and round."""
    return Course(turn=_side(rng) / (gauge.room * rng.uniform(1.0, 1.5)))


def spiral(gauge: Gauge, rng: np.random.Generator) -> Course:
    """A bend that gets tighter, or opens."""
    side, change = _side(rng), _side(rng)
    middle = 1 / (gauge.room * rng.uniform(1.6, 2.6))
    return Course(turn=side * middle, tighten=side * change * middle / (3.2 * gauge.speed))


def weave(gauge: Gauge, rng: np.random.Generator) -> Course:
    """Gentle turns to both sides."""
    length = max(gauge.speed * rng.uniform(1.8, 2.8), 2 * gauge.room)
    return Course(swing=rng.uniform(0.4, 0.75), length=length, start=rng.uniform(0, 2 * np.pi))


def zigzag(gauge: Gauge, rng: np.random.Generator) -> Course:
    """Straight legs and sharp turns, left and right."""
    length = max(gauge.speed * rng.uniform(1.6, 2.2), 2 * gauge.room)
    return Course(swing=rng.uniform(0.6, 0.85), length=length, sharp=2.0, start=rng.uniform(0, 2 * np.pi))


def figure_eight(gauge: Gauge, rng: np.random.Generator) -> Course:
    """Two loops, one to each side."""
    length = max(gauge.speed * rng.uniform(6.0, 8.0), 7 * gauge.room)
    return Course(swing=_EIGHT, length=length, start=rng.uniform(0, 2 * np.pi))


def turn_back(gauge: Gauge, rng: np.random.Generator) -> Course:
    """There and back again, round two narrow ends."""
    turn = 2 * np.pi / max(gauge.speed * rng.uniform(5.5, 7.5), 4.4 * gauge.room)
    start = rng.uniform(0, 2 * np.pi)
    return Course(turn=(side := _side(rng)) * turn, swing=side * 0.45, length=np.pi / turn, start=start)


PATHS: dict[str, Path] = {
    "straight": straight, "pace_change": pace_change, "stop_and_go": stop_and_go, "arc": arc, "loop": loop,
    "spiral": spiral, "weave": weave, "zigzag": zigzag, "figure_eight": figure_eight, "turn_back": turn_back,
}  # fmt: skip


def walk(course: Course, frames: int, fps: float, speed: float, heading: float) -> Walk:
    """Walk at `speed` (metres per second), starting at `heading`; the middle of the track is the origin."""
    step = 1 / (fps * _STEPS)
    fine = (np.arange((frames - 1) * _STEPS + 1) - (frames - 1) * _STEPS / 2) * step
    strides = speed * step * course.pace((fine[1:] + fine[:-1]) / 2)
    ends = np.concatenate([[0.0], strides.cumsum()])
    distance = ends - ends[len(ends) // 2]  # from the middle: a law holds there whatever the length of the walk
    first = course.heading(distance[:1])
    turns = course.heading((distance[1:] + distance[:-1]) / 2) - first + heading
    steps = strides[:, None] * np.stack([np.cos(turns), np.sin(turns)], -1)
    track = np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])[::_STEPS]
    track = track - (track.max(0) + track.min(0)) / 2
    return Walk(
        position=np.concatenate([track, np.zeros((frames, 1))], 1),
        heading=(course.heading(distance) - first + heading)[::_STEPS],
        distance=ends[::_STEPS],
    )
