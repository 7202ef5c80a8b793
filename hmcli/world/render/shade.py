"""Shading: colour of what each ray met, in linear light, then as display RGB.

Vectors are (3, n) here. Sun with shadows, sky light from above, light thrown back by the ground, lamps, things that
glow, ground that mirrors the sky, haze. Rays are put in order of what they met, so that each kind of thing is worked on
as one stretch: that is much faster than a choice for every ray. Every ray's colour is computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.world.render.bins import ShadowCells, shadow_pairs
from hmcli.world.render.cast import blocked, turned
from hmcli.world.render.intersect import MISS
from hmcli.world.render.patterns import Noise, Surface, second_share
from hmcli.world.render.place import Air, Painted, Places
from hmcli.world.render.sky import dot, sky, sky_gradient
from hmcli.world.render.table import Table
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, ROUND_CONE

GROUND, SKY = -2, -1  # in place of a row of the table
_LIFT = 2.0e-3  # metres a shadow ray starts above its surface


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What shading needs besides the rays: everything of some frames. F frames, R rows of the table."""

    table: Table
    places: Places
    noise: Noise
    clip_F: Tensor | None  # (F,) int64 number of the frame's clip among the places; None when there is only one
    eye: Tensor  # (3, F): where the camera stands
    spread: float  # width of a pixel at distance 1
    shadows: tuple[ShadowCells, ...]
    sunward: Tensor  # (3, R): the direction towards the sun, in the shapes' coordinates
    top: Tensor  # (R,): how far each shape reaches towards the sun, metres
    feet: Tensor  # (F, subjects, 3): x, y on the ground and radius of the contact shade, metres

    def clips(self, frame_n: Tensor) -> Tensor | None:
        return None if self.clip_F is None else self.clip_F.index_select(0, frame_n)


