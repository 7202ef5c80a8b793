"""Field of view, measured: which focal length makes the pixels move as the camera turned?

Two frames of a camera that only turned are related by the infinite homography K R K^-1, whatever the scene. For pairs
of frames that turned a few degrees and hardly moved sideways, every candidate field of view warps one frame onto the
other; the one after which they agree best is the pair's estimate. Nothing is learned and no feature is tracked.
Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.world.views.cameras import focal_length

_TURN = np.deg2rad((1.5, 9.0))  # radians a pair may turn: enough to tell, little enough to overlap
_SIDEWAYS, _FORWARD = 0.8, 4.5  # metres per radian turned that a pair may move: sideways motion looks like turning
_COARSE = np.arange(15.0, 121.0, 3.0)  # degrees
_FINE = np.arange(-2.5, 2.51, 0.25)  # degrees around the best coarse one
_LEAST_OVERLAP = 0.35  # of the picture
_CLEAR = 0.02  # how much better than the median candidate the best one must agree
_WIDTH = 208  # pixels: frames are measured at about this width


@dataclass(frozen=True, kw_only=True)
class FieldOfView:
    """Horizontal field of view in degrees: the median over pairs of frames, and their quartiles."""

    degrees: float
    quartiles: tuple[float, float]
    pairs: int

    def focal(self, width: int) -> float:
        """Focal length in pixels of pictures `width` pixels wide."""
        return focal_length(np.deg2rad(self.degrees), width)


def usable_pairs(world_from_camera: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Pairs of frames of (T, 4, 4) poses that turned enough and moved little, spread over the clip, at most `most`."""
    pairs = []
    frames = len(world_from_camera)
    for first in range(frames - 1):
        for second in range(first + 1, min(first + 31, frames)):
            turned, aside, ahead = _motion(world_from_camera[first], world_from_camera[second])
            if turned > _TURN[1]:
                break
            if turned >= _TURN[0] and aside <= _SIDEWAYS * turned and ahead <= _FORWARD * turned:
                pairs.append((turned, first, second))
    if len(pairs) <= most:
        return [(first, second) for _, first, second in pairs]
    best = sorted(pairs, reverse=True)[: 4 * most]  # the larger the turn, the sharper the answer
    spread = np.linspace(0, len(best) - 1, most).round().astype(int)
    return [best[index][1:] for index in spread]


def measure(
    frames: np.ndarray, world_from_camera: np.ndarray, *, masks: np.ndarray | None = None, most_pairs: int = 8
) -> FieldOfView | None:
    """The horizontal field of view of (T, H, W, 3) uint8 frames with poses (T, 4, 4); None when nothing can be said.

    `masks` (T, H, W) is non-zero on moving subjects, which are left out. None means: no pair of frames turned enough
    without moving, or the pictures do not decide (no texture).
    """
    found = [
        estimate
        for first, second in usable_pairs(world_from_camera, most_pairs)
        if (estimate := _pair(frames, world_from_camera, masks, first, second)) is not None
    ]
    return summary(found)


def summary(estimates: Sequence[float]) -> FieldOfView | None:
    """Median and quartiles of estimates in degrees; None of none."""
    if not estimates:
        return None
    low, middle, high = np.percentile(estimates, (25, 50, 75))
    return FieldOfView(degrees=float(middle), quartiles=(float(low), float(high)), pairs=len(estimates))


def _motion(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """How far the camera turned (radians), moved across its view and along it (the file's metres)."""
    cosine = (np.trace(first[:3, :3].T @ second[:3, :3]) - 1) / 2
    right, down, forward = first[:3, :3].T @ (second[:3, 3] - first[:3, 3])
    return float(np.arccos(np.clip(cosine, -1, 1))), float(np.hypot(right, down)), float(abs(forward))


def _pair(frames: np.ndarray, poses: np.ndarray, masks: np.ndarray | None, first: int, second: int) -> float | None:
    """Best field of view for one pair in degrees, refined between candidates; None when no candidate stands out."""
    step = max(1, round(frames.shape[2] / _WIDTH))
    a, b = (detail(frames[index], step) for index in (first, second))
    still = np.ones(a.shape, dtype=bool) if masks is None else (masks[[first, second]] == 0).all(0)[::step, ::step]
    still = still[: a.shape[0], : a.shape[1]]
    second_from_first = poses[second, :3, :3].T @ poses[first, :3, :3]
    scores = [_agreement(a, b, still, second_from_first, degrees) for degrees in _COARSE]
    best = int(np.argmax(scores))
    if scores[best] - float(np.median(scores)) < _CLEAR or best in (0, len(_COARSE) - 1):
        return None
    fine = _COARSE[best] + _FINE
    scores = [_agreement(a, b, still, second_from_first, degrees) for degrees in fine]
    best = int(np.argmax(scores))
    if best in (0, len(fine) - 1):
        return float(fine[best])
    left, middle, right = scores[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(fine[best] + (0.5 * (left - right) / bend if bend < 0 else 0.0) * (fine[1] - fine[0]))


def detail(frame: np.ndarray, step: int) -> np.ndarray:
    """Grey picture of every `step` x `step` pixels, less its surroundings: brightness changes do not count."""
    from scipy.ndimage import gaussian_filter

    rows, columns = (side // step * step for side in frame.shape[:2])
    grey = frame[:rows, :columns].astype(np.float64).mean(-1)
    small = grey.reshape(rows // step, step, columns // step, step).mean((1, 3))
    return gaussian_filter(small, 0.8) - gaussian_filter(small, 6.0)


def _agreement(a: np.ndarray, b: np.ndarray, still: np.ndarray, second_from_first: np.ndarray, degrees: float) -> float:
    """Correlation of picture b with picture a turned into its place, where they overlap; 0 when they hardly do."""
    from scipy.ndimage import map_coordinates

    height, width = a.shape
    focal = focal_length(np.deg2rad(degrees), width)
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)], -1)
    turned = rays @ second_from_first  # rays of b's pixels, in a's axes: R^T applied to each
    ahead = turned[..., 2] > 0.1
    depth = np.where(ahead, turned[..., 2], 1.0)
    column = turned[..., 0] / depth * focal + width / 2 - 0.5
    row = turned[..., 1] / depth * focal + height / 2 - 0.5
    inside = ahead & (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1) & still
    if inside.mean() < _LEAST_OVERLAP:
        return 0.0
    moved = map_coordinates(a, [row[inside], column[inside]], order=1)
    here = b[inside]
    moved, here = moved - moved.mean(), here - here.mean()
    size = float(np.sqrt((moved**2).sum() * (here**2).sum()))
    return float((moved * here).sum() / size) if size > 0 else 0.0
