"""Camera trajectories: go away from the subject and come back, as one continuous shot.

A trajectory is a function (away (T,), back (T,), setting, rng) -> `CameraTrack`. `away` rises from 0 to 1 while the
camera turns away, `back` from 0 to 1 while it returns. World metres, Z up; yaw in radians, counter-clockwise from +x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a trajectory moves around: where it starts, what it looks at, how far it turns (radians, signed)."""

    eye: np.ndarray  # (3,) at the start
    pivot: np.ndarray  # (2,) middle of the subject's track
    subject: np.ndarray  # (T, 2) subject on the ground
    aim: tuple[float, float]  # radians the view axis passes the subject by, at the start and after the return
    turn: float


@dataclass(frozen=True, kw_only=True)
class CameraTrack:
    """`eye` (T, 3) metres and `yaw` (T,) radians; pitch and roll are zero, as in HM-World."""

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


Trajectory = Callable[[np.ndarray, np.ndarray, Setting, np.random.Generator], CameraTrack]


def pan_away_and_back(away: np.ndarray, back: np.ndarray, setting: Setting, rng: np.random.Generator) -> CameraTrack:
    """Turn on the spot."""
    return _looking(np.broadcast_to(setting.eye, (len(away), 3)), away, back, setting)


def dolly_away_and_back(away: np.ndarray, back: np.ndarray, setting: Setting, rng: np.random.Generator) -> CameraTrack:
    """Slide to the side the camera turns to, and return most of the way."""
    view = setting.pivot - setting.eye[:2]
    left = np.array([-view[1], view[0]]) / np.linalg.norm(view)
    slide = np.sign(setting.turn) * rng.uniform(0.2, 0.35) * np.linalg.norm(view)
    share = away - rng.uniform(0.75, 1.0) * back
    eye = np.broadcast_to(setting.eye, (len(away), 3)).copy()
    eye[:, :2] += share[:, None] * slide * left
    return _looking(eye, away, back, setting)


def arc_away_and_back(away: np.ndarray, back: np.ndarray, setting: Setting, rng: np.random.Generator) -> CameraTrack:
    """Circle round the subject's place while looking away, and return most of the way."""
    angle = (away - rng.uniform(0.6, 1.0) * back) * rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.4)
    arm = setting.eye[:2] - setting.pivot
    cos, sin = np.cos(angle), np.sin(angle)
    ground = np.stack([cos * arm[0] - sin * arm[1], sin * arm[0] + cos * arm[1]], -1) + setting.pivot
    eye = np.concatenate([ground, np.full((len(away), 1), setting.eye[2])], 1)
    return _looking(eye, away, back, setting)


TRAJECTORIES: dict[str, Trajectory] = {
    "pan_away_and_back": pan_away_and_back,
    "dolly_away_and_back": dolly_away_and_back,
    "arc_away_and_back": arc_away_and_back,
}


def _looking(eye: np.ndarray, away: np.ndarray, back: np.ndarray, setting: Setting) -> CameraTrack:
    """Look near the subject's first place, then `turn` away from there, then near the place it ends up at."""
    first, last = _bearing(setting.subject[0] - eye[0, :2]), _bearing(setting.subject[-1] - eye[-1, :2])
    drift = np.angle(np.exp(1j * (last - first))) + setting.aim[1] - setting.aim[0]
    yaw = first + setting.aim[0] + away * setting.turn + back * (drift - setting.turn)
    return CameraTrack(eye=np.array(eye), yaw=yaw)


def _bearing(vector: np.ndarray) -> float:
    return float(np.arctan2(vector[1], vector[0]))


def eased(frames: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 before `start`, 1 after `end`, smooth in between."""
    u = np.clip((frames - start) / (end - start), 0, 1)
    return u * u * (3 - 2 * u)


def timing(context: int, target: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`away` and `back` for every frame: away within the context, back within the target."""
    frames = np.arange(context + target)
    away = eased(frames, rng.uniform(0.15, 0.28) * context, rng.uniform(0.88, 0.98) * context)
    back = eased(frames, context + rng.uniform(0.0, 0.12) * target, context + rng.uniform(0.62, 0.78) * target)
    return away, back
