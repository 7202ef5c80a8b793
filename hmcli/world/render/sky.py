"""Sky: what a ray meets that meets nothing else: a gradient, clouds, stars, a moon.

Vectors are (3, n) here. Only + - * / and sqrt are used, so the sky does not depend on how rays are grouped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.world.render.patterns import Noise
from hmcli.world.render.place import Air, Places

_STARS_APART = 0.07  # side of the cell of one star, as a tangent
_STAR = 0.0022  # radius of a star, as a tangent


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Product of (3, n) vectors, added in a fixed order (a reduction may choose its own)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def sky(places: Places, clip_n: Tensor | None, noise: Noise, direction: Tensor, spread: float) -> Tensor:
    """Linear light (3, n) of the sky along each ray; `spread` is the width of a pixel at distance 1."""
    air = places.air(clip_n)
    unit = direction / dot(direction, direction).sqrt()
    x, y, z = unit
    height = z.clamp(0, 1)
    colour = sky_gradient(air, height)
    if places.stars:
        colour = colour + stars(noise, unit, spread) * air.stars
    if places.orbs:
        colour = torch.where(air.orb_radius > 0, _with_orb(air, noise, unit, spread, colour), colour)
    if places.clouds:
        across = 1.6 / (height + 0.18)
        puffs = noise(x * across, y * across) * 0.65 + noise(x * across * 2.7 + 9.1, y * across * 2.7) * 0.35
        clouds = ((puffs - 0.75 + air.cloud * 0.5) * 3).clamp(0, 1) * (height * 6).clamp(0, 1) * 0.75
        clouds = clouds * (air.cloud > 0)
        colour = colour * (1 - clouds) + clouds * air.cloud_light
    return colour


def sky_gradient(air: Air, height: Tensor) -> Tensor:
    """The sky without clouds at `height`, the sine of the angle above the horizon: (3, n)."""
    blend = (height / (height + 0.22)) * 1.22
    colour = air.horizon * (1 - blend) + air.zenith * blend
    return colour * air.sky_bright


def stars(noise: Noise, unit: Tensor, spread: float) -> Tensor:
    """(n,) brightness, on the faces of a cube around the camera; stars finer than a pixel are spread over it."""
    x, y, z = unit
    along = torch.maximum(torch.maximum(x.abs(), y.abs()), z.abs())
    face = torch.where(x.abs() == along, 1 + (x > 0).float(), torch.where(y.abs() == along, 3 + (y > 0).float(), 5.0))
    u = torch.where(face < 3, y, x) / along / _STARS_APART
    v = torch.where(face < 5, z, y) / along / _STARS_APART
    left, low = u.floor(), v.floor()
    seed = left + face * 128
    aside, up = u - left - 0.2 - 0.6 * noise.at(seed, low), v - low - 0.2 - 0.6 * noise.at(seed + 57, low)
    radius = max(_STAR, spread * 0.75) / _STARS_APART
    bright = noise.at(seed, low + 91)
    shine = (1 - (aside * aside + up * up) / (radius * radius)).clamp_min(0)
    return shine * (bright * bright * bright) * min(1.0, (_STAR / spread) * 1.4)


def _with_orb(air: Air, noise: Noise, unit: Tensor, spread: float, colour: Tensor) -> Tensor:
    """A moon or planet, lit from one side, with seas and clouds of its own."""
    towards, radius = air.towards_orb, air.orb_radius.clamp_min(1e-6)
    along = dot(unit, towards)
    aside = unit - towards * along
    away = dot(aside, aside).sqrt() / radius
    disc = ((1 - away) * (radius / spread) + 0.5).clamp(0, 1) * (along > 0)
    u, v = aside[0] / radius, aside[2] / radius
    lit = (0.75 + 0.6 * v + 0.3 * u).clamp(0.04, 1)
    white = ((noise(u * 1.7 + 3.3, v * 3.1 + 8.8) - 0.5) * 4).clamp(0, 1) * 0.7
    face = air.orb * (1 - white) + white * air.orb.sqrt().amax(0)
    return colour * (1 - disc) + face * lit * disc
