"""Freezing a benchmark: render its recipes, and write down what came out.

For maintainers (`python -m hmcli.bench freeze`), once per benchmark: afterwards the file is what the clips must match.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from hmcli.contracts import Reporter
from hmcli.errors import DataError
from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import PosesConfig, Recipe
from hmcli.stages.bench.baselines import baseline_scores
from hmcli.stages.bench.definition import FORMAT, Benchmark, FrozenClip, FrozenSplit, Tolerances
from hmcli.stages.bench.prints import print_of, values_on_disk
from hmcli.stages.data.opening import ClipSource, open_dataset, read_rows
from hmcli.stages.rendering import render
from hmcli.store.manifest import made_by
from hmcli.world.scenes import SCENES
from hmcli.world.staging.splits import on_side
from hmcli.world.subjects import SUBJECTS

TOLERANCES = Tolerances(
    step=1e-5, event_frames=1, other_event_frames=4, thumbnail_levels=4.0, other_thumbnail_levels=24.0,
    frame_levels=2.0, other_frame_levels=5.0,
)  # fmt: skip
METRICS = ("psnr", "ssim")
TRAINING = (
    "anything but clips of the held-out families of scenes and subjects: renders of world.hold_out=train, other data."
    " Prompts, settings and checkpoints are chosen on other clips than these."
)


def freeze(name: str, recipes: Mapping[str, Recipe], *, work: Path, processes: int, reporter: Reporter) -> Benchmark:
    """Render each split (name -> recipe) below `work`, which is kept and goes on when stopped, and freeze the clips."""
    splits = {}
    for split, recipe in recipes.items():
        free = dataclasses.replace(recipe, world=dataclasses.replace(recipe.world, benchmark=""))
        done = render.run(free, out=work / split, processes=processes, reporter=reporter)
        reporter.note(f"{split}: hashing {recipe.world.clips} clips and scoring the baselines")
        splits[split] = freeze_split(free, done.path)
    held_out = {"scenes": on_side(SCENES, "test"), "subjects": on_side(SUBJECTS, "test")}
    return Benchmark(
        format=FORMAT, name=name, required_metrics=METRICS, training=TRAINING, tolerances=TOLERANCES,
        held_out=held_out, splits=splits, frozen_by=made_by() | {"machine": platform.machine()},
    )  # fmt: skip


def freeze_split(recipe: Recipe, data: Path) -> FrozenSplit:
    """What `hm render` made of a recipe, frozen."""
    dataset = open_dataset(data, PosesConfig())
    if dataset.quarantined:
        raise DataError(f"clip {dataset.quarantined[0].item} cannot be frozen", where={"data": data})
    rows = read_rows(data)
    clips: Sequence[ClipSource] = dataset.clips
    frozen = []
    for source in clips:
        row = rows[source.id]
        frozen.append(
            FrozenClip(
                id=source.id, index=row.index, draw=row.draw, scene=row.scene, subjects=row.subjects, paths=row.paths,
                trajectory=row.trajectory, caption_plain=row.caption_plain,
                print=print_of(source, values_on_disk(source), TOLERANCES.step),
            )
        )  # fmt: skip
    return FrozenSplit(
        seed=recipe.seed, world=to_dict(recipe)["world"], baselines=baseline_scores(clips, METRICS),
        clips=tuple(sorted(frozen, key=lambda clip: clip.index)),
    )  # fmt: skip
