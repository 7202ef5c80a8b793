"""hm eval: score generated videos, one artifact with means, one row per clip and metric, and the protocol card.

Metrics and backbones are found by name and know nothing of files; this stage decodes videos, finds each clip's
reference, and writes. One item of the artifact is one metric of one clip (`frames/<clip>.<metric>.json`, a value per
frame), or who was seen where in it (`places/`), so a killed run goes on where it stopped. A clip that cannot be scored
is counted and listed, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

import hmcli
from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.contract import BACKBONE, DETECTIONS, LPIPS, OTHER_SAMPLES, REGIONS, Metric, NothingToJudge
from hmcli.metrics.places import PLACES as WHERE
from hmcli.recipe.keys import Reader
from hmcli.recipe.readers import reads
from hmcli.recipe.sections import DataConfig, EvalConfig, Recipe
from hmcli.registry import find, names, normal
from hmcli.stages.data.opening import Dataset, open_dataset
from hmcli.stages.sampling.foreign import is_plain_folder, open_foreign
from hmcli.stages.sampling.generations import Generated, find_reference, open_generation
from hmcli.stages.scoring.clip import INPUTS, Clip, Found, annotations_of, item_name, lacking, reads_reference
from hmcli.stages.scoring.layout import FORMAT, FRAMES, KIND, PLACES, Places, Values, number
from hmcli.stages.scoring.places import places_of
from hmcli.stages.scoring.plan import Column, Plan, columns_of, paths_of
from hmcli.stages.scoring.results import finish
from hmcli.stages.shared.each import asked_for, each
from hmcli.stages.shared.makers import Unit
from hmcli.stages.shared.outcome import planned
from hmcli.stages.shared.shards import Shard, share
from hmcli.stages.shared.typed import to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import json_text
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
    generated = _opened(generation, reference, recipe, reporter)
    own = share(shard, generated.clips)
    plan = replace(_plan(recipe, generated, own.clips, reference, metrics, device, reporter), fresh=force)
    labels = [column.label for column in plan.columns]
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
    used = replace(recipe, eval=replace(recipe.eval, metrics=chosen))
    features: list[Reader] = ["features"] if any(BACKBONE in metric.needs for metric in plan.metrics) else []
    features += ["lpips"] if any(LPIPS in metric.needs for metric in plan.metrics) else []
    features += ["official"] if any(REGIONS in metric.needs for metric in plan.metrics) else []
    features += ["folder"] if generated.foreign is not None else []
    features += ["detections"] if any(DETECTIONS in metric.needs for metric in plan.metrics) else []
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


def _opened(path: Path, reference: Path | None, recipe: Recipe, reporter: Reporter) -> Generated:
    """A generation, or a plain folder of videos."""
    if not is_plain_folder(path):
        return open_generation(path, recipe.poses)
    truth = None if reference is None else open_dataset(reference, recipe.poses)
    generated = open_foreign(path, truth, recipe.eval, recipe.poses)
    if truth is None:
        reporter.note("without --reference only what needs no truth is scored; no video can be missed")
    if generated.foreign is not None and (extra := generated.foreign.extra):
        reporter.note(f"{len(extra)} videos of the folder are of no true clip, and not scored: {', '.join(extra[:5])}")
    if left_out := generated.manifest.quarantined:
        reporter.warn(f"{len(left_out)} of {len(generated.clips)} true clips have no video that fits")
    return generated


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
    wanted, _ = _wanted(asked), paths_of(recipe.eval)
    dataset, why_not = None, ""
    if reference is not None or any(map(reads_reference, wanted)):
        dataset, why_not = find_reference(generated, reference)
    wanted = _with_samples(wanted, generated, bool(asked), reporter)
    metrics = wanted = _with_networks(wanted, recipe.eval, bool(asked), reporter)
    for lack in _lacks(wanted, dataset, why_not, generated.data):
        if asked:
            raise UsageError(f"{lack.names} {lack.what}", where={"generation": generated.path}, fix=lack.fix)
        reporter.note(f"without {lack.names}: {lack.why}; {lack.hint}")
        metrics = tuple(metric for metric in metrics if metric not in lack.metrics)
    if reference is not None and not any(map(reads_reference, metrics)):
        raise UsageError(
            "--reference has no effect: no metric asked for compares with it",
            where={"metrics": ", ".join(metric.name for metric in metrics)}, fix="leave --reference out",
        )  # fmt: skip
    return Plan(
        generated=generated, clips=clips, reference=dataset,
        columns=columns_of(metrics, recipe.eval, generated.data.size, generated.count),
        settings=recipe.eval, device=device,
        versions={"hmcli": hmcli.__version__, "numpy": version("numpy"), "scikit-image": version("scikit-image")},
    )  # fmt: skip


def _wanted(asked: tuple[str, ...]) -> tuple[Metric, ...]:
    """The metrics of these names, all where none is named. Raises UsageError for one whose needs nobody can meet."""
    wanted = tuple(find("metric", name) for name in (dict.fromkeys(map(normal, asked)) or names("metric")))
    for metric in wanted:
        if unknown := set(metric.needs) - INPUTS.keys():
            raise UsageError(
                f"the metric {metric.name} needs {', '.join(sorted(unknown))}, which hm eval does not have",
                where={"there are": ", ".join(INPUTS)},
            )
    return wanted


def _with_samples(
    wanted: tuple[Metric, ...], generated: Generated, asked: bool, reporter: Reporter
) -> tuple[Metric, ...]:
    """The metrics without those that compare samples, where a clip has one. Raises UsageError for one asked for."""
    compare = [metric for metric in wanted if OTHER_SAMPLES in metric.needs]
    if generated.count > 1 or not compare:
        return wanted
    names, why = ", ".join(metric.name for metric in compare), "the generation has one sample of every clip"
    if asked:
        fix = "hm generate ... --set sample.count=4 makes several"
        raise UsageError(f"{names} compares samples, and {why}", where={"generation": generated.path}, fix=fix)
    reporter.note(f"without {names}: {why}")
    return tuple(metric for metric in wanted if metric not in compare)


def _with_networks(
    wanted: tuple[Metric, ...], settings: EvalConfig, asked: bool, reporter: Reporter
) -> tuple[Metric, ...]:
    """The metrics without those whose network the recipe does not name.

    Asked for by name, LPIPS and the published DSC stay (loading says what they lack), and a metric without its detector
    raises UsageError.
    """
    found = wanted
    for need, key, path in ((LPIPS, "lpips_path", settings.lpips_path), (REGIONS, "dsc_path", settings.dsc_path)):
        if not asked and not path and (without := [metric for metric in found if need in metric.needs]):
            names = ", ".join(metric.name for metric in without)
            reporter.note(f"without {names}: eval.{key} is empty; docs/metrics.md says which files it wants")
            found = tuple(metric for metric in found if metric not in without)
    if not settings.detector and (blind := [metric for metric in wanted if DETECTIONS in metric.needs]):
        names = ", ".join(metric.name for metric in blind)
        fix = "--set eval.detector=segmenter finds the subjects of predictions (docs/metrics.md)"
        if asked:
            raise UsageError(f"{names} needs a detector, and eval.detector is empty", fix=fix)
        reporter.note(f"without {names}: eval.detector is empty; {fix}")
        found = tuple(metric for metric in found if metric not in blind)
    return found


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Metrics that cannot be computed here: `what` is told those who asked for them by name, `why` all others."""

    metrics: tuple[Metric, ...]
    what: str
    why: str
    fix: str
    hint: str

    @property
    def names(self) -> str:
        return ", ".join(metric.name for metric in self.metrics)


