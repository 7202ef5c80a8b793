"""Bins: which shapes can be seen in which screen tile, and which can shade which spot of ground or wall.

Bounds are computed in float64 and padded, so that bins decide about speed only, never about pixels.
Shape letters: E entries (a row of the table in one frame), F frames, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.world.render.table import Table

_NEAR_PLANE = 0.05  # metres
_CELL = 1.0  # metres: side of a shadow cell


def screen_ranges(table: Table, row_E: Tensor, pose_E44: Tensor, focal: float, size: tuple[int, int]) -> Tensor:
    """Pixel ranges (E, 4) as x low, x high, y low, y high; low > high where a shape is out of sight.

    Bounding boxes are projected when they lie in front of the camera, spheres' shadows on the screen otherwise; where
    both hold the narrower wins.
    """
    turn, eye = pose_E44[:, :3, :3], pose_E44[:, :3, 3]
    box = (table.corners[row_E] - eye[:, None]) @ turn
    ball = ((table.middle[row_E] - eye)[:, None] @ turn)[:, 0]
    radius, depth = table.radius[row_E], box[..., 2]
    in_front = (depth > _NEAR_PLANE).all(-1)
    hidden = (depth <= 0).all(-1)
    found = []
    for axis, extent in ((0, size[1]), (1, size[0])):
        on_screen = box[..., axis] / depth.clamp_min(_NEAR_PLANE)
        low, high = _ball_range(ball[:, axis], ball[:, 2], radius)
        low = torch.where(in_front, torch.maximum(low, on_screen.amin(-1)), low) * focal + extent / 2 - 0.01
        high = torch.where(in_front, torch.minimum(high, on_screen.amax(-1)), high) * focal + extent / 2 + 0.01
        hidden |= (high < 0) | (low > extent)
        found += [low.clamp(-1, extent + 1), high.clamp(-1, extent + 1)]
    found[0] = found[0].masked_fill(hidden, 1e6)
    found[1] = found[1].masked_fill(hidden, -1e6)
    return torch.stack(found, -1)


def _ball_range(across: Tensor, depth: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Range of tangents under which a ball is seen along one screen axis."""
    distance = torch.hypot(across, depth)
    angle = torch.atan2(across, depth)
    half = torch.asin((radius / distance.clamp_min(1e-9)).clamp(0, 1))
    around = (distance <= radius) | (angle.abs() + half > 1.5)
    low, high = ((angle + side).clamp(-1.5, 1.5).tan() for side in (-half, half))
    return low.masked_fill(around, -15.0), high.masked_fill(around, 15.0)


