"""Smooth edges: pixels that show an edge become the mean of several sub-rays.

A sub-ray is tested against the shapes that its pixel and the eight pixels around it show. Where it meets the same shape
as one of these it takes that pixel's colour, and is shaded itself where the colour changes within one shape, or where
it meets none of their shapes.
Shape letters: F frames, E pixels at edges, S sub-rays of a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.world.render.cast import nearest
from hmcli.world.render.reel import Take
from hmcli.world.render.shade import Hits, shade, with_ground

_SUB_RAYS = 2  # per axis
_EDGE = 0.08  # difference of display brightness that counts as an edge
_PIECE, _PIECE_CUDA = 1 << 15, 1 << 21  # pixels at edges worked on at once
_AROUND = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))  # lines, columns


def smooth_edges(take: Take, row_FHW: Tensor, colour: Tensor) -> Tensor:
    """The colours (3, F, H, W) with smooth edges; `row` is what the middle of each pixel shows."""
    edge, uneven = edges(row_FHW, colour)
    height, width = row_FHW.shape[1:]
    rows, old, new = row_FHW.flatten(), colour.reshape(3, -1), colour.reshape(3, -1).clone()
    for pixel in edge.flatten().nonzero()[:, 0].split(_PIECE if take.device.type == "cpu" else _PIECE_CUDA):
        x, y, frame = pixel % width, pixel // width % height, pixel // (width * height)
        around = torch.stack([
            (frame * height + (y + down).clamp(0, height - 1)) * width + (x + right).clamp(0, width - 1)
            for down, right in _AROUND
        ])  # fmt: skip
        shown = rows.index_select(0, around.flatten()).view(around.shape)
        new.index_copy_(1, pixel, _mean(take, (frame, x, y), around, shown, uneven.flatten()[pixel], old))
    return new.view(colour.shape)


def _mean(
    take: Take, pixels: tuple[Tensor, Tensor, Tensor], around_9E: Tensor, shown_9E: Tensor, uneven_E: Tensor,
    colour: Tensor,
) -> Tensor:  # fmt: skip
    """(3, E) colours of pixels (frame, x, y) from their sub-rays; `shown` is what the pixels `around` them show."""
    frame, x, y = pixels
    offsets = (torch.arange(_SUB_RAYS, device=take.device) + 0.5) / _SUB_RAYS
    bundles = take.rays(frame, x, y, offsets)
    slot, bundle = _different(shown_9E).nonzero().unbind(1)
    t, row = nearest(take.table, bundles, bundle, shown_9E[slot, bundle])
    direction = bundles.directions()
    height = bundles.origin[2][:, None].expand(t.shape)
    t, row = with_ground(height, direction[2].view(t.shape), t, row)
    source = torch.full_like(row, -1)
    for shown, pixel in zip(shown_9E.flip(0), around_9E.flip(0), strict=True):
        source = torch.where(row == shown[:, None], pixel[:, None], source)
    own = ((source < 0) | (uneven_E[:, None] & (row == shown_9E[0][:, None]))).flatten().nonzero()[:, 0]
    light = colour.index_select(1, source.flatten().clamp_min(0))
    frames = frame[:, None].expand(t.shape).flatten()
    hits = Hits(frame=frames, direction=direction, t=t.flatten(), row=row.flatten()).picked(own)
    light.index_copy_(1, own, shade(take.stage, hits))
    rays = light.view(3, len(x), -1).unbind(2)
    total = rays[0]
    for ray in rays[1:]:  # a fixed order of addition
        total = total + ray
    return total / len(rays)


def _different(shown_9E: Tensor) -> Tensor:
    """(9, E) bool: the first place of every shape."""
    first = [shown_9E[0] >= 0]
    for number in range(1, len(shown_9E)):
        new = shown_9E[number] >= 0
        for before in range(number):
            new &= shown_9E[number] != shown_9E[before]
        first.append(new)
    return torch.stack(first)


def edges(row: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """(F, H, W) bool each: pixels with a neighbour (right, left, above, below) that shows something else; and those
    with a neighbour that shows another colour of the same."""
    bright = colour[0] * 0.3 + colour[1] * 0.6 + colour[2] * 0.1
    found, uneven = (torch.zeros_like(row, dtype=torch.bool) for _ in range(2))
    for axis in (1, 2):
        last = row.shape[axis] - 1
        one, two = (row.narrow(axis, first, last) for first in (0, 1))
        step = (bright.narrow(axis, 0, last) - bright.narrow(axis, 1, last)).abs()
        other, steep = one != two, step > _EDGE
        within = steep & ~other
        differs = within | (other & (step > _EDGE / 4))
        for first in (0, 1):
            found.narrow(axis, first, last).logical_or_(differs)
            uneven.narrow(axis, first, last).logical_or_(within)
    return found, uneven
