"""hm eval: score generated videos, one artifact with means, one row per clip and metric, and the protocol card.

Metrics and backbones are found by name and know nothing of files; this stage decodes videos, finds each clip's
reference, and writes. One item of the artifact is one metric of one clip (`frames/<clip>.<metric>.json`, a value per
frame), so a killed run goes on where it stopped. A clip that cannot be scored is counted and listed, never dropped.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import hmcli
from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.averages import json_number, mean_score
from hmcli.metrics.contract import BACKBONE, PREDICTION, REFERENCE, Backbone, Metric
from hmcli.recipe.reading import Recipe, sections
from hmcli.registry import find, names, normal
from hmcli.reports.protocol import AVERAGES, protocol_card
from hmcli.stages.data.opening import ClipSource, Dataset, load_clip
from hmcli.stages.sampling.generations import Generated, find_reference, open_generation
from hmcli.stages.shared.outcome import check_output
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import read_json, write_csv, write_json, write_text
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.video import read_video

FORMAT = 1  # of scores.json and frames/*.json
COLUMNS = ("clip", "metric", "value", "frames", "unit", "status", "reason")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be computed from what. `reference` is None when nothing asked for needs one."""

    generated: Generated
    reference: Dataset | None
    metrics: tuple[Metric, ...]
    backbone: Backbone | None
    average: str
    versions: Mapping[str, str]

    def label(self, metric: Metric) -> str:
        return metric.label(self.backbone.name if self.backbone else "")


def run(
    recipe: Recipe,
    *,
    generation: Path,
    reference: Path | None,
    metrics: tuple[str, ...],
    out: Path,
    force: bool = False,
    device: str = "cpu",
    reporter: Reporter,
    dry_run: bool = False,
) -> StageResult:
    """Score a generation; see `hm eval --help`. `metrics` empty: every one whose inputs are there.

    Raises UsageError for a metric asked for whose input is missing, MissingPartError for absent weights.
    """
    generated = open_generation(generation, recipe.poses)
    plan = _plan(recipe, generated, reference, metrics, device, reporter)
    labels = [plan.label(metric) for metric in plan.metrics]
    if dry_run:
        check_output(out, "evaluation", reporter)
        reporter.note(f"{len(generated.clips)} clips, {', '.join(labels)}, into {out}")
        return StageResult(
            path=out,
            kind="evaluation",
            counts={"clips": len(generated.clips)},
            details={"dry_run": True, "metrics": labels},
        )
    chosen = tuple(metric.name for metric in plan.metrics)
    used = dataclasses.replace(recipe, eval=dataclasses.replace(recipe.eval, metrics=chosen))
    inputs = {"generation": generated.manifest.fingerprint}
    if plan.reference is not None:
        inputs["reference"] = plan.reference.fingerprint
    with ArtifactWriter(
        out,
        "evaluation",
        recipe=sections(used, "eval"),
        inputs=inputs,
        seed=recipe.seed,
        reporter=reporter,
        force=force,
    ) as writer:
        failures = _score_clips(plan, writer, reporter)
        return _finish(plan, writer, failures, reporter)


# --- inputs ----------------------------------------------------------------------------------------------------------


def _plan(
    recipe: Recipe,
    generated: Generated,
    reference: Path | None,
    asked: tuple[str, ...],
    device: str,
    reporter: Reporter,
) -> Plan:
    """Choose metrics by the inputs that are there; load what they need and nothing else."""
    wanted = [find("metric", name) for name in (dict.fromkeys(map(normal, asked)) or names("metric"))]
    for metric in wanted:
        if unknown := set(metric.needs) - {PREDICTION, REFERENCE, BACKBONE}:
            raise UsageError(
                f"the metric {metric.name} needs {', '.join(sorted(unknown))}, which hm eval does not have"
            )
    dataset, why_not = None, ""
    if reference is not None or any(REFERENCE in metric.needs for metric in wanted):
        dataset, why_not = find_reference(generated, reference)
    without = [metric.name for metric in wanted if REFERENCE in metric.needs and dataset is None]
    if without and asked:
        raise UsageError(
            f"{', '.join(without)} compares with a reference, and there is none: {why_not}",
            where={"generation": generated.path},
            fix="name the folder with the true target videos: --reference DATA",
        )
    if without:
        reporter.note(f"without {', '.join(without)}: {why_not}; --reference DATA names the true target videos")
    metrics = tuple(metric for metric in wanted if metric.name not in without)
    if reference is not None and not any(REFERENCE in metric.needs for metric in metrics):
        raise UsageError(
            "--reference has no effect: no metric asked for compares with it",
            where={"metrics": ", ".join(metric.name for metric in metrics)}, fix="leave --reference out",
        )  # fmt: skip
    backbone = None
    if any(BACKBONE in metric.needs for metric in metrics):
        backbone = find("backbone", recipe.eval.backbone)(recipe.eval.backbone_path, device)
    return Plan(
        generated=generated, reference=dataset, metrics=metrics, backbone=backbone, average=recipe.eval.average,
        versions={"hmcli": hmcli.__version__, "numpy": version("numpy"), "scikit-image": version("scikit-image")},
    )  # fmt: skip


