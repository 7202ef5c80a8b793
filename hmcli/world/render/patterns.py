"""Patterns: how much of its second colour a surface shows at a point.

Every pattern takes points in metres of the shape's own frame, normals there, a period and the size of a pixel on the
surface (metres), all flat, and returns a share in [0, 1]. Patterns finer than a pixel fade to their average, so nothing
flickers between frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hmcli.world.space.shapes import PATTERNS


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Smooth random values in [0, 1] from wrapped lattices of `side` x `side` numbers (`side` a power of two).

    There is one lattice per clip; `base` (n,) is where the lattice of each point begins, 0 when there is only one.
    """

    lattice: Tensor
    side: int
    base: Tensor | int = 0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        cell_x, cell_y = x.floor(), y.floor()
        u, v = x - cell_x, y - cell_y
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        mask = self.side - 1
        left, low = cell_x.to(torch.int32) & mask, (cell_y.to(torch.int32) & mask) * self.side
        right, high = (left + 1) & mask, (low + self.side) & (self.side * self.side - 1)
        bottom = self._value(low + left) * (1 - u) + self._value(low + right) * u
        top = self._value(high + left) * (1 - u) + self._value(high + right) * u
        return bottom * (1 - v) + top * v

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """One random value for each cell of whole numbers x, y: cells next to each other have nothing in common."""
        mixed = x.to(torch.int64) * 0x9E3779B1 + y.to(torch.int64) * 0x85EBCA77
        return self._value(((mixed >> 13) ^ mixed) & (self.side * self.side - 1))

    def _value(self, index: Tensor) -> Tensor:
        return self.lattice.index_select(0, (index + self.base).flatten()).view(index.shape)

    def of(self, clip_n: Tensor | None) -> Noise:
        """For points of these clips."""
        return self if clip_n is None else replace(self, base=(clip_n * (self.side * self.side)).to(torch.int32))

    def picked(self, chosen: Tensor) -> Noise:
        """For some of the points."""
        return self if isinstance(self.base, int) else replace(self, base=self.base.index_select(0, chosen))

    def part(self, first: int, last: int) -> Noise:
        return self if isinstance(self.base, int) else replace(self, base=self.base[first:last])


def noise_from(rng: np.random.Generator, device: torch.device, side: int = 64) -> Noise:
    values = rng.random(side * side).astype(np.float32)
    return Noise(lattice=torch.as_tensor(values, device=device), side=side)


def joined_noise(parts: list[Noise]) -> Noise:
    """The lattices of several clips."""
    return Noise(lattice=torch.cat([part.lattice for part in parts]), side=parts[0].side)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """n points: position and normal (3, n) in the shape's frame, metres; period and pixel (n,), metres."""

    position: Tensor
    normal: Tensor
    period: Tensor
    pixel: Tensor
    noise: Noise

    def flat(self) -> tuple[Tensor, Tensor]:
        """Two coordinates along the surface, chosen by the side the normal points to."""
        x, y, z = self.position
        side = self.normal.abs()
        top = (side[2] >= side[0]) & (side[2] >= side[1])
        along_x = side[0] >= side[1]
        return torch.where(top | ~along_x, x, y), torch.where(top, y, z)

    def cloudy(self, scale: Tensor | float) -> Tensor:
        """Noise without seams over a solid: two planes averaged."""
        x, y, z = self.position
        return (
            self.noise(x * scale + z * scale * 0.7, y * scale + 17.3) + self.noise(y * scale + 5.1, z * scale)
        ) * 0.5


def band(x: Tensor, share: float, blur: Tensor) -> Tensor:
    """1 over the first `share` of each unit period of x, averaged over `blur` periods."""
    blur = blur.clamp_min(1e-3)

    def up_to(a: Tensor) -> Tensor:  # integral of the band from 0 to a
        return a.floor() * share + (a - a.floor()).clamp_max(share)

    return ((up_to(x + blur * 0.5) - up_to(x - blur * 0.5)) / blur).clamp(0, 1)


def plain(s: Surface) -> Tensor:
    return torch.zeros_like(s.period)


def stripes(s: Surface) -> Tensor:
    return band(s.position[2] / s.period, 0.5, s.pixel / s.period)


