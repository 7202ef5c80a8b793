"""Camera trajectories: go away from the subject and come back, as one continuous shot.

A trajectory is a `Move` made to the left or to the right: how far the camera turns, slides, drives, circles and rises
while it goes away, and how much of that it undoes on its return. When it goes and returns is a `Timing`. Under all of
it a follow shot rolls along with the subject (`dolly`). Nothing here knows where the subject is once it is out of
sight. World metres, Z up; yaw in radians, counter-clockwise from +x; "left" is counter-clockwise. Pitch and roll are
zero, as in HM-World.
Shapes: leading axes of a Timing (several at once) come first, then T frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli import registry
from hmcli.world.views.moves import NONE, Move, Range

FASTEST_TURN = np.deg2rad(39.0)  # radians per second: 2.6 degrees per frame at 15 fps, as measured on HM-World
FASTEST_DRIVE = 4.5  # metres per second
_PEAK = 1.5  # highest speed of an eased move, as a multiple of its mean
_NEAR_TURN = 0.6  # share of `degrees` that a pan turns at least

MOVES: dict[str, Move] = {  # those of this package: others are made only when a recipe names them
    name.replace("-", "_"): registry.find("move", name) for name in registry.BUILT_IN["move"]
}
SIDES = {"left": 1.0, "right": -1.0}
TRAJECTORIES: dict[str, tuple[Move, float]] = {
    f"{name}_{side}": (move, sign) for name, move in MOVES.items() for side, sign in SIDES.items()
}


def trajectory(name: str) -> tuple[Move, float]:
    """A move, of this or another package, and the side it is made to: 1 to the left, -1 to the right."""
    move, _, side = name.rpartition("_")
    return TRAJECTORIES.get(name) or (registry.find("move", move), SIDES[side])


# where the camera films from: radians to the side of straight in front of the subject
STARTS: dict[str, Range] = {"front": (-0.12, 0.12), "left": (-0.45, -0.18), "right": (0.18, 0.45)}

_LET_GO = 0.8  # seconds in which a dolly leaves the pace of the subject it has followed


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the camera films from (3,) metres, the place (2,) it looks at, and how far it would turn (radians)."""

    eye: np.ndarray
    pivot: np.ndarray
    turn: float
    half_width: float  # radians: half the horizontal field of view


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A trajectory with its numbers: radians and metres, signed; `yaw` is where it looks at first."""

    eye: np.ndarray  # (3,)
    pivot: np.ndarray  # (2,)
    yaw: float
    pan: float
    slide: np.ndarray  # (2,) metres on the ground, sideways and forward together
    orbit: float
    rise: float
    undone: float
    aside: float  # radians beside the first view that it looks to until it turns to the subject; 0: starts with it
    rolled: np.ndarray  # (T, 2) metres on the ground by which a dolly has carried it; zeros: it stands

    def seconds(self, turn: float | np.ndarray) -> np.ndarray:
        """The least time for the way and a turn of `turn` radians, neither of them faster than a camera's."""
        metres = max(float(np.hypot(*self.slide)), abs(self.orbit) * float(np.hypot(*(self.eye[:2] - self.pivot))))
        return np.asarray(np.maximum(turning_seconds(turn), _PEAK * metres / FASTEST_DRIVE))

    def ground(self, share: np.ndarray) -> np.ndarray:
        """(..., 2) metres: where the camera stands when it is so far gone, (...) from 0 to 1."""
        arm, angle = self.eye[:2] - self.pivot, -share * self.orbit  # it circles to the left when it moves clockwise
        cos, sin = np.cos(angle), np.sin(angle)
        circled = self.pivot + np.stack([cos * arm[0] - sin * arm[1], sin * arm[0] + cos * arm[1]], -1)
        return np.asarray(circled + share[..., None] * self.slide)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When the camera turns to the subject, goes away and returns: first frame and number of frames of each move.

    Each is a number, or an array (..., 1) for several timings at once.
    """

    arrive: float
    arrive_frames: float
    away: float | np.ndarray
    away_frames: float
    back: float | np.ndarray
    back_frames: float | np.ndarray

    def shares(self, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(..., T) how far it has arrived, is gone, and has returned, from 0 to 1."""
        frame = np.arange(frames)
        return (
            eased((frame - self.arrive) / self.arrive_frames),
            eased((frame - self.away) / self.away_frames),
            eased((frame - self.back) / self.back_frames),
        )


