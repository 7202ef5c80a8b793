"""Attention over a local window plus retrieved memory slots, as the equation reads and in a fast form.

Paper: Eq. 5 and 6, docs/paper-map.md row "attention". Known differences: docs/parity.md.
Shape letters here: B batch, F query frames, G frames with full-resolution keys, P tokens of a frame, M memory slots,
Q tokens of a slot, W window frames, K slots kept, H heads, D channels of a head, C = H * D.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from hmcli.core.memory import BlockMemory, ContextMemory, MemorySlots, MemoryTokenizer, slot_cameras
from hmcli.core.retrieval import ALL_FRAMES, SLOTS, Policy, RetrievalInputs, RetrievalRequest, needs_of, record
from hmcli.core.rope import rotate

GATHER_BYTES = 256 * 2**20  # gathered keys and values of one chunk of query frames


def plain_attention(
    query_BFPHD: Tensor,
    keys_BGPHD: Tensor,
    values_BGPHD: Tensor,
    slot_keys_BMQHD: Tensor,
    slot_values_BMQHD: Tensor,
    frames_FW: Tensor,
    slots_BFK: Tensor,
) -> Tensor:
    """Eq. 6 word by word: each frame's queries attend to its window and its slots together, in one softmax.

    `frames_FW` indexes G, `slots_BFK` indexes M. Returns (B, F, P, H, D).
    """
    out = []
    for b, slots_FK in enumerate(slots_BFK):
        for f, slots_K in enumerate(slots_FK):
            near = frames_FW[f].to(keys_BGPHD.device)
            keys = torch.cat([keys_BGPHD[b, near].flatten(0, 1), slot_keys_BMQHD[b, slots_K].flatten(0, 1)])
            values = torch.cat([values_BGPHD[b, near].flatten(0, 1), slot_values_BMQHD[b, slots_K].flatten(0, 1)])
            scores = torch.einsum("phd,nhd->hpn", query_BFPHD[b, f], keys) / keys.shape[-1] ** 0.5
            out.append(torch.einsum("hpn,nhd->phd", scores.softmax(dim=-1), values))
    return torch.stack(out).unflatten(0, query_BFPHD.shape[:2])


def gathered_attention(
    query_BFPHD: Tensor,
    keys_BGPHD: Tensor,
    values_BGPHD: Tensor,
    slot_keys_BMQHD: Tensor,
    slot_values_BMQHD: Tensor,
    frames_FW: Tensor,
    slots_BFK: Tensor,
    gather_bytes: int = GATHER_BYTES,
) -> Tensor:
    """The same as `plain_attention`, fast: gather what a chunk of query frames reads, then one batched attention.

    Keys and values gathered at a time stay below `gather_bytes` (or one query frame); backward gathers them again
    instead of keeping them.
    """
    B, F, P, H, D = query_BFPHD.shape
    tokens = frames_FW.shape[1] * P + slots_BFK.shape[2] * slot_keys_BMQHD.shape[2]
    step = max(1, min(F, gather_bytes // max(1, 2 * B * tokens * H * D * keys_BGPHD.element_size())))
    frames_FW = frames_FW.to(query_BFPHD.device)
    out = []
    for start in range(0, F, step):
        part = slice(start, start + step)
        inputs = (query_BFPHD[:, part], keys_BGPHD, values_BGPHD, slot_keys_BMQHD, slot_values_BMQHD)
        chosen = (frames_FW[part], slots_BFK[:, part])
        if step < F and torch.is_grad_enabled():
            out.append(checkpoint(_attend_chunk, *inputs, *chosen, use_reentrant=False, preserve_rng_state=False))
        else:
            out.append(_attend_chunk(*inputs, *chosen))
    return torch.cat(out, dim=1)


def _attend_chunk(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slot_keys: Tensor,
    slot_values: Tensor,
    frames_FW: Tensor,
    slots: Tensor,
) -> Tensor:
    """Gather and attend for the query frames given; shapes as in `gathered_attention`."""
    B, F = query.shape[:2]
    M = slot_keys.shape[1]
    flat_slots = (slots + M * torch.arange(B, device=slots.device)[:, None, None]).flatten()

    def gather(full: Tensor, memory: Tensor) -> Tensor:
        """Window and slots of every query frame side by side, (B * F, H, tokens, D)."""
        near = full.index_select(1, frames_FW.flatten()).unflatten(1, frames_FW.shape).flatten(2, 3)
        far = memory.flatten(0, 1).index_select(0, flat_slots).unflatten(0, slots.shape).flatten(2, 3)
        return torch.cat([near, far], dim=2).flatten(0, 1).transpose(1, 2)

    attended = scaled_dot_product_attention(
        query.flatten(0, 1).transpose(1, 2), gather(keys, slot_keys), gather(values, slot_values)
    )
    return attended.transpose(1, 2).unflatten(0, (B, F))


def dense_attention(query_BFPHD: Tensor, keys_BGPHD: Tensor, values_BGPHD: Tensor) -> Tensor:
    """Every query attends to every full-resolution token; returns (B, F, P, H, D)."""
    query, keys, values = (part.flatten(1, 2).transpose(1, 2) for part in (query_BFPHD, keys_BGPHD, values_BGPHD))
    return scaled_dot_product_attention(query, keys, values).transpose(1, 2).unflatten(1, query_BFPHD.shape[1:3])


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One run of all blocks over a stretch of frames: where it lies in time and what it may read beyond itself."""

    part: str  # joint, context or target
    camera_BFR: Tensor  # of its frames
    num_context: int  # its first frames that are context (for the camera encoder)
    grid: tuple[int, int]  # rows and columns of patch tokens
    first_frame: int  # absolute number of its first frame
    span_M2: Tensor  # of the slots made from its own frames, absolute
    key_table: Tensor  # rotary table of the memory's tail and its own frames
    slot_table: Tensor  # rotary table of the memory's slots and its own
    camera_BAR: Tensor  # camera rows of all frames so far, float32 at least
    memory: ContextMemory | None = None
    tail_frames: int = 0  # last frames whose keys and values are kept for later (part context)
    inputs: RetrievalInputs | None = None
    memo: dict[str, Tensor] = field(default_factory=dict)  # of the policy, for all blocks


