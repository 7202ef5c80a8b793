"""`hm bench score`: evaluations of one model, over verified clips, become one score file.

The chain is checked by fingerprints: the evaluation's reference and what the generation was made from must be one
folder, and that folder must hold the benchmark's clips. A clip that was not generated or not scored gets a row without
a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.averages import json_number
from hmcli.metrics.contract import BACKBONE, DETECTIONS, LPIPS, REGIONS
from hmcli.recipe.sections import PosesConfig
from hmcli.registry import find
from hmcli.stages.bench.definition import Benchmark, find_benchmark
from hmcli.stages.bench.score_file import (
    FORMAT,
    MetricEntry,
    ModelEntry,
    Row,
    ScoreFile,
    SplitEntry,
    is_complete,
    lacking,
    means_of,
    other_judges,
    table,
    write_scores,
)
from hmcli.stages.bench.verify import SplitReport, refuse_twice, verify_dataset
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.scoring.layout import FAILED, KIND, NOT_JUDGED, SCORES, TABLE, EvaluationAttributes, Judged, Scores
from hmcli.stages.shared.typed import from_json
from hmcli.store.files import parse_json, read_csv
from hmcli.store.listed import listed
from hmcli.store.manifest import Manifest, made_by, read_manifest

_NETWORKS = (BACKBONE, LPIPS, REGIONS)  # needs that the protocol card has a section of
_NOT_EVALUATED = {"value": "", "reason": "no evaluation holds it", "status": FAILED}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation artifact as a benchmark needs it. `scores` are (clip, metric) -> row of its table."""

    path: Path
    manifest: Manifest
    generation: Judged
    metrics: Mapping[str, MetricEntry]
    scores: Mapping[tuple[str, str], Mapping[str, str]]

    @property
    def clips(self) -> set[str]:
        return {clip for clip, _ in self.scores}


def run(
    paths: Sequence[Path], *, data: Sequence[Path], benchmark: str, name: str, training_data: str, hardware: str,
    out: Path, force: bool, reporter: Reporter,
) -> StageResult:  # fmt: skip
    """Write the score file of one model; see `hm bench score --help`."""
    if out.exists() and not force:
        raise UsageError(f"{out} exists", fix="choose another name, or --force")
    frozen = find_benchmark(benchmark)
    evaluations = [open_evaluation(path) for path in paths]
    sample = _one([e.generation.recipe["sample"] for e in evaluations], "settings of the sampler", evaluations)
    model = _one([e.generation.inputs["model"] for e in evaluations], "models", evaluations)
    seed = _one([e.generation.seed for e in evaluations], "seeds", evaluations)
    reports = _verified(frozen, evaluations, data, reporter)
    size = _one([list(report.size) for report in reports], "picture sizes of the clips", evaluations)
    _check_shapes(frozen, evaluations, size)
    metrics = _metrics(evaluations)
    if wrong := other_judges(metrics, frozen):
        fix = f"score with the backbone and detector of {frozen.name}, and the packages it names (hm bench show)"
        raise DataError(wrong[0], where={"benchmark": frozen.name}, fix=fix)
    if absent := lacking(metrics, frozen):
        reporter.warn(f"no evaluation holds {', '.join(absent)}: the file will be incomplete")
    rows = _rows(frozen, evaluations, list(metrics))
    seconds = [e.generation.seconds_per_clip for e in evaluations]
    scores = ScoreFile(
        format=FORMAT, kind="hm-bench scores", benchmark=frozen.name, benchmark_fingerprint=frozen.fingerprint,
        made_by=made_by(), model=ModelEntry(name=name, fingerprint=model, training_data=training_data),
        size=(size[0], size[1]), sample=sample, seed=seed,
        seconds_per_clip=_mean_seconds(seconds),
        hardware=hardware, metrics=metrics, splits=_splits(frozen, evaluations, reports),
        means=means_of(rows, frozen, list(metrics)), complete=is_complete(rows, frozen, list(metrics)), clips=rows,
    )  # fmt: skip
    write_scores(out, scores)
    reporter.note(table(scores))
    without = tuple(
        Quarantined(item=f"{r.clip}.{r.metric}", reason=r.reason) for r in rows if r.value is None and r.judged
    )
    counts = {
        "clips": len({row.clip for row in rows}),
        "scores": sum(row.value is not None for row in rows),
        "missing": len(without),
    }
    return StageResult(path=out, kind="scores", counts=counts, quarantined=without)


