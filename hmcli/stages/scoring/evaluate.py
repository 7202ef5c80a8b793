"""hm eval: score generated videos, one artifact with means, one row per clip and metric, and the protocol card.

Metrics and backbones are found by name and know nothing of files; this stage decodes videos, finds each clip's
reference, and writes. One item of the artifact is one metric of one clip (`frames/<clip>.<metric>.json`, a value per
frame), so a killed run goes on where it stopped. A clip that cannot be scored is counted and listed, never dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

import hmcli
from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.contract import BACKBONE, PREDICTION, REFERENCE, Metric
from hmcli.recipe.keys import Reader
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import Recipe
from hmcli.registry import find, names, normal
from hmcli.stages.sampling.generations import Generated, find_reference, open_generation
from hmcli.stages.scoring.clip import Clip, Plan, item_name
from hmcli.stages.scoring.layout import FORMAT, FRAMES, KIND, Values, number
from hmcli.stages.scoring.results import finish
from hmcli.stages.shared.each import asked_for, each
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.outcome import planned
from hmcli.stages.shared.shards import Shard, share
from hmcli.stages.shared.typed import to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json
from hmcli.store.hashing import HashCache, hash_json
from hmcli.store.manifest import plain


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
    prune: bool = False,
    processes: int = 1,
    dry_run: bool = False,
    shard: Shard | None = None,
) -> StageResult:
    """Score a generation; see `hm eval --help`. `metrics` empty: every one whose inputs are there.

    Raises UsageError for a metric asked for whose input is missing, MissingPartError for absent weights.
    """
    generated = open_generation(generation, recipe.poses)
    own = share(shard, generated.clips)
    plan = _plan(recipe, generated, own.clips, reference, metrics, device, reporter)
    labels = [plan.label(metric) for metric in plan.metrics]
    keys, failed = _keys(plan)
    units = [Unit(id=clip, items=items) for clip, items in keys.items()]
    asked = asked_for(units, unread=frozenset(item for of in failed.values() for item in of), seeded=False)
    if dry_run:
        text = f"{len(plan.clips)} clips, {', '.join(labels)}"
        return planned(
            out, KIND, text, reporter, look=asked, force=force, prune=prune,
            counts={"clips": len(plan.clips)}, part=own.part, metrics=labels,
        )  # fmt: skip
    chosen = tuple(metric.name for metric in plan.metrics)
    used = dataclasses.replace(recipe, eval=dataclasses.replace(recipe.eval, metrics=chosen))
    features: tuple[Reader, ...] = () if plan.backbone is None else ("features",)
    inputs = {"generation": generated.manifest.fingerprint}
    if plan.reference is not None:
        inputs["reference"] = plan.reference.fingerprint
    with ArtifactWriter(
        out,
        KIND,
        recipe=reads(used, "eval", *features),
        inputs=inputs,
        seed=recipe.seed,
        reporter=reporter,
        force=force,
        prune=prune,
        under=hash_json(plain([FORMAT, generated.manifest.fingerprint, plan.about()])),
        part=own.part,
    ) as writer:
        writer.ask(asked)
        failures, stay = _score_clips(plan, writer, units, failed, processes)
        return finish(plan, writer, failures, stay)


# --- inputs ----------------------------------------------------------------------------------------------------------


def _plan(
    recipe: Recipe,
    generated: Generated,
    clips: tuple[str, ...],
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
    return Plan(
        generated=generated, clips=clips, reference=dataset, metrics=metrics, settings=recipe.eval, device=device,
        versions={"hmcli": hmcli.__version__, "numpy": version("numpy"), "scikit-image": version("scikit-image")},
    )  # fmt: skip


def needs_backbone(asked: tuple[str, ...]) -> bool:
    """Does any of these metrics (none named: of all) look at features?"""
    return any(BACKBONE in find("metric", name).needs for name in (asked or names("metric")))


# --- scoring ---------------------------------------------------------------------------------------------------------


Failures = dict[tuple[str, str], str]  # (clip, metric name) -> reason


def _score_clips(
    plan: Plan, writer: ArtifactWriter, units: list[Unit], failed: dict[str, dict[str, str]], processes: int
) -> tuple[Failures, Failures]:
    """Score what is not there yet; returns what failed, and what cannot be scored now but was earlier, and stays."""

    def keep(unit: Unit, values: dict[str, Values | DataError], _: Path) -> None:
        for item, found in values.items():
            if isinstance(found, DataError):
                failed[unit.id][item] = str(found)
            else:
                with writer.item_file(item, unit.items[item], suffix=".json", parent=FRAMES) as place:
                    write_json(place, to_json(found))

    each(writer, units, Scorer(plan), keep, label="scoring", processes=processes)
    names = {item_name(clip, metric): (clip, metric.name) for clip in failed for metric in plan.metrics}
    failures: Failures = {}
    stay: Failures = {}
    for clip, reasons in failed.items():
        for name, reason, items in _grouped(clip, reasons, plan.metrics):
            (stay if writer.quarantine(name, reason, items) else failures).update({names[i]: reason for i in items})
    return failures, stay


def _keys(plan: Plan) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """By clip, the key of each item that can be looked for, and why the others cannot."""
    cache = HashCache()
    keys: dict[str, dict[str, str]] = {}
    failed: dict[str, dict[str, str]] = {}
    for clip in plan.clips:
        inputs = Clip(plan, clip, cache)
        keys[clip], failed[clip] = {}, {}
        for metric in plan.metrics:
            item = item_name(clip, metric)
            try:
                keys[clip][item] = inputs.key(metric)
            except DataError as error:
                failed[clip][item] = str(error)
    return keys, failed


@dataclass(frozen=True)
class Scorer:
    """Judges clips by their ids (hmcli.stages.shared.makers.Maker): item -> what its file holds, or why not."""

    plan: Plan

    @property
    def imports(self) -> tuple[str, ...]:
        return ("torch",) if any(BACKBONE in metric.needs for metric in self.plan.metrics) else ()

    def reporting_to(self, reporter: Reporter) -> Scorer:
        return self  # it tells nothing

    def load(self) -> None:
        _ = self.plan.backbone

    def make(self, unit: Unit, place: Path) -> dict[str, Values | DataError]:
        clip = Clip(self.plan, unit.id, HashCache())
        found: dict[str, Values | DataError] = {}
        for metric in self.plan.metrics:
            if (item := item_name(unit.id, metric)) in unit.items:
                try:
                    found[item] = _content(self.plan, unit.id, metric, clip.values(metric))
                except DataError as error:
                    found[item] = error
        return found


def _grouped(clip: str, failed: Mapping[str, str], metrics: tuple[Metric, ...]) -> list[tuple[str, str, list[str]]]:
    """(name, reason, items) of what failed: the clip once where nothing could be scored for one reason, else each."""
    if len(failed) == len(metrics) and len(set(failed.values())) == 1:
        return [(clip, next(iter(failed.values())), list(failed))]
    return [(item, reason, [item]) for item, reason in failed.items()]


def _content(plan: Plan, clip: str, metric: Metric, values: np.ndarray) -> Values:
    return Values(
        format=FORMAT, clip=clip, metric=plan.label(metric), unit=metric.unit,
        first_frame=plan.generated.rows[clip].frames - len(values), values=tuple(map(number, values)),
    )  # fmt: skip