class RMSNorm(nn.RMSNorm):
    """torch's RMS normalisation over all heads together, with its weight in the input's type (under autocast too)."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class HydraAttention(nn.Module):
    """Self-attention of one block: projections, memory tokens, retrieval, attention, output projection."""

    def __init__(
        self,
        *,
        heads: int,
        head_dim: int,
        eps: float,
        policy: Policy,
        affinity: str,
        top_k: int,
        window: int,
        kernel: tuple[int, int, int],
        tokenizer: str,
        block: int,
    ) -> None:
        super().__init__()
        dim = heads * head_dim
        self.heads, self.policy, self.affinity, self.top_k, self.window = heads, policy, affinity, top_k, window
        self.block = block
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q, self.norm_k = (RMSNorm(dim, eps=eps) for _ in range(2))
        self.tokenizer = MemoryTokenizer(dim, kernel, tokenizer)  # type: ignore[arg-type]

    def forward(self, x_BFPC: Tensor, stretch: Stretch) -> tuple[Tensor, BlockMemory | None]:
        """Attend; also returns what is kept of this block when the stretch is frozen context."""
        query, keys, values = self.norm_q(self.to_q(x_BFPC)), self.norm_k(self.to_k(x_BFPC)), self.to_v(x_BFPC)
        slots = self.make_slots(x_BFPC, stretch) if SLOTS in needs_of(self.policy) else None
        kept = self._keep(keys, values, slots, stretch) if stretch.part == "context" else None
        if (memory := stretch.memory) is not None:
            past = memory.blocks[self.block]
            keys = torch.cat([past.tail_keys_BWPC, keys], dim=1)
            values = torch.cat([past.tail_values_BWPC, values], dim=1)
            slots = None if slots is None else memory.slots_of(self.block).then(slots)
        out = self._attend(query, keys, values, slots, stretch)
        return self.to_out[0](out.flatten(-2)), kept

    def make_slots(self, x_BFPC: Tensor, stretch: Stretch) -> MemorySlots:
        """Eq. 3: memory slots of these frames, with keys and values from the maps the full-resolution tokens use."""
        tokens_BMRKC = self.tokenizer(x_BFPC.unflatten(2, stretch.grid))
        tokens_BMQC = tokens_BMRKC.flatten(2, 3)
        keys = self.norm_k(self.to_k(tokens_BMQC))
        return MemorySlots(
            keys_BMQC=keys,
            values_BMQC=self.to_v(tokens_BMQC),
            descriptors_BMC=keys.to(torch.promote_types(keys.dtype, torch.float32)).mean(dim=2),
            span_M2=stretch.span_M2,
            grid=(tokens_BMRKC.shape[2], tokens_BMRKC.shape[3]),
            camera_BMR=slot_cameras(stretch.camera_BAR[:, stretch.first_frame :], self.tokenizer.kernel[0]),
        )

    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, slots: MemorySlots | None, stretch: Stretch
    ) -> Tensor:
        """Ask the policy what to read, give everything its position, attend: (B, F, P, H, D)."""
        own = query.shape[1]
        asked = RetrievalRequest(
            query_BFPC=query, slots=slots, part=stretch.part, first_frame=stretch.first_frame,
            total_frames=stretch.first_frame + own, num_context=stretch.first_frame + stretch.num_context,
            window=self.window, top_k=self.top_k, affinity=self.affinity, grid=stretch.grid,
            kernel=self.tokenizer.kernel, camera_BAR=stretch.camera_BAR, inputs=stretch.inputs, memo=stretch.memo,
        )  # fmt: skip
        reading = self.policy(asked)
        record(reading, self.block, stretch.part)
        tokens = own * query.shape[2]
        query = self._placed(query, stretch.key_table[-tokens:])
        keys, values = self._placed(keys, stretch.key_table), values.unflatten(-1, (self.heads, -1))
        first_key = asked.total_frames - keys.shape[1]  # absolute number of the first frame in keys
        if reading.frames_FW is None:
            if reading.everywhere_BN is not None:
                sample_B1 = torch.arange(len(keys), device=keys.device)[:, None]
                frames_BN = (reading.everywhere_BN - first_key).to(keys.device)
                keys, values = keys[sample_B1, frames_BN], values[sample_B1, frames_BN]
            return dense_attention(query, keys, values)
        if slots is None or reading.slots_BFK is None:
            none = keys[:, :0]
            return gathered_attention(
                query, keys, values, none, none, reading.frames_FW - first_key,
                torch.empty(query.shape[0], own, 0, dtype=torch.int64, device=query.device),
            )  # fmt: skip
        slot_keys = self._placed(slots.keys_BMQC, stretch.slot_table)
        slot_values = slots.values_BMQC.unflatten(-1, (self.heads, -1))
        return gathered_attention(
            query, keys, values, slot_keys, slot_values, reading.frames_FW - first_key, reading.slots_BFK
        )

    def _placed(self, x_BGPC: Tensor, table: Tensor) -> Tensor:
        """Split heads and rotate: (B, G, P, H, D)."""
        heads = x_BGPC.unflatten(-1, (self.heads, -1))
        return rotate(heads.flatten(1, 2), table).unflatten(1, x_BGPC.shape[1:3])

    def _keep(self, keys: Tensor, values: Tensor, slots: MemorySlots | None, stretch: Stretch) -> BlockMemory:
        """What later target frames need of this block: its slots, and the tail at full resolution."""
        start = keys.shape[1] - (keys.shape[1] if ALL_FRAMES in needs_of(self.policy) else stretch.tail_frames)
        B, _, _, C = keys.shape
        empty = keys.new_empty(B, 0, 0, C)
        return BlockMemory(
            slot_keys_BMQC=empty if slots is None else slots.keys_BMQC,
            slot_values_BMQC=empty if slots is None else slots.values_BMQC,
            descriptors_BMC=keys.new_empty(B, 0, C) if slots is None else slots.descriptors_BMC,
            tail_keys_BWPC=keys[:, start:],
            tail_values_BWPC=values[:, start:],
        )
