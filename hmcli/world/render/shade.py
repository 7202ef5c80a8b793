"""Shading: colour of what each ray met, in linear light, then as display RGB.

Vectors are (3, n) here. Sun with shadows, sky light from above, light thrown back by the ground, lamps, things that
glow, ground that mirrors the sky, haze.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.world import shapes
from hmcli.world.light import Lamp, Light
from hmcli.world.render.bins import ShadowBins, shadow_pairs
from hmcli.world.render.cast import Bundles, blocked
from hmcli.world.render.intersect import MISS
from hmcli.world.render.patterns import Noise, Surface, second_share
from hmcli.world.render.sky import dot, linear, sky, sky_gradient
from hmcli.world.render.table import Table

GROUND, SKY = -2, -1  # in place of a row of the table
_LIFT = 2.0e-3  # metres a shadow ray starts above its surface


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What shading needs besides the rays: everything of one chunk of frames."""

    table: Table
    ground: shapes.Ground
    light: Light
    lamps: tuple[Lamp, ...]
    noise: Noise
    shadows: tuple[ShadowBins, ...]
    feet: Tensor  # (frames, subjects, 3): x, y on the ground and radius of the contact shade, metres


@dataclass(frozen=True, kw_only=True)
class Matter:
    """What surfaces are at n points: albedo and normal in the world (3, n), glow and gloss (n,)."""

    albedo: Tensor
    normal: Tensor
    glow: Tensor
    gloss: Tensor


@dataclass(frozen=True, kw_only=True)
class Hits:
    """n rays and what they met: row of the table, GROUND or SKY."""

    frame: Tensor  # (n,) int64
    origin: Tensor  # (3, n)
    direction: Tensor  # (3, n), any length
    t: Tensor  # (n,)
    row: Tensor  # (n,)
    spread: float  # width of a pixel at distance 1


