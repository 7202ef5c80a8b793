"""Tiles: a large frame as overlapping rectangles, worked on one by one and blended back together.

The rule is diffusers' own (each tile starts a stride after the last one and fades in over the overlap), applied per
piece of a clip so that tiles and causal chunks work together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.errors import UsageError

STRIDE_SHARE = 3, 4  # a tile starts three quarters of a tile after the one before, as in diffusers (192 of 256)


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Where tiles lie in a frame of `frame` = (height, width); `tile` and `stride` in the same units."""

    frame: tuple[int, int]
    tile: tuple[int, int]
    stride: tuple[int, int]

    @classmethod
    def cover(cls, frame: Sequence[int], tile: tuple[int, int] | None, multiple: int) -> TileGrid:
        """The grid for one frame; no tile, or one at least as large as the frame, is a single place."""
        height, width = frame
        if tile is None:
            return cls(frame=(height, width), tile=(height, width), stride=(height, width))
        part, whole = STRIDE_SHARE
        stride = tuple(side * part // whole // multiple * multiple for side in tile)
        if min(stride) < 1 or any(side % multiple for side in tile):
            raise UsageError(
                f"codec.tile={list(tile)} does not work: both sides must be multiples of 8 pixels, at least 16",
                fix="use a tile such as [256, 256]",
            )
        if height <= tile[0] and width <= tile[1]:
            stride = (height, width)
        return cls(frame=(height, width), tile=tile, stride=(stride[0], stride[1]))

    @property
    def rows(self) -> range:
        return range(0, self.frame[0], self.stride[0])

    @property
    def columns(self) -> range:
        return range(0, self.frame[1], self.stride[1])

    @property
    def places(self) -> list[tuple[int, int]]:
        """Upper left corners, row by row."""
        return [(y, x) for y in self.rows for x in self.columns]

    def cut(self, piece: Tensor) -> list[Tensor]:
        """The tiles of (..., H, W), in the order of `places`; those at the edge may be smaller."""
        return [piece[..., y : y + self.tile[0], x : x + self.tile[1]] for y, x in self.places]

    def join(self, tiles: list[Tensor], *, up: int = 1, down: int = 1) -> Tensor:
        """Blend tiles that are `up` times larger or `down` times smaller than they were cut."""
        stride_y, stride_x = (side * up // down for side in self.stride)
        overlap_y, overlap_x = (
            max(0, tile - stride) * up // down for tile, stride in zip(self.tile, self.stride, strict=True)
        )
        table = [tiles[start : start + len(self.columns)] for start in range(0, len(tiles), len(self.columns))]
        rows = []
        for i, row in enumerate(table):
            for j, tile in enumerate(row):
                if i > 0:
                    row[j] = tile = _fade(table[i - 1][j], tile, overlap_y, dim=-2)
                if j > 0:
                    row[j] = _fade(row[j - 1], tile, overlap_x, dim=-1)
            rows.append(torch.cat([tile[..., :stride_y, :stride_x] for tile in row], dim=-1))
        height, width = (side * up // down for side in self.frame)
        return torch.cat(rows, dim=-2)[..., :height, :width]


def _fade(before: Tensor, tile: Tensor, overlap: int, dim: int) -> Tensor:
    """`tile` with its first `overlap` lines faded in over the last ones of `before`."""
    overlap = min(overlap, before.shape[dim], tile.shape[dim])
    if overlap == 0:
        return tile
    share = torch.arange(overlap, device=tile.device, dtype=tile.dtype) / overlap
    share = share.view(-1, 1) if dim == -2 else share
    last, first = before.narrow(dim, before.shape[dim] - overlap, overlap), tile.narrow(dim, 0, overlap)
    mixed = last * (1 - share) + first * share
    return torch.cat([mixed, tile.narrow(dim, overlap, tile.shape[dim] - overlap)], dim=dim)
