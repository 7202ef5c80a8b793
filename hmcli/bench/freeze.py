"""Freezing a benchmark: render its recipes, write its model-free rows, and write down what came out.

For maintainers (`python -m hmcli.bench freeze`), once per benchmark: afterwards the file is what the clips must match.
Until then there is a draft (`python -m hmcli.bench draft`): seeds and recipes, and no clips.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter
from hmcli.errors import DataError
from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import PosesConfig, Recipe
from hmcli.stages.bench import rows
from hmcli.stages.bench.definition import FORMAT, Benchmark, FrozenClip, FrozenSplit, Tolerances
from hmcli.stages.bench.prints import print_of, values_on_disk
from hmcli.stages.data.opening import ClipSource, open_dataset, read_rows
from hmcli.stages.rendering import render
from hmcli.stages.scoring import evaluate
from hmcli.store.manifest import made_by
from hmcli.world.scenes import SCENES
from hmcli.world.staging.splits import TEST_MOVES, on_side
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.trajectories import MOVES

TOLERANCES = Tolerances(
    step=1e-5, event_frames=1, other_event_frames=4, thumbnail_levels=4.0, other_thumbnail_levels=24.0,
    frame_levels=2.0, other_frame_levels=5.0,
)  # fmt: skip
METRICS = ("psnr", "ssim")
TRAINING = (
    "anything but clips of the held-out families of scenes and subjects, or with the held-out camera moves: renders of"
    " world.hold_out=train, other data. Prompts, settings and checkpoints are chosen on other clips than these."
)


def draft(name: str, recipes: Mapping[str, Recipe]) -> Benchmark:
    """What is to be frozen of each split (name -> recipe): nothing is drawn."""
    splits = {
        split: FrozenSplit(seed=recipe.seed, world=_world(_free(recipe)), baselines={}, clips=())
        for split, recipe in recipes.items()
    }
    return _benchmark(name, splits, frozen_by={})


def freeze(
    name: str, recipes: Mapping[str, Recipe], *, work: Path, processes: int, reporter: Reporter,
    baselines: Sequence[str] = (),
) -> Benchmark:  # fmt: skip
    """Render each split (name -> recipe) below `work`, which is kept and goes on when stopped, and freeze the clips.

    `baselines` are the model-free rows that are scored; empty: all.
    """
    splits = {}
    for split, recipe in recipes.items():
        free = _free(recipe)
        done = render.run(free, out=work / split, processes=processes, reporter=reporter)
        reporter.note(f"{split}: hashing {recipe.world.clips} clips and scoring the rows without a model")
        scores = row_scores(done.path, work / f"{split}.rows", baselines, processes=processes, reporter=reporter)
        splits[split] = freeze_split(free, done.path, scores)
    return _benchmark(name, splits, frozen_by=made_by() | {"machine": platform.machine()})


def _benchmark(name: str, splits: Mapping[str, FrozenSplit], frozen_by: Mapping[str, Any]) -> Benchmark:
    held_out = {
        "scenes": on_side(SCENES, "test"), "subjects": on_side(SUBJECTS, "test"),
        "camera moves": on_side(MOVES, "test", TEST_MOVES),
    }  # fmt: skip
    return Benchmark(
        format=FORMAT, name=name, required_metrics=METRICS, training=TRAINING, tolerances=TOLERANCES,
        held_out=held_out, splits=splits, frozen_by=frozen_by,
    )  # fmt: skip


def _free(recipe: Recipe) -> Recipe:
    """The recipe as it draws clips of its seed."""
    return dataclasses.replace(recipe, world=dataclasses.replace(recipe.world, benchmark=""))


def _world(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = to_dict(recipe)["world"]
    return found


def row_scores(
    data: Path, work: Path, names: Sequence[str], *, processes: int, reporter: Reporter
) -> dict[str, dict[str, float]]:
    """Row without a model -> metric -> mean over the clips, as `hm bench rows` and `hm eval` say it."""
    done = rows.run(data, out=work, rows=names, processes=processes, reporter=reporter)
    if done.quarantined:
        left = done.quarantined[0]
        raise DataError(f"{left.item} cannot be made", where={"data": data, "reason": left.reason})
    found = {}
    for name, path in done.details["rows"].items():
        scored = evaluate.run(
            Recipe(), generation=Path(path), reference=data, metrics=METRICS, out=work / f"{name}.evaluation",
            processes=processes, reporter=reporter,
        )  # fmt: skip
        found[name] = {metric: round(float(mean), 4) for metric, mean in scored.details["scores"].items()}
    return found


def freeze_split(recipe: Recipe, data: Path, baselines: Mapping[str, Mapping[str, float]]) -> FrozenSplit:
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
        seed=recipe.seed, world=_world(recipe), baselines=baselines,
        clips=tuple(sorted(frozen, key=lambda clip: clip.index)),
    )  # fmt: skip
