"""Cover: does something stand in front of all of a subject? Boxes in the picture, to propose occlusions cheaply.

The masks of the finished pictures decide in the end. Shape letters: T frames, N shapes, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmcli.world.hidden.events import longest_run
from hmcli.world.space.blocks import FILLS
from hmcli.world.space.shapes import Shapes, corners

NEAREST = 0.3  # metres before the camera
_WITHIN = 0.8  # share of its box in the picture that a part of a body stays within
_STAGE = 12.0  # metres from the origin within which things may cover a subject
_TALL = 0.6  # metres: lower things cover nobody
_EVERY = 2
LOOKED_AT = slice(None, None, _EVERY)  # frames


@dataclass(frozen=True, kw_only=True)
class Covers:
    """Rectangles of the picture (focal length 1) that shapes surely fill: middle and half sides (T, N, 2), the depth
    `far` (T, N) of what is furthest of them, and where they are wholly before the camera (T, N)."""

    middle: np.ndarray
    half: np.ndarray
    far: np.ndarray
    usable: np.ndarray


def covers(shapes: Shapes, poses_T44: np.ndarray) -> Covers:
    """What shapes (T, N), or still ones (1, N), cover."""
    spots, depth = _projected(corners(shapes), poses_T44)
    low, high = spots.min(2), spots.max(2)
    fills = np.array([FILLS[kind] for kind in shapes.kind.tolist()])[:, None]
    return Covers(
        middle=(low + high) / 2, half=fills * (high - low) / 2, far=depth.max(2), usable=depth.min(2) > NEAREST
    )


def things_that_cover(still: Shapes, poses_T44: np.ndarray) -> Covers:
    """What the things near the origin that are tall enough to hide somebody cover."""
    return covers(_on_stage(still), poses_T44)


def frames_on_end(frames: int) -> int:
    """How many of the frames LOOKED_AT must follow each other so that `frames` frames do."""
    return (frames - 1) // _EVERY + 1


def somebody_covered(
    bodies: Sequence[Shapes], things: Covers, poses_T44: np.ndarray, half_width: float, frames: int
) -> bool:
    """Is one of the subjects, while its middle is in the picture, behind something for so many frames on end?

    Bodies, things and poses are those of the frames LOOKED_AT, every second one; `frames` counts all.
    `half_width` is half the picture's width at distance 1.
    """
    fill = [covers(body, poses_T44) for body in bodies]
    for number, body in enumerate(bodies):
        spot, depth = _projected(body.centre.mean(1)[:, None, None], poses_T44)
        hidden = (np.abs(spot[:, 0, 0, 0]) < half_width) & (depth[:, 0, 0] > NEAREST)
        hidden &= covered(body, [things, *fill[:number], *fill[number + 1 :]], poses_T44)
        if longest_run(hidden) >= frames_on_end(frames):
            return True
    return False


def covered(body: Shapes, others: Sequence[Covers], poses_T44: np.ndarray) -> np.ndarray:
    """(T,) bool: is every part of `body` (T, N) behind a part of the others?"""
    spots, depth = _projected(corners(body), poses_T44)
    middle = spots.mean(2, keepdims=True)
    points_TP2 = (middle + _WITHIN * (spots - middle)).reshape(len(spots), -1, 2)
    behind_TP = np.repeat(depth.min(2), 8, axis=1)
    outermost_T4 = np.concatenate([points_TP2.argmin(1), points_TP2.argmax(1)], 1)
    hidden = depth.min((1, 2)) > NEAREST
    for points_TK in (outermost_T4, None):  # the outermost points rule out most frames before all of them are tried
        when = np.flatnonzero(hidden)
        if points_TK is None:
            points, behind = points_TP2[when], behind_TP[when]
        else:
            points = np.take_along_axis(points_TP2, points_TK[..., None], 1)[when]
            behind = np.take_along_axis(behind_TP, points_TK, 1)[when]
        hidden[when] = _behind_any(points, behind, others, when).all(1)
    return hidden


def _behind_any(points_TP2: np.ndarray, depth_TP: np.ndarray, others: Sequence[Covers], when: np.ndarray) -> np.ndarray:
    """(T, P) bool: is each point behind one of the others, in the frames `when`?"""
    hidden = np.zeros(depth_TP.shape, bool)
    least, most = points_TP2.min(1, keepdims=True, initial=np.inf), points_TP2.max(1, keepdims=True, initial=-np.inf)
    for other in others:
        middle, half = other.middle[when], other.half[when]
        near = other.usable[when] & (middle - half < most).all(-1) & (middle + half > least).all(-1)
        for shape in np.flatnonzero(near.any(0)):
            inside = (np.abs(points_TP2 - middle[:, None, shape]) < half[:, None, shape]).all(-1)
            hidden |= inside & near[:, None, shape] & (other.far[when, None, shape] < depth_TP)
    return hidden


def _projected(points: np.ndarray, poses_T44: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (T or 1, N, K, 3) in the picture at focal length 1 (T, N, K, 2), and their depths (T, N, K)."""
    eye, axes = poses_T44[:, None, None, :3, 3], poses_T44[:, :3, :3]
    seen = (points - eye) @ axes[:, None]
    depth = seen[..., 2]
    return seen[..., :2] / np.maximum(depth, NEAREST)[..., None], depth


def _on_stage(still: Shapes) -> Shapes:
    """The things near the origin that are tall enough to hide somebody."""
    high = corners(still)[0, ..., 2].max(-1)
    keep = np.flatnonzero((np.hypot(*still.centre[0, :, :2].T) < _STAGE) & (high > _TALL))
    return replace(
        still, kind=still.kind[keep], axes=still.axes[:, keep], centre=still.centre[:, keep],
        size=still.size[:, keep], paints=tuple(still.paints[row] for row in keep), owner=still.owner[keep],
    )  # fmt: skip
