"""Cover: does something stand in front of all of a subject? Boxes in the picture, to propose occlusions cheaply.

The masks of the finished pictures decide in the end. Shape letters: T frames, N shapes, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hmcli.world.hidden.events import longest_run
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, ROUND_CONE, Shapes, corners

_WITHIN = 0.8  # share of its box in the picture that a part of a body stays within
_FILLS = {BOX: 0.8, ELLIPSOID: 0.68, ROUND_CONE: 0.75, CYLINDER: 0.8, CONE: 0.45}  # and that a shape surely fills
_NEAREST = 0.3  # metres before the camera
_STAGE = 12.0  # metres from the origin within which things may cover a subject
_TALL = 0.6  # metres: lower things cover nobody
_EVERY = 2
LOOKED_AT = slice(None, None, _EVERY)  # frames


def somebody_covered(
    bodies: Sequence[Shapes], still: Shapes, poses_T44: np.ndarray, half_width: float, frames: int
) -> bool:
    """Is one of the subjects, while its middle is in the picture, behind something for so many frames on end?

    Bodies and poses are those of the frames LOOKED_AT, every second one; `frames` counts all.
    `half_width` is half the picture's width at distance 1.
    """
    things = _on_stage(still)
    for body in bodies:
        spot, depth = _projected(body.centre.mean(1)[:, None, None], poses_T44)
        hidden = (np.abs(spot[:, 0, 0, 0]) < half_width) & (depth[:, 0, 0] > _NEAREST)
        if not (when := np.flatnonzero(hidden)).size:
            continue
        others = [things, *(_of_frames(other, when) for other in bodies if other is not body)]
        hidden[when] = covered(_of_frames(body, when), others, poses_T44[when])
        if longest_run(hidden) > (frames - 1) // _EVERY:
            return True
    return False


def covered(body: Shapes, others: Sequence[Shapes], poses_T44: np.ndarray) -> np.ndarray:
    """(T,) bool: is every part of `body` (T, N) behind a part of the others, (T, N) or still (1, N)?"""
    spots, depth = _projected(corners(body), poses_T44)
    middle = spots.mean(2, keepdims=True)
    points = (middle + _WITHIN * (spots - middle)).reshape(len(spots), -1, 2)
    behind = np.repeat(depth.min(2), 8, axis=1)
    least, most = points.min(1), points.max(1)
    hidden = np.zeros(points.shape[:2], bool)
    for other in others:
        spots, near = _projected(corners(other), poses_T44)
        low, high = spots.min(2), spots.max(2)
        fills = np.array([_FILLS[kind] for kind in other.kind.tolist()])[:, None]
        centre, half = (low + high) / 2, fills * (high - low) / 2
        usable = (near.min(2) > _NEAREST) & (low < most[:, None]).all(-1) & (high > least[:, None]).all(-1)
        for shape in np.flatnonzero(usable.any(0)):
            when = np.flatnonzero(usable[:, shape])
            inside = (np.abs(points[when] - centre[when, None, shape]) < half[when, None, shape]).all(-1)
            hidden[when] |= inside & (near[when, None, shape].max(2) < behind[when])
    return np.asarray(hidden.all(1) & (depth.min((1, 2)) > _NEAREST))


def _projected(points: np.ndarray, poses_T44: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (T or 1, N, K, 3) in the picture at focal length 1 (T, N, K, 2), and their depths (T, N, K)."""
    eye, axes = poses_T44[:, None, None, :3, 3], poses_T44[:, :3, :3]
    seen = np.einsum("tnkj,tji->tnki", points - eye, axes)
    depth = seen[..., 2]
    return seen[..., :2] / np.maximum(depth, _NEAREST)[..., None], depth


def _of_frames(shapes: Shapes, frames: np.ndarray | slice) -> Shapes:
    return replace(shapes, axes=shapes.axes[frames], centre=shapes.centre[frames], size=shapes.size[frames])


def _on_stage(still: Shapes) -> Shapes:
    """The things near the origin that are tall enough to hide somebody."""
    high = corners(still)[0, ..., 2].max(-1)
    keep = np.flatnonzero((np.hypot(*still.centre[0, :, :2].T) < _STAGE) & (high > _TALL))
    return replace(
        still, kind=still.kind[keep], axes=still.axes[:, keep], centre=still.centre[:, keep],
        size=still.size[:, keep], paints=tuple(still.paints[row] for row in keep), owner=still.owner[keep],
    )  # fmt: skip
