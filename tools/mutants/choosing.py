"""Which mutants are tried: as many of each room, drawn with a seed. A larger number keeps those of a smaller one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path

from mutants.changes import Mutant, mutants_of

Rooms = Mapping[str, Sequence[str]]  # patterns of files, from the root; a file belongs to the first room that has it

ROOMS: Rooms = {
    "keys": (
        "hmcli/stages/shared/typed.py", "hmcli/store/hashing.py", "hmcli/stages/scoring/clip.py",
        "hmcli/stages/latents/layout.py", "hmcli/stages/memory/layout.py", "hmcli/stages/sampling/layout.py",
    ),
    "core": ("hmcli/core/*.py",),
    "training": ("hmcli/stages/training/*.py",),
    "store": ("hmcli/store/*.py",),
    "metrics": ("hmcli/metrics/*.py",),
}  # fmt: skip


def chosen(
    root: Path, rooms: Rooms, seed: int, count: int, only: Sequence[str] | None = None
) -> list[tuple[str, Mutant]]:
    """Rooms and mutants, the rooms (or `only` those) taking turns: `count` in all, fewer when they have no more."""
    taken: set[Path] = set()
    drawn: list[list[tuple[str, Mutant]]] = []
    for room, patterns in rooms.items():
        files = [file for file in _matching(root, patterns) if file not in taken]
        taken.update(files)
        every = [one for file in files for one in mutants_of(file.read_bytes(), file.relative_to(root).as_posix())]
        random.Random(f"{seed} {room}").shuffle(every)
        if only is None or room in only:
            drawn.append([(room, one) for one in every])
    turns = [pair for pair in chain.from_iterable(zip_longest(*drawn)) if pair is not None]
    return turns[:count]


def _matching(root: Path, patterns: Sequence[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in root.glob(pattern)})
