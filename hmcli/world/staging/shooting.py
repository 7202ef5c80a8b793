"""Shooting: where the camera stands and when it moves, so that it loses a subject and finds it again in time.

The moments of exit and re-entry are drawn first; then all timings of the going away are tried at once, and several
returns. A return ends anywhere near the first view: of those that find the subject in time, one is taken that shows it,
half a second later, about where the clip wishes, and wishes are spread evenly over the picture. So neither the middle
of the picture nor any other place of it is a good guess. T frames, N returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hmcli.world.hidden.certify import SEEN_AGAIN, Needs, judged_frame
from hmcli.world.subjects import Subject
from hmcli.world.views.sight import Body, Sight, sight
from hmcli.world.views.trajectories import (
    FASTEST_TURN,
    STARTS,
    CameraTrack,
    Setting,
    Shot,
    Timing,
    dolly,
    film,
    shot_of,
    start_pose,
    turning_seconds,
)

CLOSE = 0.6  # of the picture's height: who fills more may be cut by its lower edge
FOLLOWED = (4.0, 12.0)  # metres that the camera of a follow shot covers, over the whole clip
_WHOLLY = 0.5  # share of the frames before the exit in which the subject is wholly in the picture
_LONGEST = 0.45  # share of the picture's width that the longest body fills, seen from the side
_FEET = (0.82, 0.94)  # of the way from the picture's middle to its lower edge
AT_THE_EDGE = 3  # frames in which a subject that leaves is hardly to be seen any more
_SLACK = 2  # frames by which the exit may miss the moment drawn for it
_NEVER = 1e6
_RETURNS = 128  # tried at once
_HOME = 1.3  # half widths of the picture by which the last view is beside the first one, at most
_SLOWEST = 2.2  # times the least time that a return may take
_WISHED = 0.15  # share of half the picture's width by which a subject may miss the place that was wished for it
_ASIDE = (1.5, 2.4)  # half widths of the picture by which a camera looks aside before it turns to its subject
_LEAD_IN = 8  # frames before it sees its subject that such a camera needs at least
_KEPT = (0.1, 0.8)  # share of the subject's pace at which a dolly goes on without it


@dataclass(frozen=True, kw_only=True)
class Lens:
    """The picture's shape, and how much of it subjects fill: `height` (lowest, highest) and `cut`, the share of a close
    subject that the lower edge may cut off."""

    half_angle: float  # radians, of the width
    aspect: float  # height / width
    height: tuple[float, float]
    cut: float

    @property
    def half_width(self) -> float:
        """Half the picture's width at distance 1."""
        return float(np.tan(self.half_angle))

    @property
    def half_height(self) -> float:
        return self.half_width * self.aspect

    def tallest(self, subject: Subject) -> float:
        """The share of the picture's height that a subject can fill before it gets too long for the picture."""
        return subject.tall / (2 * self.half_height * self._nearest(subject))

    def _nearest(self, subject: Subject) -> float:
        return subject.body_length / (2 * _LONGEST * self.half_width)

    def stand(self, subject: Subject, share: float, rng: np.random.Generator) -> tuple[float, float]:
        """Distance and height of a camera, metres, in whose picture the subject fills `share` of the height.

        Whole subjects have their feet near the lower edge; a close one may be cut by it.
        """
        distance = max(subject.tall / (2 * self.half_height * share), self._nearest(subject))
        if share < CLOSE or not self.cut:
            return distance, self.half_height * distance * rng.uniform(*_FEET)
        return distance, self.half_height * distance + subject.tall * rng.uniform(0, self.cut)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Frames in which the subject is first seen, leaves and comes back (or the camera, where the subject does not)."""

    arrive: int
    leave: int
    return_: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a camera is asked to film, and how."""

    trajectory: str
    start: str  # a name of STARTS
    stand: tuple[float, float]  # distance and height, metres
    turn: float  # how far a pan turns, radians
    half_width: float  # of the field of view, radians
    follows: bool  # does a dolly carry the camera along with the subject?
    place: float  # of half the picture's width, from its middle, where the subject is half a second after re-entry ...
    absent: bool  # ... or, where it does not come back, where it was last seen, in the end
    body: Body
    needs: Needs
    fps: float

    @property
    def frames(self) -> int:
        return len(self.body.track)

    def seen(self, shot: Shot, timing: Timing, home: float | np.ndarray) -> Sight:
        return sight(film(shot, timing, home), self.body)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A shot, with the frames in which its subject is first seen, leaves and comes back."""

    camera: CameraTrack
    moments: Moments


def exit_frames(needs: Needs) -> range:
    """The frames in which a subject may leave: after it was seen long enough, and before the target."""
    start = min(needs.visible_frames + AT_THE_EDGE, needs.context_frames - 2)
    return range(max(start, needs.visible_frames), needs.context_frames)


def latest_return(frames: int, context: int) -> int:
    """The last frame in which a subject may come back, so that something of it is seen again."""
    return frames - max(SEEN_AGAIN, (frames - context) // 4)


def long_enough(needs: Needs, frames: int) -> bool:
    """Can a clip of `frames` frames show what it needs to?"""
    exits = exit_frames(needs)
    earliest = max(needs.context_frames + 1, exits.start + needs.hidden_frames)
    return len(exits) >= 2 and earliest <= latest_return(frames, needs.context_frames)


def moments(needs: Needs, frames: int, rng: np.random.Generator) -> Moments | None:
    """When the subject is to be first seen, to leave and to come back; None when this draw leaves too little time."""
    exits, latest = exit_frames(needs), latest_return(frames, needs.context_frames)
    leave = int(rng.integers(exits.start, exits.stop))
    seen = int(rng.integers(min(exits.start, needs.longest_frames), needs.longest_frames + 1))
    arrive = leave - seen
    if arrive < _LEAD_IN:
        arrive, leave = 0, min(leave, seen)
    earliest = max(needs.context_frames + 1, leave + needs.hidden_frames)
    if earliest > latest:
        return None
    return Moments(arrive=arrive, leave=leave, return_=int(rng.integers(earliest, latest + 1)))


def shoot(task: Task, when: Moments, rng: np.random.Generator) -> Taken | None:
    """A shot that loses the subject within the context and finds it again within the target, or None when this draw
    has no such shot."""
    focus = task.body.track[when.arrive : when.leave].mean(0)
    eye = start_pose(STARTS[task.start], focus, *task.stand, rng)
    setting = Setting(eye=eye, pivot=focus, turn=task.turn, half_width=task.half_width)
    rolled = np.zeros_like(task.body.track)
    if task.follows:
        rolled = dolly(task.body.track, range(when.arrive, when.leave), rng.uniform(*_KEPT), task.fps)
    aside = task.half_width * rng.choice([-1.0, 1.0]) * rng.uniform(*_ASIDE) if when.arrive else 0.0
    shot = shot_of(task.trajectory, setting, rng, rolled=rolled, aside=aside)
    arrive_frames = float(turning_seconds(aside)) * task.fps * rng.uniform(1.0, 1.3)
    timing = Timing(
        arrive=when.arrive - 0.4 * arrive_frames if when.arrive else -_NEVER, arrive_frames=arrive_frames,
        away=_NEVER, away_frames=float(shot.seconds(shot.pan)) * task.fps * rng.uniform(1.0, 1.35),
        back=_NEVER, back_frames=1.0,
    )  # fmt: skip
    gone = _going_away(task, shot, timing, when)
    return None if gone is None else _coming_back(task, shot, *gone, rng)


def _going_away(task: Task, shot: Shot, timing: Timing, when: Moments) -> tuple[Timing, Moments] | None:
    """The timing with which the subject leaves nearest to its moment; None: it is not seen well enough before."""
    starts = np.arange(when.arrive, task.needs.context_frames, dtype=np.float64)
    seen = task.seen(shot, replace(timing, away=starts[:, None]), 0.0)
    partly, wholly = seen.partly(task.half_width), seen.wholly(task.half_width)
    arrive = int(partly[-1].argmax())
    if not partly[-1, arrive]:
        return None
    left = _first(~partly, arrive)
    fits = (left - arrive >= task.needs.visible_frames) & (left - arrive <= task.needs.longest_frames)
    miss = np.where(fits & (left < task.needs.context_frames), np.abs(left - when.leave), _NEVER)
    best = int(miss.argmin())
    leave = int(left[best])
    if miss[best] > _SLACK or wholly[best, arrive:leave].mean() < _WHOLLY or (arrive == 0 and not wholly[best, 0]):
        return None
    return replace(timing, away=float(starts[best])), replace(when, arrive=arrive, leave=leave)


def _coming_back(task: Task, shot: Shot, timing: Timing, when: Moments, rng: np.random.Generator) -> Taken | None:
    """Of several returns to somewhere near the first view the one that shows the subject where the clip wishes it."""
    needs, frames, half = task.needs, task.frames, task.half_width
    home = half * rng.uniform(-_HOME, _HOME, (_RETURNS, 1))
    back = rng.uniform(timing.away + 0.5 * timing.away_frames, frames - 2, (_RETURNS, 1))
    back_frames = shot.seconds(home - shot.pan) * task.fps * rng.uniform(1.0, _SLOWEST, (_RETURNS, 1))
    tried = replace(timing, back=back, back_frames=back_frames)
    seen = task.seen(shot, tried, home)
    partly = seen.partly(half)
    earliest = max(needs.context_frames + 1, when.leave + needs.hidden_frames)
    if task.absent:
        there = np.repeat(task.body.track[None, when.leave - 1], frames, 0)
        beside = sight(film(shot, tried, home), replace(task.body, track=there)).beside
        found = _first(np.abs(beside) < half, earliest)
        place, stays = beside[:, -1] / half, ~partly[:, when.leave :].any(1)
    else:
        found = _first(partly, when.leave)
        later = judged_frame(found, task.fps, frames)
        place = np.take_along_axis(seen.beside, later[:, None], 1)[:, 0] / half
        stays = (partly | (np.arange(frames) < found[:, None])).all(1) & (np.abs(seen.beside[:, -1]) < half)
    miss = np.abs(np.abs(place) - task.place)
    fits = stays & (_first(~partly, when.arrive) == when.leave)
    fits &= (found >= earliest) & (found <= latest_return(frames, needs.context_frames))
    miss = np.where(fits, miss + 0.02 * np.abs(found - when.return_) / task.fps, _NEVER)
    best = int(miss.argmin())
    if miss[best] > _WISHED:
        return None
    timing = replace(timing, back=float(back[best, 0]), back_frames=float(back_frames[best, 0]))
    camera = film(shot, timing, float(home[best, 0]))
    if np.abs(np.diff(camera.yaw)).max() * task.fps > FASTEST_TURN:
        return None
    return Taken(camera=camera, moments=replace(when, return_=int(found[best])))


def rolled_metres(camera: CameraTrack) -> float:
    """How far the camera goes over the ground."""
    return float(np.linalg.norm(np.diff(camera.eye[:, :2], axis=0), axis=1).sum())


def _first(flags: np.ndarray, start: int) -> np.ndarray:
    """(S, T) bool -> (S,) first frame from `start` on that is set; T where none is."""
    rest = flags[:, start:]
    return np.where(rest.any(1), rest.argmax(1) + start, flags.shape[1])
