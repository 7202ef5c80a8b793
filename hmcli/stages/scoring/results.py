"""What scoring writes: scores, the table of clips, the protocol card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from hmcli.contracts import Quarantined, StageResult
from hmcli.errors import DataError
from hmcli.metrics.averages import json_number
from hmcli.metrics.contract import Metric
from hmcli.metrics.identity import identity_note
from hmcli.registry import find
from hmcli.reports.protocol import AVERAGES, protocol_card
from hmcli.stages.sampling.generations import Generated
from hmcli.stages.sampling.layout import READS
from hmcli.stages.scoring.clip import item_name
from hmcli.stages.scoring.layout import (
    CARD,
    COLUMNS,
    FAILED,
    FORMAT,
    FRAMES,
    KEPT,
    KIND,
    MISSED,
    MISSED_COLUMNS,
    NOT_JUDGED,
    OK,
    SCORES,
    SLICE_COLUMNS,
    SLICES,
    STRETCH_COLUMNS,
    STRETCHES,
    TABLE,
    Average,
    EvaluationAttributes,
    Failure,
    Judged,
    Score,
    Scores,
    Values,
    number,
)
from hmcli.stages.scoring.missed import missed_table, told
from hmcli.stages.scoring.plan import Plan
from hmcli.stages.scoring.slices import index_of, number_of, slice_table
from hmcli.stages.shared.shards import Parts
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import parse_json, read_csv, read_json, write_csv, write_json, write_text
from hmcli.store.listed import listed

Failures = Mapping[tuple[str, str], str]  # (clip, name of the column) -> reason


def finish(plan: Plan, writer: ArtifactWriter, failures: Failures, stay: Failures) -> StageResult:
    """Write the tables and complete the artifact; `stay` are values from earlier that cannot be computed now."""
    done = [(clip, of) for clip in plan.clips for of in plan.items if (clip, of.name) not in failures]
    order = [item_name(clip, column) for clip, column in done]
    scored = [(clip, of) for clip, of in done if of in plan.columns]
    found = {(clip, of.name): _read(writer.place(item_name(clip, of))) for clip, of in scored}
    scores, table = _scores(plan, found, failures), list(_table(plan, found, failures, stay))
    reference = "" if plan.reference is None else str(plan.reference.path.absolute())
    attributes = EvaluationAttributes(protocol=_protocol(plan), generation=_judged(plan.generated), reference=reference)
    metrics = {column.label: column.metric for column in plan.columns}
    slices = list(slice_table(found.values(), metrics, plan.settings.average, index_of(reference)))
    more = {STRETCHES: list(_stretch_table(found.values())), SLICES: slices, MISSED: list(missed_table(plan))}
    return _complete(writer, order, scores, table, more, attributes)


def join(writer: ArtifactWriter, parts: Parts) -> StageResult:
    """Complete the evaluation whose clips were scored in parts: their values are in the writer."""
    attributes = from_json(EvaluationAttributes, parts.attributes, "the description", evaluation=parts.paths[0])
    found = scores_of(parts)
    values: dict[str, list[Values]] = {}
    places = map(writer.place, parts.items)
    every = [_read(place) for place in places if place.parent.name == FRAMES]
    for one in every:
        values.setdefault(one.metric, []).append(one)
    entries, metrics = {}, {label: find("metric", of.metric) for label, of in found[0].metrics.items()}
    for label, metric in metrics.items():
        failed = [failure for scores in found for failure in scores.metrics[label].failures]
        entries[label] = _score(metric, values.get(label, []), failed, found[0].average)
    clips = sum(scores.clips for scores in found)
    joined = Scores(format=FORMAT, average=found[0].average, clips=clips, metrics=entries)
    table = [row for path in parts.paths for row in read_csv(listed(path).check(TABLE))]
    slices = list(slice_table(every, metrics, joined.average, index_of(attributes.reference)))
    missed = [row for path in parts.paths if (path / MISSED).is_file() for row in read_csv(listed(path).check(MISSED))]
    more = {STRETCHES: list(_stretch_table(every)), SLICES: slices, MISSED: missed}
    return _complete(writer, parts.items, joined, table, more, attributes)


def scores_of(parts: Parts) -> list[Scores]:
    """scores.json of each part. Raises DataError when they do not score the same metrics."""
    found: list[Scores] = []
    for part in parts.paths:
        content = parse_json(listed(part).read(SCORES).data, part / SCORES)
        found.append(from_json(Scores, content, "the scores", file=part / SCORES))
        if list(found[-1].metrics) != list(found[0].metrics):
            raise DataError("parts of one evaluation have the same metrics", where={"file": part / SCORES})
    return found


Rows = list[dict[str, Any]]
_MORE = {STRETCHES: STRETCH_COLUMNS, SLICES: SLICE_COLUMNS, MISSED: MISSED_COLUMNS}  # written where they have rows


def _complete(
    writer: ArtifactWriter, order: list[str], scores: Scores, table: Rows, more: Mapping[str, Rows],
    said: EvaluationAttributes,
) -> StageResult:  # fmt: skip
    """Write the tables of the values that the writer has, `order` being their items, and finish."""
    if not writer.unchanged(order):
        write_json(writer.staged / SCORES, to_json(scores))
        write_csv(writer.staged / TABLE, COLUMNS, table)
        for name, rows in more.items():
            if rows:
                write_csv(writer.staged / name, _MORE[name], rows)
        write_text(writer.staged / CARD, protocol_card(said.protocol, to_json(scores)))
    failed = sum(entry.failed for entry in scores.metrics.values())
    not_judged = sum(entry.not_judged for entry in scores.metrics.values())
    judged = sum(entry.n for entry in scores.metrics.values())
    counts = {"clips": scores.clips, "scores": judged, "failed": failed, "not_judged": not_judged}
    if missed := more[MISSED]:
        counts["missed_subjects"] = len(missed)
        writer.reporter.note(f"{told(missed)} ({MISSED})")
    manifest = writer.finish(order, counts=counts, attributes=to_json(said))
    for label, entry in scores.metrics.items():
        writer.reporter.note(_sentence(label, entry))
    return StageResult(
        path=writer.path, kind=KIND, fingerprint=manifest.fingerprint, counts=counts,
        quarantined=tuple(Quarantined(item=row["item"], reason=row["reason"]) for row in manifest.quarantined),
        details={"scores": {label: entry.mean for label, entry in scores.metrics.items()}},
    )  # fmt: skip


def _judged(generated: Generated) -> Judged:
    manifest, rows = generated.manifest, generated.rows.values()
    peaks = [row.peak_bytes for row in rows if row.peak_bytes is not None]
    devices = sorted({row.again.device for row in rows if row.again is not None})
    return Judged(
        inputs=manifest.inputs, recipe=manifest.recipe, seed=manifest.seed, source=generated.source,
        source_fingerprint=generated.source_fingerprint, shapes=_shapes(generated),
        seconds_per_clip=median(row.seconds for row in rows) if rows else None,
        model_free=generated.model_free.row if generated.model_free else "", path=str(generated.path.absolute()),
        network=generated.network, peak_bytes=max(peaks, default=None), devices=tuple(devices) or None,
    )  # fmt: skip


def _shapes(generated: Generated) -> tuple[tuple[int, int, int], ...]:
    """Frames, height, width of the videos, each once."""
    return tuple(sorted({(row.frames, row.height, row.width) for row in generated.rows.values()}))


def _read(file: Path) -> Values:
    return from_json(Values, read_json(file), "the values of a clip", file=file)


def _scores(plan: Plan, found: Mapping[tuple[str, str], Values], failures: Failures) -> Scores:
    entries = {}
    for column in plan.columns:
        values = [of for (_, name), of in found.items() if name == column.name]
        failed = [Failure(clip=clip, reason=why) for (clip, name), why in failures.items() if name == column.name]
        entries[column.label] = _score(column.metric, values, failed, plan.settings.average)
    return Scores(format=FORMAT, average=plan.settings.average, clips=len(plan.clips), metrics=entries)


def _score(metric: Metric, values: list[Values], failed: list[Failure], average: Average) -> Score:
    """A metric over all clips: what was judged of each, and the clips that have nothing."""
    judged = [one.judged for one in values if one.not_judged is None]
    unjudged = tuple(Failure(clip=one.clip, reason=one.not_judged) for one in values if one.not_judged is not None)
    mean = number_of(metric, judged, average)
    return Score(
        metric=metric.name, mean=None if mean is None else number(mean), unit=metric.unit, better=metric.better,
        n=len(judged), frames=len(judged) if metric.per == "clip" else sum(map(len, judged)), failed=len(failed),
        failures=tuple(failed), not_judged=len(unjudged), unjudged=unjudged, per=metric.per,
    )  # fmt: skip


def _table(
    plan: Plan, found: Mapping[tuple[str, str], Values], failures: Failures, stay: Failures
) -> Iterator[dict[str, Any]]:
    """One row per clip and metric; the value is empty where it failed, or had nothing to judge."""
    for clip in plan.clips:
        for column in plan.columns:
            name, metric = (clip, column.name), column.metric
            values, reason, status = [], failures.get(name, ""), FAILED
            if not reason:
                values, reason = found[name].judged, found[name].not_judged or ""
                status = NOT_JUDGED if reason else KEPT if name in stay else OK
            alone = number_of(metric, [values], "videos") if values else None
            if values and alone is None:
                status, reason = NOT_JUDGED, "the clip alone has no value; it counts in that of all clips"
            yield {
                "clip": clip, "metric": column.label, "value": "" if alone is None else json_number(alone),
                "frames": 1 if values and metric.per == "clip" else len(values), "unit": metric.unit,
                "status": status, "reason": " ".join(reason.split()),
            }  # fmt: skip


def _stretch_table(found: Iterable[Values]) -> Iterator[dict[str, Any]]:
    """One row per clip, metric of stretches, and stretch; one whose subject does not come back has no height."""
    for one in found:
        for about, value in zip(one.stretches or (), one.values, strict=False):
            known = {"clip": one.clip, "metric": one.metric, **to_json(about), "value": value, "unit": one.unit}
            yield dict.fromkeys(STRETCH_COLUMNS, "") | known


def _sentence(label: str, score: Score) -> str:
    mean = "no score" if score.mean is None else f"{float(score.mean):.4f} {score.unit}".rstrip()
    values = {"frame": f", {score.frames} frames", "stretch": f", {score.frames} stretches", "clip": ""}[score.per]
    failed = f", {score.failed} failed" if score.failed else ""
    not_judged = f", {score.not_judged} not judged" if score.not_judged else ""
    return f"{label}: {mean} ({score.n} clips{values}{failed}{not_judged})"


def _protocol(plan: Plan) -> dict[str, dict[str, str]]:
    """Sections of the protocol card: every choice that changes a number."""
    generated = plan.generated
    card = {
        "Metrics": {column.label: column.metric.definition for column in plan.columns},
        "Averages": {
            f"eval.average: {plan.settings.average}": AVERAGES[plan.settings.average],
            "failed clips": "in no mean; counted above",
            "clips and frames with nothing to judge": "in no mean, and no failure; such clips are counted above",
        },
        "Prediction": {
            "generation": generated.manifest.fingerprint,
            "frames": "all target frames, decoded to uint8 RGB from the generation's videos (compressed once)",
            "frames x height x width": ", ".join(f"{t}x{h}x{w}" for t, h, w in _shapes(generated)),
            **_foreign(generated),
            **_sampled(generated),
            **_several(generated),
            **_without_model(generated),
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
            "frame rate": "as the videos have it"
            if data.fps is None
            else f"data.fps={data.fps:g}, by leaving out frames",
        }
    for name, backbone in plan.backbones.items():
        columns = [column for column in plan.columns if column.backbone == name]
        card["Backbone" if len(plan.backbones) == 1 else f"Backbone {name}"] = {
            "name": backbone.name, **backbone.about, "identity": identity_note(name, plan.generated.data.size),
            **{f"{column.label} against published": _comparable(column.metric, name) for column in columns},
        }  # fmt: skip
    if (detector := plan.detector) is not None:
        card["Detector"] = {"name": detector.name, **detector.about}
    card["Versions"] = dict(plan.versions)
    return card


def _foreign(generated: Generated) -> dict[str, str]:
    """What a plain folder of videos is, and what was done to them."""
    if (how := generated.foreign) is None:
        return {}
    held = {"target": "the target alone", "joined": "context and target, of which the target is judged"}
    resized = {"refuse": "never", "crop": "the middle cut out", "stretch": "both sides scaled"}
    return {
        "frames": "of a plain folder of videos or pictures named by clip id, decoded to uint8 RGB; zero-shot",
        "eval.videos": f"{how.videos}: {held[how.videos]}",
        "eval.resize": f"{how.resize}: {resized[how.resize]}",
        "videos of no true clip": f"{len(how.extra)}, not scored",
    }


def _sampled(generated: Generated) -> dict[str, str]:
    """How memory was read, where the generation says it."""
    memory = generated.manifest.recipe.get("sample", {}).get("memory")
    told = {"on": "read, by the model's own policy", "off": "off: local windows alone, with the same weights"}
    return {} if memory is None else {"sample.memory": told[memory]}


def _several(generated: Generated) -> dict[str, str]:
    """What becomes of several samples of a clip."""
    if generated.count == 1:
        return {}
    return {
        "samples of a clip": f"{generated.count}: scores are of single samples, and then the mean over them; "
        "[mean picture] is of the mean of their pixels, rounded, which PSNR rewards for its blur"
    }


def _without_model(generated: Generated) -> dict[str, str]:
    """What a model-free row is, what it may see, and how many of its videos were made in which way."""
    if (about := generated.model_free) is None:
        return {}
    ways = Counter(row.made for row in generated.rows.values() if row.made)
    made = {"made": "; ".join(f"{count} clips {way}" for way, count in sorted(ways.items()))} if ways else {}
    said = {"model": f"none: the model-free row {about.row}", "shows": about.definition, "reads": READS[about.uses]}
    return said | made


def _comparable(metric: Metric, backbone: str) -> str:
    if metric.published in ("", backbone):
        return "the backbone of the published numbers, given its released weights"
    return f"not comparable: published numbers use {metric.published}, this is {backbone}"