def with_ground(origin_z: Tensor, direction_z: Tensor, t: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Put the ground plane behind the shapes; t stays MISS for the sky."""
    level = -origin_z / torch.where(direction_z < -1e-6, direction_z, -1e-6)
    ground = (direction_z < -1e-6) & (level < t)
    return torch.where(ground, level, t), torch.where(ground, GROUND, row)


def shade(stage: Stage, hits: Hits) -> Tensor:
    """(3, n) display RGB in [0, 1]."""
    light = sky(stage.light, stage.noise, hits.direction, hits.spread)
    solid = (hits.row != SKY).nonzero()[:, 0]
    near = Hits(
        frame=hits.frame[solid], origin=hits.origin.index_select(1, solid),
        direction=hits.direction.index_select(1, solid), t=hits.t[solid], row=hits.row[solid], spread=hits.spread,
    )  # fmt: skip
    length = dot(near.direction, near.direction).sqrt()
    point = near.origin + near.direction * near.t
    matter = surfaces(stage, near, point, length)
    lit = lighting(stage, near, point, matter) + matter.albedo * matter.glow
    mirror(stage, near, point, matter, lit)
    thick = near.t * length * stage.light.haze
    clear = 1 / (1 + thick * thick)  # a rational haze: the same on every device
    horizon = linear(stage.light.horizon, lit) * (stage.light.sky_strength * 0.55 + 0.55)
    light[:, solid] = lit * clear + horizon * (1 - clear)
    return display(light)


def display(light: Tensor) -> Tensor:
    """Linear light to display values: a shoulder for bright parts and gamma 2 (a square root is exact everywhere)."""
    return (light * (1 + light * 0.25) / (1 + light)).mul(1.45).clamp(0, 1).sqrt()


def surfaces(stage: Stage, hits: Hits, point: Tensor, length: Tensor) -> Matter:
    albedo, normal = torch.empty_like(point), torch.empty_like(point)
    glow, gloss = torch.zeros_like(length), torch.zeros_like(length)
    solid, flat = (hits.row >= 0).nonzero()[:, 0], (hits.row == GROUND).nonzero()[:, 0]
    if len(flat):
        slope = (length / hits.direction[2].abs().clamp_min(1e-6)).clamp_max(12).sqrt()
        pixel = (hits.t * length * hits.spread * slope)[flat]
        matter = ground_matter(stage, point.index_select(1, flat), pixel)
        albedo[:, flat], glow[flat], gloss[flat] = matter[:3], matter[3], matter[4]
        normal[:, flat] = torch.tensor([[0.0], [0.0], [1.0]], device=point.device)
    if len(solid):
        row, table = hits.row[solid], stage.table
        axes = table.axes.index_select(0, row)
        away = point.index_select(1, solid) - table.centre.index_select(0, row).T
        metric = torch.stack([dot(axes[:, :, i].T, away) for i in range(3)])
        own = own_normals(table, row, metric)
        pixel = (hits.t * length)[solid] * hits.spread
        pattern = table.pattern[row]
        surface = Surface(position=metric, normal=own, period=table.scale[row], pixel=pixel, noise=stage.noise)
        share = second_share(pattern, surface)
        first, second = table.colour.index_select(0, row).T, table.second.index_select(0, row).T
        albedo[:, solid] = first + (second - first) * share
        glow[solid] = table.glow[row] * torch.where(pattern == 0, 1.0, share)
        normal[:, solid] = torch.stack([dot(axes[:, i].T, own) for i in range(3)])
    return Matter(albedo=albedo, normal=normal, glow=glow, gloss=gloss)


def own_normals(table: Table, row: Tensor, metric: Tensor) -> Tensor:
    """Unit normals (3, n) in the shapes' own frames at points given in metres there."""
    kind, stretch, size = table.kind[row], table.stretch.index_select(0, row).T, table.size.index_select(0, row).T
    unit = metric / stretch
    x, y, z = unit
    steep = unit.abs()
    side = torch.where((steep >= steep.amax(0)), unit.sign(), 0.0)
    cap = z.abs() > torch.maximum((x * x + y * y).sqrt(), torch.full_like(x, 0.999))
    flat = torch.stack([torch.zeros_like(x), torch.zeros_like(x), z.sign()])
    round_ = torch.where(cap, flat, torch.stack([x, y, torch.zeros_like(z)]) / stretch)
    radius = (x * x + y * y).sqrt() * stretch[0]
    pointed = torch.where(z < -0.999, flat, torch.stack([x, y, radius / (2 * stretch[2])]))
    nearest = ((size[2] * metric[2] + (size[0] - size[1]) * radius) / size[2]).clamp_min(0)
    axis_point = torch.minimum(nearest, size[2])
    limb = torch.stack([metric[0], metric[1], metric[2] - axis_point])
    found = torch.where(kind == shapes.BOX, side, unit / stretch)
    found = torch.where(kind == shapes.CYLINDER, round_, found)
    found = torch.where(kind == shapes.CONE, pointed, found)
    found = torch.where(kind == shapes.ROUND_CONE, limb, found)
    return found / dot(found, found).sqrt().clamp_min(1e-9)


def ground_matter(stage: Stage, point: Tensor, pixel: Tensor) -> Tensor:
    """(5, n): linear albedo, glow and gloss of the ground, patch over patch."""
    matter = _painted(stage, stage.ground.paint, point, pixel)
    for patch in stage.ground.patches:
        x = (point[0] - patch.centre[0]) / patch.half[0]
        y = (point[1] - patch.centre[1]) / patch.half[1]
        inside = (x * x + y * y < 1) if patch.round else (x.abs() < 1) & (y.abs() < 1)
        if len(chosen := inside.nonzero()[:, 0]):
            matter[:, chosen] = _painted(stage, patch.paint, point.index_select(1, chosen), pixel[chosen])
    return matter


def _painted(stage: Stage, paint: shapes.Paint, point: Tensor, pixel: Tensor) -> Tensor:
    up = torch.zeros_like(point)
    up[2] = 1
    surface = Surface(
        position=point, normal=up, period=torch.full_like(pixel, paint.scale), pixel=pixel, noise=stage.noise
    )
    number = torch.full_like(pixel, shapes.PATTERNS.index(paint.pattern), dtype=torch.int64)
    first, second = linear(paint.colour, point), linear(paint.second, point)
    share = second_share(number, surface)
    glow = paint.glow * (torch.ones_like(share) if paint.pattern == "plain" else share)
    return torch.cat([first + (second - first) * share, glow[None], torch.full_like(share, paint.gloss)[None]])


def lighting(stage: Stage, hits: Hits, point: Tensor, matter: Matter) -> Tensor:
    """Linear light (3, n) that surfaces send back."""
    normal = matter.normal
    light, sun = stage.light, torch.tensor(stage.light.towards_sun, device=point.device, dtype=torch.float32)
    facing = dot(normal, sun[:, None])
    bright = (facing > 0).nonzero()[:, 0]
    start = point.index_select(1, bright) + normal.index_select(1, bright) * _LIFT
    open_sky = ~in_shadow(stage, start.T.contiguous(), hits.frame[bright], sun)
    sunlight = torch.zeros_like(facing)
    sunlight[bright] = facing[bright] * open_sky
    upward = normal[2] * 0.5 + 0.5
    sky_light = linear(light.zenith, point) * 0.55 + linear(light.horizon, point) * 0.45
    ambient = sky_light * (upward * light.sky_strength) + (1 - upward) * (0.16 * light.sky_strength)
    ambient = ambient + linear(light.fill, point) * (0.6 + 0.4 * upward)
    ambient = ambient * contact(stage, hits, point)
    direct = linear(light.sun, point) * (sunlight * light.sun_strength)
    for lamp in stage.lamps:
        direct = direct + linear(lamp.colour, point) * lamp_light(lamp, point, normal)
    return matter.albedo * (direct + ambient)


def lamp_light(lamp: Lamp, point: Tensor, normal: Tensor) -> Tensor:
    """(n,) linear light that falls on surfaces, also a little on those that look past the lamp."""
    x, y, z = (point[i] - lamp.place[i] for i in range(3))
    square = x * x + y * y + z * z + 0.05
    facing = (normal[0] * x + normal[1] * y + normal[2] * z) / square.sqrt()
    return (0.25 - 0.75 * facing).clamp_min(0) * (lamp.strength / (square + 1))


def mirror(stage: Stage, hits: Hits, point: Tensor, matter: Matter, lit: Tensor) -> None:
    """Lay the sky's mirror image over wet and polished ground, in place."""
    shiny = (matter.gloss > 0).nonzero()[:, 0]
    if not len(shiny):
        return
    direction = hits.direction.index_select(1, shiny)
    steep = direction[2].abs() / dot(direction, direction).sqrt()
    flat = 1 - steep
    share = matter.gloss[shiny] * (0.05 + 0.95 * (flat * flat) * (flat * flat))
    x, y = point[0, shiny], point[1, shiny]
    calm = 1 / (1 + hits.t[shiny] * 0.06)
    sway = (stage.noise(x * 0.6, y * 1.5) - 0.5) * 0.25 * calm
    above = sky_gradient(stage.light, (steep + sway).abs())
    lit[:, shiny] = lit.index_select(1, shiny) * (1 - share) + above * share


def in_shadow(stage: Stage, start_n3: Tensor, frame_n: Tensor, sun: Tensor) -> Tensor:
    """(n,) bool: is the sun hidden from these points?"""
    none = torch.zeros(1, device=start_n3.device)
    towards = sun.expand(len(start_n3), 3)
    rays = Bundles(origin=start_n3, base=towards, right=towards, down=towards, across=none, along=none)
    dark = torch.zeros(len(start_n3), dtype=torch.bool, device=start_n3.device)
    for bins in stage.shadows:
        point, row = shadow_pairs(bins, start_n3, frame_n)
        dark |= blocked(stage.table, rays, point, row)
    return dark


def contact(stage: Stage, hits: Hits, point: Tensor) -> Tensor:
    """Share of sky light left on the ground below subjects."""
    left = torch.ones_like(point[0])
    for feet in stage.feet.unbind(1):
        x, y, radius = feet.index_select(0, hits.frame).unbind(1)
        away = ((point[0] - x) * (point[0] - x) + (point[1] - y) * (point[1] - y)) / (radius * radius)
        left = left * torch.where(hits.row == GROUND, 1 - 0.55 * (1 - away).clamp_min(0), 1.0)
    return left


def depth_of(t: Tensor) -> Tensor:
    """Depth in metres along the camera's forward axis; infinite for the sky."""
    return torch.where(t < MISS, t, torch.inf)
