"""hm eval: score generated videos, one artifact with means, one row per clip and metric, and the protocol card.

Metrics and backbones are found by name and know nothing of files; this stage decodes videos, finds each clip's
reference, and writes. One item of the artifact is one metric of one clip (`frames/<clip>.<metric>.json`, a value per
frame), so a killed run goes on where it stopped. A clip that cannot be scored is counted and listed, never dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

import hmcli
from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.averages import json_number
from hmcli.metrics.contract import BACKBONE, PREDICTION, REFERENCE, Metric
from hmcli.recipe.reading import sections
from hmcli.recipe.sections import Recipe
from hmcli.registry import find, names, normal
from hmcli.stages.sampling.generations import Generated, find_reference, open_generation
from hmcli.stages.scoring.clip import FORMAT, Clip, Plan, item_name
from hmcli.stages.scoring.results import finish
from hmcli.stages.shared.outcome import check_output
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json
from hmcli.store.hashing import HashCache


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
        return finish(plan, writer, failures, reporter)


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
                    if not writer.kept(item_name(clip_id, metric), key := clip.key(metric)):
                        _write_values(plan, writer, clip_id, metric, key, clip.values(metric))
                except DataError as error:
                    failed[metric.name] = str(error)
            for item, reason in _grouped(clip_id, failed, plan.metrics):
                writer.quarantine(item, reason)
            failures |= {(clip_id, name): reason for name, reason in failed.items()}
            advance(1)
    return failures


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
    with writer.item_file(item_name(clip, metric), key, suffix=".json", parent="frames") as place:
        write_json(place, content)