def spots(s: Surface) -> Tensor:
    sharp = ((s.cloudy(1 / s.period) - 0.56) * 14 + 0.5).clamp(0, 1)
    return _faded(sharp, 0.35, s)


def bricks(s: Surface) -> Tensor:
    u, v = s.flat()
    u, v, blur = u / s.period, v / (s.period * 0.5), s.pixel / s.period
    return 1 - (1 - band(u + (v.floor() % 2) * 0.5, 0.08, blur)) * (1 - band(v, 0.14, blur * 2))


def windows(s: Surface) -> Tensor:
    u, v = s.flat()
    blur = s.pixel / s.period
    upright = (s.normal[2].abs() < 0.5).float()
    return band(u / s.period + 0.23, 0.52, blur) * band(v / (s.period * 1.25) + 0.3, 0.55, blur / 1.25) * upright


def planks(s: Surface) -> Tensor:
    u, v = s.flat()
    board = (u / s.period).floor()
    tone = s.noise(board * 7.31 + 0.5, board * 3.17 + 0.5 + v * 0.15 / s.period)
    gap = band(u / s.period, 0.10, s.pixel / s.period)
    return (_faded(tone, 0.5, s) * 0.7 + gap * 0.6).clamp(0, 1)


def mottled(s: Surface) -> Tensor:
    coarse, fine = s.cloudy(1 / s.period), s.cloudy(3.1 / s.period)
    return (_faded((coarse - 0.5) * 1.6 + 0.5, 0.5, s) * 0.6 + _faded(fine, 0.5, s, 3.1) * 0.4).clamp(0, 1)


def tiles(s: Surface) -> Tensor:
    u, v = s.flat()
    u, v, blur = u / s.period, v / s.period, s.pixel / s.period
    u = u + (v.floor() % 2) * 0.5
    joints = 1 - (1 - band(u, 0.06, blur)) * (1 - band(v, 0.06, blur))
    tone = s.noise(u.floor() * 5.37 + 0.5, v.floor() * 3.73 + 0.5)
    return (_faded(tone, 0.5, s) * 0.35 + joints * 0.65).clamp(0, 1)


def face(s: Surface) -> Tensor:
    """Hair on top and behind, judged by the normal: x is forward, z up."""
    return ((s.normal[2] * 0.9 - s.normal[0] * 0.8 - 0.05) * 8 + 0.5).clamp(0, 1)


def checks(s: Surface) -> Tensor:
    u, v = s.flat()
    blur = s.pixel / s.period
    a, b = band(u / s.period, 0.5, blur), band(v / s.period, 0.5, blur)
    return a * (1 - b) + b * (1 - a)


def front(s: Surface) -> Tensor:
    """The side that looks along x: the chest of an upright limb, the belly of a level one."""
    return ((s.normal[0] - 0.35) * 8 + 0.5).clamp(0, 1)


def tips(s: Surface) -> Tensor:
    """All that lies more than the period along z."""
    return ((s.position[2] - s.period) / s.pixel.clamp_min(1e-4) + 0.5).clamp(0, 1)


def segments(s: Surface) -> Tensor:
    """Eight wedges about z, without angles: those are not the same to the last bit everywhere."""
    x, y, _ = s.position
    sharp = s.pixel.clamp_min(1e-4)
    sides = [(edge / sharp).clamp(-1, 1) for edge in (x, y, x.abs() - y.abs())]
    return 0.5 + 0.5 * sides[0] * sides[1] * sides[2]


def net(s: Surface) -> Tensor:
    """Wide joints between staggered patches."""
    u, v = s.flat()
    u, v, blur = u / s.period, v / s.period, s.pixel / s.period
    return 1 - (1 - band(u + (v.floor() % 2) * 0.5, 0.2, blur)) * (1 - band(v, 0.2, blur))


def plaid(s: Surface) -> Tensor:
    """Broad bands both ways, twice as strong where they cross."""
    u, v = s.flat()
    blur = s.pixel / s.period
    return (band(u / s.period, 0.45, blur) + band(v / s.period, 0.45, blur)) * 0.5


def ribs(s: Surface) -> Tensor:
    """Upright bars; on the ground, stripes along y."""
    return band(s.flat()[0] / s.period, 0.5, s.pixel / s.period)


def rings(s: Surface) -> Tensor:
    """Thin rings around z."""
    return band(s.position[2] / s.period, 0.10, s.pixel / s.period)