# --- scoring ---------------------------------------------------------------------------------------------------------


class Clip:
    """One clip's inputs, each decoded or computed once, and only when a metric asks for it."""

    def __init__(self, plan: Plan, clip: str, cache: HashCache) -> None:
        self.id, self._plan, self._cache = clip, plan, cache
        self._ready: dict[str, np.ndarray | DataError] = {}

    def key(self, metric: Metric) -> str:
        """Everything the metric's values depend on. Raises DataError when an input is missing."""
        depends: list[Any] = [FORMAT, metric.name, metric.definition, dict(self._plan.versions), self._video_hash()]
        if REFERENCE in metric.needs:
            depends += [self._source().key, dataclasses.asdict(self._plan.generated.data)]
        if BACKBONE in metric.needs and self._plan.backbone is not None:
            depends += [self._plan.backbone.name, self._plan.backbone.about]
        return hash_json(json.loads(json.dumps(depends)))

    def values(self, metric: Metric) -> np.ndarray:
        """Per-frame values. Raises DataError when the clip cannot be judged."""
        offered: dict[str, Callable[[], Any]] = {
            PREDICTION: lambda: self._once(PREDICTION, self._read_prediction),
            REFERENCE: lambda: self._once(REFERENCE, self._read_reference),
            BACKBONE: lambda: self._features,
        }
        try:
            values = metric(**{name: offered[name]() for name in metric.needs})
        except ValueError as error:
            raise DataError(str(error)) from error
        if np.isnan(values).any():
            raise DataError(f"{metric.name} is not a number in frame {int(np.isnan(values).argmax())}")
        return values

    def _features(self, frames: np.ndarray) -> np.ndarray:
        """The backbone on this clip's prediction, which several metrics ask for."""
        assert self._plan.backbone is not None
        backbone = self._plan.backbone
        if frames is not self._ready.get(PREDICTION):
            return backbone(frames)
        return self._once(BACKBONE, lambda: backbone(frames))

    def _once(self, name: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        if name not in self._ready:
            try:
                self._ready[name] = read()
            except DataError as error:
                self._ready[name] = error
        if isinstance(found := self._ready[name], DataError):
            raise found
        return found

    @property
    def _video(self) -> Path:
        generated = self._plan.generated
        if self.id not in generated.rows:
            reasons = {row["item"]: row["reason"] for row in generated.manifest.quarantined}
            raise DataError(f"it was not generated: {reasons[self.id]}")
        return generated.path / generated.rows[self.id]["video"]

    def _video_hash(self) -> str:
        """Of the file as it is now; it must be the one that was generated."""
        video, manifest = self._video, self._plan.generated.manifest
        if not video.is_file():
            raise DataError("the generated video is missing", where={"file": video})
        found = hash_file(video, cache=self._cache)
        name = video.relative_to(self._plan.generated.path).as_posix()
        recorded = next((r["files"][""]["hash"] for r in manifest.items.values() if r.get("path") == name), found)
        if recorded != found:
            raise DataError("the generated video was changed or damaged after it was written", where={"file": video})
        return found

    def _read_prediction(self) -> np.ndarray:
        frames = read_video(self._video)
        if len(frames) != (said := int(self._plan.generated.rows[self.id]["frames"])):
            raise DataError(f"the generated video has {len(frames)} frames, generations.jsonl says {said}")
        return frames

    def _source(self) -> ClipSource:
        dataset = self._plan.reference
        assert dataset is not None
        for source in dataset.clips:
            if source.id == self.id:
                return source
        reasons = {item.item: item.reason for item in dataset.quarantined}
        if self.id in reasons:
            raise DataError(f"its reference cannot be used: {reasons[self.id]}")
        raise DataError("the reference has no clip of this id", where={"reference": dataset.path})

    def _read_reference(self) -> np.ndarray:
        target = load_clip(self._source(), self._plan.generated.data).target
        if target is None:
            raise DataError("its reference has no target video")
        return target


def _score_clips(plan: Plan, writer: ArtifactWriter, reporter: Reporter) -> dict[tuple[str, str], str]:
    """Score what is not there yet; returns (clip, metric name) -> reason of everything that failed."""
    failures: dict[tuple[str, str], str] = {}
    cache = HashCache()
    clips = plan.generated.clips
    with reporter.progress("eval", len(clips), "clip") as advance:
        for clip_id in clips:
            clip = Clip(plan, clip_id, cache)
            failed: dict[str, str] = {}
            for metric in plan.metrics:
                try:
                    if not writer.kept(_item(clip_id, metric), key := clip.key(metric)):
                        _write_values(plan, writer, clip_id, metric, key, clip.values(metric))
                except DataError as error:
                    failed[metric.name] = str(error)
            for item, reason in _grouped(clip_id, failed, plan.metrics):
                writer.quarantine(item, reason)
            failures |= {(clip_id, name): reason for name, reason in failed.items()}
            advance(1)
    return failures


def _item(clip: str, metric: Metric) -> str:
    return f"{clip}.{metric.name}"


def _grouped(clip: str, failed: Mapping[str, str], metrics: tuple[Metric, ...]) -> list[tuple[str, str]]:
    """(item, reason) of what failed: the clip once where nothing could be scored for one reason, else each metric."""
    if len(failed) == len(metrics) and len(set(failed.values())) == 1:
        return [(clip, next(iter(failed.values())))]
    return [(f"{clip}.{name}", reason) for name, reason in failed.items()]


def _write_values(plan: Plan, writer: ArtifactWriter, clip: str, metric: Metric, key: str, values: np.ndarray) -> None:
    """One item: the value of every judged frame, which are the last ones of the clip."""
    frames = int(plan.generated.rows[clip]["frames"])
    content = {
        "format": FORMAT, "clip": clip, "metric": plan.label(metric), "unit": metric.unit,
        "first_frame": frames - len(values), "values": [json_number(value) for value in values],
    }  # fmt: skip
    with writer.item_file(_item(clip, metric), key, suffix=".json", parent="frames") as place:
        write_json(place, content)


# --- results ---------------------------------------------------------------------------------------------------------


def _finish(
    plan: Plan, writer: ArtifactWriter, failures: Mapping[tuple[str, str], str], reporter: Reporter
) -> StageResult:
    done = [(c, m) for c in plan.generated.clips for m in plan.metrics if (c, m.name) not in failures]
    order = [_item(clip, metric) for clip, metric in done]
    per_frame = {(c, m.name): _read_values(writer.path / writer.items[_item(c, m)]["path"]) for c, m in done}
    scores = _scores(plan, per_frame, failures)
    protocol = _protocol(plan)
    if not writer.unchanged(order):
        write_json(writer.staged / "scores.json", scores)
        write_csv(writer.staged / "per_clip.csv", COLUMNS, _table(plan, per_frame, failures))
        write_text(writer.staged / "protocol.md", protocol_card(protocol, scores))
    counts = {"clips": len(plan.generated.clips), "scores": len(done), "failed": len(failures)}
    attributes = {"protocol": protocol, "generation": _judged(plan.generated)}
    manifest = writer.finish(order, counts=counts, attributes=attributes)
    for label, entry in scores["metrics"].items():
        reporter.note(_sentence(label, entry))
    return StageResult(
        path=writer.path, kind="evaluation", fingerprint=manifest.fingerprint, counts=counts,
        quarantined=tuple(Quarantined(item=row["item"], reason=row["reason"]) for row in manifest.quarantined),
        details={"scores": {label: entry["mean"] for label, entry in scores["metrics"].items()}},
    )  # fmt: skip


def _judged(generated: Generated) -> dict[str, Any]:
    """What was scored, for those who only have the scores (hm bench): model, sampler, clips, sizes, time."""
    manifest, rows = generated.manifest, generated.rows.values()
    seconds = [float(row["seconds"]) for row in rows if "seconds" in row]
    return {
        "inputs": manifest.inputs, "recipe": manifest.recipe, "seed": manifest.seed,
        "source": generated.source, "source_fingerprint": generated.source_fingerprint,
        "shapes": sorted({(int(r["frames"]), int(r["height"]), int(r["width"])) for r in rows}),
        "seconds_per_clip": median(seconds) if seconds and len(seconds) == len(rows) else None,
    }  # fmt: skip


def _read_values(file: Path) -> list[float]:
    return [float(value) for value in read_json(file)["values"]]


def _scores(
    plan: Plan, per_frame: Mapping[tuple[str, str], list[float]], failures: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """The content of scores.json."""
    entries = {}
    for metric in plan.metrics:
        values = [found for (_, name), found in per_frame.items() if name == metric.name]
        failed = [{"clip": clip, "reason": why} for (clip, name), why in failures.items() if name == metric.name]
        entries[plan.label(metric)] = {
            "metric": metric.name, "mean": json_number(mean_score(values, plan.average)), "unit": metric.unit,
            "better": metric.better, "n": len(values), "frames": sum(map(len, values)), "failed": len(failed),
            "failures": failed,
        }  # fmt: skip
    return {"format": FORMAT, "average": plan.average, "clips": len(plan.generated.clips), "metrics": entries}


def _table(
    plan: Plan, per_frame: Mapping[tuple[str, str], list[float]], failures: Mapping[tuple[str, str], str]
) -> Iterator[dict[str, Any]]:
    """One row per clip and metric, failed ones with an empty value."""
    for clip in plan.generated.clips:
        for metric in plan.metrics:
            values = per_frame.get((clip, metric.name), [])
            reason = failures.get((clip, metric.name), "")
            mean = json_number(mean_score([values], "videos")) if values else ""
            yield {
                "clip": clip, "metric": plan.label(metric), "value": mean, "frames": len(values), "unit": metric.unit,
                "status": "failed" if reason else "ok", "reason": " ".join(reason.split()),
            }  # fmt: skip


def _sentence(label: str, entry: Mapping[str, Any]) -> str:
    mean = "no score" if entry["mean"] is None else f"{float(entry['mean']):.4f} {entry['unit']}".rstrip()
    failed = f", {entry['failed']} failed" if entry["failed"] else ""
    return f"{label}: {mean} ({entry['n']} clips, {entry['frames']} frames{failed})"


def _protocol(plan: Plan) -> dict[str, dict[str, str]]:
    """Sections of the protocol card: every choice that changes a number."""
    generated = plan.generated
    shapes = sorted({(int(r["frames"]), int(r["height"]), int(r["width"])) for r in generated.rows.values()})
    card = {
        "Metrics": {plan.label(metric): metric.definition for metric in plan.metrics},
        "Averages": {
            f"eval.average: {plan.average}": AVERAGES[plan.average],
            "failed clips": "in no mean; counted above",
        },
        "Prediction": {
            "generation": generated.manifest.fingerprint,
            "frames": "all target frames, decoded to uint8 RGB from the generation's videos (compressed once)",
            "frames x height x width": ", ".join(f"{t}x{h}x{w}" for t, h, w in shapes),
        },
    }
    if plan.reference is not None:
        data = generated.data
        split = f"context {data.split.context} + target {data.split.target}" if data.split else "as the clips have it"
        card["Reference"] = {
            "data set": plan.reference.fingerprint,
            "frames": "target video of the clip of the same id, frame by frame; never compressed again",
            "resize": f"to {data.size[0]}x{data.size[1]} (height x width), data.fit={data.fit}",
            "length": f"data.frames={data.frames}, split: {split}",
        }
    if plan.backbone is not None:
        card["Backbone"] = {"name": plan.backbone.name, **plan.backbone.about}
        card["Backbone"] |= {
            f"{plan.label(m)} against published": _comparable(m, plan.backbone.name) for m in _featured(plan)
        }
    card["Versions"] = dict(plan.versions)
    return card


def _featured(plan: Plan) -> list[Metric]:
    return [metric for metric in plan.metrics if BACKBONE in metric.needs]


def _comparable(metric: Metric, backbone: str) -> str:
    if metric.published in ("", backbone):
        return "the backbone of the published numbers, given its released weights"
    return f"not comparable: published numbers use {metric.published}, this is {backbone}"
