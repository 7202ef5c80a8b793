"""The score file: the form in which results of a benchmark are published, and its check.

Everything in it follows from the rows, one per clip and metric: a reader can recompute the means and the intervals,
and `hm bench check` does. A row without a value is a clip that failed; it is in no mean, and the file is incomplete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from hmcli.contracts import Description, Quarantined
from hmcli.errors import DataError
from hmcli.metrics.contract import BACKBONE, DETECTIONS
from hmcli.metrics.intervals import Interval, bootstrap_means, interval
from hmcli.recipe.sections import EvalConfig
from hmcli.registry import find, names
from hmcli.reports.tables import markdown_table, score_text
from hmcli.stages.bench.definition import Benchmark, Number, find_benchmark, forbid_unknown_keys, is_of, refuse_draft
from hmcli.store.files import read_json, write_json

FORMAT = 1
KIND = "hm-bench scores"
OVERALL = "overall"
_SHOWN = 10
ROUNDING = 1e-6  # by which a value may leave the range of its metric


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """What was scored. `training_data` is the authors' word for what it was trained on."""

    name: str
    fingerprint: str
    training_data: str


@dataclass(frozen=True, kw_only=True)
class MetricEntry:
    """A metric as it was computed: every choice that changes the number."""

    unit: str
    better: Literal["higher", "lower", "neither"]
    definition: str
    backbone: Mapping[str, str]  # what the protocol card says of it; empty for metrics that look at no features
    detector: Annotated[Mapping[str, str], Field(exclude_if=lambda card: not card)] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """The clips of one split, as they were verified before scoring."""

    data: str  # fingerprint of the folder of clips
    generation: str  # fingerprint of the generation
    verified: int  # clips that agree with the benchmark


@dataclass(frozen=True, kw_only=True)
class Row:
    """The score of one clip: mean over its frames, or stretches. `value` is null where it failed, "inf" if infinite.

    Where the metric has nothing to judge in the clip, `value` is null and `judged` false; it is left out elsewhere.
    """

    split: str
    clip: str
    metric: str
    value: Number
    reason: str
    judged: Annotated[bool, Field(exclude_if=lambda judged: judged)] = True


@dataclass(frozen=True, kw_only=True)
class MeanEntry:
    """Mean over the scored clips (of `overall`: mean of the splits' means) and its 95 % bootstrap interval.

    A split in which the metric has nothing to judge is in no overall mean. `not_judged` is left out where it is 0.
    """

    mean: Number
    low: Number
    high: Number
    scored: int
    missing: int
    not_judged: Annotated[int, Field(exclude_if=lambda clips: clips == 0)] = 0


@dataclass(frozen=True, kw_only=True)
class ScoreFile:
    """One model on one benchmark at one size. `complete`: no clip of any split lacks a metric that judges it."""

    format: int
    kind: Literal["hm-bench scores"]
    benchmark: str
    benchmark_fingerprint: str
    made_by: Mapping[str, Any]
    model: ModelEntry
    size: tuple[int, int]  # height, width of the pictures
    sample: Mapping[str, Any]  # settings of the sampler
    seed: int
    seconds_per_clip: float | None  # median; null where the generation does not say
    hardware: str
    metrics: Mapping[str, MetricEntry]
    splits: Mapping[str, SplitEntry]
    means: Mapping[str, Mapping[str, MeanEntry]]  # split or `overall` -> metric
    complete: bool
    clips: tuple[Row, ...]


forbid_unknown_keys(ModelEntry, MetricEntry, SplitEntry, Row, MeanEntry, ScoreFile)
_ADAPTER = TypeAdapter(ScoreFile)


