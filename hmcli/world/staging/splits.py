"""Splits: what kind of motion a data set asks for, and which families of scenes, subjects and camera moves training
never sees.

Which side a name is on follows from the name alone (a hash), so it never changes when others are added; a larger share
for the test side only moves more names over to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from hmcli.world.staging.paths import PATHS

SplitName = Literal["easy", "hard", "crowd", "mixed", "absent"]
HoldOut = Literal["all", "train", "test"]
COVERED_SECONDS = 0.3  # for which somebody in a crowd is out of sight behind something, at least
TEST_FAMILIES = 0.45  # share of the families, on average ...
TEST_MOVES = 0.42  # ... and of the camera's moves, each to both sides: 4 of 14, pan is none of them
_SALT = "hm-world families 103"  # another number is another split; with this one both sides have people and animals


@dataclass(frozen=True, kw_only=True)
class Split:
    """What a clip of a split has to show besides an exit and a re-entry that can be predicted."""

    paths: tuple[str, ...]
    turns: bool = False  # constant velocity is wrong by more than half a body length
    crowd: bool = False  # the most subjects allowed, one of them for COVERED_SECONDS behind something else
    absent: bool = False  # the camera comes back to where the subject was last seen, and it is certainly elsewhere


SPLITS: dict[SplitName, Split] = {
    "easy": Split(paths=("straight",)),
    "hard": Split(paths=tuple(name for name in PATHS if name not in ("straight", "pace_change")), turns=True),
    "crowd": Split(paths=tuple(PATHS), crowd=True),
    "mixed": Split(paths=tuple(PATHS)),
    "absent": Split(paths=tuple(PATHS), absent=True),
}


def hash_share(text: str) -> float:
    """A number between 0 and 1 that the text alone decides."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def is_held_out(name: str, share: float = TEST_FAMILIES) -> bool:
    """Is this family of scenes or subjects, or this move, kept from training, for the test set?"""
    return hash_share(f"{_SALT}: {name}") < share


def on_side(names: Collection[str], side: HoldOut, share: float = TEST_FAMILIES) -> tuple[str, ...]:
    """The names of one side, in their order."""
    return tuple(name for name in names if side == "all" or is_held_out(name, share) == (side == "test"))
