"""Casting: the nearest shape along each ray, for rays that come in small bundles.

A bundle shares its origin and spans directions base + u * right + v * down for u in `across`, v in `along`: an 8x8 tile
of pixels, the sub-rays of one pixel, or a single shadow ray. Which shapes a bundle must be tested against is a flat
list of (bundle, shape) pairs, worked off kind by kind in pieces that fit the cache; the pieces do not change results.
"""

from __future__ import annotations

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

    def directions(self) -> Tensor:
        """(G, rays, 3), row by row."""
        base, right, down = self.base[:, None, None], self.right[:, None, None], self.down[:, None, None]
        spread = (base + down * self.along[:, None, None]) + right * self.across[:, None]
        return spread.reshape(len(self.base), self.rays, 3)


def nearest(table: Table, bundles: Bundles, bundle_P: Tensor, shape_P: Tensor) -> tuple[Tensor, Tensor]:
    """t and row of the nearest shape, each (G, rays); t is MISS and the row -1 where there is none."""
    far = torch.tensor(MISS, dtype=torch.float32).view(torch.int32).item()
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


def _hits(table: Table, bundles: Bundles, bundle_P: Tensor, shape_P: Tensor):  # type: ignore[no-untyped-def]
    """Yields (bundle, row, t (pairs, rays)) piece by piece."""
    piece = max(1, (_PIECE if table.device.type == "cpu" else _PIECE << 7) // bundles.rays)
    kind_P = table.kind.index_select(0, shape_P)
    for kind in range(5):
        for chosen in (kind_P == kind).nonzero()[:, 0].split(piece):
            if len(chosen):
                bundle, row = bundle_P.index_select(0, chosen), shape_P.index_select(0, chosen)
                origin, direction = _local_rays(table, bundles, bundle, row)
                size = table.size.index_select(0, row)[:, :, None, None].unbind(1)
                t = enter(kind, origin, direction, size)
                yield bundle, row, t.expand(-1, len(bundles.along), len(bundles.across)).reshape(len(row), -1)


def _local_rays(table: Table, bundles: Bundles, bundle: Tensor, row: Tensor) -> tuple[Coordinates, Coordinates]:
    """Origins (P, 1, 1) and directions (P, rows, columns) in the shapes' coordinates."""
    to_local = table.to_local.index_select(0, row)
    origin = turned(to_local, bundles.origin.index_select(0, bundle) - table.centre.index_select(0, row))
    base = turned(to_local, bundles.base.index_select(0, bundle))
    if bundles.rays == 1:
        return _wide(origin), _wide(base)
    right = turned(to_local, bundles.right.index_select(0, bundle))
    down = turned(to_local, bundles.down.index_select(0, bundle))
    direction = [
        (b[:, None] + d[:, None] * bundles.along)[:, :, None] + (r[:, None] * bundles.across)[:, None, :]
        for b, r, d in zip(base, right, down, strict=True)
    ]
    return _wide(origin), (direction[0], direction[1], direction[2])


def turned(matrix_P33: Tensor, vector_P3: Tensor) -> Coordinates:
    """Matrix times vector by plain multiply and add: batched products may round differently from size to size."""
    x, y, z = vector_P3.unbind(1)
    rows = [matrix_P33[:, i, 0] * x + matrix_P33[:, i, 1] * y + matrix_P33[:, i, 2] * z for i in range(3)]
    return rows[0], rows[1], rows[2]


def _wide(values: Coordinates) -> Coordinates:
    x, y, z = (value[:, None, None] for value in values)
    return x, y, z
