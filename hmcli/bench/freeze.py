"""Freezing a benchmark: render its recipes, write its model-free rows, and write down what came out.

For maintainers (`python -m hmcli.bench freeze`), once per benchmark: afterwards the file is what the clips must match.
Until then there is a draft (`python -m hmcli.bench draft`): seeds and recipes, and no clips.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter
from hmcli.errors import DataError
from hmcli.recipe.reading import to_dict
from hmcli.recipe.sections import EvalConfig, PosesConfig, Recipe
from hmcli.stages.bench import rows
from hmcli.stages.bench.definition import FORMAT, Benchmark, FrozenClip, FrozenSplit, Number, Tolerances, is_of
from hmcli.stages.bench.prints import print_of, values_on_disk
from hmcli.stages.bench.score_file import required
from hmcli.stages.data.opening import ClipSource, open_dataset, read_rows
from hmcli.stages.rendering import render
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring.layout import EvaluationAttributes
from hmcli.stages.shared.typed import from_json
from hmcli.store.manifest import made_by, read_manifest
from hmcli.world.scenes import SCENES
from hmcli.world.staging.splits import TEST_MOVES, on_side
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.trajectories import MOVES

TOLERANCES = Tolerances(
    step=1e-5, event_frames=1, other_event_frames=4, thumbnail_levels=4.0, other_thumbnail_levels=24.0,
    frame_levels=2.0, other_frame_levels=5.0,
)  # fmt: skip
TRAINING = (
    "anything but clips of the held-out families of scenes and subjects, or with the held-out camera moves: renders of"
    " world.hold_out=train, other data. Prompts, settings and checkpoints are chosen on other clips than these."
)


def draft(name: str, recipes: Mapping[str, Recipe], panel: EvalConfig) -> Benchmark:
    """What is to be frozen of each split (name -> recipe), and what is required of scores: nothing is drawn."""
    splits = {
        split: FrozenSplit(seed=recipe.seed, world=_world(_free(recipe)), baselines={}, clips=())
        for split, recipe in recipes.items()
    }
    return _benchmark(name, splits, panel, judges={}, frozen_by={})


def freeze(
    name: str, recipes: Mapping[str, Recipe], panel: EvalConfig, *, work: Path, processes: int, reporter: Reporter,
    baselines: Sequence[str] = (), only: str = "", found: Benchmark | None = None,
) -> Benchmark:  # fmt: skip
    """Render each split (name -> recipe) below `work`, which is kept and goes on when stopped, and freeze the clips.

    `panel` names the required metrics, and what sees for them. `baselines` are the model-free rows that are scored;
    empty: all. `only` freezes one split and keeps those that `found` holds as their recipes ask for them: what lacks a
    split yet is still a draft. Raises DataError where other weights saw for the splits that are kept.
    """
    made = draft(name, recipes, panel)
    splits, judges = dict(made.splits), dict[str, str]()
    if only and found is not None and found.required_metrics == made.required_metrics:
        kept = {split: one for split, one in found.splits.items() if split != only and _same(one, splits.get(split))}
        splits |= kept
        judges = dict(found.judges) if any(one.clips for one in kept.values()) else {}
    for split, recipe in recipes.items():
        if only not in ("", split):
            continue
        data, scored = prepare(split, recipe, panel, work=work, processes=processes, reporter=reporter, rows=baselines)
        reporter.note(f"{split}: hashing {recipe.world.clips} clips")
        splits[split] = freeze_split(_free(recipe), data, {row: of.means for row, of in scored.items()})
        for of in scored.values():
            if other := {judge for judge, weights in of.judges.items() if judges.get(judge, weights) != weights}:
                raise DataError(
                    f"other weights saw for the splits that are frozen: {', '.join(sorted(other))}",
                    fix="freeze all splits again: delete the file, python -m hmcli.bench draft, then freeze",
                )
            judges |= of.judges
    whole = all(one.clips for one in splits.values())
    by = made_by() | {"machine": platform.machine()} if whole else {}
    return _benchmark(name, splits, panel, judges=judges, frozen_by=by)


def _same(one: FrozenSplit, asked: FrozenSplit | None) -> bool:
    return asked is not None and (one.seed, dict(one.world)) == (asked.seed, dict(asked.world))


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A row without a model: required metric -> mean over the clips, and the weights of what saw for them, by name."""

    means: Mapping[str, Number]
    judges: Mapping[str, str]


