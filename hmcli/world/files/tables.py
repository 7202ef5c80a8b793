"""What a data set says of all its clips: the lines of `clips.jsonl` and `metadata.jsonl`, and the attributes.

Writers and readers use these dataclasses (hmcli.stages.shared.typed turns them into JSON and back). A field with a
default is one that folders made before it existed, or by others, lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hmcli.world.files.schema import HiddenStretch

DATASET = "dataset"  # kind of the artifact that `hm render` makes


@dataclass(frozen=True, kw_only=True)
class RenderedRow:
    """A rendered clip: its line of clips.jsonl, and what its record in the manifest says of it."""

    id: str
    seed: int
    index: int
    draw: int  # how many draws were rejected before this one
    further_seeds: int | None = None  # beyond the clip's own
    split: str | None = None
    scene: str
    subjects: tuple[str, ...]  # families, in the order of their numbers
    paths: tuple[str, ...]
    trajectory: str
    start: str | None = None  # where the camera films from
    follows: bool | None = None  # does the camera go along with the first subject?
    fps: int
    context_frames: int
    target_frames: int
    hidden: Mapping[str, tuple[HiddenStretch, ...]]  # by subject
    caption: str
    caption_plain: str  # without colours and names


@dataclass(frozen=True, kw_only=True)
class SplitAttributes:
    """Which families the clips were drawn from, and which are never trained on."""

    name: str
    hold_out: str
    scenes: tuple[str, ...]
    subjects: tuple[str, ...]
    held_out_scenes: tuple[str, ...]
    held_out_subjects: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FrameCounts:
    """Video frames."""

    context: int
    target: int


@dataclass(frozen=True, kw_only=True)
class DatasetAttributes:
    """What the manifest of a rendered data set says besides."""

    fps: int
    size: tuple[int, int]  # height, width
    frames: FrameCounts
    depth: str  # what the depth files hold, in words
    split: SplitAttributes
