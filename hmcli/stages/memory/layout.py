"""How a memory artifact is laid out (docs/artifacts.md): shared by its writer, tokenize.py, and its readers.

A clip is one Zarr group: arrays that describe its slots and, made with a model, a group `kept` of what all blocks share
and a group for each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.errors import DataError
from hmcli.stages.shared.typed import from_json
from hmcli.store.arrays import read_item_array
from hmcli.store.files import inside
from hmcli.store.manifest import Manifest, read_manifest

KIND = "memory"
LAYOUT = 4  # of an item; 3 said less of the latents it was made from, 2 described context slots only
KEPT = "kept"  # group of what all blocks share
SPAN, TIME, CAMERA, FRAME_CAMERA, ANCHOR = "slot_span", "slot_time", "slot_camera", "frame_camera", "anchor"  # in it
POSE, OVERLAP, SHOWS = "slot_pose", "overlap", "shows"  # beside slot_span, in the clip's own group
SLOT, TAIL, DESCRIPTORS = "slot", "tail", "descriptors"  # parts of a block


def keys_of(part: str) -> str:
    """The array of a block with the keys of its slots or tail."""
    return f"{part}_keys"


def values_of(part: str) -> str:
    return f"{part}_values"


def block_group(block: int) -> str:
    """Name of the group of a block's arrays."""
    return f"block_{block:02d}"


@dataclass(frozen=True, kw_only=True)
class SlotDescription:
    """The model-free part of one clip's memory. A all latent frames, context first; M slots; S subjects.

    Slots are numbered as the model numbers them: context slots first, target slots after them.
    """

    span_M2: np.ndarray  # first and last latent frame
    pose_M44: np.ndarray | None  # mean world_from_camera of the slot's frames, metres
    overlap_AM: np.ndarray | None  # share of what frame a sees between near and far that slot m saw
    shows_MS: np.ndarray | None  # 1 where slot m shows subject s, which is out of sight in some later frame
    slot_grid: tuple[int, int]  # rows and columns of tokens
    context: int  # latent frames
    target: int
    context_slots: int  # the first slots, made of context frames alone
    latents: str  # hash of the clip's latents


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What keys and values of a clip are made from, besides its latents."""

    model: str  # fingerprint
    dtype: str
    attention: str
    seed: int | None  # of a policy that chooses by chance
    before: str  # hash of the clip's memory that it follows; empty: nothing


@dataclass(frozen=True, kw_only=True)
class ClipKey:
    """All that a clip's memory is made from."""

    layout: int
    latents: str  # hash of the clip's latents, cameras and subjects
    slots: dict[str, Any]  # keys of model.memory that say which slots there are and what cameras see
    computed: Computed | None  # with a model


@dataclass(frozen=True, kw_only=True)
class KeptAbout:
    """What it takes to read keys and values of a clip."""

    blocks: int
    grid: tuple[int, int]  # tokens of a frame: rows, columns
    slot_grid: tuple[int, int]
    frames: int  # latent frames of context
    first_frame: int  # number of the first of them in the history
    after: str | None  # hash of the clip's memory that this one follows
    dtype: str  # of keys and values, as torch calls it


@dataclass(frozen=True, kw_only=True)
class ClipAbout:
    """What the record of a clip says besides its arrays."""

    layout: int
    latents: str  # hash of what of the latents it was made from
    described: tuple[str, ...]  # which arrays describe its slots
    slots: int
    slot_grid: tuple[int, int]
    context: int
    target: int
    context_slots: int
    memory: KeptAbout | None  # without a model there is none


@dataclass(frozen=True, kw_only=True)
class MemoryAttributes:
    """What the manifest of a memory artifact says besides."""

    latents: str  # the latents artifact, as an absolute path


@dataclass(frozen=True, kw_only=True)
class MemoryItem:
    """A clip in a memory artifact: its group, the hash of what is in it, and what is said of it."""

    folder: Path
    hash: str
    about: ClipAbout

    @property
    def kept(self) -> KeptAbout:
        if self.about.memory is None:
            raise DataError(
                "the memory of this clip holds no keys and values", where={"group": self.folder},
                fix="make it again: hm tokenize-memory LATENTS --model MODEL",
            )  # fmt: skip
        return self.about.memory


def item_of(path: Path, manifest: Manifest, clip: str) -> MemoryItem:
    """A clip in a memory artifact. Raises DataError when it is not there, or of another layout."""
    if clip not in manifest.items:
        raise DataError(
            "the memory artifact lacks this clip", where={"memory": path, "clip": clip},
            fix="make the memory again without --clips, or name this clip too",
        )  # fmt: skip
    record = manifest.items[clip]
    if (found := record["meta"].get("layout", "2 or older")) != LAYOUT:
        raise DataError(
            f"the memory artifact is of layout {found}, this version reads {LAYOUT}",
            where={"memory": path, "clip": clip}, fix="make it again with the `hm tokenize-memory` that made it",
        )  # fmt: skip
    about = from_json(ClipAbout, record["meta"], "a clip's record", memory=path, clip=clip)
    return MemoryItem(folder=inside(path, record["path"]), hash=record["hash"], about=about)


def read_description(path: Path, clip: str) -> SlotDescription:
    """What a memory artifact, made with or without a model, says of a clip's slots; DataError when it lacks it."""
    return description_of(item_of(path, read_manifest(path, kinds=(KIND,)), clip))


def description_of(item: MemoryItem) -> SlotDescription:
    """The same of an item."""
    about = item.about
    found = {name: read_item_array(item.folder, name) for name in about.described}
    return SlotDescription(
        span_M2=found[SPAN], pose_M44=found.get(POSE), overlap_AM=found.get(OVERLAP), shows_MS=found.get(SHOWS),
        slot_grid=about.slot_grid, context=about.context, target=about.target, context_slots=about.context_slots,
        latents=about.latents,
    )  # fmt: skip


_UNITS: dict[str, tuple[list[str], str]] = {
    SPAN: (["slot", "end"], "first and last latent frame"),
    TIME: (["slot"], "rotary time in latent frames"),
    CAMERA: (["slot", "row"], "mean camera row of the slot's frames, relative to the anchor"),
    FRAME_CAMERA: (["frame", "row"], "camera row of each context frame, relative to the anchor"),
    POSE: (["slot", "row", "column"], "mean world_from_camera of the slot's frames, metres"),
    OVERLAP: (["frame", "slot"], "share of what a frame sees between near and far that the slot saw"),
    SHOWS: (["slot", "subject"], "1 where the slot shows a subject that is hidden later"),
    ANCHOR: (["row", "column"], "world_from_camera, metres"),
    keys_of(SLOT): (["slot", "token", "channel"], "before rotary positions"),
    values_of(SLOT): (["slot", "token", "channel"], ""),
    DESCRIPTORS: (["slot", "channel"], "mean key of a slot, before rotary positions"),
    keys_of(TAIL): (["frame", "token", "channel"], "before rotary positions"),
    values_of(TAIL): (["frame", "token", "channel"], ""),
}


def write_group(
    place: Path, arrays: Mapping[str, np.ndarray], half: tuple[str, ...] = (), attributes: dict[str, Any] | None = None
) -> None:
    """Arrays of `_UNITS` as one Zarr group; `half` names those that are bits of bfloat16."""
    from hmcli.store.arrays import write_item_group

    axes, units = {name: _UNITS[name][0] for name in arrays}, {name: _UNITS[name][1] for name in arrays}
    write_item_group(
        place, arrays, axes=axes, units=units, dtypes=dict.fromkeys(half, "bfloat16"), attributes=attributes
    )