def _mean_seconds(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(sum(known) / len(known), 3) if len(known) == len(seconds) else None


def open_evaluation(path: Path) -> Evaluation:
    """Read what `hm eval` wrote. Raises DataError for one of an older hm, which does not say what it judged."""
    manifest = read_manifest(path, kinds=(KIND,))
    about = from_json(EvaluationAttributes, manifest.attributes, "the description", evaluation=path)
    files = listed(path)
    content = from_json(Scores, parse_json(files.read(SCORES).data, path / SCORES), SCORES, evaluation=path)
    generation, protocol = about.generation, about.protocol
    if generation.model_free:
        what = f"a score file is of a model, this is the model-free row {generation.model_free}"
        raise UsageError(what, where={"evaluation": path}, fix="read its scores from the evaluation")
    try:
        for name, said in (("model", generation.inputs), ("sample", generation.recipe)):
            if name not in said:
                raise KeyError(name)
        metrics = {
            label: MetricEntry(
                unit=score.unit, better=score.better, definition=protocol["Metrics"][label],
                backbone=_backbone(protocol, label) if {*_NETWORKS} & {*find("metric", score.metric).needs} else {},
                detector=protocol["Detector"] if DETECTIONS in find("metric", score.metric).needs else {},
            )
            for label, score in content.metrics.items()
        }  # fmt: skip
    except KeyError as error:
        what = f"the evaluation does not say {error}"
        raise DataError(what, where={"evaluation": path}, fix="make it again with this version of hm") from error
    rows = read_csv(files.check(TABLE))
    scores = {(row["clip"], row["metric"]): row for row in rows}
    return Evaluation(path=path, manifest=manifest, generation=generation, metrics=metrics, scores=scores)


def _backbone(protocol: Mapping[str, Mapping[str, str]], label: str) -> dict[str, str]:
    """What the protocol card says of a metric's backbone, without what it says of other metrics."""
    own = f"{label} against published"
    for about in protocol.values():
        if own in about:
            return {key: text for key, text in about.items() if key == own or not key.endswith(" against published")}
    raise KeyError(own)


def _one(values: Sequence[Any], what: str, evaluations: Sequence[Evaluation]) -> Any:
    """The value they share. Raises UsageError when they differ."""
    if any(value != values[0] for value in values):
        where = {str(e.path): value for e, value in zip(evaluations, values, strict=False)}
        raise UsageError(f"a score file is of one model, sampled in one way, at one size; here are different {what}",
                         where=where)  # fmt: skip
    return values[0]


# --- verified data ---------------------------------------------------------------------------------------------------


def _verified(
    frozen: Benchmark, evaluations: Sequence[Evaluation], data: Sequence[Path], reporter: Reporter
) -> list[SplitReport]:
    """The reports of the folders the evaluations are over. Raises DataError where a clip differs from the benchmark."""
    datasets = {}
    for path in [*data, *(Path(e.generation.source) for e in evaluations if e.generation.source)]:
        if path in datasets or not path.is_dir():
            continue
        datasets[path] = open_dataset(path, PosesConfig())
    by_fingerprint = {dataset.fingerprint: dataset for dataset in datasets.values()}
    for one in evaluations:
        made_from = one.generation.source_fingerprint
        if one.manifest.inputs.get("reference", made_from) != made_from:
            raise DataError(
                "the reference is another folder than the one the generation was made from",
                where={"evaluation": one.path}, fix=f"hm eval GENERATION --reference {one.generation.source}",
            )  # fmt: skip
        if made_from not in by_fingerprint:
            raise DataError(
                "the clips the generation was made from are not there, or were changed since",
                where={"evaluation": one.path, "clips": one.generation.source},
                fix="name the folder with --data; if it was rendered again, generate and evaluate again, too",
            )  # fmt: skip
    used = dict.fromkeys(e.generation.source_fingerprint for e in evaluations)
    reports = [r for fingerprint in used for r in verify_dataset(frozen, by_fingerprint[fingerprint], reporter)]
    refuse_twice(reports)
    for report in reports:
        if report.differ:
            clip, why = next(iter(report.differ.items()))
            raise DataError(
                f"{len(report.differ)} clips are not those of {frozen.name}",
                where={"data": report.path, clip: why}, fix=f"hm bench verify {report.path}",
            )  # fmt: skip
    return reports


def _check_shapes(frozen: Benchmark, evaluations: Sequence[Evaluation], size: Sequence[int]) -> None:
    """Raise DataError unless every generated video has the target's length and the clips' size."""
    lengths = {split.recipe.world.target_frames for split in frozen.splits.values()}
    for one in evaluations:
        for frames, height, width in one.generation.shapes:
            if frames not in lengths or [height, width] != list(size):
                raise DataError(
                    f"a generated video has {frames} frames of {height}x{width}, the clips' targets have"
                    f" {', '.join(map(str, sorted(lengths)))} frames of {size[0]}x{size[1]}",
                    where={"evaluation": one.path}, fix="render the benchmark at the model's size (world.size)",
                )  # fmt: skip


# --- rows ------------------------------------------------------------------------------------------------------------


def _metrics(evaluations: Sequence[Evaluation]) -> dict[str, MetricEntry]:
    """Every metric; the same one must have been computed in the same way everywhere."""
    found: dict[str, MetricEntry] = {}
    for one in evaluations:
        for label, entry in one.metrics.items():
            if found.setdefault(label, entry) != entry:
                raise UsageError(f"{label} was computed in two ways", where={"evaluation": one.path})
    return found


def _rows(frozen: Benchmark, evaluations: Sequence[Evaluation], metrics: Sequence[str]) -> tuple[Row, ...]:
    """A row for every clip of the benchmark and every metric."""
    values: dict[tuple[str, str], Mapping[str, str]] = {}
    for one in evaluations:
        if twice := values.keys() & one.scores.keys():
            again, metric = min(twice)
            where = {"evaluation": one.path, "clip": again}
            raise UsageError(f"two evaluations hold {metric} of the same clip", where=where)
        values |= one.scores
    rows: list[Row] = []
    for name, split in frozen.splits.items():
        for clip in split.clips:
            for metric in metrics:
                said = values.get((clip.id, metric), _NOT_EVALUATED)
                value: Any = json_number(float(said["value"])) if said["value"] else None
                judged = said["status"] != NOT_JUDGED
                rows.append(
                    Row(split=name, clip=clip.id, metric=metric, value=value, reason=said["reason"], judged=judged)
                )
    return tuple(rows)


def _splits(
    frozen: Benchmark, evaluations: Sequence[Evaluation], reports: Sequence[SplitReport]
) -> dict[str, SplitEntry]:
    generations: dict[str, str] = {}
    for one in evaluations:
        for name in {split for clip in one.clips if (split := frozen.split_of(clip)) is not None}:
            if generations.setdefault(name, one.manifest.inputs["generation"]) != one.manifest.inputs["generation"]:
                raise UsageError(f"the evaluations of the split {name} are of different generations",
                                 where={"evaluation": one.path})  # fmt: skip
    return {
        report.split: SplitEntry(
            data=report.fingerprint, generation=generations[report.split], verified=len(report.agree)
        )
        for report in reports
        if report.split in generations
    }
