"""Scores by how long a subject was hidden: classes of seconds, means with intervals over clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hmcli.metrics.intervals import bootstrap_of, interval
from hmcli.reports.comparison import Comparison
from hmcli.reports.line_plot import Point, Series, line_plot
from hmcli.reports.report_page import Plot
from hmcli.stages.reporting.comparing import LEAST, SEED
from hmcli.stages.reporting.evaluations import Evaluated, weighed_mean

EDGES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf)  # seconds
Values = list[tuple[str, float, float]]  # clip, seconds hidden, value


def plots_of(
    evaluations: Sequence[Evaluated], table: Comparison, hidden: Mapping[str, float | None]
) -> tuple[tuple[Plot, ...], str]:
    """A plot for each score, and a sentence on those that have none. `hidden` are the longest seconds of each clip."""
    plots, without = [], []
    for column in table.columns:
        per_stretch = any(row["metric"] == column.label for one in evaluations for row in one.stretches)
        found = [_values(one, column.label, per_stretch, hidden) for one in evaluations]
        used = sorted({_class_of(seconds) for values in found for _, seconds, value in values if math.isfinite(value)})
        if len(used) < 2:
            without.append(column.label)
            continue
        series = [
            Series(name=row.title, points=tuple(_points(values, used)))
            for row, values in zip(table.rows, found, strict=True)
        ]
        x = "seconds hidden" if per_stretch else "seconds hidden (the clip's longest certified stretch)"
        svg = line_plot(series, [_name_of(number) for number in used], x=x, y=column.label)
        plots.append(Plot(title=column.title, svg=svg))
    said = f"Not drawn, since its clips are not known to differ in hidden duration: {', '.join(without)}."
    return tuple(plots), said if without else ""


def _values(one: Evaluated, label: str, per_stretch: bool, hidden: Mapping[str, float | None]) -> Values:
    if per_stretch:
        rows = [row for row in one.stretches if row["metric"] == label]
        return [(row["clip"], float(row["hidden_seconds"]), float(row["value"])) for row in rows]
    found: Values = []
    for (clip, of), row in one.rows.items():
        seconds = hidden.get(clip)
        if of == label and row["value"] and seconds is not None:
            found.append((clip, seconds, float(row["value"])))
    return found


def _points(values: Values, used: Sequence[int]) -> Iterable[Point]:
    for at, number in enumerate(used):
        own = [(clip, value) for clip, seconds, value in values if _class_of(seconds) == number]
        if not own:
            continue
        by_clip: dict[str, list[float]] = {}
        for clip, value in own:
            by_clip.setdefault(clip, []).append(value)
        means = np.array([math.fsum(of) / len(of) for of in by_clip.values()])
        statistic = weighed_mean(means, np.array([len(of) for of in by_clip.values()], np.float64))
        mean = math.fsum(value for _, value in own) / len(own)
        drawn = bootstrap_of(statistic, len(means), SEED) if len(means) >= LEAST else np.array([mean])
        whole = interval(mean, drawn)
        yield Point(at=at, mean=mean, low=whole.low, high=whole.high, count=len(own))


def _class_of(seconds: float) -> int:
    return int(np.searchsorted(EDGES, seconds, side="right")) - 1


def _name_of(number: int) -> str:
    low, high = EDGES[number], EDGES[number + 1]
    return f"{low:g}+" if math.isinf(high) else f"{low:g} to {high:g}"
