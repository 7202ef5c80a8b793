"""Gait: where the feet are for a distance walked, and how two-part legs reach them.

Phase is counted in strides (two steps of a person): phase = distance / stride. A standing foot moves back through
the body's frame exactly as fast as the body moves forward, so feet do not slide. Body frame: x forward, y left, z up.
"""

from __future__ import annotations

import numpy as np

Lift = float | np.ndarray  # how high feet are lifted, as a share, in all frames or in each (T,)
_STANDS, _GOES = 0.04, 0.16  # shares of its fastest pace: below, feet rest on the ground; above, they are lifted


def settled(distance_T: np.ndarray) -> np.ndarray:
    """(T,) how high feet are lifted, as a share: 1 while somebody walks, 0 where it stands, by the metres walked."""
    pace = np.gradient(distance_T) if len(distance_T) > 1 else np.ones(len(distance_T))
    share = pace / max(float(pace.max()), 1e-9)
    return np.asarray(np.clip((share - _STANDS) / (_GOES - _STANDS), 0.0, 1.0))


def foot_path(
    phase_T: np.ndarray, stride: float, duty: float, lift: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of one foot along x and z (metres) from its resting place below the hip.

    The foot stands for the share `duty` of a stride and then swings forward, `lift` metres high.
    """
    cycle = np.mod(phase_T, 1.0)
    reach = stride * duty
    swing = np.clip((cycle - duty) / (1 - duty), 0.0, 1.0)
    standing = 0.5 - cycle / duty
    swinging = swing * swing * (3 - 2 * swing) - 0.5
    x = reach * np.where(cycle < duty, standing, swinging)
    return x, lift * 4 * swing * (1 - swing)


def reach(
    hip_T3: np.ndarray, foot_T3: np.ndarray, upper: float, lower: float, bend: float
) -> tuple[np.ndarray, np.ndarray]:
    """Joint and end of a two-part leg from hip to foot, bent forward (`bend` = 1) or back (-1) in the x-z plane.

    A foot out of reach is drawn in towards the hip, so that legs keep their length.
    """
    away = foot_T3 - hip_T3
    distance = np.linalg.norm(away, axis=-1, keepdims=True)
    direction = away / np.maximum(distance, 1e-9)
    span = np.clip(distance, abs(upper - lower) + 1e-3, (upper + lower) * 0.999)
    along = (span**2 + upper**2 - lower**2) / (2 * span)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    sideways = np.stack([-direction[:, 2], np.zeros(len(direction)), direction[:, 0]], -1)  # forward when hanging down
    sideways /= np.maximum(np.linalg.norm(sideways, axis=-1, keepdims=True), 1e-9)
    return hip_T3 + direction * along + sideways * aside * bend, hip_T3 + direction * span
