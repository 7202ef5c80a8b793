"""Obstacles: the ground that the things of a scene stand on, so that nobody walks through them.

Shape letters: T frames, N things.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.space.shapes import Shapes, corners

FAR = 4.0  # metres
_FLAT = 0.03  # metres: what is lower is part of the ground
_RAYS = 13  # directions across the picture's width in which a camera's view is tried


@dataclass(frozen=True, kw_only=True)
class Footprints:
    """Rectangles on the ground: middle (N, 2), direction of the first side (N, 2), half sides (N, 2), in metres.

    `low` and `high` (N,) say between which heights the thing stands there.
    """

    centre: np.ndarray
    along: np.ndarray
    half: np.ndarray
    low: np.ndarray
    high: np.ndarray


def footprints(shapes: Shapes) -> Footprints:
    """The ground below each still shape's bounding box, flat ones left out."""
    eight = corners(shapes)[0]  # (N, 8, 3)
    axes = shapes.axes[0]  # (N, 3, 3), own axes as columns
    level = np.linalg.norm(axes[:, :2], axis=1).argmax(1)  # the axis that lies flattest
    along = np.take_along_axis(axes[:, :2], level[:, None, None], axis=2)[..., 0]
    along = along / np.linalg.norm(along, axis=1, keepdims=True)
    sides = np.stack([along, np.stack([-along[:, 1], along[:, 0]], -1)], -1)  # (N, 2, side)
    spread = np.einsum("nkc,ncs->nks", eight[..., :2], sides)
    least, most = spread.min(1), spread.max(1)
    high = eight[..., 2].max(1)
    stands = high > _FLAT
    return Footprints(
        centre=np.einsum("ns,ncs->nc", (least + most) / 2, sides)[stands], along=along[stands],
        half=((most - least) / 2)[stands], low=eight[..., 2].min(1)[stands], high=high[stands],
    )  # fmt: skip


def clearance(points_T2: np.ndarray, things: Footprints, low: float, high: float) -> float:
    """Metres from the nearest point to the nearest thing that stands anywhere between two heights; 0 inside of it.

    Things further than FAR from all of the points do not count: where there are no others, it is infinite.
    """
    reach = np.hypot(*things.half.T)[:, None] + FAR
    close = (things.centre > points_T2.min(0) - reach) & (things.centre < points_T2.max(0) + reach)
    near = (things.low < high) & (things.high > low) & close.all(1)
    if not near.any():
        return float("inf")
    away = points_T2[:, None] - things.centre[near]
    along = things.along[near]
    first = np.abs((away * along).sum(-1)) - things.half[near, 0]
    second = np.abs(away[..., 1] * along[:, 0] - away[..., 0] * along[:, 1]) - things.half[near, 1]
    return float(np.hypot(np.maximum(first, 0), np.maximum(second, 0)).min())


def blocked(eye_T3: np.ndarray, yaw_T: np.ndarray, half_angle: float, things: Footprints, near: float) -> np.ndarray:
    """(T,) share of the picture's width in which a thing as high as the camera stands nearer than `near` metres."""
    high, low = eye_T3[:, 2].max(), eye_T3[:, 2].min()
    reach = np.hypot(*things.half.T)[:, None] + near
    ground = eye_T3[:, :2]
    close = (things.centre > ground.min(0) - reach) & (things.centre < ground.max(0) + reach)
    kept = np.flatnonzero((things.low < high) & (things.high > low) & close.all(1))
    angles = yaw_T[:, None] + half_angle * np.linspace(-1, 1, _RAYS)  # (T, rays)
    ray = np.stack([np.cos(angles), np.sin(angles)], -1)
    hit = np.zeros(angles.shape, bool)
    for thing in kept:
        along = things.along[thing]
        sides = np.stack([along, np.array([-along[1], along[0]])], -1)  # own axes as columns
        start, step = ((ground - things.centre[thing]) @ sides)[:, None], ray @ sides
        step = np.where(np.abs(step) < 1e-9, 1e-9, step)
        ends = np.stack([(-things.half[thing] - start) / step, (things.half[thing] - start) / step])
        enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
        hit |= (enter <= leave) & (leave > 0) & (enter < near)
    return np.asarray(hit.mean(1))
