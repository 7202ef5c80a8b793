"""How a memory artifact is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import DataError
from hmcli.store.arrays import read_item_array
from hmcli.store.files import inside
from hmcli.store.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    pass


LAYOUT = 3  # of an item of a memory artifact; 2 described context slots only and kept all slots of a block in one chunk


KEPT = "kept"  # group of what all blocks share


ANCHOR = "anchor"


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


def read_description(path: Path, clip: str) -> SlotDescription:
    """What a memory artifact, made with or without a model, says of a clip's slots; DataError when it lacks it."""
    return description_of(path, item_of(path, read_manifest(path, kinds=("memory",)), clip))


def item_of(path: Path, manifest: Manifest, clip: str) -> dict[str, Any]:
    """The record of a clip in a memory artifact. Raises DataError when it is not there, or of another layout."""
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
    return record


def description_of(path: Path, record: dict[str, Any]) -> SlotDescription:
    """The same from the record of an item."""
    meta, folder = record["meta"], inside(path, record["path"])
    found = {name: read_item_array(folder, name) for name in meta["described"]}
    return SlotDescription(
        span_M2=found["slot_span"], pose_M44=found.get("slot_pose"), overlap_AM=found.get("overlap"),
        shows_MS=found.get("shows"), slot_grid=(meta["slot_grid"][0], meta["slot_grid"][1]), context=meta["context"],
        target=meta["target"], context_slots=meta["context_slots"], latents=meta["latents"],
    )  # fmt: skip


_UNITS: dict[str, tuple[list[str], str]] = {
    "slot_span": (["slot", "end"], "first and last latent frame"),
    "slot_time": (["slot"], "rotary time in latent frames"),
    "slot_camera": (["slot", "row"], "mean camera row of the slot's frames, relative to the anchor"),
    "frame_camera": (["frame", "row"], "camera row of each context frame, relative to the anchor"),
    "slot_pose": (["slot", "row", "column"], "mean world_from_camera of the slot's frames, metres"),
    "overlap": (["frame", "slot"], "share of what a frame sees between near and far that the slot saw"),
    "shows": (["slot", "subject"], "1 where the slot shows a subject that is hidden later"),
    ANCHOR: (["row", "column"], "world_from_camera, metres"),
    "slot_keys": (["slot", "token", "channel"], "before rotary positions"),
    "slot_values": (["slot", "token", "channel"], ""),
    "descriptors": (["slot", "channel"], "mean key of a slot, before rotary positions"),
    "tail_keys": (["frame", "token", "channel"], "before rotary positions"),
    "tail_values": (["frame", "token", "channel"], ""),
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
