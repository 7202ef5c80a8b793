"""The oracle: where will a subject be that was watched for a while and then hidden?

It knows the positions of the frames in which the subject was visible and nothing else: neither the path's name nor its
numbers. It fits laws of motion to that track, heading over the distance walked and pace over time, each once without
and once with a period; the law that best foretells the last part of the track from its first part is continued. What
it cannot foretell, nobody should be asked to (hmcli/world/hidden/certify.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 8  # visible frames below which nothing is fitted
_FITTED = 0.7  # share of the track that laws are fitted to while they compete
_AS_GOOD = 1.3  # a simpler law wins if its error is at most this many times the best one, plus ...
_PACE_SLACK, _HEADING_SLACK = 0.01, 0.004  # ... this share of the highest pace, or so many radians
_STILL = 0.08  # share of the highest pace below which a step has no heading
_PERIODS = 60  # periods tried, from a quarter of what was seen to four times as much; then twice more, finer
_FASTER = 1.3  # times the highest pace seen: faster than that nothing is foretold to be
_FINE_STEPS = 4  # integration steps per frame


@dataclass(frozen=True, kw_only=True)
class Law:
    """A curve over time or distance: a polynomial and, with `waves`, that many harmonics of one period."""

    name: str
    degree: int
    waves: int = 0


# simple ones first
PACES = (
    Law(name="steady", degree=0),
    Law(name="changing", degree=1),
    Law(name="stop and go", degree=0, waves=3),
)
HEADINGS = (
    Law(name="straight", degree=0),
    Law(name="turning", degree=1),
    Law(name="spiralling", degree=2),
    Law(name="swinging", degree=0, waves=1),
    Law(name="zigzag", degree=0, waves=3),
    Law(name="turning and swinging", degree=1, waves=1),
)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law with its numbers."""

    law: Law
    origin: float
    period: float
    weights: np.ndarray

    def at(self, places: np.ndarray) -> np.ndarray:
        """(n,) places along the axis -> (n,) values."""
        return _columns(self.law, places - self.origin, np.array([self.period]))[0] @ self.weights


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Where the subject is foretold to be (M, 2), metres, and the laws that say so."""

    position: np.ndarray
    law: str


def forecast(seconds_N: np.ndarray, track_N2: np.ndarray, at_M: np.ndarray) -> Forecast:
    """Continue a visible track to the later times `at_M`, all in seconds and metres.

    The track may have gaps (the subject was occluded); it needs at least FEWEST positions.
    """
    if len(track_N2) < FEWEST:
        raise ValueError(f"{len(track_N2)} visible frames are too few to foretell a motion: {FEWEST} at least")
    moves, gaps = np.diff(track_N2, axis=0), np.diff(seconds_N)
    lengths = np.linalg.norm(moves, axis=1)
    walked = np.concatenate([[0.0], lengths.cumsum()])
    fastest = float((lengths / gaps).max())
    pace = chosen(PACES, (seconds_N[1:] + seconds_N[:-1]) / 2, lengths / gaps, _PACE_SLACK * fastest)
    moving = lengths / gaps > max(_STILL * fastest, 1e-6)
    if moving.sum() < FEWEST // 2:  # it stands there
        return Forecast(position=np.repeat(track_N2[-1:], len(at_M), axis=0), law="standing")
    heading = np.unwrap(np.arctan2(moves[moving, 1], moves[moving, 0]))
    turn = chosen(HEADINGS, ((walked[1:] + walked[:-1]) / 2)[moving], heading, _HEADING_SLACK)
    step = float(np.median(gaps)) / _FINE_STEPS
    times = np.arange(seconds_N[-1], float(at_M.max()) + step, step)
    strides = step * np.clip(pace.at(times + step / 2), 0, _FASTER * fastest)
    ends = walked[-1] + np.concatenate([[0.0], strides.cumsum()])
    angles = turn.at((ends[1:] + ends[:-1]) / 2)
    steps = strides[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    way = track_N2[-1] + np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])
    grid = np.append(times, times[-1] + step)
    where = np.stack([np.interp(at_M, grid, way[:, axis]) for axis in (0, 1)], -1)
    return Forecast(position=where, law=f"{pace.law.name}, {turn.law.name}")


def constant_velocity(seconds_N: np.ndarray, track_N2: np.ndarray, at_M: np.ndarray) -> np.ndarray:
    """(M, 2): straight on from the last visible step."""
    velocity = (track_N2[-1] - track_N2[-2]) / (seconds_N[-1] - seconds_N[-2])
    return np.asarray(track_N2[-1] + (at_M - seconds_N[-1])[:, None] * velocity)


def chosen(laws: tuple[Law, ...], places: np.ndarray, values: np.ndarray, slack: float) -> Fit:
    """The simplest law that foretells the end of the values from their beginning about as well as the best one."""
    first = max(int(len(values) * _FITTED), 2)
    tail_places, tail_values = places[first:], values[first:]
    errors = []
    for law in laws:
        fit = fitted(law, places[:first], values[:first])
        errors.append(np.inf if fit is None else float(np.abs(fit.at(tail_places) - tail_values).mean()))
    enough = _AS_GOOD * min(errors) + slack
    for law, error in zip(laws, errors, strict=True):
        if error <= enough and (fit := fitted(law, places, values)) is not None:
            return fit
    raise AssertionError("the constant law fits anything")


def fitted(law: Law, places: np.ndarray, values: np.ndarray) -> Fit | None:
    """The law's numbers by least squares, its period by search; None when it has about as many as there are values."""
    if law.degree == 0 and not law.waves:
        return Fit(law=law, origin=0.0, period=1.0, weights=values.mean(keepdims=True))
    numbers = law.degree + 1 + 2 * law.waves + (law.waves > 0)
    if len(values) < numbers + 2:
        return None
    origin, span = float(places.mean()), float(np.ptp(places))
    periods = np.array([1.0]) if not law.waves else np.geomspace(0.25 * span, 4.0 * span, _PERIODS)
    spread = periods[1] / periods[0] if law.waves else 1.0
    period, weights, _ = _best(law, places - origin, values, periods)
    for _ in range(2 if law.waves else 0):
        period, weights, _ = _best(law, places - origin, values, np.geomspace(period / spread, period * spread, 15))
        spread = spread ** (1 / 6)
    return Fit(law=law, origin=origin, period=period, weights=weights)


def _best(law: Law, places: np.ndarray, values: np.ndarray, periods: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Of several periods the one with the least squared error: period, weights, error."""
    columns = _columns(law, places, periods)
    square = columns.mT @ columns
    square += 1e-9 * np.trace(square, axis1=1, axis2=2)[:, None, None] * np.eye(square.shape[-1])
    weights = np.linalg.solve(square, (columns.mT @ values)[..., None])[..., 0]
    error = ((np.einsum("pnc,pc->pn", columns, weights) - values) ** 2).sum(1)
    best = int(error.argmin())
    return float(periods[best]), weights[best], float(error[best])


def _columns(law: Law, places: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """(periods, n, numbers): what the law adds up."""
    powers = np.stack([places**k for k in range(law.degree + 1)], -1)
    angles = 2 * np.pi * places[None, :, None] * np.arange(1, law.waves + 1) / periods[:, None, None]
    return np.concatenate([np.broadcast_to(powers, (len(periods), *powers.shape)), np.cos(angles), np.sin(angles)], -1)
