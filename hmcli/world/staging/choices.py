"""Choices: what a recipe's `world` section allows to be drawn, and what every clip of it needs."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from hmcli import registry
from hmcli.contracts import TIME_STRIDE
from hmcli.errors import UsageError
from hmcli.recipe.sections import WorldConfig
from hmcli.registry import normal
from hmcli.world.hidden.certify import Needs
from hmcli.world.hidden.oracle import FEWEST
from hmcli.world.scenes import SCENES
from hmcli.world.staging.shooting import Lens, long_enough
from hmcli.world.staging.splits import SPLITS, Split, on_side
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.trajectories import SIDES, TRAJECTORIES


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The names a recipe allows, and what a clip needs."""

    world: WorldConfig
    scenes: tuple[str, ...]
    subjects: tuple[str, ...]
    trajectories: tuple[str, ...]
    counts: tuple[int, ...]
    split: Split
    needs: Needs
    lens: Lens

    @property
    def frames(self) -> int:
        return self.world.context_frames + self.world.target_frames


def choices(world: WorldConfig) -> Choices:
    """Read what a recipe allows. Raises UsageError for what cannot be."""
    low, high = world.subjects_per_clip
    split = SPLITS[world.split]
    return Choices(
        world=world,
        scenes=_families("scene", world.scenes, SCENES, world),
        subjects=_families("subject", world.subjects, SUBJECTS, world),
        trajectories=_trajectories(world.camera.trajectory),
        counts=(high,) if split.crowd else tuple(range(low, high + 1)),
        split=split,
        needs=_needs(world),
        lens=Lens(half_angle=float(np.deg2rad(world.field_of_view)) / 2, aspect=world.size[0] / world.size[1]),
    )


def _needs(world: WorldConfig) -> Needs:
    """The recipe's seconds as frames. Raises UsageError when they do not fit into its lengths."""
    visible = max(FEWEST, math.ceil(world.visible_seconds * world.fps - 1e-9))
    hidden = max(1, math.ceil(world.hidden_seconds * world.fps - 1e-9))
    needs = Needs(visible_frames=visible, hidden_frames=hidden, context_frames=world.context_frames)
    if not long_enough(needs, world.context_frames + world.target_frames):
        context = max(_four_k_plus_one(visible + 2), world.context_frames)
        longer, target = replace(needs, context_frames=context), 1
        while not long_enough(longer, context + target):
            target += TIME_STRIDE
        raise UsageError(
            f"{world.context_frames}+{world.target_frames} frames at {world.fps} per second are too few: a subject is"
            f" to be visible for {world.visible_seconds:g} s, hidden for {world.hidden_seconds:g} s, and seen again",
            where={"recipe": "world"},
            fix=f"set world.context_frames to at least {context} and world.target_frames to at least {target}, or lower"
            " world.visible_seconds or world.hidden_seconds",
        )
    return needs


def _four_k_plus_one(frames: int) -> int:
    return -(-(frames - 1) // TIME_STRIDE) * TIME_STRIDE + 1


def _families(kind: str, asked: tuple[str, ...], ours: Collection[str], world: WorldConfig) -> tuple[str, ...]:
    """The families to draw from on the asked side of the split: those asked for, else all of this package."""
    names = tuple(_spelt(f"world.{kind}s", kind, name) for name in asked) or tuple(ours)
    side = on_side(names, world.hold_out)
    if not side or (asked and len(side) < len(names)):
        here = ", ".join(on_side(ours, world.hold_out)) or "none"
        wrong = [name for name in names if name not in side]
        raise UsageError(
            f"world.{kind}s: {wrong[0]!r} is not a family for {world.hold_out}", where={"recipe": "world.hold_out"},
            fix=f"for {world.hold_out}: {here}; or set world.hold_out=all",
        )  # fmt: skip
    return side


def _trajectories(asked: str) -> tuple[str, ...]:
    """The trajectories to draw from: a move to one side, or every one of this package."""
    if asked == "any":
        return tuple(TRAJECTORIES)
    known = [f"{move}-{side}" for move in registry.names("move") for side in SIDES]
    if normal(asked) not in known:
        raise UsageError(
            f"world.camera.trajectory: unknown name {asked!r}", where={"recipe": "world.camera.trajectory"},
            fix=registry.suggestion(asked, known),
        )  # fmt: skip
    return (asked.replace("-", "_"),)


def _spelt(key: str, kind: str, name: str) -> str:
    """A name of the registry as the world spells it. Raises UsageError where nothing stands for it."""
    if not registry.is_known(kind, name):
        fix = registry.suggestion(name, registry.names(kind))
        raise UsageError(f"{key}: unknown name {name!r}", where={"recipe": key}, fix=fix)
    return name.replace("-", "_")