@dataclass(frozen=True, kw_only=True)
class Hits:
    """n rays and what they met: row of the table, GROUND or SKY."""

    frame: Tensor  # (n,) int64
    direction: Tensor  # (3, n), any length
    t: Tensor  # (n,)
    row: Tensor  # (n,) int64

    def picked(self, chosen: Tensor) -> Hits:
        return Hits(
            frame=self.frame.index_select(0, chosen), direction=self.direction.index_select(1, chosen),
            t=self.t.index_select(0, chosen), row=self.row.index_select(0, chosen),
        )  # fmt: skip

    def part(self, first: int, last: int) -> Hits:
        return Hits(
            frame=self.frame[first:last], direction=self.direction[:, first:last], t=self.t[first:last],
            row=self.row[first:last],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Matter:
    """What surfaces are at n points: albedo and normal in the world (3, n), glow and gloss (n,)."""

    albedo: Tensor
    normal: Tensor
    glow: Tensor
    gloss: Tensor


def with_ground(origin_z: Tensor, direction_z: Tensor, t: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Put the ground plane behind the shapes; t stays MISS for the sky."""
    level = -origin_z / direction_z.clamp_max(-1e-6)
    ground = (direction_z < -1e-6) & (level < t)
    return torch.where(ground, level, t), torch.where(ground, GROUND, row)


def shade(stage: Stage, hits: Hits) -> Tensor:
    """(3, n) display RGB in [0, 1]."""
    order, counts = _order(stage.table, hits.row)
    hits, sky_rays = hits.picked(order), counts[0]
    above, below = hits.part(0, sky_rays), hits.part(sky_rays, len(order))
    clip = stage.clips(above.frame)
    open_sky = sky(stage.places, clip, stage.noise.of(clip), above.direction, stage.spread)
    colour = display(torch.cat([open_sky, _solid(stage, below, counts[1:])], 1))
    back = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=order.device))
    return colour.index_select(1, back)


def _order(table: Table, row: Tensor) -> tuple[Tensor, list[int]]:
    """An order of rays, and how many of them met the sky, the ground, a box, an ellipsoid, ... (as shapes count)."""
    classes = torch.cat([torch.tensor([1, 0], dtype=torch.uint8, device=row.device), table.kind + 2])
    found, order = classes.index_select(0, row + 2).sort()
    return order, torch.bincount(found, minlength=7).tolist()


def display(light: Tensor) -> Tensor:
    """Linear light to display values: a shoulder for bright parts and gamma 2 (a square root is exact everywhere)."""
    return (light * (1 + light * 0.25) / (1 + light)).mul(1.45).clamp(0, 1).sqrt()


def _solid(stage: Stage, hits: Hits, counts: list[int]) -> Tensor:
    """Linear light of rays that met the ground (the first `counts[0]`) or a shape, kind by kind."""
    clip = stage.clips(hits.frame)
    air = stage.places.air(clip)
    length = dot(hits.direction, hits.direction).sqrt()
    point = stage.eye.index_select(1, hits.frame) + hits.direction * hits.t
    matter = surfaces(stage, hits, clip, point, length, counts)
    lit = lighting(stage, air, hits, clip, point, matter, counts[0]) + matter.albedo * matter.glow
    if stage.places.gloss:
        mirror(stage, hits.part(0, counts[0]), clip, point, matter, lit)
    thick = hits.t * length * air.haze
    clear = 1 / (1 + thick * thick)  # a rational haze: the same on every device
    return lit * clear + (air.horizon * air.sky_bright) * (1 - clear)


# --- what surfaces are -----------------------------------------------------------------------------------------------


def surfaces(stage: Stage, hits: Hits, clip: Tensor | None, point: Tensor, length: Tensor, counts: list[int]) -> Matter:
    level, table = counts[0], stage.table
    ground = stage.places.ground(point[:, :level], None if clip is None else clip[:level])
    row = hits.row[level:]
    shape = table.geometry.index_select(1, row)
    metric, own, normal = _on_shapes(shape, point[:, level:], counts[1:])
    paint, away = table.paint.index_select(1, row), hits.t * length * stage.spread
    slope = (length[:level] / hits.direction[2, :level].abs().clamp_min(1e-6)).clamp_max(12).sqrt()
    up = torch.zeros_like(point[:, :level])
    up[2] = 1
    solid = Painted(
        colour=paint[:3], second=paint[3:6], scale=paint[6], glow=paint[7], gloss=torch.zeros_like(paint[7]),
        pattern=table.pattern.index_select(0, row),
    )  # fmt: skip
    every = {name: torch.cat([getattr(ground, name), getattr(solid, name)], -1) for name in vars(solid)}
    pattern = every["pattern"]
    surface = Surface(
        position=torch.cat([point[:, :level], metric], 1), normal=torch.cat([up, own], 1), period=every["scale"],
        pixel=torch.cat([away[:level] * slope, away[level:]]), noise=stage.noise.of(clip),
    )  # fmt: skip
    share = second_share(pattern, surface)
    return Matter(
        albedo=every["colour"] + (every["second"] - every["colour"]) * share,
        normal=torch.cat([up, normal], 1),
        glow=every["glow"] * torch.maximum(share, (pattern == 0).to(share.dtype)),
        gloss=every["gloss"],
    )


def _on_shapes(shape_15n: Tensor, point: Tensor, counts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Points in metres of the shapes' own frames, unit normals there and in the world; `counts`: points by kind."""
    to_local, size = shape_15n[:9], shape_15n[12:]
    local = torch.stack(turned(to_local, point - shape_15n[9:12]))
    metric, own, first = torch.empty_like(local), torch.empty_like(local), 0
    stretch = size.clone()
    for kind, count in enumerate(counts):
        some = slice(first, first + count)
        if kind == ROUND_CONE:
            stretch[:, some] = 1
        metric[:, some] = local[:, some] * stretch[:, some]
        own[:, some] = _NORMALS[kind](local[:, some], size[:, some])
        first += count
    own = own / dot(own, own).sqrt().clamp_min(1e-9)
    x, y, z = own * stretch  # the columns of the matrix back are the rows of `to_local` times the stretch
    normal = [to_local[i] * x + to_local[3 + i] * y + to_local[6 + i] * z for i in range(3)]
    return metric, own, torch.stack(normal)


def _box_normal(local: Tensor, size: Tensor) -> Tensor:
    steep = local.abs()
    return local.sign() * (steep >= steep.amax(0))


def _ellipsoid_normal(local: Tensor, size: Tensor) -> Tensor:
    return local / size


def _round_cone_normal(metric: Tensor, size: Tensor) -> Tensor:
    x, y, z = metric
    radius = (x * x + y * y).sqrt()
    along = ((size[2] * z + (size[0] - size[1]) * radius) / size[2]).clamp_min(0)
    return torch.stack([x, y, z - torch.minimum(along, size[2])])


def _cylinder_normal(local: Tensor, size: Tensor) -> Tensor:
    x, y, z = local
    cap = z.abs() > (x * x + y * y).sqrt().clamp_min(0.999)
    wall = ~cap
    return torch.stack([x / size[0] * wall, y / size[1] * wall, z.sign() * cap])


def _cone_normal(local: Tensor, size: Tensor) -> Tensor:
    x, y, z = local
    wall = z >= -0.999
    radius = (x * x + y * y).sqrt() * size[0]
    return torch.stack([x * wall, y * wall, radius / (2 * size[2]) * wall + z.sign() * ~wall])


_NORMALS: dict[int, Callable[[Tensor, Tensor], Tensor]] = {
    BOX: _box_normal, ELLIPSOID: _ellipsoid_normal, ROUND_CONE: _round_cone_normal, CYLINDER: _cylinder_normal,
    CONE: _cone_normal,
}  # fmt: skip


# --- what light falls on them ----------------------------------------------------------------------------------------


def lighting(
    stage: Stage, air: Air, hits: Hits, clip: Tensor | None, point: Tensor, matter: Matter, level: int
) -> Tensor:
    """Linear light (3, n) that surfaces send back; the first `level` are ground."""
    normal = matter.normal
    facing = dot(normal, air.towards_sun)
    sunlight = facing.clamp_min(0)
    bright = (facing > 0).nonzero()[:, 0]
    start = (point + normal * _LIFT).index_select(1, bright)
    dark = in_shadow(stage, start, hits.frame.index_select(0, bright), hits.row.index_select(0, bright))
    sunlight.index_copy_(0, bright, sunlight.index_select(0, bright) * (dark == 0))
    upward = normal[2] * 0.5 + 0.5
    sky_light = air.zenith * 0.55 + air.horizon * 0.45
    ambient = sky_light * (upward * air.sky_strength) + (1 - upward) * (air.sky_strength * 0.16)
    ambient = ambient + air.fill * (0.6 + 0.4 * upward)
    shaded = contact(stage, hits.frame[:level], point[:, :level])
    ambient[:, :level] *= shaded
    direct = air.sun * (sunlight * air.sun_strength)
    for lamp in stage.places.each_lamp(clip):
        direct = direct + lamp[3:6] * lamp_light(lamp, point, normal)
    return matter.albedo * (direct + ambient)


def lamp_light(lamp: Tensor, point: Tensor, normal: Tensor) -> Tensor:
    """(n,) linear light that falls on surfaces, also a little on those that look past the lamp."""
    x, y, z = (point[i] - lamp[i] for i in range(3))
    square = x * x + y * y + z * z + 0.05
    facing = (normal[0] * x + normal[1] * y + normal[2] * z) / square.sqrt()
    return (0.25 - 0.75 * facing).clamp_min(0) * (lamp[6] / (square + 1))


def mirror(stage: Stage, hits: Hits, clip: Tensor | None, point: Tensor, matter: Matter, lit: Tensor) -> None:
    """Lay the sky's mirror image over wet and polished ground, in place; hits are those on the ground."""
    shiny = (matter.gloss[: len(hits.t)] > 0).nonzero()[:, 0]
    hits, clip = hits.picked(shiny), None if clip is None else clip.index_select(0, shiny)
    flat = 1 - hits.direction[2].abs() / dot(hits.direction, hits.direction).sqrt()
    share = matter.gloss.index_select(0, shiny) * (0.05 + 0.95 * (flat * flat) * (flat * flat))
    x, y = point[0].index_select(0, shiny), point[1].index_select(0, shiny)
    calm = 1 / (1 + hits.t * 0.06)
    sway = (stage.noise.of(clip)(x * 0.6, y * 1.5) - 0.5) * 0.25 * calm
    above = sky_gradient(stage.places.air(clip), (1 - flat + sway).abs())
    lit[:, shiny] = lit.index_select(1, shiny) * (1 - share) + above * share


def in_shadow(stage: Stage, start: Tensor, frame: Tensor, row: Tensor) -> Tensor:
    """(n,) how many shapes keep the sun off these points, which lie on the sunny sides of the shapes `row`."""
    clip = stage.clips(frame)
    height = dot(start, stage.places.air(clip).towards_sun)
    dark = torch.zeros_like(height)
    for cells in stage.shadows:
        point, other = shadow_pairs(cells, start, frame)
        higher = stage.top.index_select(0, other) > height.index_select(0, point)
        possible = (higher & (other != row.index_select(0, point))).nonzero()[:, 0]  # all shapes are convex
        pairs = point.index_select(0, possible), other.index_select(0, possible)
        dark += blocked(stage.table, start, stage.sunward, *pairs)
    return dark


def contact(stage: Stage, frame: Tensor, point: Tensor) -> Tensor:
    """Share of sky light left on the ground below subjects."""
    left = torch.ones_like(point[0])
    for feet in stage.feet.unbind(1):
        x, y, radius = feet.T.contiguous().index_select(1, frame)
        away = ((point[0] - x) * (point[0] - x) + (point[1] - y) * (point[1] - y)) / (radius * radius)
        left = left * (1 - 0.55 * (1 - away).clamp_min(0))
    return left


def depth_of(t: Tensor) -> Tensor:
    """Depth in metres along the camera's forward axis; infinite for the sky."""
    return torch.where(t < MISS, t, torch.inf)
