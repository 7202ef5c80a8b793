"""Which readers of a recipe (hmcli.recipe.keys) a command is, and under which conditions: `--set` keys that none of
them reads are refused (hmcli.cli.shared.recipe_for). Conditions look into inputs only where a key asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hmcli.recipe.readers import Readers
    from hmcli.recipe.sections import Recipe

RENDER: Readers = {"render": None}
ENCODE: Readers = {"encode": None}
DATASET: Readers = {"dataset": None}


def of_memory(model: Path | None) -> Readers:
    """A model brings its own slots along."""
    return {"slots": None} if model is None else {"memory": None}


def of_training() -> Readers:
    """What is trained `train.part` says."""

    def compares_views(recipe: Recipe) -> bool:
        from hmcli.stages.memory.policy_inputs import reads_geometry

        return recipe.train.part == "transformer" and reads_geometry(recipe.model.memory, recipe.model.positions)

    def scores_with(needs: str) -> Callable[[Recipe], bool]:
        def looks(recipe: Recipe) -> bool:
            from hmcli.stages.scoring import evaluate

            asked = recipe.train.validate_metrics
            return bool(asked) and bool(getattr(evaluate, needs)(asked))

        return looks

    return {
        "features": scores_with("needs_backbone"),
        "lpips": scores_with("needs_lpips"),
        "official": scores_with("needs_regions"),
        "detections": scores_with("needs_detector"),
        "train": lambda recipe: recipe.train.part == "transformer",
        "codec": lambda recipe: recipe.train.part == "codec",
        "blocks": lambda recipe: recipe.train.part == "blocks",
        "segmenter": lambda recipe: recipe.train.part == "segmenter",
        "views": compares_views,
    }


def of_sampling(model: Path, source: Path | None) -> Readers:
    """`source` is None where it must be latents: a folder of clips would be encoded first."""

    def folder_of_clips(recipe: Recipe) -> bool:
        from hmcli.stages.sampling.generate import is_latents

        return source is not None and not is_latents(source)

    def compares_views(recipe: Recipe) -> bool:
        from hmcli.stages.models.folders import find_model
        from hmcli.stages.sampling.job import compares_views

        return compares_views(find_model(model), recipe)

    def names_codec(recipe: Recipe) -> bool:
        from hmcli.stages.models.folders import find_model

        return find_model(model).names_codec

    def names_text(recipe: Recipe) -> bool:
        from hmcli.stages.models.folders import find_model

        return find_model(model).names_text

    return {
        "inspect" if source is None else "generate": None,
        "clips": folder_of_clips, "views": compares_views, "codec path": names_codec, "text path": names_text,
    }  # fmt: skip


def of_playing(model: Path, source: Path | None) -> Readers:
    """What generating reads; without a source a clip is rendered first, and encoded as a folder of clips is."""
    sampling = of_sampling(model, source or Path())
    if source is not None:
        return sampling
    return {**sampling, "render": None, "clips": None}


def of_scoring(generation: Path) -> Readers:
    """Features are read by metrics that need a backbone; cameras of other people's videos as the recipe says."""

    def needs_backbone(recipe: Recipe) -> bool:
        from hmcli.stages.scoring.evaluate import needs_backbone

        return needs_backbone(recipe.eval.metrics)

    def needs_lpips(recipe: Recipe) -> bool:
        from hmcli.stages.scoring.evaluate import needs_lpips

        return needs_lpips(recipe.eval.metrics)

    def needs_regions(recipe: Recipe) -> bool:
        from hmcli.stages.scoring.evaluate import needs_regions

        return needs_regions(recipe.eval.metrics)

    def needs_detector(recipe: Recipe) -> bool:
        from hmcli.stages.scoring.evaluate import needs_detector

        return needs_detector(recipe.eval.metrics)

    def plain_folder(recipe: Recipe) -> bool:
        from hmcli.stages.sampling.foreign import is_plain_folder

        return is_plain_folder(generation)

    def says_no_poses(recipe: Recipe) -> bool:
        from hmcli.store.manifest import read_manifest

        return plain_folder(recipe) or "poses" not in read_manifest(generation).recipe

    return {
        "eval": None, "features": needs_backbone, "lpips": needs_lpips, "official": needs_regions,
        "detections": needs_detector, "foreign": says_no_poses, "folder": plain_folder,
    }  # fmt: skip
