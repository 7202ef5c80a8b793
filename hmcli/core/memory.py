"""Memory: slots that stand for a few frames each, the tokenizers that make them, and context frozen for reuse.

Paper: Eq. 3, docs/paper-map.md row "memory tokenizer". Known differences: docs/parity.md, "spans" and "frozen context".
Shape letters here: B batch, F latent frames, R rows and K columns in patch tokens, P = R * K, M slots,
Q tokens of one slot, C channels (all heads together), A context frames, N numbered slots or frames, U of them read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from hmcli.core.rope import slot_times

PIECE_BYTES = 256 * 2**20  # keys in hand at a time where all of them are looked through


class KeyValues(Protocol):
    """Keys and values of the numbered slots, or frames, of one block: in memory, or read from elsewhere when asked."""

    @property
    def count(self) -> int: ...

    def read(self, numbers_U: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of these numbers (int64, ascending), each (B, U, tokens, C).

        The numbers lie beside the keys where these are in memory (`Held`), on the CPU otherwise.
        """

    def read_keys(self, start: int, stop: int) -> Tensor:
        """The keys alone, of all numbers from `start` up to `stop`."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Keys and values in memory."""

    keys_BNQC: Tensor
    values_BNQC: Tensor

    @property
    def count(self) -> int:
        return self.keys_BNQC.shape[1]

    def read(self, numbers_U: Tensor) -> tuple[Tensor, Tensor]:
        if len(numbers_U) == self.count:  # ascending, so these are all
            return self.keys_BNQC, self.values_BNQC
        return self.keys_BNQC.index_select(1, numbers_U), self.values_BNQC.index_select(1, numbers_U)

    def read_keys(self, start: int, stop: int) -> Tensor:
        whole = (start, stop) == (0, self.count)
        return self.keys_BNQC if whole else self.keys_BNQC[:, start:stop].clone()  # as what is read from elsewhere