def _lacks(wanted: tuple[Metric, ...], dataset: Dataset | None, why_not: str, data: DataConfig) -> list[Lack]:
    """What is missing, by reason: the reference, or an annotation that none of its clips has."""
    if dataset is None:
        without = tuple(filter(reads_reference, wanted))
        lack = Lack(
            metrics=without, what=f"compares with a reference, and there is none: {why_not}", why=why_not,
            fix="name the folder with the true target videos: --reference DATA",
            hint="--reference DATA names the true target videos",
        )  # fmt: skip
        return [lack] if without else []
    found: list[Lack] = []
    for name, offered in INPUTS.items():
        said = {metric.name for lack in found for metric in lack.metrics}
        without = tuple(metric for metric in wanted if name in metric.needs and metric.name not in said)
        absent = [lacking(name, clip, data) for clip in dataset.clips] if without and offered.of_reference else []
        if absent and all(absent):
            why = f"no clip of {dataset.path} has {absent[0]}"
            hint = "clips that `hm render` made have it"
            found.append(Lack(metrics=without, what=f"needs {name}, and {why}", why=why, fix=hint, hint=hint))
    return found


def needs_backbone(asked: tuple[str, ...]) -> bool:
    """Does any of these metrics (none named: of all) look at features?"""
    return _any_needs(BACKBONE, asked)


