"""What a training step computes, for the share of a device's stated rate that steps reach (MFU)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hmcli.recipe.sections import Recipe


def step_flop(recipe: Recipe, latents: Path) -> float:
    """Floating point operations of one step on the whole batch, of all ranks together.

    What gradient checkpointing computes again does not count. Of clips of several shapes: of the longest.
    """
    from hmcli.stages.planning.rehearsal import training_account
    from hmcli.stages.planning.shapes import shape_of_latents

    plain = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, gradient_checkpointing=False))
    return training_account(plain, shape_of_latents(latents), on_cpu=False).flop
