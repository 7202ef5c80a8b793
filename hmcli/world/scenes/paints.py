"""Paints: short ways to say how a thing of a scene looks."""

from __future__ import annotations

from hmcli.world.space.shapes import Colour, Paint, Patch

WHITE, IRON, GLASS, RUBBER = (0.92, 0.91, 0.88), (0.20, 0.22, 0.24), (0.13, 0.17, 0.21), (0.09, 0.09, 0.10)
STRONG: tuple[Colour, ...] = (
    (0.78, 0.14, 0.12), (0.12, 0.30, 0.66), (0.94, 0.72, 0.12), (0.14, 0.50, 0.30), (0.90, 0.44, 0.12),
    (0.46, 0.22, 0.58), (0.10, 0.56, 0.62),
)  # fmt: skip


def scaled(colour: Colour, factor: float) -> Colour:
    return min(colour[0] * factor, 1.0), min(colour[1] * factor, 1.0), min(colour[2] * factor, 1.0)


def blend(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def solid(colour: Colour) -> Paint:
    return Paint(colour=colour)


def glowing(colour: Colour, glow: float = 1.0) -> Paint:
    """A lamp, sign or lit pane: it gives off its own colour `glow` times."""
    return Paint(colour=colour, glow=glow)


def shaded(pattern: str, colour: Colour, factor: float, scale: float) -> Paint:
    """A pattern of one colour and the same `factor` times as bright."""
    return Paint(colour=colour, second=scaled(colour, factor), pattern=pattern, scale=scale)


def mixed(
    pattern: str, colour: Colour, second: Colour, scale: float, *, glow: float = 0.0, gloss: float = 0.0
) -> Paint:
    return Paint(colour=colour, second=second, pattern=pattern, scale=scale, glow=glow, gloss=gloss)


def strip(y: float, half: float, paint: Paint, reach: float = 150.0) -> Patch:
    """Ground along x: a road, a path, a line."""
    return Patch(centre=(0.0, y), half=(reach, half), paint=paint)


def beyond(y: float, paint: Paint) -> Patch:
    """All ground from y on: what lies past a shore."""
    return strip(y + 150.0, 150.0, paint)


def oval(x: float, y: float, half: tuple[float, float], paint: Paint) -> Patch:
    return Patch(centre=(x, y), half=half, paint=paint, round=True)
