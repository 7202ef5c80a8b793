"""Memory of clips: computed from latents, and read back from memory artifacts, with one and the same result.

Written by `hmcli.stages.memory.tokenize`; what both share stands in `hmcli.stages.memory.layout`.
Keys and values are read when a block has chosen them, one slot (or frame) of one block at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.errors import DataError, UsageError
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.memory.layout import (
    ANCHOR,
    CAMERA,
    DESCRIPTORS,
    FRAME_CAMERA,
    KEPT,
    KIND,
    SLOT,
    SPAN,
    TAIL,
    TIME,
    MemoryItem,
    SlotDescription,
    block_group,
    description_of,
    item_of,
    keys_of,
    values_of,
    write_group,
)
from hmcli.stages.models.folders import ModelFolder
from hmcli.store.arrays import StackReader, read_item_array
from hmcli.store.manifest import Manifest, read_manifest
from hmcli.world.views.cameras import relative_camera_rows

if TYPE_CHECKING:
    import torch

    from hmcli.core.memory import BlockMemory, ContextMemory, KeyValues
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel, PutAway

CACHE_BYTES = 512 * 2**20  # keys and values of slots and frames that stay in memory after they were read


# --- computed --------------------------------------------------------------------------------------------------------


def anchor_of(clip: LatentClip) -> np.ndarray:
    """The pose that frozen camera rows are relative to: the last context frame's, (4, 4) world_from_camera."""
    return clip.world_poses()[clip.context - 1]


def rows_from(poses: np.ndarray, anchor: np.ndarray, device: str) -> torch.Tensor:
    """Camera rows (1, F, 12) of poses (F, 4, 4) relative to an anchor pose."""
    return tensor_of(relative_camera_rows(poses, anchor).astype(np.float32))[None].to(device)


def compute_memory(
    model: HydraTransformer3DModel,
    clip: LatentClip,
    anchor: np.ndarray,
    inputs: RetrievalInputs | None,
    device: str,
    put_away: PutAway | None = None,
) -> ContextMemory:
    """Run a frozen model once over a clip's context; `put_away` as in `HydraTransformer3DModel.encode_context`."""
    import torch

    cameras = rows_from(clip.world_poses()[: clip.context], anchor, device)
    latents = tensor_of(clip.context_latents)[None].to(device, model.dtype)
    with torch.no_grad():
        return model.encode_context(latents, cameras, inputs, put_away)


# --- kept ------------------------------------------------------------------------------------------------------------


