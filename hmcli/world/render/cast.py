"""Casting: the nearest shape along each ray, for rays that come in small bundles.

A bundle shares its origin and spans directions base + u * right + v * down for u in `across`, v in `along`: an 8x8 tile
of pixels, or the sub-rays of one pixel. Which shapes a bundle must be tested against is a flat list of (bundle, row)
pairs, worked off kind by kind in pieces that fit the cache; the pieces do not change results.
Shape letters: G bundles, P pairs, n rays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.world.render.intersect import MISS, Coordinates, enter
from hmcli.world.render.table import Table

_PIECE = 1 << 15  # rays times shapes worked on at once on a CPU
_PIECE_CUDA = 1 << 24
_INDEX_BITS = 28
_KINDS = 5


@dataclass(frozen=True, kw_only=True)
class Bundles:
    """G bundles of len(along) x len(across) rays; vectors are (3, G) in the world."""

    frame: Tensor  # (G,) int64
    origin: Tensor
    base: Tensor
    right: Tensor
    down: Tensor
    across: Tensor
    along: Tensor

    @property
    def count(self) -> int:
        return len(self.frame)

    @property
    def rays(self) -> int:
        return len(self.across) * len(self.along)

    def directions(self) -> Tensor:
        """(3, G * rays), bundle by bundle, row by row."""
        left = self.base[:, :, None] + self.down[:, :, None] * self.along
        return (left[..., None] + (self.right[:, :, None] * self.across)[:, :, None]).reshape(3, -1)


def nearest(table: Table, bundles: Bundles, bundle_P: Tensor, row_P: Tensor) -> tuple[Tensor, Tensor]:
    """t and row of the nearest shape, each (G, rays); t is MISS and the row -1 where there is none."""
    far = int(torch.tensor(MISS, dtype=torch.float32).view(torch.int32).item()) << _INDEX_BITS
    best = torch.full((bundles.count, bundles.rays), far, dtype=torch.int64, device=table.device)
    for bundle, row, t in _hits(table, bundles, bundle_P, row_P):
        # positive floats order like their bits, so one integer minimum finds the nearest t and breaks ties by row
        key = t.view(torch.int32).to(torch.int64).bitwise_left_shift_(_INDEX_BITS).bitwise_or_(row[:, None])
        best.scatter_reduce_(0, bundle[:, None].expand(-1, bundles.rays), key, "amin")
    t = (best >> _INDEX_BITS).to(torch.int32).view(torch.float32)
    return t, torch.where(best < far, best & ((1 << _INDEX_BITS) - 1), -1)


def alone(table: Table, bundles: Bundles, bundle_P: Tensor, row_P: Tensor, owners: int) -> Tensor:
    """(owners, G, rays) bool: does a ray meet any shape of owner 1, 2, ..., whatever stands before it?"""
    met = torch.zeros(owners * bundles.count, bundles.rays, device=table.device)
    owned = (table.owner.index_select(0, row_P) > 0).nonzero()[:, 0]
    for bundle, row, t in _hits(table, bundles, bundle_P[owned], row_P[owned]):
        place = (table.owner.index_select(0, row).to(torch.int64) - 1) * bundles.count + bundle
        met.index_add_(0, place, (t < MISS).to(torch.float32))
    return (met > 0).reshape(owners, bundles.count, bundles.rays)


def blocked(table: Table, start_3n: Tensor, towards_3R: Tensor, point_P: Tensor, row_P: Tensor) -> Tensor:
    """(n,) number of shapes on the way from each point; `towards` is a direction in the shapes' coordinates."""
    found = torch.zeros(start_3n.shape[1], device=table.device)
    for kind, chosen in _pieces(table, row_P, 1):
        point, row = point_P.index_select(0, chosen), row_P.index_select(0, chosen)
        shape, towards = table.geometry.index_select(1, row), towards_3R.index_select(1, row)
        origin = turned(shape[:9], start_3n.index_select(1, point) - shape[9:12])
        t = enter(kind, origin, (towards[0], towards[1], towards[2]), (shape[12], shape[13], shape[14]))
        found.index_add_(0, point, (t < MISS).to(torch.float32))
    return found


def _hits(table: Table, bundles: Bundles, bundle_P: Tensor, row_P: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Bundle, row and t (pairs, rays), piece by piece."""
    rays = torch.cat([bundles.origin, bundles.base, bundles.right, bundles.down])
    for kind, chosen in _pieces(table, row_P, bundles.rays):
        bundle, row = bundle_P.index_select(0, chosen), row_P.index_select(0, chosen)
        shape = table.geometry.index_select(1, row)
        origin, direction = _local_rays(bundles, rays.index_select(1, bundle), shape)
        size = shape[12:, :, None, None]
        t = enter(kind, origin, direction, (size[0], size[1], size[2]))
        yield bundle, row, t.reshape(len(row), -1)


def _pieces(table: Table, row_P: Tensor, rays: int) -> Iterator[tuple[int, Tensor]]:
    """Kinds, and the numbers of some pairs of that kind."""
    piece = max(1, (_PIECE if table.device.type == "cpu" else _PIECE_CUDA) // rays)
    kind, order = table.kind.index_select(0, row_P).sort()
    for number, chosen in enumerate(order.split(torch.bincount(kind, minlength=_KINDS).tolist())):
        for some in chosen.split(piece):
            if len(some):
                yield number, some


def _local_rays(bundles: Bundles, rays: Tensor, shape: Tensor) -> tuple[Coordinates, Coordinates]:
    """Origins (P, 1, 1) and directions (P, lines, columns) in the shapes' coordinates, from gathered columns."""
    to_local = shape[:9]
    origin = turned(to_local, rays[:3] - shape[9:12])
    base, right, down = (turned(to_local, rays[i : i + 3]) for i in (3, 6, 9))
    x, y, z = (
        (b[:, None] + d[:, None] * bundles.along)[:, :, None] + (r[:, None] * bundles.across)[:, None, :]
        for b, r, d in zip(base, right, down, strict=True)
    )
    return (origin[0][:, None, None], origin[1][:, None, None], origin[2][:, None, None]), (x, y, z)


def turned(matrix_9n: Tensor, vector_3n: Tensor) -> Coordinates:
    """Matrix times vector by plain multiply and add: batched products may round differently from size to size."""
    x, y, z = vector_3n
    a, b, c = (matrix_9n[i] * x + matrix_9n[i + 1] * y + matrix_9n[i + 2] * z for i in (0, 3, 6))
    return a, b, c
