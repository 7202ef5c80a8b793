"""A plot as SVG text: means by classes along x, one line per row, with intervals. No library, no script.

Colours are CSS classes `s0` ... `s7` (stroke and fill), so that the page chooses them for a light and a dark ground.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDE, HIGH = 460, 240  # units of the picture
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 46
SERIES = 8  # colours
_TICKS = 4


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mean in one class of x, between which values 95 % of the resampled means lie, of how many values."""

    at: int  # index of the class
    mean: float
    low: float
    high: float
    count: int
    name: str = ""  # whose it is, where that is not the series'


@dataclass(frozen=True, kw_only=True)
class Series:
    name: str
    points: tuple[Point, ...]


def line_plot(series: Sequence[Series], classes: Sequence[str], *, x: str, y: str) -> str:
    """SVG of at least one finite point. Raises ValueError where there is none."""
    shown = [[p for p in one.points if all(map(math.isfinite, (p.mean, p.low, p.high)))] for one in series]
    if not any(shown):
        raise ValueError("there is no finite value to draw")
    low = min(p.low for points in shown for p in points)
    high = max(p.high for points in shown for p in points)
    pad = (high - low) * 0.06 or max(abs(high), 1) * 0.05
    scale = _Scale(low=low - pad, high=high + pad, classes=len(classes), series=len(series))
    parts = [_grid(scale, classes, x)]
    parts += [
        _line(scale, number, one.name, points) for number, (one, points) in enumerate(zip(series, shown, strict=True))
    ]
    said = f"{y} by {x}"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(said)}">'
        f"<title>{escape(said)}</title>{''.join(parts)}</svg>"
    )


@dataclass(frozen=True, kw_only=True)
class _Scale:
    low: float
    high: float
    classes: int
    series: int

    def x(self, at: int, number: float | None = None) -> float:
        """Middle of a class; rows stand beside each other, so that their intervals can be told apart."""
        step = (WIDE - _LEFT - _RIGHT) / self.classes
        shift = 0 if number is None else (number - (self.series - 1) / 2) * min(9, 0.6 * step / self.series)
        return _LEFT + step * (at + 0.5) + shift

    def y(self, value: float) -> float:
        return _TOP + (HIGH - _TOP - _BOTTOM) * (self.high - value) / (self.high - self.low)


def _grid(scale: _Scale, classes: Sequence[str], x: str) -> str:
    parts = []
    for tick in _ticks(scale.low, scale.high):
        y = scale.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDE - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for at, name in enumerate(classes):
        parts.append(
            f'<text x="{scale.x(at):.1f}" y="{HIGH - _BOTTOM + 16}" text-anchor="middle">{escape(name)}</text>'
        )
    middle = (_LEFT + WIDE - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HIGH - 8}" text-anchor="middle">{escape(x)}</text>')
    return "".join(parts)


def _line(scale: _Scale, number: int, name: str, points: Sequence[Point]) -> str:
    at = [(scale.x(p.at, number), scale.y(p.mean)) for p in points]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    parts = [f'<polyline class="way" points="{way}"/>'] if len(points) > 1 else []
    for point, (x, y) in zip(points, at, strict=True):
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(point.low):.1f}" y2="{scale.y(point.high):.1f}"/>')
        said = f"{point.name or name}: {point.mean:.4g} [{point.low:.4g}, {point.high:.4g}], n = {point.count}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(said)}</title></circle>')
    return f'<g class="s{number % SERIES}">{"".join(parts)}</g>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between both ends, about as many as _TICKS."""
    rough = (high - low) / _TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough / 1.6)
    first = math.ceil(low / step)
    return [round(step * number, 12) for number in range(first, math.floor(high / step) + 1)]