@dataclass(frozen=True, kw_only=True)
class CameraTrack:
    """`eye` (..., T, 3) metres and `yaw` (..., T) radians."""

    eye: np.ndarray
    yaw: np.ndarray

    def world_from_camera(self) -> np.ndarray:
        """(T, 4, 4) float64, camera axes right, down, forward."""
        sin, cos, zero, one = np.sin(self.yaw), np.cos(self.yaw), np.zeros_like(self.yaw), np.ones_like(self.yaw)
        pose = np.zeros((len(self.yaw), 4, 4))
        pose[:, :3, 0] = np.stack([sin, -cos, zero], -1)
        pose[:, :3, 1] = np.stack([zero, zero, -one], -1)
        pose[:, :3, 2] = np.stack([cos, sin, zero], -1)
        pose[:, :3, 3] = self.eye
        pose[:, 3, 3] = 1
        return pose


def eased(share: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth in between."""
    u = np.clip(share, 0, 1)
    return np.asarray(u * u * (3 - 2 * u))


def turning_seconds(turn: float | np.ndarray) -> np.ndarray:
    """The least time for a turn of `turn` radians."""
    return np.asarray(_PEAK * np.maximum(np.abs(turn) / FASTEST_TURN, 0.2))


def start_pose(start: Range, focus: np.ndarray, distance: float, height: float, rng: np.random.Generator) -> np.ndarray:
    """(3,) metres: `distance` from `focus` (2,), a place on the ground, on the camera's side of it."""
    angle = rng.uniform(*start)
    return np.array([focus[0] + distance * np.sin(angle), focus[1] - distance * np.cos(angle), height])


def dolly(track_T2: np.ndarray, watched: range, keep: float, fps: float) -> np.ndarray:
    """(T, 2) metres by which a dolly has carried the camera along with a subject that it films in frames `watched`.

    It rolls along the parabola through the subject's steps, 0 in the middle of them; before, at the pace of the first;
    after, it slows down to the share `keep` of the last one's pace, whatever the subject does by then.
    """
    seconds = (np.arange(len(track_T2)) - (watched.start + watched.stop - 1) / 2) / fps
    seen = slice(watched.start, watched.stop)
    bend, pace, _ = np.polyfit(seconds[seen], track_T2[seen], 2)
    within = np.clip(seconds, seconds[watched.start], seconds[watched.stop - 1])
    share = 1 - (1 - keep) * eased((seconds - seconds[watched.stop - 1]) / _LET_GO)
    steps = (pace + 2 * bend * within[:, None]) * share[:, None] / fps
    rolled = np.concatenate([np.zeros((1, 2)), ((steps[1:] + steps[:-1]) / 2).cumsum(0)])
    return np.asarray(rolled - rolled[(watched.start + watched.stop - 1) // 2])


def shot_of(name: str, setting: Setting, rng: np.random.Generator, *, rolled: np.ndarray, aside: float = 0.0) -> Shot:
    """Draw the numbers of a trajectory that looks near its setting's pivot while it films."""
    move, side = trajectory(name)
    view = setting.pivot - setting.eye[:2]
    distance = float(np.linalg.norm(view))
    forward = view / distance
    left = np.array([-forward[1], forward[0]])
    aim = setting.half_width * (rng.uniform(-0.3, 0.3) - side * move.lead)
    turn = setting.turn * rng.uniform(_NEAR_TURN, 1.0) if move.pan != NONE else 0.0
    return Shot(
        eye=setting.eye, pivot=setting.pivot, yaw=bearing(view) + aim, aside=aside, rolled=rolled,
        pan=side * turn * rng.uniform(*move.pan),
        slide=distance * (side * rng.uniform(*move.truck) * left + rng.uniform(*move.dolly) * forward),
        orbit=side * float(np.deg2rad(rng.uniform(*move.orbit))),
        rise=setting.eye[2] * rng.uniform(*move.crane), undone=rng.uniform(*move.undone),
    )  # fmt: skip


def film(shot: Shot, timing: Timing, home: float | np.ndarray) -> CameraTrack:
    """The camera's way; in the end it looks `home` radians beside its first view: a number, or (..., 1)."""
    arrived, away, back = timing.shares(len(shot.rolled))
    share = away - shot.undone * back
    ground = shot.ground(share) + shot.rolled
    eye = np.concatenate([ground, (shot.eye[2] + share * shot.rise)[..., None]], -1)
    yaw = shot.yaw + (1 - arrived) * shot.aside + away * shot.pan + back * (home - shot.pan)
    return CameraTrack(eye=eye, yaw=yaw)


def bearing(vector: np.ndarray) -> float:
    return float(np.arctan2(vector[1], vector[0]))