def schema() -> dict[str, Any]:
    """JSON schema of a score file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}


def write_scores(file: Path, scores: ScoreFile) -> None:
    write_json(file, _ADAPTER.dump_python(scores, mode="json"))


def read_scores(file: Path) -> ScoreFile:
    """A score file. Raises DataError naming every place that is not as the format says."""
    values = read_json(file)
    if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
        what = f"the score file has format {values['format']}, this hm reads up to {FORMAT}"
        raise DataError(what, where={"file": file}, fix="install a newer hm")
    try:
        return _ADAPTER.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = {".".join(map(str, item["loc"])) or "file": item["msg"] for item in error.errors()[:_SHOWN]}
        fix = "docs/benchmark.md describes the format"
        raise DataError("this is no score file", where={"file": file, **problems}, fix=fix) from error


# --- what follows from the rows --------------------------------------------------------------------------------------


def means_of(rows: Sequence[Row], benchmark: Benchmark, metrics: Sequence[str]) -> dict[str, dict[str, MeanEntry]]:
    """Means and intervals of every split and overall. A split's clips are drawn with its place as seed."""
    found: dict[str, dict[str, MeanEntry]] = {}
    total = sum(len(split.clips) for split in benchmark.splits.values())
    overall: dict[str, list[tuple[float, Any]]] = {metric: [] for metric in metrics}
    for seed, (name, split) in enumerate(benchmark.splits.items()):
        found[name] = {}
        for metric in metrics:
            values = [
                float(v) for row in rows if (row.split, row.metric) == (name, metric) if (v := row.value) is not None
            ]
            void = sum((row.split, row.metric) == (name, metric) and not row.judged for row in rows)
            if not values:
                found[name][metric] = _no_mean(len(split.clips), void)
                continue
            mean, resampled = math.fsum(values) / len(values), bootstrap_means(values, seed)
            found[name][metric] = _entry(interval(mean, resampled), len(values), len(split.clips), void)
            overall[metric].append((mean, resampled))
    found[OVERALL] = {}
    for metric, parts in overall.items():
        of_splits = [found[name][metric] for name in benchmark.splits]
        void = sum(entry.not_judged for entry in of_splits)
        if not parts or any(entry.mean is None and entry.missing for entry in of_splits):
            found[OVERALL][metric] = _no_mean(total, void)
            continue
        scored = sum(entry.scored for entry in of_splits)
        mean = math.fsum(mean for mean, _ in parts) / len(parts)
        found[OVERALL][metric] = _entry(interval(mean, sum(r for _, r in parts) / len(parts)), scored, total, void)
    return found


def _no_mean(total: int, void: int) -> MeanEntry:
    return MeanEntry(mean=None, low=None, high=None, scored=0, missing=total - void, not_judged=void)


def _entry(found: Interval, scored: int, total: int, void: int) -> MeanEntry:
    mean, low, high = (_number(value) for value in (found.mean, found.low, found.high))
    return MeanEntry(mean=mean, low=low, high=high, scored=scored, missing=total - scored - void, not_judged=void)


def _number(value: float) -> Number:
    if math.isfinite(value):
        return round(value, 6)
    return "inf" if value > 0 else "-inf"


def is_complete(rows: Sequence[Row], benchmark: Benchmark, metrics: Sequence[str]) -> bool:
    """Has every clip of the benchmark a value in every metric that judges it, the required ones among them?"""
    scored = {(row.clip, row.metric) for row in rows if row.value is not None or not row.judged}
    wanted = {(clip.id, metric) for split in benchmark.splits.values() for clip in split.clips for metric in metrics}
    return not lacking(metrics, benchmark) and wanted == scored


def required(panel: EvalConfig) -> list[str]:
    """A panel's scores as a benchmark calls them: with what sees for them, and nothing that depends on the size."""
    found = []
    for metric in (find("metric", name) for name in panel.metrics):
        backbone = panel.backbone[0] if BACKBONE in metric.needs else ""
        found.append(metric.label(backbone, detector=panel.detector if DETECTIONS in metric.needs else ""))
    return found


def lacking(metrics: Iterable[str], benchmark: Benchmark) -> list[str]:
    """The required scores that none of these labels is of."""
    return [required for required in benchmark.required_metrics if not any(is_of(one, required) for one in metrics)]


def other_judges(metrics: Mapping[str, MetricEntry], benchmark: Benchmark) -> list[str]:
    """What is wrong with what sees for the required scores: weights that are not the benchmark's."""
    said = {
        f"{label} was computed with other weights of {card['name']} than {benchmark.name} was frozen with"
        for label, entry in metrics.items()
        for card in (entry.backbone, entry.detector)
        if any(is_of(label, required) for required in benchmark.required_metrics)
        and benchmark.judges.get(card.get("name", ""), card.get("weights")) != card.get("weights")
    }
    return sorted(said)


# --- checking --------------------------------------------------------------------------------------------------------


def check(file: Path, *, benchmark: str) -> Description:
    """Is a score file what the format says, of this benchmark, and do its numbers follow from its rows?

    Raises DataError when not; an incomplete file is described as such, with what is missing.
    """
    scores = read_scores(file)
    frozen = find_benchmark(benchmark or scores.benchmark)
    refuse_draft(frozen)
    problems = _problems(scores, frozen)
    if problems:
        where = {"file": file, **{f"({i})": text for i, text in enumerate(problems[:_SHOWN], 1)}}
        fix = "make it again with `hm bench score`"
        raise DataError(f"{len(problems)} things in the score file are wrong", where=where, fix=fix)
    there = {(row.clip, row.metric) for row in scores.clips if row.value is not None or not row.judged}
    missing = [
        Quarantined(item=f"{clip.id}.{metric}", reason="no score")
        for split in frozen.splits.values()
        for clip in split.clips
        for metric in (*lacking(scores.metrics, frozen), *scores.metrics)
        if (clip.id, metric) not in there
    ]
    return Description(text=table(scores), data=_ADAPTER.dump_python(scores, mode="json"), quarantined=tuple(missing))