def covered(ranges_E4: Tensor, side: float, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Entry, line and column (P,) of every square of a grid (lines, columns) that a range touches."""
    most = torch.tensor([grid[1] - 1, grid[0] - 1], device=ranges_E4.device, dtype=ranges_E4.dtype)
    first = (ranges_E4[:, ::2] / side).floor().clamp_min(0)
    last = torch.minimum((ranges_E4[:, 1::2] / side).floor(), most)
    wide, high = (last - first + 1).clamp_min(0).to(torch.int64).unbind(1)
    count = wide * high
    entry = torch.repeat_interleave(count)
    within = torch.arange(len(entry), device=entry.device) - (count.cumsum(0) - count)[entry]
    column, line = first.clamp_max(1e6).to(torch.int64).unbind(1)
    return entry, line[entry] + within // wide[entry], column[entry] + within % wide[entry]


# --- shadows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShadowBins:
    """Rows of a table by the cell they cover as seen from the sun: rows[start[c] : start[c] + count[c]] for cell c.

    There is one grid of `lines` x `columns` cells for each frame, line by line; `frames` is 1 for still shapes.
    """

    across: Tensor  # (2, 3): the cells' axes
    low: Tensor  # (2,) metres along them
    lines: int
    columns: int
    frames: int
    start: Tensor
    count: Tensor
    rows: Tensor


def shadow_bins(table: Table, frames: int, sun_3: Tensor) -> ShadowBins:
    """Sort the shapes of a table of `frames` frames into cells of a plane that faces the sun (unit vector, float64)."""
    rows = table.shadow.nonzero()[:, 0]
    first = torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0], dtype=sun_3.dtype, device=sun_3.device), sun_3)
    first = first / first.norm()
    across = torch.stack([first, torch.linalg.cross(sun_3, first)])
    box, ball, radius = table.corners[rows] @ across.T, table.middle[rows] @ across.T, table.radius[rows]
    low = torch.maximum(box.amin(1), ball - radius[:, None]) - 1e-3
    high = torch.minimum(box.amax(1), ball + radius[:, None]) + 1e-3
    if not len(rows):
        low = high = torch.zeros(1, 2, dtype=sun_3.dtype, device=sun_3.device)
    origin = low.amin(0)
    columns, lines = ((high.amax(0) - origin) / _CELL).ceil().clamp_min(1).to(torch.int64).tolist()
    ranges = torch.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], -1) - origin.repeat_interleave(2)
    entry, line, column = covered(ranges[: len(rows)], _CELL, (lines, columns))
    row = rows[entry]
    frame = row // (len(table.kind) // frames)
    cell, order = ((frame * lines + line) * columns + column).sort(stable=True)
    count = torch.bincount(cell, minlength=frames * lines * columns)
    return ShadowBins(
        across=across.float(), low=origin.float(), lines=lines, columns=columns, frames=frames,
        start=count.cumsum(0) - count, count=count, rows=row[order],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShadowCells:
    """The shadow bins of several clips as one; per frame: the cells' axes, where they begin, and how many there are."""

    plane: Tensor  # (8, F): u axis, v axis, low u, low v; one column when all frames have the same
    shape: Tensor  # (2, F) int64: lines, columns; likewise
    first: Tensor  # (F,) int64: the frame's first cell
    start: Tensor
    count: Tensor
    rows: Tensor


def shadow_cells(bins: list[ShadowBins], frames: list[range], shift: list[int]) -> ShadowCells:
    """Put together the bins of clips of which some `frames` are wanted; `shift` is added to their rows."""
    device = bins[0].low.device
    plane = torch.stack([torch.cat([one.across.flatten(), one.low]) for one in bins], 1)
    shape = torch.tensor([[one.lines for one in bins], [one.columns for one in bins]], device=device)
    first, cells, entries = [], 0, 0
    start = []
    for one, some in zip(bins, frames, strict=True):
        grid = one.lines * one.columns
        number = torch.arange(some.start, some.stop, device=device) % one.frames
        first.append(cells + number * grid)
        start.append(one.start + entries)
        cells, entries = cells + len(one.count), entries + len(one.rows)
    if len(bins) > 1:
        part = torch.repeat_interleave(torch.tensor([len(some) for some in frames], device=device))
        plane, shape = plane.index_select(1, part), shape.index_select(1, part)
    return ShadowCells(
        plane=plane, shape=shape, first=torch.cat(first), start=torch.cat(start),
        count=torch.cat([one.count for one in bins]),
        rows=torch.cat([one.rows + by for one, by in zip(bins, shift, strict=True)]),
    )  # fmt: skip


def shadow_pairs(cells: ShadowCells, points_3n: Tensor, frame_n: Tensor) -> tuple[Tensor, Tensor]:
    """(point, row) pairs to test for each of n points."""
    plane, shape = cells.plane, cells.shape
    if plane.shape[1] > 1:
        plane, shape = plane.index_select(1, frame_n), shape.index_select(1, frame_n)
    x, y, z = points_3n
    column = ((x * plane[0] + y * plane[1] + z * plane[2] - plane[6]) / _CELL).floor().to(torch.int64)
    line = ((x * plane[3] + y * plane[4] + z * plane[5] - plane[7]) / _CELL).floor().to(torch.int64)
    inside = (column >= 0) & (column < shape[1]) & (line >= 0) & (line < shape[0])
    cell = (cells.first.index_select(0, frame_n) + line * shape[1] + column) * inside
    count = cells.count.index_select(0, cell) * inside
    point = torch.repeat_interleave(count)
    offset = cells.start.index_select(0, cell) - (count.cumsum(0) - count)
    at = torch.arange(len(point), device=point.device) + offset.index_select(0, point)
    return point, cells.rows.index_select(0, at)