def prepare(
    split: str, recipe: Recipe, panel: EvalConfig, *, work: Path, processes: int, reporter: Reporter,
    rows: Sequence[str] = (),
) -> tuple[Path, dict[str, Scored]]:  # fmt: skip
    """All that takes time of freezing a split: its clips, its rows without a model, and their scores; what is there is
    kept."""
    data = render.run(_free(recipe), out=work / split, processes=processes, reporter=reporter).path
    reporter.note(f"{split}: rows without a model of {recipe.world.clips} clips, and their scores")
    return data, row_scores(data, work / f"{split}.rows", rows, panel, processes=processes, reporter=reporter)


def _benchmark(
    name: str, splits: Mapping[str, FrozenSplit], panel: EvalConfig, *, judges: Mapping[str, str],
    frozen_by: Mapping[str, Any],
) -> Benchmark:  # fmt: skip
    held_out = {
        "scenes": on_side(SCENES, "test"), "subjects": on_side(SUBJECTS, "test"),
        "camera moves": on_side(MOVES, "test", TEST_MOVES),
    }  # fmt: skip
    return Benchmark(
        format=FORMAT, name=name, required_metrics=tuple(required(panel)), training=TRAINING, tolerances=TOLERANCES,
        held_out=held_out, splits=splits, frozen_by=frozen_by, judges=judges,
    )  # fmt: skip


def _free(recipe: Recipe) -> Recipe:
    """The recipe as it draws clips of its seed."""
    return dataclasses.replace(recipe, world=dataclasses.replace(recipe.world, benchmark=""))


def _world(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = to_dict(recipe)["world"]
    return found


def row_scores(
    data: Path, work: Path, names: Sequence[str], panel: EvalConfig, *, processes: int, reporter: Reporter
) -> dict[str, Scored]:
    """Row without a model -> its scores, as `hm bench rows` and `hm eval` say them."""
    done = rows.run(data, out=work, rows=names, processes=processes, reporter=reporter)
    if done.quarantined:
        left = done.quarantined[0]
        raise DataError(f"{left.item} cannot be made", where={"data": data, "reason": left.reason})
    found = {}
    for name, path in done.details["rows"].items():
        scored = evaluate.run(
            Recipe(eval=panel), generation=Path(path), reference=data, metrics=panel.metrics,
            out=work / f"{name}.evaluation", processes=processes, reporter=reporter,
        )  # fmt: skip
        if scored.quarantined:
            left = scored.quarantined[0]
            raise DataError(f"{left.item} cannot be scored", where={"row": path, "reason": left.reason})
        means = {
            wanted: _rounded(mean)
            for wanted in required(panel)
            for label, mean in scored.details["scores"].items()
            if is_of(label, wanted)
        }
        found[name] = Scored(means=means, judges=_judges(scored.path))
    return found


def _rounded(mean: Number) -> Number:
    return mean if mean is None or isinstance(mean, str) else round(mean, 4)


def _judges(evaluation: Path) -> dict[str, str]:
    """Weights of the backbone and the detector of an evaluation, by name."""
    about = from_json(
        EvaluationAttributes, read_manifest(evaluation).attributes, "the description", evaluation=evaluation
    )
    cards = [about.protocol[section] for section in ("Backbone", "Detector") if section in about.protocol]
    return {card["name"]: card["weights"] for card in cards}


def freeze_split(recipe: Recipe, data: Path, baselines: Mapping[str, Mapping[str, Number]]) -> FrozenSplit:
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
