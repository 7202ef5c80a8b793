"""Bins: which shapes can be seen in which screen tile, and which can shade which spot of ground or wall.

Bounds are computed in float64 and padded, so that bins decide about speed only, never about pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.render.table import Bounds

_NEAR_PLANE = 0.05  # metres
_CELL = 1.0  # metres: side of a shadow cell


def screen_ranges(bounds: Bounds, world_from_camera: np.ndarray, focal: float, size: tuple[int, int]) -> np.ndarray:
    """Pixel ranges (T, N, 4) as x low, x high, y low, y high; low > high where a shape is out of sight.

    Bounding boxes are projected when they lie in front of the camera, spheres' shadows on the screen otherwise; where
    both hold the narrower wins.
    """
    height, width = size
    turn, eye = world_from_camera[:, :3, :3], world_from_camera[:, None, :3, 3]
    box = np.einsum("tnki,tij->tnkj", bounds.corners - eye[:, :, None], turn)
    ball = np.einsum("tni,tij->tnj", bounds.centre - eye, turn)
    depth = box[..., 2]
    in_front = (depth > _NEAR_PLANE).all(-1)
    hidden = (depth <= 0).all(-1)
    found = []
    for axis, extent in ((0, width), (1, height)):
        on_screen = box[..., axis] / np.maximum(depth, _NEAR_PLANE)
        low, high = _ball_range(ball[..., axis], ball[..., 2], bounds.radius)
        low = np.where(in_front, np.maximum(low, on_screen.min(-1)), low) * focal + extent / 2 - 0.01
        high = np.where(in_front, np.minimum(high, on_screen.max(-1)), high) * focal + extent / 2 + 0.01
        hidden |= (high < 0) | (low > extent)
        found += [np.clip(low, -1, extent + 1), np.clip(high, -1, extent + 1)]
    found[0] = np.where(hidden, 1e6, found[0])
    found[1] = np.where(hidden, -1e6, found[1])
    return np.stack(found, -1)


def _ball_range(across: np.ndarray, depth: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Range of tangents under which a ball is seen along one screen axis."""
    distance = np.hypot(across, depth)
    angle = np.arctan2(across, depth)
    half = np.arcsin(np.clip(radius / np.maximum(distance, 1e-9), 0, 1))
    around = (distance <= radius) | (np.abs(angle) + half > 1.5)
    limit = np.clip(angle - half, -1.5, 1.5), np.clip(angle + half, -1.5, 1.5)
    return np.where(around, -15.0, np.tan(limit[0])), np.where(around, 15.0, np.tan(limit[1]))


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Which row of the table each bundle must be tested against, sorted by bundle; `ranges` (P, 4) as given."""

    bundle: Tensor
    row: Tensor
    ranges: Tensor

    def to(self, device: torch.device) -> Pairs:
        return Pairs(bundle=self.bundle.to(device), row=self.row.to(device), ranges=self.ranges.to(device))


def tile_pairs(ranges_TN4: np.ndarray, rows_TN: np.ndarray, tile: int, grid: tuple[int, int]) -> Pairs:
    """Bundles are tiles of `tile` units a side, counted frame by frame, row by row."""
    first = np.floor(ranges_TN4[..., ::2] / tile)
    last = np.floor(ranges_TN4[..., 1::2] / tile)
    columns = (np.arange(grid[1]) >= first[..., :1]) & (np.arange(grid[1]) <= last[..., :1])
    lines = (np.arange(grid[0]) >= first[..., 1:]) & (np.arange(grid[0]) <= last[..., 1:])
    seen = lines.transpose(0, 2, 1)[:, :, None, :] & columns.transpose(0, 2, 1)[:, None, :, :]
    frame, line, column, shape = seen.nonzero()
    bundle = (frame * grid[0] + line) * grid[1] + column
    return Pairs(
        bundle=torch.as_tensor(bundle),
        row=torch.as_tensor(rows_TN[frame, shape]),
        ranges=torch.as_tensor(ranges_TN4[frame, shape], dtype=torch.float32),
    )


@dataclass(frozen=True, kw_only=True)
class ShadowBins:
    """Shapes by the cell they cover as seen from the sun: rows[start[c] : start[c] + count[c]] for cell c of a frame.

    `frames` is 1 for still shapes. Cells are counted frame by frame, v by v; `across` (2, 3) are the cells' axes.
    """

    across: np.ndarray
    low: np.ndarray  # (2,) metres
    cells: tuple[int, int]  # along v, along u
    frames: int
    start: Tensor
    count: Tensor
    rows: Tensor


def shadow_bins(bounds: Bounds, rows_TN: np.ndarray, sun: np.ndarray, device: torch.device) -> ShadowBins:
    """Sort shapes into cells of a plane that faces the sun (unit vector towards it)."""
    first = np.cross([0.0, 0.0, 1.0], sun)
    first /= np.linalg.norm(first)
    across = np.stack([first, np.cross(sun, first)])
    box = bounds.corners @ across.T
    ball = bounds.centre @ across.T
    low = np.maximum(box.min(2), ball - bounds.radius[..., None]) - 1e-3
    high = np.minimum(box.max(2), ball + bounds.radius[..., None]) + 1e-3
    origin = low.min((0, 1))
    extent = np.maximum(np.ceil((high.max((0, 1)) - origin) / _CELL).astype(int), 1)
    ranges = np.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], -1) - np.repeat(origin, 2)
    pairs = tile_pairs(ranges / _CELL, rows_TN, 1, (int(extent[1]), int(extent[0])))
    frames = len(rows_TN)
    count = torch.bincount(pairs.bundle, minlength=frames * int(extent[0] * extent[1]))
    return ShadowBins(
        across=across, low=origin, cells=(int(extent[1]), int(extent[0])), frames=frames,
        start=(count.cumsum(0) - count).to(device), count=count.to(device), rows=pairs.row.to(device),
    )  # fmt: skip


def shadow_pairs(bins: ShadowBins, points_n3: Tensor, frame_n: Tensor) -> tuple[Tensor, Tensor]:
    """(point, row) pairs to test for each of n points."""
    u, v = (
        ((points_n3[:, 0] * float(a[0]) + points_n3[:, 1] * float(a[1]) + points_n3[:, 2] * float(a[2])) - float(low))
        / _CELL
        for a, low in zip(bins.across, bins.low, strict=True)
    )
    rows, columns = bins.cells
    known = ((u >= 0) & (u < columns) & (v >= 0) & (v < rows)).nonzero()[:, 0]
    cell = v[known].to(torch.int64) * columns + u[known].to(torch.int64)
    if bins.frames > 1:
        cell = cell + frame_n[known] * (rows * columns)
    count = bins.count[cell]
    point = known.repeat_interleave(count)
    skipped = (count.cumsum(0) - count).repeat_interleave(count)
    within = torch.arange(len(point), device=point.device) - skipped
    return point, bins.rows[bins.start[cell].repeat_interleave(count) + within]