@dataclass(frozen=True)
class Joined:
    """Some keys and values after others; reading a few of many costs no more than looking at these."""

    parts: tuple[KeyValues, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The first number of every part, and the count of all."""
        return [0, *accumulate(part.count for part in self.parts)]

    @property
    def count(self) -> int:
        return self.starts[-1]

    def read(self, numbers_U: Tensor) -> tuple[Tensor, Tensor]:
        numbers, done = numbers_U.tolist(), 0
        asked: list[tuple[KeyValues, Tensor]] = []
        while done < len(numbers):
            which = bisect_right(self.starts, numbers[done]) - 1
            end = bisect_left(numbers, self.starts[which + 1], done)
            asked.append((self.parts[which], numbers_U[done:end] - self.starts[which]))
            done = end
        read = [read_beside(part, of, None) for part, of in asked or [(self.parts[0], numbers_U)]]
        keys, values = zip(*read, strict=True)
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def read_keys(self, start: int, stop: int) -> Tensor:
        spans = zip(self.parts, self.starts, self.starts[1:], strict=False)
        asked = [
            (part, max(start, at) - at, min(stop, end) - at) for part, at, end in spans if at < stop and start < end
        ]
        return torch.cat([part.read_keys(*of) for part, *of in asked or [(self.parts[0], 0, 0)]], dim=1)


@dataclass(frozen=True)
class Repeated:
    """Keys and values of the same samples several times over, read once."""

    rows: KeyValues
    times: int

    @property
    def count(self) -> int:
        return self.rows.count

    def read(self, numbers_U: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = read_beside(self.rows, numbers_U, None)
        return keys.repeat(self.times, 1, 1, 1), values.repeat(self.times, 1, 1, 1)

    def read_keys(self, start: int, stop: int) -> Tensor:
        return self.rows.read_keys(start, stop).repeat(self.times, 1, 1, 1)


def read_beside(rows: KeyValues, numbers_U: Tensor, on_device_U: Tensor | None) -> tuple[Tensor, Tensor]:
    """Keys and values of numbers on the CPU, which are also on the device (or copied there) for what is held there."""
    if not isinstance(rows, Held):
        return rows.read(numbers_U)
    return rows.read(numbers_U.to(rows.keys_BNQC.device) if on_device_U is None else on_device_U)


def join(first: KeyValues, second: KeyValues) -> KeyValues:
    """`first`, then `second`; what is in memory already is joined there."""
    if isinstance(first, Held) and isinstance(second, Held):
        return Held(
            keys_BNQC=torch.cat([first.keys_BNQC, second.keys_BNQC], dim=1),
            values_BNQC=torch.cat([first.values_BNQC, second.values_BNQC], dim=1),
        )
    return Joined(tuple(part for of in (first, second) for part in (of.parts if isinstance(of, Joined) else (of,))))


@dataclass(frozen=True, kw_only=True)
class MemorySlots:
    """What a block can retrieve. Keys and values are before rotary positions."""

    keys_BMQC: Tensor  # of the slots in memory; those of `earlier` come before them
    values_BMQC: Tensor
    descriptors_BMC: Tensor  # mean key of each slot, of `earlier` too, for pooled affinity
    grid: tuple[int, int]  # rows and columns of one slot, Q = rows * columns
    earlier: KeyValues | None = None  # the first slots, where their keys and values lie elsewhere until they are chosen

    @property
    def count(self) -> int:
        return self.descriptors_BMC.shape[1]

    @property
    def all(self) -> KeyValues:
        """Keys and values of all slots, by number."""
        held = Held(keys_BNQC=self.keys_BMQC, values_BNQC=self.values_BMQC)
        return held if self.earlier is None else Joined((self.earlier, held))

    def fetch(self, slots_BFK: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What was chosen: keys and values (B, U, Q, C), where each choice lies in them (B, F, K), and the numbers of
        those slots, (U,) or, where every sample has its own, (B, U); None: they are all slots in order.

        In memory: all slots, without a copy, where they are no more than a sample's choices, else one for each choice.
        Elsewhere: those that any sample chose, ascending; their numbers have to come to the CPU, which waits for the
        device once.
        """
        if self.earlier is not None:
            numbers_U, index_BFK = torch.unique(slots_BFK.cpu(), return_inverse=True)
            keys_BUQC, values_BUQC = self.all.read(numbers_U)
            return keys_BUQC, values_BUQC, index_BFK.to(slots_BFK.device), numbers_U.to(slots_BFK.device)
        B, F, K = slots_BFK.shape
        if self.count <= F * K:
            return self.keys_BMQC, self.values_BMQC, slots_BFK, None
        sample_B1 = torch.arange(B, device=slots_BFK.device)[:, None]
        numbers_BU = slots_BFK.flatten(1)
        index_BFK = torch.arange(F * K, device=slots_BFK.device).unflatten(0, (F, K)).expand(B, F, K)
        return self.keys_BMQC[sample_B1, numbers_BU], self.values_BMQC[sample_B1, numbers_BU], index_BFK, numbers_BU

    def key_pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[Tensor]:
        """Keys of all slots in order, some slots (B, m, Q, C) at a time: below `piece_bytes`, or one slot.

        The pieces are the same wherever the keys lie, so what is computed from them is too.
        """
        B, _, Q, C = self.keys_BMQC.shape
        step = max(1, piece_bytes // max(1, B * Q * C * self.keys_BMQC.element_size()))
        for start in range(0, self.count, step):
            yield self.all.read_keys(start, min(start + step, self.count))

    def then(self, later: MemorySlots) -> MemorySlots:
        """These slots followed by later ones in memory: they compete in one retrieval."""
        if self.grid != later.grid:
            raise ValueError(f"slots of {self.grid} and of {later.grid} tokens (rows, columns) cannot be joined")
        if later.earlier is not None:
            raise ValueError("slots that lie elsewhere come first: they cannot follow others")
        return MemorySlots(
            keys_BMQC=torch.cat([self.keys_BMQC, later.keys_BMQC], dim=1),
            values_BMQC=torch.cat([self.values_BMQC, later.values_BMQC], dim=1),
            descriptors_BMC=torch.cat([self.descriptors_BMC, later.descriptors_BMC], dim=1),
            grid=self.grid,
            earlier=self.earlier,
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


def _repeated(part: KeyValues, times: int) -> KeyValues:
    """What is in memory is copied there, the rest when it is read."""
    if not isinstance(part, Held):
        return Repeated(part, times)
    return Held(keys_BNQC=part.keys_BNQC.repeat(times, 1, 1, 1), values_BNQC=part.values_BNQC.repeat(times, 1, 1, 1))


def _abreast(parts: Sequence[KeyValues]) -> Held:
    held = [part for part in parts if isinstance(part, Held)]
    if len(held) < len(parts):
        raise ValueError("memory on disk is read for one sample at a time")
    return Held(
        keys_BNQC=torch.cat([part.keys_BNQC for part in held]),
        values_BNQC=torch.cat([part.values_BNQC for part in held]),
    )


@dataclass(frozen=True, kw_only=True)
class BlockMemory:
    """What one block keeps of frozen context; all keys are normalised and before rotary positions."""

    slots: KeyValues
    descriptors_BMC: Tensor
    tail: KeyValues  # full-resolution keys and values of the last frames, which early target windows read


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
    first_frame: int = 0  # number of its first frame; not 0: it follows other memory and is read joined to it

    @property
    def batch(self) -> int:
        return self.camera_BMR.shape[0]

    @property
    def tail_frames(self) -> int:
        return self.blocks[0].tail.count

    def slots_of(self, block: int) -> MemorySlots:
        """The slots of one block, ready to retrieve from."""
        kept = self.blocks[block]
        inside = isinstance(kept.slots, Held)
        held = kept.slots if isinstance(kept.slots, Held) else self._nothing(kept)
        return MemorySlots(
            keys_BMQC=held.keys_BNQC,
            values_BMQC=held.values_BNQC,
            descriptors_BMC=kept.descriptors_BMC,
            grid=self.slot_grid,
            earlier=None if inside else kept.slots,
        )

    def _nothing(self, kept: BlockMemory) -> Held:
        """No slots, of the right shape and type."""
        keys, values = kept.slots.read(torch.arange(0))
        return Held(keys_BNQC=keys, values_BNQC=values)

    def repeated(self, times: int) -> ContextMemory:
        """The memory of the same samples `times` over, one after the other, for several targets of each."""
        blocks = tuple(
            BlockMemory(
                slots=_repeated(kept.slots, times),
                descriptors_BMC=kept.descriptors_BMC.repeat(times, 1, 1),
                tail=_repeated(kept.tail, times),
            )
            for kept in self.blocks
        )
        return replace(
            self, blocks=blocks, camera_BMR=self.camera_BMR.repeat(times, 1, 1),
            frame_camera_BAR=self.frame_camera_BAR.repeat(times, 1, 1),
        )  # fmt: skip

    def abreast(self, others: Sequence[ContextMemory]) -> ContextMemory:
        """The memory of these samples and of others, one after the other, for targets made together.

        Raises ValueError where others are of another shape, or lie on disk.
        """
        every = (self, *others)
        for other in others:
            if other.grid != self.grid or not torch.equal(other.span_M2, self.span_M2):
                raise ValueError("memories of different frames or sizes cannot be read together")
        blocks = tuple(
            BlockMemory(
                slots=_abreast([kept.slots for kept in of]),
                descriptors_BMC=torch.cat([kept.descriptors_BMC for kept in of]),
                tail=_abreast([kept.tail for kept in of]),
            )
            for of in zip(*(memory.blocks for memory in every), strict=True)
        )
        return replace(
            self, blocks=blocks, camera_BMR=torch.cat([memory.camera_BMR for memory in every]),
            frame_camera_BAR=torch.cat([memory.frame_camera_BAR for memory in every]),
        )  # fmt: skip

    def older_by(self, frames: int) -> ContextMemory:
        """The same memory, its slots placed further back by so many latent frames; what it ends with stays."""
        return replace(self, time_M=self.time_M - frames)

    def starting_at(self, frame: int) -> ContextMemory:
        """The same memory with frames numbered from `frame` on, to follow other memory."""
        moved = frame - self.first_frame
        return replace(self, span_M2=self.span_M2 + moved, time_M=self.time_M + moved, first_frame=frame)

    def then(self, later: ContextMemory) -> ContextMemory:
        """This memory followed by that of the next frames, which has the same anchor pose: one history.

        Raises ValueError when `later` does not begin where this ends, or was made by another kind of model.
        """
        for name in ("batch", "grid", "slot_grid"):
            if (mine := getattr(self, name)) != (other := getattr(later, name)):
                raise ValueError(f"memory with {name} {mine} cannot be followed by memory with {name} {other}")
        if len(self.blocks) != len(later.blocks):
            raise ValueError(f"memory of {len(self.blocks)} blocks cannot be followed by one of {len(later.blocks)}")
        if later.first_frame != self.first_frame + self.num_context_frames:
            end = self.first_frame + self.num_context_frames
            raise ValueError(f"memory that ends before frame {end} cannot be followed by one from {later.first_frame}")
        short = later.tail_frames == later.num_context_frames  # its windows, or all frames, reach back further
        return replace(
            self,
            blocks=tuple(
                BlockMemory(
                    slots=join(first.slots, second.slots),
                    descriptors_BMC=torch.cat([first.descriptors_BMC, second.descriptors_BMC], dim=1),
                    tail=join(first.tail, second.tail) if short else second.tail,
                )
                for first, second in zip(self.blocks, later.blocks, strict=True)
            ),
            span_M2=torch.cat([self.span_M2, later.span_M2]),
            time_M=torch.cat([self.time_M, later.time_M]),
            camera_BMR=torch.cat([self.camera_BMR, later.camera_BMR], dim=1),
            frame_camera_BAR=torch.cat([self.frame_camera_BAR, later.frame_camera_BAR], dim=1),
            num_context_frames=self.num_context_frames + later.num_context_frames,
        )


def absolute_times(slots: int, kernel_time: int, first_frame: int) -> Tensor:
    """Rotary times of slots made from frames `first_frame` on, (M,) float64."""
    return slot_times(slots, kernel_time) + first_frame
