"""Memory: slots that stand for a few frames each, the tokenizers that make them, and context frozen for reuse.

Paper: Eq. 3, docs/paper-map.md row "memory tokenizer". Known differences: docs/parity.md, "spans" and "frozen context".
Shape letters here: B batch, F latent frames, R rows and K columns in patch tokens, P = R * K, M slots,
Q tokens of one slot, C channels (all heads together), W frames of the tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hmcli.core.rope import slot_times

MEMORY_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class MemorySlots:
    """What a block can retrieve. Keys and values are before rotary positions; spans count absolute latent frames."""

    keys_BMQC: Tensor
    values_BMQC: Tensor
    descriptors_BMC: Tensor  # mean key of each slot, for pooled affinity
    span_M2: Tensor  # first and last latent frame a slot stands for, int64 on CPU
    grid: tuple[int, int]  # rows and columns of one slot, Q = rows * columns
    camera_BMR: Tensor | None = None  # mean camera row of the frames of each slot (R = 12)

    @property
    def count(self) -> int:
        return self.keys_BMQC.shape[1]

    def then(self, later: MemorySlots) -> MemorySlots:
        """These slots followed by later ones: they compete in one retrieval."""
        if self.grid != later.grid:
            raise ValueError(f"slots of {self.grid} and of {later.grid} tokens (rows, columns) cannot be joined")
        cameras = (self.camera_BMR, later.camera_BMR)
        return MemorySlots(
            keys_BMQC=torch.cat([self.keys_BMQC, later.keys_BMQC], dim=1),
            values_BMQC=torch.cat([self.values_BMQC, later.values_BMQC], dim=1),
            descriptors_BMC=torch.cat([self.descriptors_BMC, later.descriptors_BMC], dim=1),
            span_M2=torch.cat([self.span_M2, later.span_M2]),
            grid=self.grid,
            camera_BMR=None if cameras[0] is None or cameras[1] is None else torch.cat(cameras, dim=1),  # type: ignore[arg-type]
        )


def kernel_in_tokens(kernel: tuple[int, int, int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """A kernel in latent pixels (time, height, width) as patch tokens: 2 x 4 x 4 with patch 1 x 2 x 2 is 2 x 2 x 2."""
    if min(kernel) < 1 or any(k % p for k, p in zip(kernel, patch, strict=True)):
        raise ValueError(
            f"model.memory.kernel={list(kernel)} latent pixels is not a positive multiple of model.patch={list(patch)}"
        )
    time, rows, columns = (k // p for k, p in zip(kernel, patch, strict=True))
    return time, rows, columns


class MemoryTokenizer(nn.Module):
    """Eq. 3: a strided 3D convolution over patch tokens, without activation or normalisation.

    `conv` starts as torch initialises a convolution (as released); `mean` starts as the plain average of each cell.
    """

    def __init__(self, dim: int, kernel: tuple[int, int, int], start: Literal["conv", "mean"]) -> None:
        super().__init__()
        if start not in ("conv", "mean"):
            raise ValueError(f"model.memory.tokenizer={start!r}: known are conv and mean")
        self.kernel = kernel
        self.conv = nn.Conv3d(dim, dim, kernel, stride=kernel)
        if start == "mean":
            cell = kernel[0] * kernel[1] * kernel[2]
            with torch.no_grad():
                average = torch.eye(dim, dtype=self.conv.weight.dtype, device=self.conv.weight.device) / cell
                self.conv.weight.copy_(average[:, :, None, None, None].expand_as(self.conv.weight))
                self.conv.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x_BFRKC: Tensor) -> Tensor:
        """Patch tokens -> slots (B, M, rows, columns, C). What does not fill a whole kernel at the end is dropped."""
        B, F, R, K, C = x_BFRKC.shape
        time, rows, columns = self.kernel
        if rows > R or columns > K:
            raise ValueError(
                f"model.memory.kernel covers {rows} x {columns} tokens, but a frame has only {R} x {K}: no slot fits"
            )
        if time > F:
            return x_BFRKC.new_empty(B, 0, R // rows, K // columns, C)
        slots_BCMRK = self.conv(x_BFRKC.movedim(-1, 1))
        return slots_BCMRK.movedim(1, -1)


def exact_slot_spans(slots: int, kernel_time: int) -> Tensor:
    """First and last frame each slot was made from, (M, 2) int64."""
    first = kernel_time * torch.arange(slots)
    return torch.stack([first, first + kernel_time - 1], dim=1)


def released_slot_spans(frames: int, slots: int) -> Tensor:
    """The released guess from counts alone, (M, 2) int64: always two frames, evenly spread, whatever the kernel."""
    stride = max(1, round((frames - 2) / (slots - 1))) if slots > 1 else 1  # Python rounds half to even, as released
    first = stride * torch.arange(slots)
    return torch.stack([first, first + 1], dim=1)


def slot_spans(frames: int, kernel_time: int, how: Literal["exact", "released"]) -> Tensor:
    """Spans of all slots of `frames` latent frames, (M, 2)."""
    if how not in ("exact", "released"):
        raise ValueError(f"model.memory.spans={how!r}: known are exact and released")
    slots = frames // kernel_time
    return exact_slot_spans(slots, kernel_time) if how == "exact" else released_slot_spans(frames, slots)


def slot_cameras(camera_BFR: Tensor, kernel_time: int) -> Tensor:
    """Mean camera row of the frames of each slot, (B, M, 12)."""
    slots = camera_BFR.shape[1] // kernel_time
    return camera_BFR[:, : slots * kernel_time].unflatten(1, (slots, kernel_time)).mean(dim=2)


@dataclass(frozen=True, kw_only=True)
class BlockMemory:
    """What one block keeps of frozen context; all keys are normalised and before rotary positions."""

    slot_keys_BMQC: Tensor
    slot_values_BMQC: Tensor
    descriptors_BMC: Tensor
    tail_keys_BWPC: Tensor  # full-resolution keys of the last frames, which early target windows read
    tail_values_BWPC: Tensor


_BLOCK_PARTS = tuple(BlockMemory.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class ContextMemory:
    """Context that ran once and is read by every step, guidance branch and later chunk.

    The camera rows it was made with are relative to an anchor pose; whoever keeps this keeps that pose too, and
    gives the target's cameras relative to the same anchor.
    """

    blocks: tuple[BlockMemory, ...]
    span_M2: Tensor  # absolute latent frames, int64 on CPU
    time_M: Tensor  # rotary time of each slot in absolute latent frames, float64 on CPU
    camera_BMR: Tensor  # mean camera row of each slot, float32 at least
    frame_camera_BAR: Tensor  # camera row of every context frame, float32 at least
    grid: tuple[int, int]  # rows and columns of patch tokens in a frame
    slot_grid: tuple[int, int]  # rows and columns of tokens in a slot
    num_context_frames: int

    @property
    def batch(self) -> int:
        return self.camera_BMR.shape[0]

    @property
    def tail_frames(self) -> int:
        return self.blocks[0].tail_keys_BWPC.shape[1]

    def slots_of(self, block: int) -> MemorySlots:
        """The slots of one block, ready to retrieve from."""
        kept = self.blocks[block]
        return MemorySlots(
            keys_BMQC=kept.slot_keys_BMQC,
            values_BMQC=kept.slot_values_BMQC,
            descriptors_BMC=kept.descriptors_BMC,
            span_M2=self.span_M2,
            grid=self.slot_grid,
            camera_BMR=self.camera_BMR,
        )

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ContextMemory:
        """Everything on another device, keys, values and descriptors in another type too; spans and times stay."""
        blocks = tuple(
            BlockMemory(**{part: getattr(block, part).to(device=device, dtype=dtype) for part in _BLOCK_PARTS})
            for block in self.blocks
        )
        return replace(
            self, blocks=blocks, camera_BMR=self.camera_BMR.to(device), frame_camera_BAR=self.frame_camera_BAR.to(device)
        )

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A flat dict of tensors and a small JSON-able dict, from which `from_tensors` builds this memory again."""
        tensors = {
            f"blocks.{number}.{_plain(part)}": getattr(block, part)
            for number, block in enumerate(self.blocks)
            for part in _BLOCK_PARTS
        }
        tensors |= {"span": self.span_M2, "time": self.time_M, "camera": self.camera_BMR}
        tensors["frame_camera"] = self.frame_camera_BAR
        about = {
            "format": MEMORY_FORMAT,
            "blocks": len(self.blocks),
            "grid": list(self.grid),
            "slot_grid": list(self.slot_grid),
            "num_context_frames": self.num_context_frames,
        }
        return tensors, about

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> ContextMemory:
        """The inverse of `to_tensors`. Raises ValueError when a part is missing or of another format."""
        if about.get("format") != MEMORY_FORMAT:
            raise ValueError(f"context memory of format {about.get('format')!r}, this version reads {MEMORY_FORMAT}")
        names = [f"blocks.{number}.{_plain(part)}" for number in range(about["blocks"]) for part in _BLOCK_PARTS]
        if missing := [name for name in [*names, "span", "time", "camera", "frame_camera"] if name not in tensors]:
            raise ValueError(f"context memory lacks {len(missing)} tensors, the first is {missing[0]!r}")
        blocks = tuple(
            BlockMemory(**{part: tensors[f"blocks.{number}.{_plain(part)}"] for part in _BLOCK_PARTS})
            for number in range(about["blocks"])
        )
        return cls(
            blocks=blocks,
            span_M2=tensors["span"].cpu(),
            time_M=tensors["time"].cpu(),
            camera_BMR=tensors["camera"],
            frame_camera_BAR=tensors["frame_camera"],
            grid=(about["grid"][0], about["grid"][1]),
            slot_grid=(about["slot_grid"][0], about["slot_grid"][1]),
            num_context_frames=about["num_context_frames"],
        )


def _plain(part: str) -> str:
    """A field name without its shape letters: slot_keys_BMQC -> slot_keys."""
    return part.rpartition("_")[0]


def absolute_times(slots: int, kernel_time: int, first_frame: int) -> Tensor:
    """Rotary times of slots made from frames `first_frame` on, (M,) float64."""
    return slot_times(slots, kernel_time) + first_frame