class RowCache:
    """Keys and values read lately, in bounded memory: the least recently used go first.

    Keys that are looked through again and again, one after the other, would drive each other out: of those the first
    ones stay, as many as there is as much room for again.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit  # bytes
        self.bytes = 0
        self.misses = 0
        self._rows: OrderedDict[tuple[Path, str, int], tuple[torch.Tensor, torch.Tensor]] = OrderedDict()
        self._staying: dict[tuple[Path, str, int], torch.Tensor] = {}
        self._room = limit

    def get(
        self, key: tuple[Path, str, int], read: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values under this key, read anew when they are not here."""
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        self.misses += 1
        self._rows[key] = pair = read()
        self.bytes += _size(pair)
        while self.bytes > self.limit:
            self.bytes -= _size(self._rows.popitem(last=False)[1])
        return pair

    def keys(self, key: tuple[Path, str, int], read: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The keys alone under this key, read anew when they did not stay."""
        if (row := self._staying.get(key)) is None:
            row = read()
            if row.nbytes <= self._room:
                self._room -= row.nbytes
                self._staying[key] = row
        return row


def _size(pair: tuple[torch.Tensor, torch.Tensor]) -> int:
    return sum(part.nbytes for part in pair)


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Keys and values of one block's slots (or tail frames) in a memory artifact (hmcli.core.memory.KeyValues)."""

    folder: Path  # the group of the block
    part: str  # slot or tail
    bfloat16: bool
    device: str
    cache: RowCache
    keys: StackReader
    values: StackReader

    @property
    def count(self) -> int:
        return len(self.keys)

    def read(self, numbers_U: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        pairs = [self._pair(number) for number in numbers_U.tolist()]
        if not pairs:
            return self._empty(), self._empty()
        keys, values = zip(*pairs, strict=True)
        return torch.stack(keys)[None], torch.stack(values)[None]

    def read_keys(self, start: int, stop: int) -> torch.Tensor:
        import torch

        rows = [
            self.cache.keys((self.folder, self.part, number), partial(self._row, self.keys, number))
            for number in range(start, stop)
        ]
        return torch.stack(rows)[None] if rows else self._empty()

    def _pair(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        def read() -> tuple[torch.Tensor, torch.Tensor]:
            return self._row(self.keys, number), self._row(self.values, number)

        return self.cache.get((self.folder, self.part, number), read)

    def _row(self, reader: StackReader, number: int) -> torch.Tensor:
        import torch

        row = tensor_of(reader[number])
        return (row.view(torch.bfloat16) if self.bfloat16 else row).to(self.device)

    def _empty(self) -> torch.Tensor:
        import torch

        kind = torch.bfloat16 if self.bfloat16 else tensor_of(np.empty(0, self.keys.dtype)).dtype
        return torch.empty((1, 0, *self.keys.shape[1:]), dtype=kind, device=self.device)


class MemoryView:
    """An opened memory artifact that holds keys and values of a frozen model."""

    def __init__(self, path: Path, model: ModelFolder) -> None:
        self.path = path
        self.manifest: Manifest = read_manifest(path, kinds=(KIND,))
        made_with = self.manifest.inputs.get("model")
        if made_with is None:
            raise UsageError(
                "this memory artifact holds no keys and values: it was made without a model", where={"memory": path},
                fix=f"hm tokenize-memory LATENTS --model {model.path}",
            )  # fmt: skip
        if made_with != model.fingerprint:
            raise DataError(
                "the memory was made by another checkpoint than the model", where={"memory": path, "model": model.path},
                fix=f"make it again: hm tokenize-memory LATENTS --model {model.path}",
            )  # fmt: skip

    def item(self, clip: str) -> MemoryItem:
        """A clip: its hash, which latents it was made of and what it follows."""
        return item_of(self.path, self.manifest, clip)

    def description(self, clip: str) -> SlotDescription:
        return description_of(self.item(clip))

    def anchor(self, clip: str) -> np.ndarray:
        """The pose (4, 4) that the clip's camera rows are relative to."""
        return read_item_array(self.item(clip).folder / KEPT, ANCHOR)

    def load(self, clip: str, device: str, dtype: torch.dtype, cache: RowCache) -> ContextMemory:
        """A clip's memory, for a model that computes in `dtype`; keys and values stay on disk until they are chosen."""

        from hmcli.core.memory import ContextMemory

        item = self.item(clip)
        about, folder = item.kept, item.folder
        if about.dtype != (wanted := str(dtype).removeprefix("torch.")):
            raise DataError(
                f"the memory holds {about.dtype}, but the model is to compute in {wanted}",
                where={"memory": self.path, "clip": clip},
                fix="set sample.dtype as it was when the memory was made, or make it again",
            )
        groups = [folder / block_group(block) for block in range(about.blocks)]
        shared = {name: tensor_of(read_item_array(folder / KEPT, name)) for name in (SPAN, TIME, CAMERA, FRAME_CAMERA)}
        return ContextMemory(
            blocks=tuple(stored_block(group, about.dtype, device, cache) for group in groups),
            span_M2=shared[SPAN], time_M=shared[TIME], camera_BMR=shared[CAMERA][None].to(device),
            frame_camera_BAR=shared[FRAME_CAMERA][None].to(device), grid=about.grid, slot_grid=about.slot_grid,
            num_context_frames=about.frames, first_frame=about.first_frame,
        )  # fmt: skip


def stored_block(folder: Path, dtype: str, device: str, cache: RowCache) -> BlockMemory:
    """One block's memory in a folder that `write_block` wrote: keys and values are read from there when chosen."""
    from hmcli.core.memory import BlockMemory

    half = dtype == "bfloat16"

    def rows(part: str) -> StoredRows:
        return StoredRows(
            folder=folder, part=part, bfloat16=half, device=device, cache=cache,
            keys=StackReader(folder / keys_of(part), bits=half),
            values=StackReader(folder / values_of(part), bits=half),
        )  # fmt: skip

    descriptors = tensor_of(read_item_array(folder, DESCRIPTORS))[None].to(device)
    return BlockMemory(slots=rows(SLOT), descriptors_BMC=descriptors, tail=rows(TAIL))


def write_block(place: Path, kept: BlockMemory) -> None:
    """One block's slots and tail: one slot, or frame, is one chunk, so that few are read without the others."""
    import torch

    slots, tail = _everything(kept.slots), _everything(kept.tail)
    named = {keys_of(SLOT): slots[0], values_of(SLOT): slots[1], keys_of(TAIL): tail[0], values_of(TAIL): tail[1]}
    half = tuple(name for name, values in named.items() if values.dtype == torch.bfloat16)
    bits = {n: v[0].contiguous().view(torch.uint16) if n in half else v[0] for n, v in named.items()}
    bits[DESCRIPTORS] = kept.descriptors_BMC[0]
    write_group(place, {name: values.cpu().numpy() for name, values in bits.items()}, half)


def _everything(rows: KeyValues) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    return rows.read(torch.arange(rows.count))


# --- history ---------------------------------------------------------------------------------------------------------


class History:
    """The past of clips from one or many memory artifacts in order of time, of any length in bounded memory."""

    def __init__(self, paths: Sequence[Path], model: ModelFolder) -> None:
        self.views = [MemoryView(path, model) for path in paths]

    def load(
        self, clip: str, latents: str, device: str, dtype: torch.dtype, cache: RowCache | None = None
    ) -> tuple[ContextMemory, np.ndarray]:
        """A clip's memory and the anchor pose (4, 4) its camera rows are relative to.

        `latents` is the hash of the clip's latents. Raises DataError when the last artifact was made from others, or
        when the artifacts do not follow each other.
        """
        self._check(clip, latents)
        cache = RowCache() if cache is None else cache
        memory, *rest = [view.load(clip, device, dtype, cache) for view in self.views]
        for later in rest:
            memory = memory.then(later)
        return memory, self.views[0].anchor(clip)

    def descriptions(self, clip: str) -> list[SlotDescription]:
        """What is known of the slots before the clip's own, one for each earlier artifact."""
        return [view.description(clip) for view in self.views[:-1]]

    def _check(self, clip: str, latents: str) -> None:
        first, last = self.views[0], self.views[-1]
        if start := first.item(clip).kept.first_frame:
            raise DataError(
                f"this memory begins at latent frame {start} of a longer history, whose beginning is not given",
                where={"memory": first.path, "clip": clip},
                fix="give every part in order of time: --memory FIRST --memory NEXT",
            )
        if last.item(clip).about.latents != latents:
            raise DataError(
                "the memory of this clip was made from other latents", where={"memory": last.path, "clip": clip},
                fix="make it again from these latents: hm tokenize-memory LATENTS --model MODEL",
            )  # fmt: skip
        for before, after in zip(self.views, self.views[1:], strict=False):
            check_follows(before, after.item(clip), after.path, clip)


def check_follows(before: MemoryView, item: MemoryItem, path: Path, clip: str) -> None:
    """Raise DataError, with the reason, when the memory of `item` does not go on where `before` ends."""
    mine, theirs = before.item(clip), item.kept
    end = mine.kept.first_frame + mine.kept.frames
    reasons = {
        f"it was made as the beginning of a history, not after {before.path.name}": theirs.after is None,
        f"it has {list(theirs.grid)} tokens a frame, the earlier one {list(mine.kept.grid)}": theirs.grid
        != mine.kept.grid,
        f"it begins at latent frame {theirs.first_frame}, the earlier one ends before {end}": theirs.first_frame != end,
        "it was made after another memory (another anchor pose, or other latents)": theirs.after != mine.hash,
    }
    if (reason := next((text for text, wrong in reasons.items() if wrong), None)) is not None:
        raise DataError(
            f"this memory does not follow the one before it: {reason}",
            where={"memory": path, "before it": before.path, "clip": clip},
            fix=f"hm tokenize-memory LATENTS --model MODEL --after {before.path}",
        )
