"""Choices: what a recipe's `world` section allows to be drawn, and what every clip of it needs."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
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
from hmcli.world.staging.paths import PATHS
from hmcli.world.staging.shooting import AT_THE_EDGE, Lens, long_enough
from hmcli.world.staging.splits import SPLITS, TEST_MOVES, Split, is_held_out, on_side
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.trajectories import MOVES, SIDES


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
    split = replace(SPLITS[world.split], paths=_paths(world))
    return Choices(
        world=world,
        scenes=_families("scene", world.scenes, SCENES, world),
        subjects=_families("subject", world.subjects, SUBJECTS, world),
        trajectories=_trajectories(world),
        counts=(high,) if split.crowd else tuple(range(low, high + 1)),
        split=split,
        needs=_needs(world),
        lens=Lens(
            half_angle=float(np.deg2rad(world.field_of_view)) / 2, aspect=world.size[0] / world.size[1],
            height=world.subject_height, cut=world.camera.cut,
        ),
    )  # fmt: skip


def _needs(world: WorldConfig) -> Needs:
    """The recipe's seconds as frames. Raises UsageError when they do not fit into its lengths."""
    visible = max(FEWEST, math.ceil(world.visible_seconds * world.fps - 1e-9))
    hidden = max(1, math.ceil(world.hidden_seconds * world.fps - 1e-9))
    longest = math.floor(world.longest_seconds * world.fps + 1e-9) or world.context_frames
    needs = Needs(
        visible_frames=visible, longest_frames=longest, hidden_frames=hidden, context_frames=world.context_frames
    )
    if world.longest_seconds and longest < visible + AT_THE_EDGE:
        raise UsageError(
            f"world.longest_seconds={world.longest_seconds:g} is shorter than world.visible_seconds and the"
            f" {AT_THE_EDGE} frames in which a subject leaves",
            fix=f"set world.longest_seconds to {math.ceil(10 * (visible + AT_THE_EDGE) / world.fps) / 10:g} or more",
        )
    if not long_enough(needs, world.context_frames + world.target_frames):
        context = max(_four_k_plus_one(visible + 2), world.context_frames)
        longer, target = replace(needs, context_frames=context, longest_frames=context), 1
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


def _trajectories(world: WorldConfig) -> tuple[str, ...]:
    """Those asked for, a move for both its sides; else those of this package on the asked side of the split."""
    asked = normal(world.camera.trajectory)
    if asked == "any":
        return _both_sides(on_side(MOVES, world.hold_out, TEST_MOVES))
    moves = registry.names("move")
    sided = {f"{move}-{side}": move for move in moves for side in SIDES}
    if asked not in moves and asked not in sided:
        key = "world.camera.trajectory"
        raise UsageError(
            f"{key}: unknown name {world.camera.trajectory!r}", where={"recipe": key},
            fix=registry.suggestion(asked, [*moves, *sided]),
        )  # fmt: skip
    move = sided.get(asked, asked).replace("-", "_")
    if world.hold_out == "train" and is_held_out(move, TEST_MOVES):
        here = ", ".join(on_side(MOVES, "train", TEST_MOVES))
        raise UsageError(
            f"world.camera.trajectory: {move!r} is held out from training", where={"recipe": "world.hold_out"},
            fix=f"for train: {here}; or set world.hold_out=all",
        )  # fmt: skip
    return (asked.replace("-", "_"),) if asked in sided else _both_sides([move])


def _paths(world: WorldConfig) -> tuple[str, ...]:
    """Those asked for, in the split's own order; else all of the split."""
    there = SPLITS[world.split].paths
    asked = [name.replace("-", "_") for name in world.paths] or there
    if wrong := [name for name in asked if name not in there]:
        raise UsageError(
            f"world.paths: {wrong[0]!r} is no path of split {world.split}", where={"recipe": "world.paths"},
            fix=f"choose of {', '.join(there)}" + ("; or another world.split" if wrong[0] in PATHS else ""),
        )  # fmt: skip
    return tuple(name for name in there if name in asked)


def _both_sides(moves: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{move}_{side}" for move in moves for side in SIDES)


def _spelt(key: str, kind: str, name: str) -> str:
    """A name of the registry as the world spells it. Raises UsageError where nothing stands for it."""
    if not registry.is_known(kind, name):
        fix = registry.suggestion(name, registry.names(kind))
        raise UsageError(f"{key}: unknown name {name!r}", where={"recipe": key}, fix=fix)
    return name.replace("-", "_")
