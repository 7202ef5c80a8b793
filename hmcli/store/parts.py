"""Parts of an artifact: which one of how many, of which whole.

A part is an ordinary artifact of its kind that holds some of the clips, and says so in its manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hmcli.store.hashing import hash_json
from hmcli.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Part:
    """Part `index` (from 0) of `of`, and the clips it was asked for, in order."""

    index: int
    of: int
    clips: tuple[str, ...]
    whole: str  # `hash_clips` of all clips of the whole

    def __str__(self) -> str:
        return f"part {self.index} of {self.of} ({len(self.clips)} clips): `hm merge` joins all {self.of} of them"

    def to_json(self) -> dict[str, Any]:
        """As a manifest has it."""
        return {**asdict(self), "clips": list(self.clips)}


def hash_clips(clips: Sequence[str]) -> str:
    """What tells two wholes apart: the ids of all clips, in their order."""
    return hash_json(["clips of the whole", list(clips)])


def part_of(manifest: Manifest) -> Part | None:
    """Which part an artifact is; None for a whole one."""
    said = manifest.part
    return Part(**{**said, "clips": tuple(said["clips"])}) if said else None
