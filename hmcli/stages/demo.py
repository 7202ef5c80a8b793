"""`hm demo`: the whole chain on the embedded default, in one process, into one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter, StageResult
from hmcli.recipe.readers import Readers
from hmcli.recipe.reading import load_recipe
from hmcli.registry import find
from hmcli.stages.latents import encode
from hmcli.stages.memory import tokenize as tokenize_memory
from hmcli.stages.memory.policy_inputs import reads_geometry
from hmcli.stages.rendering import render
from hmcli.stages.sampling import generate
from hmcli.stages.sampling.layout import SHEET
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring.plan import paths_of
from hmcli.stages.training import train

RECIPE = "mini/demo"


def run(
    *, out: Path, overrides: list[str], force: bool, device: str, reporter: Reporter, prune: bool = False
) -> StageResult:
    """Render, encode, tokenize memory, train on, tokenize with the model, generate, evaluate; say where to look."""
    recipe = load_recipe(RECIPE, overrides, readers=_readers(), command="hm demo")
    common: dict[str, Any] = {"force": force, "prune": prune, "device": device, "reporter": reporter}
    if evaluate.needs_backbone(recipe.eval.metrics):  # said now, not after minutes: its package or weights are missing
        for name, path in paths_of(recipe.eval).items():
            find("backbone", name)(path, device)
    if recipe.eval.detector and evaluate.needs_detector(recipe.eval.metrics):
        find("detector", recipe.eval.detector)(recipe.eval.detector_path, device)
    clips = _step(reporter, "render", render.run(recipe, out=out / "clips", **common))
    latents = _step(reporter, "encode", encode.run(recipe, data=clips, out=out / "latents.zarr", **common))
    _step(
        reporter, "tokenize-memory (without a model)",
        tokenize_memory.run(recipe, latents=latents, model=None, clips=(), out=out / "slots.zarr", **common),
    )  # fmt: skip
    run_folder = _step(reporter, "train", train.run(recipe, latents=latents, out=out / "run", **common))
    memory = _step(
        reporter, "tokenize-memory --model",
        tokenize_memory.run(recipe, latents=latents, model=run_folder, clips=(), out=out / "memory.zarr", **common),
    )  # fmt: skip
    made = generate.run(
        recipe, source=latents, model=run_folder, memory=(memory,), clips=(), out=out / "generation", **common
    )
    _step(reporter, "generate", made)
    scores = evaluate.run(
        recipe, generation=made.path, reference=clips, metrics=recipe.eval.metrics, out=out / "evaluation", **common
    )
    _step(reporter, "eval", scores)
    _say_where(reporter, made, scores)
    left_out = (*made.quarantined, *scores.quarantined)
    return StageResult(path=out, kind="demo", counts=made.counts, quarantined=left_out, details=made.details)


def _readers() -> Readers:
    """The stages of the demo; a codec is not trained by it."""
    return {
        "render": None, "encode": None, "slots": None, "memory": None, "generate": None, "eval": None,
        "train": lambda recipe: recipe.train.part == "transformer",
        "views": lambda recipe: reads_geometry(recipe.model.memory, recipe.model.positions),
        "features": lambda recipe: evaluate.needs_backbone(recipe.eval.metrics),
        "lpips": lambda recipe: evaluate.needs_lpips(recipe.eval.metrics),
        "official": lambda recipe: evaluate.needs_regions(recipe.eval.metrics),
        "detections": lambda recipe: evaluate.needs_detector(recipe.eval.metrics),
    }  # fmt: skip


def _step(reporter: Reporter, name: str, result: StageResult) -> Path:
    reporter.note(f"== {name}: {result.path}")
    return result.path


def _say_where(reporter: Reporter, made: StageResult, scores: StageResult) -> None:
    reporter.note("")
    reporter.note(f"pictures  {made.path / SHEET}   (context, true target, generated; one row each)")
    reporter.note(f"videos    {made.path / 'videos'}")
    reporter.note(f"scores    {scores.path / 'scores.json'}   (how they are formed: {scores.path / 'protocol.md'})")
    reporter.note(
        "Expect little: a small VAE and a small transformer, trained on a CPU for about an hour (docs/quickstart.md). "
        "The demo shows that every stage works and hands on; it does not show what HyDRA can do at scale."
    )
