"""Masks alone: where subjects are in the pictures of clips, before anything is lit.

They are those of hmcli/world/render/draw.py, bit by bit, for a small part of the time: nothing is shaded, and rays are
cast only in tiles in which a subject may be. Shape letters: G tiles, S tiles with a subject, P pairs of tile and row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.render.cast import alone, nearest
from hmcli.world.render.draw import frames_at_once, takes, untiled
from hmcli.world.render.reel import Take, View
from hmcli.world.render.shade import with_ground
from hmcli.world.staging.clip import ClipDescription


@dataclass(frozen=True, kw_only=True)
class Masks:
    """`instances` (T, H, W) uint8 and `amodal` (subjects, T, H, W) bool, as in RenderedClip."""

    instances: np.ndarray
    amodal: np.ndarray


def draw_masks(clip: ClipDescription, size: tuple[int, int], device: torch.device | str = "cpu") -> Masks:
    """The masks of a clip's pictures at (height, width)."""
    device = torch.device(device)
    view = View(height=size[0], width=size[1], focal=clip.focal(size[1]))
    numbers = [actor.number for actor in clip.actors]
    instances, amodal = [], []
    with torch.inference_mode():
        for parts in takes([clip], frames_at_once(size, device), device):
            take = Take([part for _, part in parts], view)
            one, other = _drawn(take, max(numbers, default=0))
            instances.append(untiled(one, view).cpu().numpy())
            amodal.append(untiled(other, view).cpu().numpy()[[number - 1 for number in numbers]])
    return Masks(instances=np.concatenate(instances), amodal=np.concatenate(amodal, 1))


def _drawn(take: Take, subjects: int) -> tuple[Tensor, Tensor]:
    """Instances (rays,) and amodal masks (subjects, rays), tile by tile."""
    lines, columns = take.view.grid
    there = torch.zeros(take.frames * lines * columns, dtype=torch.bool, device=take.device)
    there[take.bundle_P[take.table.owner.index_select(0, take.row_P) > 0]] = True
    number_S, place_G = there.nonzero()[:, 0], there.cumsum(0) - 1
    kept = there.index_select(0, take.bundle_P)
    bundle_P, row_P = place_G.index_select(0, take.bundle_P[kept]), take.row_P[kept]
    tiles = take.some_tiles(number_S)
    t, row = nearest(take.table, tiles, bundle_P, row_P)
    height = tiles.origin[2][:, None].expand(t.shape)
    _, row = with_ground(height, tiles.directions()[2].view(t.shape), t, row)
    owner = torch.cat([torch.zeros(2, dtype=torch.uint8, device=take.device), take.table.owner])
    instances = torch.zeros(len(there), t.shape[1], dtype=torch.uint8, device=take.device)
    instances[number_S] = owner.index_select(0, row.flatten() + 2).view(row.shape)
    amodal = torch.zeros(subjects, *instances.shape, dtype=torch.bool, device=take.device)
    amodal[:, number_S] = alone(take.table, tiles, bundle_P, row_P, subjects)
    return instances.flatten(), amodal.flatten(1)
