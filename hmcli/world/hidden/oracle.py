"""The oracle: where will a subject be that was watched for a while and then hidden?

It knows where the subject seemed to be in the frames in which it was visible, and how sharp the eyes are that saw it
(hmcli/world/hidden/eyes.py), and nothing else: neither the path's name nor its numbers. It fits laws of motion to that
track, heading over the distance walked or pace over time, and goes on with the simplest one that explains it. What it
cannot foretell, nobody should be asked to (hmcli/world/hidden/certify.py).

Several draws of what eyes saw are fitted at once. Shape letters: D draws, N visible frames, M later ones, B fits at
once, P numbers of a law, K steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

FEWEST = 8  # visible frames below which nothing is fitted
_FINE = 1  # integration steps per frame
_STILL = 0.5  # noises by which the track's ends and middle differ at most if the subject stands
_EXPLAINED = 1.0  # standard deviations by which the misfit of a law that explains the track may exceed the noise
_ROUNDS = 10  # of Levenberg's method, at most
_BEST = 3  # starting points of a law with a period that are followed up
_SLOWEST = 0.2  # share of its pace below which nobody who slows down is foretold to go
_CHORD = 6  # frames of the chords that the way's length is measured by: steps of single frames are mostly noise
_PAUSES = 1.7  # times its mean pace at which somebody who stops and goes walks between stops
_SETTLED = 0.1  # gain of a round, in squared noises, below which a fit is done
_EPSILON = 1e-5

Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]  # extra numbers (B, E), places (B, K) -> (B, K)


def _one(extra: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.ones_like(places)


def _nothing(extra: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.zeros_like(places)


def _ramp(extra: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return np.maximum(1 + extra[:, :1] * seconds, _SLOWEST)


def _beat(extra: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Goes, stands still, goes: on for some more than half of each beat."""
    wave = np.sin(2 * np.pi * seconds / extra[:, :1] + extra[:, 1:2])
    return np.clip(0.54 + 0.54 * np.tanh(2.6 * (wave + 0.35)), 0, 1)


def _bend(extra: np.ndarray, metres: np.ndarray) -> np.ndarray:
    return extra[:, :1] * metres


def _spiral(extra: np.ndarray, metres: np.ndarray) -> np.ndarray:
    return extra[:, :1] * metres + extra[:, 1:2] * metres**2


def _swing(extra: np.ndarray, metres: np.ndarray) -> np.ndarray:
    return extra[:, :1] * np.sin(2 * np.pi * metres / extra[:, 1:2] + extra[:, 2:3])


def _zigzag(extra: np.ndarray, metres: np.ndarray) -> np.ndarray:
    wave = np.sin(2 * np.pi * metres / extra[:, 1:2] + extra[:, 2:3])
    return extra[:, :1] * np.tanh(2 * wave) / np.tanh(2.0)


def _swinging_bend(extra: np.ndarray, metres: np.ndarray) -> np.ndarray:
    return _swing(extra[:, :3], metres) + extra[:, 3:] * metres


@dataclass(frozen=True, kw_only=True)
class Law:
    """A law of motion: place and heading at the last visible frame, pace, and `extra` numbers for one of its curves.

    `starts` are values that the fit may begin with, each extra number by itself; lengths are shares of the way seen.
    """

    name: str
    pace: Curve = _one
    turn: Curve = _nothing
    starts: tuple[tuple[float, ...], ...] = ()
    lengths: tuple[int, ...] = ()  # extra numbers that are lengths

    @property
    def numbers(self) -> int:
        return 4 + len(self.starts)

    def way(self, numbers_BP: np.ndarray, seconds_K: np.ndarray, last: int) -> np.ndarray:
        """(B, K, 2) metres at times `seconds_K`, evenly spaced; the `last`-th is that of the last visible frame."""
        extra, step = numbers_BP[:, 4:], seconds_K[1] - seconds_K[0]
        middle = np.broadcast_to((seconds_K[1:] + seconds_K[:-1]) / 2, (len(numbers_BP), len(seconds_K) - 1))
        strides = numbers_BP[:, 3:4] * self.pace(extra, middle) * step
        walked = np.concatenate([np.zeros((len(strides), 1)), strides.cumsum(1)], 1)
        walked -= walked[:, last : last + 1].copy()
        heading = numbers_BP[:, 2:3] + self.turn(extra, (walked[:, 1:] + walked[:, :-1]) / 2)
        moves = strides[..., None] * np.stack([np.cos(heading), np.sin(heading)], -1)
        way = np.concatenate([np.zeros((len(moves), 1, 2)), moves.cumsum(1)], 1)
        return np.asarray(way - way[:, last : last + 1] + numbers_BP[:, None, :2])


