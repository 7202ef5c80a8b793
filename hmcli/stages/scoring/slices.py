"""Scores by what clips and stretches are like: hidden for how long and why, how large, among how many, seen or unseen.

A metric of stretches is sliced by what each stretch is like, any other by what the whole clip is like, which
`clips.jsonl` of the reference says; a data set without it has the slices of stretches alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.metrics.averages import json_number, mean_score
from hmcli.metrics.contract import Metric
from hmcli.stages.data.opening import read_rows
from hmcli.stages.scoring.layout import Average, StretchRow, Values
from hmcli.world.files.layout import RENDERED_INDEX
from hmcli.world.files.tables import RenderedRow
from hmcli.world.staging.splits import TEST_MOVES, is_held_out

SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf)  # hidden
HEIGHTS = (0.0, 0.25, 0.5, math.inf)  # of the picture, that a subject has at most once it is back
MANY = 3  # subjects, from which on clips are in one class
Classes = dict[str, str]  # slice -> class


def class_of(value: float, edges: tuple[float, ...]) -> str:
    """Between which two edges a value lies, in words; the lower one belongs to the class."""
    number = int(np.searchsorted(edges, value, side="right")) - 1
    low, high = edges[number], edges[number + 1]
    return f"{low:g}+" if math.isinf(high) else f"{low:g} to {high:g}"


def index_of(reference: str) -> Mapping[str, RenderedRow]:
    """What a folder of clips says of each; nothing where there is no such folder, or it says nothing."""
    return read_rows(Path(reference)) if reference and (Path(reference) / RENDERED_INDEX).is_file() else {}


def slice_table(
    found: Iterable[Values], metrics: Mapping[str, Metric], average: Average, index: Mapping[str, RenderedRow]
) -> Iterator[dict[str, Any]]:
    """One row per metric (by label), slice and class: its number there, of how many values and clips."""
    groups: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for one in found:
        for classes, values in _parts(one, index.get(one.clip)):
            for name, kind in classes.items():
                groups.setdefault((one.metric, name, kind), {}).setdefault(one.clip, []).extend(values)
    order = {label: number for number, label in enumerate(metrics)}
    for (label, name, kind), of in sorted(groups.items(), key=lambda item: (order[item[0][0]], *item[0][1:])):
        metric, clips = metrics[label], list(of.values())
        mean = number_of(metric, clips, average)
        yield {
            "metric": label, "slice": name, "class": kind, "value": "" if mean is None else json_number(mean),
            "unit": metric.unit, "values": len(clips) if metric.per == "clip" else sum(map(len, clips)),
            "clips": len(clips),
        }  # fmt: skip


def number_of(metric: Metric, clips: list[list[float]], average: Average) -> float | None:
    """The number of several clips' values: a mean, or what the metric pools; None where there is none."""
    if metric.pooled is None:
        return mean_score(clips, average)
    pooled = metric.pooled(np.array(clips, np.float64)) if clips else math.nan
    return None if math.isnan(pooled) else float(pooled)


def _parts(one: Values, about: RenderedRow | None) -> Iterator[tuple[Classes, list[float]]]:
    """What is judged of a clip, by what it is like; stretches each by themselves."""
    whole = {} if about is None else _of_clip(about)
    if one.stretches is None:
        if one.judged:
            yield whole, one.judged
        return
    for stretch, value in zip(one.stretches, one.judged, strict=True):
        yield whole | _of_stretch(stretch), [value]


def _of_clip(about: RenderedRow) -> Classes:
    move = about.trajectory.rpartition("_")[0]
    unseen = any(map(is_held_out, about.subjects))
    found = {
        "camera": _seen(is_held_out(move, TEST_MOVES)), "families": _seen(unseen), "subjects": _how_many(about),
    }  # fmt: skip
    return found if about.split is None else found | {"split": about.split}


def _of_stretch(stretch: StretchRow) -> Classes:
    found = {"hidden seconds": class_of(stretch.hidden_seconds, SECONDS), "reason": stretch.reason}
    if stretch.family is not None:
        found["families"] = _seen(is_held_out(stretch.family))
    if stretch.height is not None:
        found["height"] = class_of(stretch.height, HEIGHTS)
    return found


def _how_many(about: RenderedRow) -> str:
    count = len(about.subjects)
    return str(count) if count < MANY else f"{MANY}+"


def _seen(held_out: bool) -> str:
    """By training on the training side of the split."""
    return "unseen" if held_out else "seen"