def _problems(scores: ScoreFile, frozen: Benchmark) -> list[str]:
    if (scores.benchmark, scores.benchmark_fingerprint) != (frozen.name, frozen.fingerprint):
        return [
            f"it is of {scores.benchmark} {scores.benchmark_fingerprint}, this is {frozen.name} {frozen.fingerprint}"
        ]
    said = other_judges(scores.metrics, frozen)
    belongs = {clip.id: name for name, split in frozen.splits.items() for clip in split.clips}
    for row in scores.clips:
        if belongs.get(row.clip) != row.split:
            said.append(f"{row.clip} is no clip of the split {row.split}")
        if row.metric not in scores.metrics:
            said.append(f"{row.clip}: the metric {row.metric} is not described under metrics")
        if (row.value is None) != bool(row.reason):
            said.append(f"{row.clip}: {row.metric} must have either a value or a reason")
        if not row.judged and (row.value is not None or _judges_all(row.metric, frozen)):
            said.append(f"{row.clip}: {row.metric} is not left unjudged: it finds something in every clip")
        if row.value is not None and (outside := _outside(row.metric, float(row.value))):
            said.append(f"{row.clip}: {outside}")
    if len({(row.clip, row.metric) for row in scores.clips}) != len(scores.clips):
        said.append("a clip has two rows for one metric")
    if odd := set(scores.splits) - set(frozen.splits):
        said.append(f"there is no split {sorted(odd)[0]}")
    if unverified := sorted({row.split for row in scores.clips if row.value is not None} - set(scores.splits)):
        said.append(f"it does not say which data the scores of {', '.join(unverified)} are from")
    if said:
        return said
    if scores.complete != is_complete(scores.clips, frozen, list(scores.metrics)):
        said.append(f"complete is {str(scores.complete).lower()}, which its rows contradict")
    true = means_of(scores.clips, frozen, list(scores.metrics))
    if {name: set(entries) for name, entries in scores.means.items()} != {name: set(e) for name, e in true.items()}:
        return [*said, "means are not of every split, overall, and every metric"]
    for name, entries in true.items():
        said += [f"the mean of {metric} in {name} does not follow from the rows" for metric, entry in entries.items()
                 if not _same(entry, scores.means[name][metric])]  # fmt: skip
    return said


def _outside(label: str, value: float) -> str:
    """What is wrong with a value that its metric cannot have; empty where it can, or the metric is not known here."""
    name = label.partition(" ")[0]
    if name not in names("metric"):
        return ""
    least, most = find("metric", name).range
    if least - ROUNDING <= value <= most + ROUNDING:
        return ""
    return f"{label} is {value:g}, and cannot be outside of {least:g} to {most:g}"


def _judges_all(metric: str, frozen: Benchmark) -> bool:
    """Is it a required metric that finds something to judge in every clip?"""
    if not any(is_of(metric, required) for required in frozen.required_metrics):
        return False
    return not find("metric", metric.partition(" ")[0]).partial


def _same(one: MeanEntry, other: MeanEntry) -> bool:
    pairs = [(one.mean, other.mean), (one.low, other.low), (one.high, other.high)]
    counts = (one.scored, one.missing, one.not_judged) == (other.scored, other.missing, other.not_judged)
    return counts and all(
        a is b is None or (None not in (a, b) and math.isclose(float(a or 0), float(b or 0), rel_tol=0, abs_tol=2e-6))
        for a, b in pairs
    )


def table(scores: ScoreFile) -> str:
    """Markdown: one row per split and overall, one column per metric."""
    header = [f"{scores.benchmark} at {scores.size[0]}x{scores.size[1]}", *scores.metrics, "clips"]
    rows = []
    for name, entries in scores.means.items():
        cells = [_cell(entries[metric], scores.metrics[metric].unit) for metric in scores.metrics]
        all_clips = max(e.scored + e.missing + e.not_judged for e in entries.values())
        rows.append([name, *cells, f"{all_clips - max(e.missing for e in entries.values())} of {all_clips}"])
    state = "complete" if scores.complete else "INCOMPLETE: not comparable with complete results"
    return f"{scores.model.name}: {state}\n\n{markdown_table(header, rows)}".rstrip()


def _cell(entry: MeanEntry, unit: str) -> str:
    void = f" ({entry.not_judged} not judged)" if entry.not_judged else ""
    if entry.mean is None:
        return score_text(None) + void
    return f"{score_text(entry.mean, unit)} [{score_text(entry.low)}, {score_text(entry.high)}]{void}"