def waves(s: Surface) -> Tensor:
    """Crests of water, long across x."""
    x, y, z = s.position
    swell = s.noise(x / (s.period * 2.6), (y + z) / s.period)
    chop = s.noise(x / (s.period * 0.9) + 7.7, (y + z) / (s.period * 0.37))
    return (_faded(swell, 0.5, s) * 0.6 + _faded(chop, 0.5, s, 3.0) * 0.4).mul(2.2).sub(0.6).clamp(0, 1)


def ripples(s: Surface) -> Tensor:
    """Wind-blown bands that wander."""
    x, y, z = s.position
    bend = s.noise(x / (s.period * 5), y / (s.period * 5)) * 5
    wave = (y + z) / s.period + x / (s.period * 4) + bend
    fold = (wave - wave.floor() - 0.5).abs() * 2
    return _faded(fold * fold * (3 - 2 * fold), 0.5, s)


def strata(s: Surface) -> Tensor:
    """Layers of rock: each its own tone, bent a little."""
    x, y, z = s.position
    level = z / s.period + s.noise(x / (s.period * 6), y / (s.period * 6)) * 1.6
    layer, within = level.floor(), level - level.floor()
    tone, above = s.noise.at(layer, layer * 0), s.noise.at(layer + 1, layer * 0)
    soft = ((within - 0.75) * 4).clamp(0, 1)
    seam = (1 - (within - 0.12).abs() * 9).clamp_min(0) * 0.5
    broad = tone * (1 - soft) + above * soft
    return (_faded((broad - 0.5) * 1.5 + 0.5 - seam, 0.4, s) + (s.cloudy(0.6 / s.period) - 0.5) * 0.3).clamp(0, 1)


def lit_windows(s: Surface) -> Tensor:
    """Windows at night: about half of them are lit."""
    u, v = s.flat()
    u, v, blur = u / s.period, v / (s.period * 1.2), s.pixel / s.period
    lit = _faded((s.noise.at(u.floor(), v.floor()) < 0.5).float(), 0.5, s, 0.6)
    upright = (s.normal[2].abs() < 0.5).float()
    return band(u + 0.81, 0.62, blur) * band(v + 0.79, 0.58, blur / 1.2) * lit * upright  # in the middle of cells


def craters(s: Surface) -> Tensor:
    """Bowls of several sizes: dark inside, with a bright rim (0 dark, 1 bright)."""
    share = _faded((s.cloudy(0.8 / s.period) - 0.5) * 0.5 + 0.5, 0.5, s)
    for finer, shift in ((1.0, 0.0), (2.3, 31.0)):
        u, v = s.position[0] * finer / s.period + shift, s.position[1] * finer / s.period + shift
        x, y = u.floor(), v.floor()
        size = 0.14 + 0.24 * s.noise.at(x + 5, y)
        middle_u, middle_v = 0.4 + 0.2 * s.noise.at(x, y + 9), 0.4 + 0.2 * s.noise.at(x + 3, y + 3)
        away = ((u - x - middle_u).square() + (v - y - middle_v).square()).sqrt() / size
        bowl = ((1 - away) * 6).clamp(0, 1) * -0.42 + (1 - (away - 1.08).abs() * 5).clamp_min(0) * 0.40
        share = share + bowl * (1.6 - s.pixel * finer / s.period * 6).clamp(0, 1)
    return share.clamp(0, 1)


def cobbles(s: Surface) -> Tensor:
    """Rounded stones in staggered rows, each with its own tone."""
    u, v = s.flat()
    u, v = u / s.period, v / (s.period * 0.7)
    u = u + (v.floor() % 2) * 0.5
    x, y = (u - u.floor() - 0.5) * 2, (v - v.floor() - 0.5) * 2
    joint = (((x * x) * (x * x) + (y * y) * (y * y) - 0.45) * 2.2).clamp(0, 1)
    tone = s.noise.at(u.floor(), v.floor())
    return (_faded(tone, 0.5, s) * 0.5 + _faded(joint, 0.3, s, 2.0) * 0.7).clamp(0, 1)


