"""Intersection: the nearest point where a ray enters each kind of shape, in the shape's own coordinates.

Rays are origin + t * direction with any length of direction; t is returned, MISS where the ray does not enter at a
t > NEAR. Coordinates come as separate x, y, z tensors that broadcast together. Boxes, ellipsoids, cylinders and cones
are unit shapes (the caller scales the ray); round cones are metric. Only + - * / and sqrt are used, so the result
does not depend on how rays are grouped; and no choices by mask, which take a CPU as long as forty additions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.world.space import shapes

MISS = 1.0e9
NEAR = 1.0e-3
_TINY = 1.0e-9

Coordinates = tuple[Tensor, Tensor, Tensor]


def enter(kind: int, origin: Coordinates, direction: Coordinates, size: Coordinates) -> Tensor:
    """t at which the rays enter a shape of this kind; `size` is used by round cones only."""
    if kind == shapes.ROUND_CONE:
        return enter_round_cone(origin, direction, *size).clamp_max_(MISS)
    return _UNIT_SHAPES[kind](origin, direction).clamp_max_(MISS)


def enter_box(origin: Coordinates, direction: Coordinates) -> Tensor:
    nearest, farthest = [], []
    for o, d in zip(origin, direction, strict=True):
        slope = 1 / _off_zero(d)
        middle, half = o * slope, slope.abs()
        nearest.append(-middle - half)
        farthest.append(half - middle)
    t_in = torch.maximum(torch.maximum(nearest[0], nearest[1]), nearest[2])
    t_out = torch.minimum(torch.minimum(farthest[0], farthest[1]), farthest[2])
    return _if_positive(torch.minimum(t_out - t_in, t_in - NEAR), t_in)


def enter_ellipsoid(origin: Coordinates, direction: Coordinates) -> Tensor:
    t, real = _first_root(_dot(direction, direction), _dot(origin, direction), _dot(origin, origin) - 1)
    return _if_positive(real, t)


def enter_cylinder(origin: Coordinates, direction: Coordinates) -> Tensor:
    """Radius 1 around z, -1 < z < 1, with flat ends."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    t, real = _first_root(dx * dx + dy * dy + _TINY, ox * dx + oy * dy, ox * ox + oy * oy - 1)
    wall = _if_positive(torch.minimum(real, 1 - (oz + t * dz).abs()), t)
    cap = (-torch.sign(dz) - oz) / _off_zero(dz)
    return torch.minimum(wall, _inside_disc(cap, origin, direction))


def enter_cone(origin: Coordinates, direction: Coordinates) -> Tensor:
    """Apex at z = 1, base of radius 1 at z = -1."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    radius, shrink = (1 - oz) * 0.5, dz * -0.5
    a = dx * dx + dy * dy - shrink * shrink
    b = ox * dx + oy * dy - radius * shrink
    c = ox * ox + oy * oy - radius * radius
    t, real = _first_root(_off_zero(a), b, c)
    wall = _if_positive(torch.minimum(real, 1 - (oz + t * dz).abs()), t)
    base = (-1 - oz) / _off_zero(dz)
    return torch.minimum(wall, _inside_disc(base, origin, direction))


def enter_round_cone(
    origin: Coordinates, direction: Coordinates, first: Tensor, last: Tensor, length: Tensor
) -> Tensor:
    """Two spheres, radius `first` at the origin and `last` at z = `length`, and the cone that touches both."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    slope = (first - last) / length  # sine of half the opening angle
    flat = 1 - slope * slope
    across_dd, across_od, across_oo = dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy
    rim, fall = first - slope * oz, slope * dz
    a = flat * across_dd - fall * fall
    t, real = _first_root(_off_zero(a), flat * across_od + fall * rim, flat * across_oo - rim * rim)
    z = oz + t * dz - slope * first
    within = torch.minimum(z, length + slope * (last - first) - z)
    t_cone = _if_positive(torch.minimum(real, within), t)
    dd, od, oo, beyond = across_dd + dz * dz, across_od + oz * dz, across_oo + oz * oz, oz - length
    t, real = _first_root(dd, od, oo - first * first)
    t_first = _if_positive(real, t)
    t, real = _first_root(dd, across_od + beyond * dz, across_oo + beyond * beyond - last * last)
    return torch.minimum(t_cone, torch.minimum(t_first, _if_positive(real, t)))


def _first_root(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Smaller root of a t^2 + 2 b t + c (the entering one); it holds where the second value is positive."""
    inside = b * b - a * c
    t = (-b - inside.clamp_min(0).sqrt_()) / a
    return t, torch.minimum(inside, t - NEAR)


def _inside_disc(t: Tensor, origin: Coordinates, direction: Coordinates) -> Tensor:
    x, y = origin[0] + t * direction[0], origin[1] + t * direction[1]
    return _if_positive(torch.minimum(1 - (x * x + y * y), t - NEAR), t)


def _if_positive(holds: Tensor, t: Tensor) -> Tensor:
    """t, which is positive wherever `holds` is, and at least MISS elsewhere."""
    return torch.maximum(t, (1 - holds.sign()) * MISS)


def _off_zero(x: Tensor) -> Tensor:
    return torch.copysign(x.abs().clamp_min_(_TINY), x)


def _dot(a: Coordinates, b: Coordinates) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


_UNIT_SHAPES = {
    shapes.BOX: enter_box,
    shapes.ELLIPSOID: enter_ellipsoid,
    shapes.CYLINDER: enter_cylinder,
    shapes.CONE: enter_cone,
}
