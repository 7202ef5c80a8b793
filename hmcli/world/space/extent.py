"""Extent: how far shapes reach, exactly, whatever their kind and pose.

Shape letters: T frames, N shapes.
"""

from __future__ import annotations

import numpy as np

from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, ROUND_CONE, Shapes

_DIRECTIONS = 32  # on the ground, for circles around a body


def reach_along(shapes: Shapes, direction: tuple[float, float, float]) -> np.ndarray:
    """(T, N) metres: the largest coordinate of each shape along a unit `direction`."""
    own = np.einsum("tnij,i->tnj", shapes.axes, np.asarray(direction, np.float64))
    size = shapes.size
    disc, rise = size[..., 0] * np.hypot(own[..., 0], own[..., 1]), own[..., 2] * size[..., 2]
    beyond = {
        BOX: (size * np.abs(own)).sum(-1),
        ELLIPSOID: np.linalg.norm(size * own, axis=-1),
        ROUND_CONE: np.maximum(size[..., 0], rise + size[..., 1]),
        CYLINDER: disc + np.abs(rise),
        CONE: np.maximum(rise, disc - rise),
    }
    centre = shapes.centre @ np.asarray(direction, np.float64)
    return centre + np.select([shapes.kind == kind for kind in beyond], list(beyond.values()))


def top(shapes: Shapes) -> float:
    """Height of the highest point in any frame, metres."""
    return float(reach_along(shapes, (0.0, 0.0, 1.0)).max())


def bottom(shapes: Shapes) -> np.ndarray:
    """(T, N) height of the lowest point of each shape, metres."""
    return -reach_along(shapes, (0.0, 0.0, -1.0))


def length(shapes: Shapes) -> float:
    """Longest extent along x in any frame, metres."""
    ahead, behind = reach_along(shapes, (1.0, 0.0, 0.0)), reach_along(shapes, (-1.0, 0.0, 0.0))
    return float((ahead.max(1) + behind.max(1)).max())


def ground_radius(shapes: Shapes) -> float:
    """Radius of a circle about the origin that holds the shapes' shadow from above in every frame, metres."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    reach = max(reach_along(shapes, (float(np.cos(a)), float(np.sin(a)), 0.0)).max() for a in angles)
    return float(reach / np.cos(np.pi / _DIRECTIONS))
