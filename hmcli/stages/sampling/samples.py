"""Several samples of one clip: what they are called in a generation artifact, and from which seeds they come.

The first sample of a clip is what `sample.count=1` gives, and has the clip's name; the others are items beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hmcli.errors import UsageError
from hmcli.stages.shared.chance import clip_seed


def sample_item(clip: str, number: int) -> str:
    """What a clip's sample is called as an item; samples are counted from 1."""
    return clip if number == 1 else f"{clip}.sample-{number}"


def sample_seed(seed: int, clip: str, number: int) -> int:
    """The seed of a sample's noise: neither other clips nor other samples change it."""
    return clip_seed(seed, clip if number == 1 else f"{clip} sample {number}")


def chunk_seed(seed: int, clip: str, number: int, chunk: int) -> int:
    """The seed of the noise of a sample's chunk; the first one is the sample's own."""
    return sample_seed(seed, clip, number) if chunk == 0 else clip_seed(seed, f"{clip} sample {number} chunk {chunk}")


def items_of(clips: Iterable[str], count: int) -> dict[str, tuple[str, int]]:
    """Item -> its clip and number: the first samples of all clips, then the others clip by clip.

    Raises UsageError where two videos would have one name.
    """
    clips = list(clips)
    items = {sample_item(clip, 1): (clip, 1) for clip in clips}
    for clip in clips:
        for number in range(2, count + 1):
            if (item := sample_item(clip, number)) in items:
                raise UsageError(
                    f"sample {number} of clip {clip!r} would be called {item!r}, as another clip is",
                    fix=f"rename the clip {item!r}, or generate it into an artifact of its own (--clips)",
                )
            items[item] = (clip, number)
    return items


def in_order(clips: Sequence[str], count: int, there: Mapping[str, Any]) -> list[str]:
    """The items of clips that are `there`, in the order of `items_of`."""
    return [item for item in items_of(clips, count) if item in there]