def needs_lpips(asked: tuple[str, ...]) -> bool:
    """Is any of these metrics (none named: of all) computed by LPIPS's network?"""
    return _any_needs(LPIPS, asked)


def needs_regions(asked: tuple[str, ...]) -> bool:
    """Is any of these metrics (none named: of all) the published DSC?"""
    return _any_needs(REGIONS, asked)


def needs_detector(asked: tuple[str, ...]) -> bool:
    """Does any of these metrics (none named: of all) look at subjects found in the prediction?"""
    return _any_needs(DETECTIONS, asked)


def _any_needs(what: str, asked: tuple[str, ...]) -> bool:
    return any(what in find("metric", name).needs for name in (asked or names("metric")))


# --- scoring ---------------------------------------------------------------------------------------------------------


Failures = dict[tuple[str, str], str]  # (clip, name of the column) -> reason
Item = Values | Places


def _score_clips(
    plan: Plan, writer: ArtifactWriter, units: list[Unit], failed: dict[str, dict[str, str]], processes: int
) -> tuple[Failures, Failures]:
    """Score what is not there yet; returns what failed, and what cannot be scored now but was earlier, and stays."""

    def keep(unit: Unit, values: dict[str, Item | DataError], _: Path) -> None:
        for item, found in values.items():
            if isinstance(found, DataError):
                failed[unit.id][item] = str(found)
            else:
                parent = PLACES if isinstance(found, Places) else FRAMES
                with writer.item_file(item, unit.items[item], suffix=".json", parent=parent) as place:
                    place.write_text(json_text(to_json(found)), encoding="utf-8", newline="\n")  # the writer syncs it

    each(writer, units, Scorer(plan), keep, label="scoring", processes=processes)
    names = {item_name(clip, column): (clip, column.name) for clip in failed for column in plan.items}
    failures: Failures = {}
    stay: Failures = {}
    for clip, reasons in failed.items():
        for name, reason, items in _grouped(clip, reasons, len(plan.items)):
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
        for column in plan.items:
            item = item_name(clip, column)
            try:
                keys[clip][item] = inputs.key(column)
            except DataError as error:
                failed[clip][item] = str(error)
    return keys, failed


@dataclass(frozen=True)
class Scorer:
    """Judges clips by their ids (hmcli.stages.shared.makers.Maker): item -> what its file holds, or why not."""

    plan: Plan

    @property
    def imports(self) -> tuple[str, ...]:
        return ("torch",) if any(column.backbone or column.detector for column in self.plan.columns) else ()

    def reporting_to(self, reporter: Reporter) -> Scorer:
        return self  # it tells nothing

    def load(self) -> None:
        _ = self.plan.backbones, self.plan.detector

    def make(self, unit: Unit, place: Path) -> dict[str, Item | DataError]:
        clip = Clip(self.plan, unit.id, HashCache())
        found: dict[str, Item | DataError] = {}
        for column in self.plan.items:
            if (item := item_name(unit.id, column)) in unit.items:
                try:
                    placed = column.metric is WHERE
                    found[item] = places_of(clip, column.detector) if placed else _judged(self.plan, clip, column)
                    if annotations_of(column.metric) and clip.key(column) != unit.items[item]:
                        raise DataError("annotations changed while they were used; run the same command again")
                except DataError as error:
                    found[item] = error
        clip.features.flush()
        return found


def _grouped(clip: str, failed: Mapping[str, str], columns: int) -> list[tuple[str, str, list[str]]]:
    """(name, reason, items) of what failed: the clip once where nothing could be scored for one reason, else each."""
    if len(failed) == columns and len(set(failed.values())) == 1:
        return [(clip, next(iter(failed.values())), list(failed))]
    return [(item, reason, [item]) for item, reason in failed.items()]


def _judged(plan: Plan, clip: Clip, column: Column) -> Values:
    """What the file of a column of a clip holds. Raises DataError when it cannot be judged."""
    metric, frames, why_not = column.metric, plan.generated.rows[clip.id].frames, None
    try:
        found = clip.values(column)
    except NothingToJudge as error:
        nothing = np.ma.masked_all(frames if metric.per == "frame" else 0)
        found, why_not = Found(values=nothing, stretches=() if metric.per == "stretch" else None), str(error)
    return Values(
        format=FORMAT, clip=clip.id, metric=column.label, unit=metric.unit,
        first_frame=frames - len(found.values) if metric.per == "frame" else 0, stretches=found.stretches,
        values=tuple(None if value is None else number(value) for value in found.values.tolist()), not_judged=why_not,
    )  # fmt: skip
