"""Attention over a local window plus retrieved memory slots, as the equation reads, and the layer that does it fast.

Paper: Eq. 5 and 6, docs/paper-map.md row "attention". Known differences: docs/parity.md.
Shape letters here: B batch, F query frames, G frames with full-resolution keys, P tokens of a frame, M memory slots,
Q tokens of a slot, W window frames, K slots kept, H heads, D channels of a head, C = H * D.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from hmcli.core.backends import attend
from hmcli.core.fast import fast_attention
from hmcli.core.inspection import record, record_mass
from hmcli.core.memory import BlockMemory, Held, MemorySlots, MemoryTokenizer, read_beside
from hmcli.core.precision import wide_on_cpu
from hmcli.core.retrieval import (
    ALL_FRAMES,
    SLOTS,
    Policy,
    RetrievalRequest,
    RetrievalRun,
    needs_of,
    plan_run,
)
from hmcli.core.rope import rotate, table_part, table_rows
from hmcli.core.stretch import Stretch


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


@wide_on_cpu
def dense_attention(query_BFPHD: Tensor, keys_BGPHD: Tensor, values_BGPHD: Tensor, backend: str = "auto") -> Tensor:
    """Every query attends to every full-resolution token; returns (B, F, P, H, D)."""
    query, keys, values = (part.flatten(1, 2).transpose(1, 2) for part in (query_BFPHD, keys_BGPHD, values_BGPHD))
    return attend(query, keys, values, backend).transpose(1, 2).unflatten(1, query_BFPHD.shape[1:3])


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
        turns_values: bool = False,
    ) -> None:
        super().__init__()
        dim = heads * head_dim
        self.heads, self.policy, self.affinity, self.top_k, self.window = heads, policy, affinity, top_k, window
        self.block = block
        self.turns_values = turns_values
        self.backend = "auto"  # a name of hmcli.core.backends
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q, self.norm_k = (RMSNorm(dim, eps=eps) for _ in range(2))
        self.tokenizer = MemoryTokenizer(dim, kernel, tokenizer)  # type: ignore[arg-type]

    def forward(self, x_BFPC: Tensor, stretch: Stretch) -> tuple[Tensor, BlockMemory | None]:
        """Attend; also returns what is kept of this block when the stretch is frozen context."""
        query, keys, values = self.norm_q(self.to_q(x_BFPC)), self.norm_k(self.to_k(x_BFPC)), self.to_v(x_BFPC)
        slots = self.make_slots(x_BFPC, stretch) if SLOTS in needs_of(self.policy) else None
        kept = self._keep(keys, values, slots, stretch) if stretch.part == "context" else None
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
            grid=(tokens_BMRKC.shape[2], tokens_BMRKC.shape[3]),
        )

    def plan(self, stretch: Stretch) -> None:
        """Do beforehand what is alike for all blocks of a run: these neither copy to their device nor wait for it."""
        plan_run(self.policy, self._run_of(stretch))

    def _run_of(self, stretch: Stretch) -> RetrievalRun:
        """What a policy is told of the run."""
        own = stretch.camera_BFR.shape[1]
        return RetrievalRun(
            part=stretch.part, first_frame=stretch.first_frame, total_frames=stretch.first_frame + own,
            num_context=stretch.first_frame + stretch.num_context, window=self.window, top_k=self.top_k,
            affinity=self.affinity, grid=stretch.grid, kernel=self.tokenizer.kernel, camera_BAR=stretch.camera_BAR,
            device=stretch.camera_BFR.device, span_M2=stretch.span_M2, slot_camera_BMR=stretch.slot_camera_BMR,
            tail_frames=0 if stretch.memory is None else stretch.memory.tail_frames, inputs=stretch.inputs,
            memo=stretch.memo,
        )  # fmt: skip

    @torch.compiler.disable  # what is read is chosen by values, and may lie on disk
    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, slots: MemorySlots | None, stretch: Stretch
    ) -> Tensor:
        """Ask the policy what to read, give everything its position, attend: (B, F, P, H, D). `slots` are its own."""
        if stretch.memory is not None and slots is not None:
            slots = stretch.memory.slots_of(self.block).then(slots)
        run = self._run_of(stretch)
        shared = {part.name: getattr(run, part.name) for part in fields(run)}
        asked = RetrievalRequest(**shared, query_BFPC=query, slots=slots)
        reading = self.policy(asked)
        record(asked, reading, self.block)
        frames = reading.frames
        own = query.shape[1] * query.shape[2]
        own_table = table_part(stretch.key_table, -own, own)
        query = self._placed(query, own_table)
        if stretch.memory is not None:
            tail = stretch.memory.blocks[self.block].tail
            past_keys, past_values = read_beside(tail, frames.tail_U, frames.tail_rows_U)
            keys, values = torch.cat([past_keys, keys], dim=1), torch.cat([past_values, values], dim=1)
        key_table = table_rows(stretch.key_table, frames.table_rows_G, keys.shape[2])
        keys, values = self._placed(keys, key_table), self._values(values, key_table)
        if frames.windows_FW is None:
            if frames.everywhere_BN is not None:
                sample_B1 = torch.arange(len(keys), device=keys.device)[:, None]
                keys, values = keys[sample_B1, frames.everywhere_BN], values[sample_B1, frames.everywhere_BN]
            out = dense_attention(query, keys, values, backend=self.backend)
        elif slots is None or reading.slots_BFK is None:
            none = keys[:, :0]
            nothing_BF0 = torch.empty(*query.shape[:2], 0, dtype=torch.int64, device=query.device)
            out = fast_attention(query, keys, values, none, none, frames.windows_FW, nothing_BF0, backend=self.backend)
        else:
            slot_keys, slot_values, index_BFK, numbers = slots.fetch(reading.slots_BFK)
            slot_table = table_rows(stretch.slot_table, numbers, slot_keys.shape[2])
            slot_keys, slot_values = self._placed(slot_keys, slot_table), self._values(slot_values, slot_table)
            record_mass(query, keys, frames.windows_FW, self._slot_keys(slots, stretch))
            out = fast_attention(
                query, keys, values, slot_keys, slot_values, frames.windows_FW, index_BFK, backend=self.backend
            )
        return self._turned_back(out, own_table)

    def _slot_keys(self, slots: MemorySlots, stretch: Stretch) -> Iterator[Tensor]:
        """Keys of all slots in order with their positions, some slots (B, m, Q, H, D) at a time."""
        first = 0
        for keys in slots.key_pieces():
            tokens = keys.shape[1] * keys.shape[2]
            yield self._placed(keys, table_part(stretch.slot_table, first, tokens))
            first += tokens

    def _placed(self, x_BGPC: Tensor, table: Tensor) -> Tensor:
        """Split heads and rotate: (B, G, P, H, D)."""
        heads = x_BGPC.unflatten(-1, (self.heads, -1))
        return rotate(heads.flatten(1, 2), table).unflatten(1, x_BGPC.shape[1:3])

    def _values(self, x_BGPC: Tensor, table: Tensor) -> Tensor:
        """Split heads and, where values have positions, rotate: (B, G, P, H, D)."""
        return self._placed(x_BGPC, table) if self.turns_values else x_BGPC.unflatten(-1, (self.heads, -1))

    def _turned_back(self, out_BFPHD: Tensor, own_table: Tensor) -> Tensor:
        """What was read, turned by how far from the reader it lies, where values have positions."""
        if not self.turns_values:
            return out_BFPHD
        return rotate(out_BFPHD.flatten(1, 2), own_table, back=True).unflatten(1, out_BFPHD.shape[1:3])

    def _keep(self, keys: Tensor, values: Tensor, slots: MemorySlots | None, stretch: Stretch) -> BlockMemory:
        """What later target frames need of this block: its slots, and the tail at full resolution."""
        start = keys.shape[1] - (keys.shape[1] if ALL_FRAMES in needs_of(self.policy) else stretch.tail_frames)
        B, _, _, C = keys.shape
        empty = keys.new_empty(B, 0, 0, C)
        no_mean = keys.new_empty(B, 0, C, dtype=torch.promote_types(keys.dtype, torch.float32))
        return BlockMemory(
            slots=Held(
                keys_BNQC=empty if slots is None else slots.keys_BMQC,
                values_BNQC=empty if slots is None else slots.values_BMQC,
            ),
            descriptors_BMC=no_mean if slots is None else slots.descriptors_BMC,
            tail=Held(keys_BNQC=keys[:, start:], values_BNQC=values[:, start:]),
        )
