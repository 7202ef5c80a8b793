"""Patterns: how much of its second colour a surface shows at a point.

Every pattern takes points in metres of the shape's own frame, normals there, a period and the size of a pixel on the
surface (metres), all flat, and returns a share in [0, 1]. Patterns finer than a pixel fade to their average, so nothing
flickers between frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.shapes import PATTERNS


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Smooth random values in [0, 1] from a wrapped lattice of `side` x `side` numbers (`side` a power of two)."""

    lattice: Tensor
    side: int

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        cell_x, cell_y = x.floor(), y.floor()
        u, v = x - cell_x, y - cell_y
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        mask = self.side - 1
        left, low = cell_x.to(torch.int64) & mask, (cell_y.to(torch.int64) & mask) * self.side
        right, high = (left + 1) & mask, (low + self.side) & (self.side * self.side - 1)
        value = self.lattice.take
        bottom = value(low + left) * (1 - u) + value(low + right) * u
        top = value(high + left) * (1 - u) + value(high + right) * u
        return bottom * (1 - v) + top * v


def noise_from(rng: np.random.Generator, device: torch.device, side: int = 64) -> Noise:
    values = rng.random(side * side).astype(np.float32)
    return Noise(lattice=torch.as_tensor(values, device=device), side=side)


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


def _faded(share: Tensor, average: float, s: Surface, finer: float = 1.0) -> Tensor:
    """Fade to the average where the period is no longer than about a pixel."""
    keep = (1.6 - s.pixel * finer / s.period * 1.2).clamp(0, 1)
    return average + (share - average) * keep


_BY_NAME: dict[str, Callable[[Surface], Tensor]] = {
    "plain": plain, "stripes": stripes, "spots": spots, "bricks": bricks, "windows": windows, "planks": planks,
    "mottled": mottled, "tiles": tiles, "face": face, "checks": checks,
}  # fmt: skip


def second_share(pattern_n: Tensor, s: Surface) -> Tensor:
    """Share of the second colour at each point, by the point's own pattern."""
    share = torch.zeros_like(s.period)
    for number, name in enumerate(PATTERNS):
        if name != "plain" and len(chosen := (pattern_n == number).nonzero()[:, 0]):
            part = Surface(
                position=s.position.index_select(1, chosen), normal=s.normal.index_select(1, chosen),
                period=s.period[chosen], pixel=s.pixel[chosen], noise=s.noise,
            )  # fmt: skip
            share[chosen] = _BY_NAME[name](part)
    return share
