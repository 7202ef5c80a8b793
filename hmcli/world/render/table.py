"""The shapes of a chunk of frames as flat tensors: still shapes once, moving shapes once per frame.

Row order: the still shapes, then the moving ones of the chunk's first frame, of its second frame, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.shapes import ELLIPSOID, PATTERNS, ROUND_CONE, Shapes, bounding_boxes, corners


@dataclass(frozen=True, kw_only=True)
class Table:
    """One row per shape: `to_local` (n, 3, 3) takes world vectors to the shape's (unit) coordinates."""

    kind: Tensor
    to_local: Tensor
    axes: Tensor
    centre: Tensor
    size: Tensor
    stretch: Tensor  # (n, 3): local coordinates times this are metres
    colour: Tensor
    second: Tensor
    pattern: Tensor
    scale: Tensor
    glow: Tensor
    owner: Tensor

    @property
    def device(self) -> torch.device:
        return self.kind.device

    def columns(self) -> Tensor:
        """(15, n): what casting needs: to_local row by row, centre, size."""
        return torch.cat([self.to_local.flatten(1), self.centre, self.size], 1).T.contiguous()


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Where shapes can be at all, in float64 numpy: corners (T, N, 8, 3), sphere centres (T, N, 3) and radii (T, N)."""

    corners: np.ndarray
    centre: np.ndarray
    radius: np.ndarray


def bounds_of(shapes: Shapes) -> Bounds:
    centre, half = bounding_boxes(shapes)
    tight = np.where(np.isin(shapes.kind, (ELLIPSOID, ROUND_CONE)), half.max(-1), np.linalg.norm(half, axis=-1))
    return Bounds(corners=corners(shapes), centre=centre, radius=tight * 1.001 + 1e-4)


def table_of(still: Shapes, moving: Shapes, frames: slice, device: torch.device) -> Table:
    """The rows for one chunk of frames."""
    parts = [(still, slice(0, 1)), (moving, frames)]

    def rows(pick: str, width: tuple[int, ...]) -> np.ndarray:
        return np.concatenate([getattr(shapes, pick)[some].reshape(-1, *width) for shapes, some in parts])

    def constants(values: list[np.ndarray]) -> np.ndarray:
        count = len(range(*frames.indices(moving.frames)))
        return np.concatenate([values[0], np.concatenate([values[1]] * count)])

    def of_paints(read: str) -> np.ndarray:
        return constants([np.array([getattr(paint, read) for paint in s.paints]) for s in (still, moving)])

    axes, size = rows("axes", (3, 3)), rows("size", (3,))
    kind = constants([still.kind, moving.kind])
    stretch = np.where((kind == ROUND_CONE)[:, None], 1.0, size)
    patterns = [np.array([PATTERNS.index(paint.pattern) for paint in s.paints]) for s in (still, moving)]

    def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=device)

    return Table(
        kind=tensor(kind, torch.int64),
        to_local=tensor((axes / stretch[:, None, :]).transpose(0, 2, 1)),
        axes=tensor(axes),
        centre=tensor(rows("centre", (3,))),
        size=tensor(size),
        stretch=tensor(stretch),
        colour=tensor(of_paints("colour") ** 2),  # display values to linear light
        second=tensor(of_paints("second") ** 2),
        pattern=tensor(constants(patterns), torch.int64),
        scale=tensor(of_paints("scale")),
        glow=tensor(of_paints("glow")),
        owner=tensor(constants([still.owner, moving.owner]), torch.int64),
    )
