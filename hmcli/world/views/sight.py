"""Sight: roughly when is a subject in the picture? Geometry on the ground, fast enough to try many shots.

The masks of the finished pictures decide in the end; this only proposes. Shapes: leading axes of the camera track
(several shots at once), then T frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.views.trajectories import CameraTrack

_SLIM = 0.35  # a body seen from its end, as a share of its radius
_NEAREST = 0.5  # metres before the camera: nearer is out of sight


@dataclass(frozen=True, kw_only=True)
class Body:
    """What sight needs to know of a subject on its way: (T, 2) metres, (T,) radians, metres."""

    track: np.ndarray
    heading: np.ndarray
    radius: float
    tall: float


@dataclass(frozen=True, kw_only=True)
class Sight:
    """(..., T): radians beside the view axis (left positive), half the angle it fills, metres along the view axis."""

    beside: np.ndarray
    half: np.ndarray
    ahead: np.ndarray

    def partly(self, half_width: float) -> np.ndarray:
        """(..., T) bool: may a part of it be between the edges of the picture?"""
        return np.asarray((np.abs(self.beside) - self.half < half_width) & (self.ahead > _NEAREST))

    def wholly(self, half_width: float) -> np.ndarray:
        """(..., T) bool: is all of it?"""
        return np.asarray((np.abs(self.beside) + self.half < half_width) & (self.ahead > _NEAREST))

    def inside(self, half_width: float, half_height: float, tall: float, eye_height: np.ndarray) -> np.ndarray:
        """(..., T) share of it that is between the edges of the picture, which is `half_height` high at distance 1."""
        across = (half_width - np.abs(self.beside) + self.half) / np.maximum(2 * self.half, 1e-9)
        reach = half_height * np.maximum(self.ahead, _NEAREST)
        shown = np.minimum(eye_height + reach, tall) - np.maximum(eye_height - reach, 0.0)
        return np.asarray(np.clip(across, 0, 1) * np.clip(shown / tall, 0, 1) * (self.ahead > _NEAREST))


def sight(camera: CameraTrack, body: Body) -> Sight:
    """Where the camera sees the body in each frame."""
    away = body.track - camera.eye[..., :2]
    towards = np.arctan2(away[..., 1], away[..., 0])
    distance = np.hypot(away[..., 0], away[..., 1])
    beside = np.remainder(towards - camera.yaw + np.pi, 2 * np.pi) - np.pi
    aside = np.abs(np.sin(body.heading - towards))
    reach = body.radius * np.maximum(aside, _SLIM)
    half = np.arcsin(np.minimum(reach / np.maximum(distance, 1e-6), 1.0))
    return Sight(beside=beside, half=half, ahead=distance * np.cos(beside))
