"""Scores by how long a subject was hidden, in classes of seconds, and by K: means with intervals over clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from hmcli.metrics.intervals import bootstrap_of, interval
from hmcli.reports.comparison import Comparison
from hmcli.reports.line_plot import Point, Series, line_plot
from hmcli.reports.report_page import Plot
from hmcli.stages.reporting.comparing import LEAST, SEED
from hmcli.stages.reporting.evaluations import weighed_mean
from hmcli.stages.reporting.rows import Row
from hmcli.stages.scoring.slices import SECONDS

WITHOUT_K = frozenset({"none", "all", "recent"})  # policies that choose nothing
Values = list[tuple[str, float, float]]  # clip, seconds hidden, value


def plots_of(
    rows: Sequence[Row], table: Comparison, hidden: Mapping[str, float | None]
) -> tuple[tuple[Plot, ...], str]:
    """A plot for each score, and a sentence on those that have none. `hidden` are the longest seconds of each clip."""
    plots, without = [], []
    for column in table.columns:
        per_stretch = any(said["metric"] == column.label for row in rows for said in row.stretches)
        found = [_values(row, column.label, per_stretch, hidden) for row in rows]
        used = sorted({_class_of(seconds) for values in found for _, seconds, value in values if math.isfinite(value)})
        if len(used) < 2:
            without.append(column.label)
            continue
        series = [
            Series(name=of.title, points=tuple(_points(values, used)))
            for of, values in zip(table.rows, found, strict=True)
        ]
        x = "seconds hidden" if per_stretch else "seconds hidden (the clip's longest certified stretch)"
        svg = line_plot(series, [_name_of(number) for number in used], x=x, y=column.label)
        plots.append(Plot(title=column.title, svg=svg))
    said = f"Not drawn, since its clips are not known to differ in hidden duration: {', '.join(without)}."
    return tuple(plots), said if without else ""


def plots_by_k(rows: Sequence[Row], table: Comparison) -> Iterator[Plot]:
    """A plot for each score whose rows' models read different numbers of slots: a line for each policy."""
    read = {number: of for number, row in enumerate(rows) if (of := _read(row)) is not None}
    used = sorted({top_k for _, top_k in read.values()})
    if len(used) < 2:
        return
    for index, column in enumerate(table.columns):
        lines: dict[str, list[Point]] = {}
        for number, (policy, top_k) in sorted(read.items(), key=lambda item: item[1]):
            cell = table.rows[number].cells[index]
            if cell is None or cell.mean is None:
                continue
            low, high = (cell.mean if end is None else end for end in (cell.low, cell.high))
            at, said = used.index(top_k), rows[number].name
            point = Point(at=at, mean=cell.mean, low=low, high=high, count=cell.clips, name=said)
            lines.setdefault(policy, []).append(point)
        series = [Series(name=name, points=tuple(points)) for name, points in lines.items()]
        if len({point.at for one in series for point in one.points if math.isfinite(point.mean)}) > 1:
            yield Plot(
                title=column.title, svg=line_plot(series, list(map(str, used)), x="K, slots read", y=column.label),
                series=tuple(lines),
            )  # fmt: skip


def _read(row: Row) -> tuple[str, int] | None:
    """Policy and K of a row's model; None where that is not recorded, or its policy reads no chosen slots."""
    network = row.members[0].about.generation.network
    if network is None or network.policy in WITHOUT_K:
        return None
    return network.policy, network.top_k


def _values(row: Row, label: str, per_stretch: bool, hidden: Mapping[str, float | None]) -> Values:
    if per_stretch:
        rows = [said for said in row.stretches if said["metric"] == label]
        return [(said["clip"], float(said["hidden_seconds"]), float(said["value"])) for said in rows]
    return [(clip, seconds, value) for clip, value in row.values(label) if (seconds := hidden.get(clip)) is not None]


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
    return int(np.searchsorted(SECONDS, seconds, side="right")) - 1


def _name_of(number: int) -> str:
    low, high = SECONDS[number], SECONDS[number + 1]
    return f"{low:g}+" if math.isinf(high) else f"{low:g} to {high:g}"
