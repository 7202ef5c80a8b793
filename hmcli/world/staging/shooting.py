"""Shooting: where the camera stands and when it moves, so that it loses a subject and finds it again in time.

The moments of exit and re-entry are drawn first; then all timings of the trajectory are tried at once, and the ones
that come nearest to those moments are taken. T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.world.hidden.certify import SEEN_AGAIN, Needs
from hmcli.world.subjects import Subject
from hmcli.world.views.sight import Body, sight
from hmcli.world.views.trajectories import FASTEST_TURN, CameraTrack, Setting, Timing, follow, shot_of

_WHOLLY = 0.5  # share of the frames before the exit in which the subject is wholly in the picture
_LONGEST = 0.45  # share of the picture's width that the longest body fills, seen from the side
_AT_THE_EDGE = 3  # frames in which a subject that leaves is hardly to be seen any more
_SLACK = 2  # frames by which exit and re-entry may miss the moments drawn for them
_NEVER = 1e6


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Half the picture's width and height at distance 1, and the half angle of its width (radians)."""

    half_angle: float
    aspect: float  # height / width

    @property
    def half_width(self) -> float:
        return float(np.tan(self.half_angle))

    @property
    def half_height(self) -> float:
        return self.half_width * self.aspect


def stand(subjects: Sequence[Subject], lens: Lens, rng: np.random.Generator) -> tuple[float, float]:
    """Distance and height of the camera, metres: feet near the lower edge, the tallest subject inside the picture.

    For people at the usual field of view that is about 11 and 2 metres, as measured on HM-World.
    """
    talls = [subject.tall for subject in subjects]
    usual = max(sum(talls) / len(talls), 0.55 * max(talls))
    distance = usual / (2 * lens.half_height * rng.uniform(0.36, 0.44))
    distance = max(distance, max(talls) / (1.75 * lens.half_height), 1.2 * max(talls) / lens.half_width)
    distance = max(distance, max(subject.body_length for subject in subjects) / (2 * _LONGEST * lens.half_width))
    return distance, lens.half_height * distance * rng.uniform(0.82, 0.94)


def exit_frames(needs: Needs) -> range:
    """The frames in which a subject may leave: after it was seen long enough, and before the target."""
    start = min(needs.visible_frames + _AT_THE_EDGE, needs.context_frames - 2)
    return range(max(start, needs.visible_frames), needs.context_frames)


def latest_return(frames: int, context: int) -> int:
    """The last frame in which a subject may come back, so that something of it is seen again."""
    return frames - max(SEEN_AGAIN, (frames - context) // 4)


def long_enough(needs: Needs, frames: int) -> bool:
    """Can a clip of `frames` frames show what it needs to?"""
    exits = exit_frames(needs)
    earliest = max(needs.context_frames + 1, exits.start + needs.hidden_frames)
    return len(exits) >= 2 and earliest <= latest_return(frames, needs.context_frames)


def shoot(
    name: str, setting: Setting, body: Body, needs: Needs, fps: float, rng: np.random.Generator
) -> tuple[CameraTrack, int] | None:
    """A shot of trajectory `name` that loses `body` within the context and finds it again within the target.

    Returns the camera's way and the frame of the exit; None when this draw has no such timing.
    """
    frames, context = len(body.track), needs.context_frames
    exits, latest = exit_frames(needs), latest_return(frames, context)
    leave = int(rng.integers(exits.start, exits.stop))
    earliest = max(context + 1, leave + needs.hidden_frames)
    if earliest > latest:
        return None
    return_ = int(rng.integers(earliest, latest + 1))
    shot = shot_of(name, setting, body.track[:leave].mean(0), rng)
    aim = setting.half_width * rng.uniform(-0.4, 0.4)
    last = body.track[latest:].mean(0)
    return_turn = float(shot.drift(shot.ground(np.array(1 - shot.undone)), last, aim)) - shot.pan
    away_frames, back_frames = (shot.seconds(turn) * fps * rng.uniform(1.0, 1.35) for turn in (shot.pan, return_turn))

    def out_of_sight(away: float | np.ndarray, back: float | np.ndarray) -> np.ndarray:
        timing = Timing(away=away, away_frames=away_frames, back=back, back_frames=back_frames)
        return ~sight(follow(shot, timing, frames, last, aim), body).partly(setting.half_width)

    starts = np.arange(context, dtype=np.float64)
    left = _first(out_of_sight(starts[:, None], _NEVER), 0)
    away = _nearest(left, leave, exits)
    if away is None:
        return None
    leave = int(left[away])
    returns = np.arange(starts[away], frames, dtype=np.float64)
    hidden = out_of_sight(starts[away], returns[:, None])
    found = np.where(_first(hidden, 0) == leave, _first(~hidden, leave), frames)
    back = _nearest(found, return_, range(max(context + 1, leave + needs.hidden_frames), latest + 1))
    if back is None:
        return None
    timing = Timing(away=starts[away], away_frames=away_frames, back=returns[back], back_frames=back_frames)
    camera = follow(shot, timing, frames, last, aim)
    if np.abs(np.diff(camera.yaw)).max() * fps > FASTEST_TURN:
        return None
    return (camera, leave) if _seen_well(camera, body, setting.half_width, leave, int(found[back])) else None


def _seen_well(camera: CameraTrack, body: Body, half_width: float, leave: int, found: int) -> bool:
    seen = sight(camera, body)
    wholly, partly = seen.wholly(half_width), seen.partly(half_width)
    before = wholly[0] and partly[:leave].all() and wholly[:leave].mean() >= _WHOLLY
    return bool(before and partly[found:].all() and abs(seen.beside[-1]) < half_width)


def _first(flags: np.ndarray, start: int) -> np.ndarray:
    """(S, T) bool -> (S,) first frame from `start` on that is set; T where none is."""
    rest = flags[:, start:]
    return np.where(rest.any(1), rest.argmax(1) + start, flags.shape[1])


def _nearest(frames: np.ndarray, wanted: int, allowed: range) -> int | None:
    """Index of the allowed frame number nearest to the wanted one, within some slack."""
    miss = np.where((frames >= allowed.start) & (frames < allowed.stop), np.abs(frames - wanted), _NEVER)
    best = int(miss.argmin())
    return best if miss[best] <= _SLACK else None