_PHASES = tuple(np.linspace(0, 2 * np.pi, 6, endpoint=False).tolist())
_LENGTHS = (0.4, 0.65, 1.0, 1.6, 2.6)
# simple ones first
PLAIN = (
    Law(name="steady, straight"),
    Law(name="changing, straight", pace=_ramp, starts=((0.0,),)),
    Law(name="steady, turning", turn=_bend, starts=((0.0, 0.4, -0.4),)),
    Law(name="steady, spiralling", turn=_spiral, starts=((0.0, 0.5, -0.5), (0.0,))),
)
PERIODIC = (
    Law(name="stop and go, straight", pace=_beat, starts=((1.2, 1.5, 1.8), _PHASES)),
    Law(name="steady, swinging", turn=_swing, starts=((0.5, 2.0), _LENGTHS, _PHASES), lengths=(1,)),
    Law(name="steady, zigzag", turn=_zigzag, starts=((0.7,), _LENGTHS, _PHASES), lengths=(1,)),
    Law(
        name="steady, turning and swinging", turn=_swinging_bend, lengths=(1,),
        starts=((0.45,), _LENGTHS, _PHASES, (-0.7, 0.7)),
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Where the subject is foretold to be (D, M, 2), metres, and the law that says so for each draw."""

    position: np.ndarray
    laws: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is fitted: tracks (D, N, 2), `sharp` (N, 2, 2), which turns a miss in metres into noises, and the times."""

    tracks: np.ndarray
    sharp: np.ndarray
    seconds: np.ndarray  # (K,) from the first visible frame to the last one asked for; 0 at the last visible one
    rows: np.ndarray  # (N,) where in `seconds` the visible frames are
    later: np.ndarray  # (M,) and the frames asked for

    @property
    def last(self) -> int:
        return int(self.rows[-1])

    def misses(self, way_BK2: np.ndarray, draw_B: np.ndarray) -> np.ndarray:
        """(B, 2N) noises by which a way misses the track of its draw."""
        away, s = way_BK2[:, self.rows] - self.tracks[draw_B], self.sharp
        x, y = away[..., 0], away[..., 1]
        return np.concatenate([x * s[:, 0, 0] + y * s[:, 0, 1], x * s[:, 1, 0] + y * s[:, 1, 1]], 1)


def forecast(
    frames_N: np.ndarray, tracks_DN2: np.ndarray, sharp_N22: np.ndarray, at_M: np.ndarray, fps: float
) -> Forecast:
    """Continue visible tracks to the later frames `at_M`; the track may have gaps (the subject was occluded).

    Raises ValueError for fewer than FEWEST positions.
    """
    if len(frames_N) < FEWEST:
        raise ValueError(f"{len(frames_N)} visible frames are too few to foretell a motion: {FEWEST} at least")
    steps = np.arange((int(at_M.max()) - int(frames_N[0])) * _FINE + 1)
    rows = (frames_N - frames_N[0]) * _FINE
    seen = _Seen(
        tracks=tracks_DN2, sharp=sharp_N22, seconds=(steps - rows[-1]) / (fps * _FINE), rows=rows,
        later=(at_M - frames_N[0]) * _FINE,
    )  # fmt: skip
    found = _Choice(seen)
    for law in PLAIN:
        found.offer(law, np.arange(len(tracks_DN2)))
    if (unexplained := found.unexplained()).size:
        for law in PERIODIC:
            found.offer(law, unexplained)
    return Forecast(position=found.position, laws=tuple(found.laws))


class _Choice:
    """The best law of each draw so far: the misfit, with a price for every number of the law, decides."""

    def __init__(self, seen: _Seen) -> None:
        draws, count = seen.tracks.shape[:2]
        self.seen = seen
        self.position = np.repeat(seen.tracks[:, -1:], len(seen.later), axis=1)
        self.laws = ["standing"] * draws
        still = seen.tracks - seen.tracks.mean(1, keepdims=True)
        self.misfit = (np.einsum("nij,dnj->dni", seen.sharp, still) ** 2).sum((1, 2))
        self.freedom = 2 * count
        self.each = float(np.log(self.freedom))  # Schwarz's price of a number
        self.price = self.misfit + 2 * self.each

    def offer(self, law: Law, draws: np.ndarray) -> None:
        if self.freedom < law.numbers + 4:
            return
        numbers, misfit = fitted(law, self.seen, draws)
        price = misfit + self.each * law.numbers
        better = np.flatnonzero(price < self.price[draws])
        if not better.size:
            return
        chosen = draws[better]
        self.position[chosen] = law.way(numbers[better], self.seen.seconds, self.seen.last)[:, self.seen.later]
        self.misfit[chosen], self.price[chosen] = misfit[better], price[better]
        for draw in chosen:
            self.laws[draw] = law.name

    def unexplained(self) -> np.ndarray:
        """The draws whose misfit is more than noise."""
        return np.flatnonzero(self.misfit > self.freedom + _EXPLAINED * np.sqrt(2.0 * self.freedom))


def fitted(law: Law, seen: _Seen, draws_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The law's numbers (D, P) by least squares, and the misfits (D,): sums of squared noises."""
    numbers, draw = _starts(law, seen, draws_D)
    misfit = (seen.misses(law.way(numbers, seen.seconds, seen.last), draw) ** 2).sum(1)
    if len(numbers) > _BEST * len(draws_D):
        best = np.argsort(misfit.reshape(len(draws_D), -1), axis=1)[:, :_BEST]
        keep = (best + np.arange(len(draws_D))[:, None] * (len(numbers) // len(draws_D))).ravel()
        numbers, draw = numbers[keep], draw[keep]
    numbers, misfit = _descended(law, seen, numbers, draw)
    each = misfit.reshape(len(draws_D), -1)
    first = np.arange(len(draws_D)) * each.shape[1]
    best = first + each.argmin(1)
    return numbers[best], misfit[best]


def _starts(law: Law, seen: _Seen, draws_D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (D x starts, P) to begin with, and the draw of each: place, heading and pace as they seem at the end."""
    tracks, seconds = seen.tracks[draws_D], seen.seconds[seen.rows]
    extras = np.array(list(product(*law.starts)))
    end = slice(-max(FEWEST // 2, len(seconds) // 4), None)
    velocity, place = np.polyfit(seconds[end], tracks[:, end].transpose(1, 0, 2).reshape(-1, 2 * len(tracks)), 1)
    velocity, place = velocity.reshape(-1, 2), place.reshape(-1, 2)
    some = np.linspace(0, len(seconds) - 1, max(3, len(seconds) // _CHORD) + 1).round().astype(int)
    way = np.linalg.norm(np.diff(tracks[:, some], axis=1), axis=2).sum(1).clip(1e-2)
    pace = way / (seconds[-1] - seconds[0]) * (_PAUSES if law.pace is _beat else 1.0)
    base = np.concatenate([place, np.arctan2(velocity[:, 1], velocity[:, 0])[:, None], pace[:, None]], 1)
    numbers = np.concatenate([np.repeat(base, len(extras), 0), np.tile(extras, (len(tracks), 1))], 1)
    for column in law.lengths:
        numbers[:, 4 + column] *= np.repeat(way, len(extras))
    numbers[:, 2:3] -= law.turn(numbers[:, 4:], np.zeros((len(numbers), 1)))  # so that it ends with that heading
    return numbers, np.repeat(draws_D, len(extras))


def _descended(law: Law, seen: _Seen, numbers_BP: np.ndarray, draw_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg's method on all fits at once."""
    numbers, count = numbers_BP.copy(), numbers_BP.shape[1]

    def misses(of: np.ndarray, draw: np.ndarray) -> np.ndarray:
        return seen.misses(law.way(of, seen.seconds[: seen.last + 1], seen.last), draw)

    miss = misses(numbers, draw_B)
    misfit, damping = (miss**2).sum(1), np.full(len(numbers), 1e-2)
    going = np.arange(len(numbers))
    for _ in range(_ROUNDS):
        shifted = numbers[going, None] + _EPSILON * np.eye(count)
        changed = misses(shifted.reshape(-1, count), np.repeat(draw_B[going], count)).reshape(len(going), count, -1)
        slope = (changed - miss[going, None]) / _EPSILON
        square = slope @ slope.mT
        scale = np.einsum("bpp->bp", square)[:, :, None] * np.eye(count)
        uphill = np.einsum("bpm,bm->bp", slope, miss[going])
        step = np.linalg.solve(square + damping[going, None, None] * scale + 1e-9 * np.eye(count), uphill[..., None])
        tried = numbers[going] - step[..., 0]
        missed = misses(tried, draw_B[going])
        error = (missed**2).sum(1)
        better = error < misfit[going]
        gained = np.where(better, misfit[going] - error, np.inf)
        chosen = going[better]
        numbers[chosen], miss[chosen], misfit[chosen] = tried[better], missed[better], error[better]
        damping[going] *= np.where(better, 0.2, 6.0)
        going = going[(gained > _SETTLED) & (damping[going] < 1e6)]
        if not going.size:
            break
    return numbers, misfit


def constant_velocity(frames_N: np.ndarray, track_N2: np.ndarray, at_M: np.ndarray) -> np.ndarray:
    """(M, 2): straight on from the last visible step."""
    velocity = (track_N2[-1] - track_N2[-2]) / (frames_N[-1] - frames_N[-2])
    return np.asarray(track_N2[-1] + (at_M - frames_N[-1])[:, None] * velocity)
