"""Casting: the nearest shape along each ray, for rays that come in small bundles.

A bundle shares its origin and spans directions base + u * right + v * down for u in `across`, v in `along`: an 8x8 tile
of pixels, the sub-rays of one pixel, or a single shadow ray. Which shapes a bundle must be tested against is a flat
list of (bundle, shape) pairs, worked off kind by kind in pieces that fit the cache; the pieces do not change results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.world.render.intersect import MISS, Coordinates, enter
from hmcli.world.render.table import Table

_PIECE = 1 << 16  # rays times shapes worked on at once on a CPU
_INDEX_BITS = 28


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """G bundles of len(along) x len(across) rays; vectors are (G, 3) in the world."""

    origin: Tensor
    base: Tensor
    right: Tensor
    down: Tensor
    across: Tensor
    along: Tensor

    @property
    def rays(self) -> int:
        return len(self.across) * len(self.along)

    def columns(self) -> Tensor:
        """(12, G): origin, base, right, down."""
        return torch.cat([self.origin, self.base, self.right, self.down], 1).T.contiguous()

    def directions(self) -> Tensor:
        """(G, rays, 3), row by row."""
        base, right, down = self.base[:, None, None], self.right[:, None, None], self.down[:, None, None]
        spread = (base + down * self.along[:, None, None]) + right * self.across[:, None]
        return spread.reshape(len(self.base), self.rays, 3)


def nearest(table: Table, bundles: Bundles, bundle_P: Tensor, shape_P: Tensor) -> tuple[Tensor, Tensor]:
    """t and row of the nearest shape, each (G, rays); t is MISS and the row -1 where there is none."""
    far = int(torch.tensor(MISS, dtype=torch.float32).view(torch.int32).item())
    shape = (len(bundles.base), bundles.rays)
    best = torch.full(shape, far << _INDEX_BITS, dtype=torch.int64, device=table.device)
    for bundle, row, t in _hits(table, bundles, bundle_P, shape_P):
        # positive floats order like their bits, so one integer minimum finds the nearest t and breaks ties by row
        key = (t.view(torch.int32).to(torch.int64) << _INDEX_BITS) | (row[:, None] + 1)
        key = torch.where(t < MISS, key, far << _INDEX_BITS)
        best.scatter_reduce_(0, bundle[:, None].expand(-1, bundles.rays), key, "amin")
    t = (best >> _INDEX_BITS).to(torch.int32).view(torch.float32)
    return t, (best & ((1 << _INDEX_BITS) - 1)) - 1


def blocked(table: Table, bundles: Bundles, bundle_P: Tensor, shape_P: Tensor) -> Tensor:
    """(G,) bool: does anything lie on the bundle's only ray?"""
    dark = torch.zeros(len(bundles.base), dtype=torch.bool, device=table.device)
    for bundle, _, t in _hits(table, bundles, bundle_P, shape_P):
        dark[bundle[t[:, 0] < MISS]] = True
    return dark


def _hits(table: Table, bundles: Bundles, bundle_P: Tensor, shape_P: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Bundle, row and t (pairs, rays), piece by piece."""
    piece = max(1, (_PIECE if table.device.type == "cpu" else _PIECE << 7) // bundles.rays)
    rays, shapes = bundles.columns(), table.columns()
    kind_P = table.kind.index_select(0, shape_P)
    for kind in range(5):
        for chosen in (kind_P == kind).nonzero()[:, 0].split(piece):
            if len(chosen):
                bundle, row = bundle_P.index_select(0, chosen), shape_P.index_select(0, chosen)
                shape = shapes.index_select(1, row)
                origin, direction = _local_rays(bundles, rays.index_select(1, bundle), shape)
                size = shape[12:, :, None, None]
                t = enter(kind, origin, direction, (size[0], size[1], size[2]))
                yield bundle, row, t.expand(-1, len(bundles.along), len(bundles.across)).reshape(len(row), -1)


def _local_rays(bundles: Bundles, rays: Tensor, shape: Tensor) -> tuple[Coordinates, Coordinates]:
    """Origins (P, 1, 1) and directions (P, rows, columns) in the shapes' coordinates, from gathered columns."""
    to_local = shape[:9]
    origin = turned(to_local, rays[:3] - shape[9:12])
    base = turned(to_local, rays[3:6])
    if bundles.rays == 1:
        return _wide(origin), _wide(base)
    right, down = turned(to_local, rays[6:9]), turned(to_local, rays[9:12])
    direction = [
        (b[:, None] + d[:, None] * bundles.along)[:, :, None] + (r[:, None] * bundles.across)[:, None, :]
        for b, r, d in zip(base, right, down, strict=True)
    ]
    return _wide(origin), (direction[0], direction[1], direction[2])


def turned(matrix_9P: Tensor, vector_3P: Tensor) -> Coordinates:
    """Matrix times vector by plain multiply and add: batched products may round differently from size to size."""
    x, y, z = vector_3P
    a, b, c = (matrix_9P[i] * x + matrix_9P[i + 1] * y + matrix_9P[i + 2] * z for i in (0, 3, 6))
    return a, b, c


def _wide(values: Coordinates) -> Coordinates:
    x, y, z = (value[:, None, None] for value in values)
    return x, y, z