def litter(s: Surface) -> Tensor:
    """Fallen leaves, lying thicker in places."""
    u, v = s.flat()
    u, v = u / s.period, v / s.period
    x, y = u.floor(), v.floor()
    aside, up = u - x - 0.3 - 0.4 * s.noise.at(x + 11, y), v - y - 0.3 - 0.4 * s.noise.at(x, y + 5)
    slant = (s.noise.at(x + 2, y + 7) - 0.5) * 1.6
    far = (aside + up * slant).square() * 2.2 + (up - aside * slant).square()
    there = (s.noise.at(x, y) < s.cloudy(0.12 / s.period) * 1.6 - 0.1).float()
    return _faded(((0.12 - far) * 22).clamp(0, 1) * there, 0.3, s, 1.6)


def cells(s: Surface) -> Tensor:
    """Squares of random tones: boxes on a shelf, people in a stand."""
    u, v = s.flat()
    u, v = u / s.period, v / s.period
    edge = 1 - (1 - band(u, 0.08, s.pixel / s.period)) * (1 - band(v, 0.08, s.pixel / s.period))
    tone = s.noise.at(u.floor(), v.floor())
    return _faded(tone * tone * (3 - 2 * tone) * (1 - edge * 0.4), 0.48, s)


def dusted(s: Surface) -> Tensor:
    """What lies on top of things: snow on all that faces up."""
    return ((s.normal[2] - 0.48 + (s.cloudy(1 / s.period) - 0.5) * 1.2) * 5).clamp(0, 1)


def marble(s: Surface) -> Tensor:
    """Thin veins."""
    vein = (s.cloudy(1 / s.period) * 0.7 + s.cloudy(2.7 / s.period) * 0.3 - 0.5).abs()
    return _faded((1 - vein * 16).clamp_min(0), 0.2, s, 2.0)


def panels(s: Surface) -> Tensor:
    """A grid of squares with broad frames, as in ceilings and metal skins."""
    u, v = s.flat()
    blur = s.pixel / s.period
    return band(u / s.period + 0.2, 0.6, blur) * band(v / s.period + 0.2, 0.6, blur)


def picture(s: Surface) -> Tensor:
    """A painting: broad shapes with sharp edges."""
    broad = ((s.cloudy(1 / s.period) - 0.5) * 9 + 0.5).clamp(0, 1)
    return _faded(broad * 0.7 + s.cloudy(2.9 / s.period) * 0.3, 0.5, s)


def _faded(share: Tensor, average: float, s: Surface, finer: float = 1.0) -> Tensor:
    """Fade to the average where the period is no longer than about a pixel."""
    keep = (1.6 - s.pixel * finer / s.period * 1.2).clamp(0, 1)
    return average + (share - average) * keep


_BY_NAME: dict[str, Callable[[Surface], Tensor]] = {
    "plain": plain, "stripes": stripes, "spots": spots, "bricks": bricks, "windows": windows, "planks": planks,
    "mottled": mottled, "tiles": tiles, "face": face, "checks": checks,
    "front": front, "tips": tips, "segments": segments, "net": net, "plaid": plaid,
    "ribs": ribs, "rings": rings, "waves": waves, "ripples": ripples, "strata": strata, "lit_windows": lit_windows,
    "craters": craters, "cobbles": cobbles, "litter": litter, "cells": cells, "dusted": dusted, "marble": marble,
    "panels": panels, "picture": picture,
}  # fmt: skip


def second_share(pattern_n: Tensor, s: Surface) -> Tensor:
    """Share of the second colour at each point, by the point's own pattern (uint8)."""
    pattern, order = pattern_n.sort()  # points of one pattern lie together then, which is faster than picking them
    position, normal = s.position.index_select(1, order), s.normal.index_select(1, order)
    period, pixel, noise = s.period.index_select(0, order), s.pixel.index_select(0, order), s.noise.picked(order)
    sorted_share = torch.zeros_like(period)
    first = 0
    for name, count in zip(PATTERNS, torch.bincount(pattern, minlength=len(PATTERNS)).tolist(), strict=True):
        last = first + count
        if name != "plain" and count:
            part = Surface(
                position=position[:, first:last], normal=normal[:, first:last], period=period[first:last],
                pixel=pixel[first:last], noise=noise.part(first, last),
            )  # fmt: skip
            sorted_share[first:last] = _BY_NAME[name](part)
        first = last
    return torch.empty_like(sorted_share).index_copy_(0, order, sorted_share)
