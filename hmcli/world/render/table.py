"""The shapes of some frames as flat tensors, one row per shape.

Shape letters: R rows. Row order: shape by shape within a frame, frame by frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from hmcli.world.space.shapes import ELLIPSOID, PATTERNS, ROUND_CONE, Shapes, bounding_boxes, corners


@dataclass(frozen=True, kw_only=True)
class Table:
    """Float32 columns for casting and shading, and float64 bounds that say where shapes can be at all."""

    geometry: Tensor  # (15, R): matrix from world vectors to the shape's (unit) coordinates row by row, centre, size
    paint: Tensor  # (8, R): linear colour, linear second colour, scale, glow
    kind: Tensor  # (R,) uint8
    pattern: Tensor  # (R,) uint8
    owner: Tensor  # (R,) uint8
    shadow: Tensor  # (R,) bool
    corners: Tensor  # (R, 8, 3) float64, metres
    middle: Tensor  # (R, 3) float64: the bounding ball's centre, metres
    radius: Tensor  # (R,) float64

    @property
    def device(self) -> torch.device:
        return self.kind.device

    def rows(self, some: slice) -> Table:
        return Table(**{name: getattr(self, name)[(..., some) if name in _WIDE else some] for name in _NAMES})


_NAMES = tuple(field.name for field in fields(Table))
_WIDE = ("geometry", "paint")  # their rows are columns


def joined_tables(parts: list[Table]) -> Table:
    every = {name: [getattr(part, name) for part in parts] for name in _NAMES}
    return Table(**{name: torch.cat(tensors, 1 if name in _WIDE else 0) for name, tensors in every.items()})


def table_of(shapes: Shapes, device: torch.device) -> Table:
    """All frames of the shapes, frame by frame."""
    count = len(shapes.kind)
    again = np.tile(np.arange(count), shapes.frames)
    axes, size = shapes.axes.reshape(-1, 3, 3), shapes.size.reshape(-1, 3)
    stretch = np.where((shapes.kind[again] == ROUND_CONE)[:, None], 1.0, size)
    to_local = (axes / stretch[:, None, :]).transpose(0, 2, 1).reshape(-1, 9)
    paints = np.array([(*p.colour, *p.second, p.scale, p.glow) for p in shapes.paints]).reshape(-1, 8)
    paints[:, :6] **= 2  # display values to linear light
    middle, half = bounding_boxes(shapes)
    ball = np.where(np.isin(shapes.kind, (ELLIPSOID, ROUND_CONE)), half.max(-1), np.linalg.norm(half, axis=-1))

    def tensor(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=device)

    def constant(values: list[int] | np.ndarray) -> Tensor:
        return tensor(np.array(values)[again], torch.uint8)

    return Table(
        geometry=tensor(np.concatenate([to_local, shapes.centre.reshape(-1, 3), size], 1).T, torch.float32),
        paint=tensor(paints[again].T, torch.float32),
        kind=constant(shapes.kind),
        pattern=constant([PATTERNS.index(paint.pattern) for paint in shapes.paints]),
        owner=constant(shapes.owner),
        shadow=constant([paint.shadow for paint in shapes.paints]).bool(),
        corners=tensor(corners(shapes).reshape(-1, 8, 3), torch.float64),
        middle=tensor(middle.reshape(-1, 3), torch.float64),
        radius=tensor(ball.ravel() * 1.001 + 1e-4, torch.float64),
    )
