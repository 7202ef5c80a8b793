"""Place: light, ground and lamps of one or several clips as tensors, a column per clip.

Rays of several clips are shaded together: what a ray needs to know of its clip is picked by the clip's number. Of a
single clip nothing is picked: its one column broadcasts, with the same results to the last bit.
Shape letters: C clips, n rays, L lamps of the clip that has most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmcli.world.space.light import Lamp, Light
from hmcli.world.space.shapes import PATTERNS, Colour, Paint, Patch
from hmcli.world.staging.clip import ClipDescription

_NOWHERE = Patch(centre=(1e9, 1e9), half=(1.0, 1.0), paint=Paint(colour=(0.0, 0.0, 0.0)))
_DARK = Lamp(place=(0.0, 0.0, 1e6), colour=(0.0, 0.0, 0.0), strength=0.0)


@dataclass(frozen=True, kw_only=True)
class Air:
    """Light in the open, for each ray or for all: colours are linear light (3, n), the rest (n,); n may be 1.

    As in hmcli.world.space.light.Light, with `clear` instead of its strength: how bright the sky itself looks.
    """

    towards_sun: Tensor
    sun: Tensor
    fill: Tensor
    zenith: Tensor
    horizon: Tensor
    towards_orb: Tensor
    orb: Tensor
    sun_strength: Tensor
    sky_strength: Tensor
    sky_bright: Tensor
    cloud: Tensor
    cloud_light: Tensor
    haze: Tensor
    stars: Tensor
    orb_radius: Tensor


_WIDE = ("towards_sun", "sun", "fill", "zenith", "horizon", "towards_orb", "orb")


def _air_numbers(light: Light) -> list[float]:
    bright = light.sky_strength * 0.55 + 0.55
    white = min(1.0, max(light.horizon) ** 2 * 2)  # clouds are white by day; at night hardly brighter than the sky
    colours = [value * value for colour in (light.sun, light.fill, light.zenith, light.horizon) for value in colour]
    return [
        *light.towards_sun, *colours, *light.towards_orb, *_linear(light.orb), light.sun_strength,
        light.sky_strength, bright, light.cloud, 0.95 * bright * white, light.haze, light.stars, light.orb_radius,
    ]  # fmt: skip


def _linear(colour: Colour) -> list[float]:
    """A display colour as linear light."""
    return [value * value for value in colour]


@dataclass(frozen=True, kw_only=True)
class Painted:
    """Paint at n points: linear colours (3, n), the rest (n,)."""

    colour: Tensor
    second: Tensor
    scale: Tensor
    glow: Tensor
    gloss: Tensor
    pattern: Tensor  # uint8


@dataclass(frozen=True, kw_only=True)
class Places:
    """Made by `places_of`."""

    air_KC: Tensor
    outline_C: tuple[Tensor, ...]  # per patch (5, C): centre, half size, round or not
    paint: Tensor  # (10, C * paints): colours, scale, glow, gloss of the ground, then of its patches, clip by clip
    pattern: Tensor  # (C * paints,) uint8
    lamps: tuple[Tensor, ...]  # each (7, C): place, colour, strength
    clouds: bool  # does any clip have them?
    stars: bool
    orbs: bool
    gloss: bool

    @property
    def clips(self) -> int:
        return self.air_KC.shape[1]

    def air(self, clip_n: Tensor | None) -> Air:
        """Of each ray's clip; of the only clip when there is one."""
        columns, found, first = _picked(self.air_KC, clip_n), {}, 0
        for field in fields(Air):
            found[field.name] = columns[first : first + 3] if field.name in _WIDE else columns[first]
            first += 3 if field.name in _WIDE else 1
        return Air(**found)

    def ground(self, point_3n: Tensor, clip_n: Tensor | None) -> Painted:
        """The paint of the ground at points on it: that of the last patch there."""
        x, y, _ = point_3n
        which = torch.zeros_like(x, dtype=torch.uint8)
        for number, patch_5C in enumerate(self.outline_C, 1):
            middle_x, middle_y, half_x, half_y, round_ = _picked(patch_5C, clip_n)
            u, v = ((x - middle_x) / half_x).abs(), ((y - middle_y) / half_y).abs()
            inside = (u * u + v * v) * round_ + torch.maximum(u, v) * (1 - round_) < 1
            which = torch.maximum(which, inside.view(torch.uint8) * number)
        paints = len(self.outline_C) + 1
        row = which.to(torch.int64) if clip_n is None else which + clip_n * paints
        paint = self.paint.index_select(1, row)
        return Painted(
            colour=paint[:3], second=paint[3:6], scale=paint[6], glow=paint[7], gloss=paint[8],
            pattern=self.pattern.index_select(0, row),
        )  # fmt: skip

    def each_lamp(self, clip_n: Tensor | None) -> list[Tensor]:
        return [_picked(lamp, clip_n) for lamp in self.lamps]


def _picked(values_KC: Tensor, clip_n: Tensor | None) -> Tensor:
    return values_KC if clip_n is None else values_KC.index_select(1, clip_n)


def places_of(clips: Sequence[ClipDescription], device: torch.device) -> Places:
    """Tensors of some clips; those with fewer patches or lamps than another get some that change nothing."""

    def tensor(rows: list[list[float]]) -> Tensor:
        return torch.as_tensor(np.array(rows, np.float64).T.copy(), dtype=torch.float32, device=device)

    lights, grounds = [clip.light for clip in clips], [clip.scene.ground for clip in clips]
    patches = _padded([ground.patches for ground in grounds], _NOWHERE)
    paints = [
        paint
        for ground, own in zip(grounds, patches, strict=True)
        for paint in (ground.paint, *(patch.paint for patch in own))
    ]
    lit = _padded([clip.scene.lamps for clip in clips], _DARK)
    return Places(
        air_KC=tensor([_air_numbers(light) for light in lights]),
        outline_C=tuple(
            tensor([[*patch.centre, *patch.half, float(patch.round)] for patch in column])
            for column in zip(*patches, strict=True)
        ),
        paint=tensor([[*_linear(p.colour), *_linear(p.second), p.scale, p.glow, p.gloss] for p in paints]),
        pattern=torch.tensor([PATTERNS.index(p.pattern) for p in paints], dtype=torch.uint8, device=device),
        lamps=tuple(
            tensor([[*lamp.place, *_linear(lamp.colour), lamp.strength] for lamp in column])
            for column in zip(*lit, strict=True)
        ),
        clouds=any(light.cloud > 0 for light in lights),
        stars=any(light.stars > 0 for light in lights),
        orbs=any(light.orb_radius > 0 for light in lights),
        gloss=any(paint.gloss > 0 for paint in paints),
    )  # fmt: skip


def _padded(rows: Sequence[tuple[Any, ...]], filler: Any) -> list[tuple[Any, ...]]:
    longest = max(len(row) for row in rows)
    return [row + (filler,) * (longest - len(row)) for row in rows]
