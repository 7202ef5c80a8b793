"""Eyes: where a subject seems to stand, to eyes that are not perfectly sharp.

What is seen is the point between its feet: its direction, each way with some noise, and its distance from where that
point meets the ground. Half a pixel at 128 x 224, and the same angle at every size of picture.
Shape letters: D draws, T frames.
"""

from __future__ import annotations

import numpy as np

SHARPNESS = float(np.deg2rad(0.08))  # radians: the noise of a direction, sideways and up
_FLATTEST = float(np.deg2rad(0.4))  # radians below level: what seems to be further away is taken to be there


def seen_by_eyes(track_T2: np.ndarray, eye_T3: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(D, T, 2) metres: where a subject on its way `track_T2` seems to be from `eye_T3`."""
    away = track_T2 - eye_T3[:, :2]
    distance, bearing = np.hypot(away[:, 0], away[:, 1]), np.arctan2(away[:, 1], away[:, 0])
    noise = SHARPNESS * rng.standard_normal((2, draws, len(track_T2)))
    below = np.maximum(np.arctan2(eye_T3[:, 2], distance) + noise[0], _FLATTEST)
    seems = eye_T3[:, 2] / np.tan(below)
    angle = bearing + noise[1]
    return np.asarray(eye_T3[:, :2] + seems[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1))


def sharpness(track_T2: np.ndarray, eye_T3: np.ndarray) -> np.ndarray:
    """(T, 2, 2): turns a miss in metres into standard deviations, away from the eye and across."""
    away = track_T2 - eye_T3[:, :2]
    distance, high = np.hypot(away[:, 0], away[:, 1]), eye_T3[:, 2]
    ahead = away / distance[:, None]
    across = np.stack([-ahead[:, 1], ahead[:, 0]], -1)
    depth = SHARPNESS * (distance**2 + high**2) / high
    return np.stack([ahead / depth[:, None], across / (SHARPNESS * distance)[:, None]], 1)
