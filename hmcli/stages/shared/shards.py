"""`--shard i/n`: which clips of a stage's work are part i, and what `hm merge` hands to the stage that wrote the parts.

All parts see all inputs, and split the same ids in the same way; each makes its own clips and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.errors import UsageError
from hmcli.store.manifest import Manifest
from hmcli.store.parts import Part, hash_clips


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `index` (from 0) of `of`, as asked for."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"


def parse_shard(text: str) -> Shard:
    """`i/n` with 0 <= i < n. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise UsageError(
            f"--shard {text} is no part i/n with 0 <= i < n", fix="the first of four parts is 0/4, the last one 3/4"
        )
    return Shard(index=int(found[1]), of=int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Share:
    """The clips that one run makes, in their order: all of them, or those of a part."""

    clips: tuple[str, ...]
    part: Part | None = None  # None: this is the whole


def share(shard: Shard | None, clips: Sequence[str], *, rows: int = 1) -> Share:
    """The clips of a part: a contiguous piece, about as long as the others.

    `rows` are those of a shard of stacked arrays: pieces begin at multiples of it where every part gets as many, so
    that parts are joined by copying whole shards. Raises UsageError when there are more parts than clips.
    """
    if shard is None:
        return Share(clips=tuple(clips))
    if shard.of > len(clips):
        raise UsageError(
            f"--shard {shard}: {len(clips)} clips cannot be divided into {shard.of} parts",
            fix=f"ask for at most {len(clips)} parts",
        )
    step = rows if len(clips) >= rows * shard.of else 1
    steps = -(-len(clips) // step)
    start, stop = (step * (number * steps // shard.of) for number in (shard.index, shard.index + 1))
    own = tuple(clips[start:stop])
    return Share(clips=own, part=Part(index=shard.index, of=shard.of, clips=own, whole=hash_clips(clips)))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Complete artifacts that are the parts of one whole, in their order."""

    paths: tuple[Path, ...]
    manifests: tuple[Manifest, ...]

    @property
    def items(self) -> list[str]:
        """All items, each once, in the order in which one process would list them.

        Clips of the whole come first: what stays though its source cannot be read now is listed after them.
        """
        every = dict.fromkeys(item for manifest in self.manifests for item in manifest.items)
        clips = {clip for manifest in self.manifests for clip in manifest.part["clips"]}
        known = any(item in clips for item in every)  # else items have other names than clips
        return sorted(every, key=lambda item: known and item not in clips)

    @property
    def attributes(self) -> dict[str, Any]:
        """Of one part: they follow from recipe and inputs, which all parts have in common."""
        return self.manifests[0].attributes
