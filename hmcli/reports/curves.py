"""Curves of a training: one panel for each number of its log, drawn over steps. Drawn with PIL, no plotting library.

A number that is logged at every step is faint, its running mean stands on top. Values that span more than a factor of
30 have a logarithmic axis, which the title says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.reports.canvas import CHOSEN, FAINT, SUBJECT, Canvas, Colour

WIDE, HIGH = 480, 240  # pixels of a panel
COLUMNS = 2
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 12, 26, 24
_SPAN = 30.0  # ratio of values from which the axis is logarithmic
_MEAN_OF = 20  # a running mean is over this share of the steps: one in so many
_COLOURS: tuple[Colour, ...] = (SUBJECT, CHOSEN, (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))

Line = Sequence[tuple[float, float]]  # (step, value), in order of steps


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines that share an axis; a single one has no name."""

    title: str
    lines: Mapping[str, Line]


def draw_curves(panels: Sequence[Panel]) -> np.ndarray:
    """(H, W, 3) uint8. Raises ValueError where there is no panel, or one without a point."""
    if not panels or any(not any(panel.lines.values()) for panel in panels):
        raise ValueError("there is nothing to draw")
    columns = min(COLUMNS, len(panels))
    canvas = Canvas(columns * WIDE, math.ceil(len(panels) / columns) * HIGH)
    for number, panel in enumerate(panels):
        _draw(canvas, panel, (number % columns) * WIDE, (number // columns) * HIGH)
    return canvas.pixels()


def running_mean(values: Sequence[float], over: int) -> list[float]:
    """The mean of the last `over` values at each; of fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - over, 0)
    return [float(mean) for mean in (sums[ends] - sums[begins]) / (ends - begins)]


def _draw(canvas: Canvas, panel: Panel, left: int, top: int) -> None:
    steps = [step for line in panel.lines.values() for step, _ in line]
    values = [value for line in panel.lines.values() for _, value in line]
    logarithmic = min(values) > 0 and max(values) / min(values) > _SPAN
    low, high = (_placed(value, logarithmic) for value in (min(values), max(values)))
    pad = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    low, high, first, last = low - pad, high + pad, min(steps), max(max(steps), min(steps) + 1)
    box = (left + _LEFT, top + _TOP, left + WIDE - _RIGHT, top + HIGH - _BOTTOM)

    def at(step: float, value: float) -> tuple[float, float]:
        across = (step - first) / (last - first)
        up = (_placed(value, logarithmic) - low) / (high - low)
        return box[0] + across * (box[2] - box[0]), box[3] - up * (box[3] - box[1])

    canvas.frame(box, FAINT, width=1)
    canvas.text(box[0], top + 6, panel.title + (" (logarithmic)" if logarithmic else ""))
    for value in (min(values), max(values)):
        canvas.text(box[0] - 4, int(at(first, value)[1]), f"{value:.3g}", FAINT, anchor="rm")
    canvas.text(box[0], box[3] + 5, f"step {first:g}", FAINT)
    canvas.text(box[2], box[3] + 5, f"{last:g}", FAINT, anchor="ra")
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        _stroke(canvas, line, colour, at)
        if len(panel.lines) > 1:
            canvas.text(box[2] - 4, box[1] + 4 + 14 * number, name, colour, anchor="ra")


def _placed(value: float, logarithmic: bool) -> float:
    return math.log10(value) if logarithmic else value


def _stroke(canvas: Canvas, line: Line, colour: Colour, at: object) -> None:
    assert callable(at)
    if len(line) >= 2 * _MEAN_OF:
        pale = tuple(int(255 - (255 - part) * 0.3) for part in colour)
        canvas.draw.line([at(step, value) for step, value in line], fill=pale, width=1)
        means = running_mean([value for _, value in line], len(line) // _MEAN_OF)
        line = [(step, mean) for (step, _), mean in zip(line, means, strict=True)]
    places = [at(step, value) for step, value in line]
    canvas.draw.line(places, fill=colour, width=2)
    if len(places) < _MEAN_OF:
        for x, y in places:
            canvas.draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
