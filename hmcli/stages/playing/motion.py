"""Motion: which way the camera goes while keys are held.

It turns about the vertical and walks on level ground, whatever way it looks: the pitch and the height that it came
with stay. Speeds follow the keys with a short delay, as a person's steps do, so that chunks join without a jerk.
Metres, seconds, radians; a pose is world_from_camera (4, 4), camera axes right, down, forward, the world's Z up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from hmcli.world.views.trajectories import FASTEST_TURN

LEFT, RIGHT, AHEAD, BACK, ASIDE_LEFT, ASIDE_RIGHT = "left", "right", "ahead", "back", "aside-left", "aside-right"
KEYS = (LEFT, RIGHT, AHEAD, BACK, ASIDE_LEFT, ASIDE_RIGHT)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast the camera can go."""

    turn: float = 0.8 * float(FASTEST_TURN)  # radians per second
    walk: float = 1.2  # metres per second
    settle: float = 0.15  # seconds after which two thirds of a change of speed are done


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast it goes: radians per second to the left, metres per second ahead and to the right."""

    turn: float = 0.0
    ahead: float = 0.0
    aside: float = 0.0


def wanted(held: Collection[str], pace: Pace) -> Speed:
    """The speed that keys ask for; opposite ones cancel out. Raises ValueError for a key that is not in `KEYS`."""
    if unknown := sorted(set(held) - set(KEYS)):
        raise ValueError(f"unknown keys {', '.join(map(repr, unknown))}: known are {', '.join(KEYS)}")

    def way(one: str, other: str) -> int:
        return (one in held) - (other in held)

    return Speed(
        turn=pace.turn * way(LEFT, RIGHT), ahead=pace.walk * way(AHEAD, BACK),
        aside=pace.walk * way(ASIDE_RIGHT, ASIDE_LEFT),
    )  # fmt: skip


def moved(
    pose: np.ndarray, speed: Speed, held: Collection[str], *, frames: int, fps: float, pace: Pace
) -> tuple[np.ndarray, Speed]:
    """The poses (frames, 4, 4) of the frames after the one at `pose`, and the speed in the last of them."""
    goal, step = wanted(held, pace), 1 / fps
    share = 1 - float(np.exp(-step / pace.settle))
    poses = []
    for _ in range(frames):
        speed = Speed(
            turn=speed.turn + share * (goal.turn - speed.turn), ahead=speed.ahead + share * (goal.ahead - speed.ahead),
            aside=speed.aside + share * (goal.aside - speed.aside),
        )  # fmt: skip
        pose = _turned(pose, speed.turn * step)
        ahead = level(pose)
        right = np.array([ahead[1], -ahead[0]])
        pose[:2, 3] += step * (speed.ahead * ahead + speed.aside * right)
        poses.append(pose)
    return np.stack(poses), speed


def level(pose: np.ndarray) -> np.ndarray:
    """(2,) unit vector on the ground in the direction of view; where that is straight up or down, of the picture's
    upper edge or lower one."""
    forward, up = pose[:2, 2], -pose[:2, 1]
    along = forward if np.linalg.norm(forward) > 1e-6 else -np.sign(pose[2, 2]) * up
    unit: np.ndarray = along / np.linalg.norm(along)
    return unit


def _turned(pose: np.ndarray, angle: float) -> np.ndarray:
    """A copy, turned about the vertical through the eye, kept a rotation however often."""
    cos, sin = np.cos(angle), np.sin(angle)
    done = np.array(pose, dtype=np.float64)
    done[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ done[:3, :3]
    left, _, right = np.linalg.svd(done[:3, :3])
    done[:3, :3] = left @ right
    return done
