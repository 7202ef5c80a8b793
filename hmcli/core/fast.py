"""The fast form of attention over window and slots: which computation is used where, and the portable one.

Paper: Eq. 6, docs/paper-map.md row "attention"; measured in docs/performance.md. Equal to `plain_attention`.
Shape letters here: B batch, F query frames, G frames with full-resolution keys, P tokens of a frame, M memory slots,
Q tokens of a slot, W window frames, K slots kept, H heads, D channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hmcli.core.backends import attend
from hmcli.core.merged import can_merge, merged_attention
from hmcli.core.precision import wide_on_cpu

GATHER_BYTES = 256 * 2**20  # gathered keys and values of one chunk of query frames
SMALL_BYTES = 8 * 2**20  # so little is gathered at once sooner than it is attended in parts


@wide_on_cpu
def fast_attention(
    query_BFPHD: Tensor,
    keys_BGPHD: Tensor,
    values_BGPHD: Tensor,
    slot_keys_BMQHD: Tensor,
    slot_values_BMQHD: Tensor,
    frames_FW: Tensor,
    slots_BFK: Tensor,
    backend: str = "auto",
) -> Tensor:
    """`plain_attention`, by what is fastest here: `auto` merges window and slots on a CPU where that is defined.

    A kernel named in `backend` (hmcli.core.backends) is given gathered keys and values.
    """
    parts = (query_BFPHD, keys_BGPHD, values_BGPHD, slot_keys_BMQHD, slot_values_BMQHD, frames_FW, slots_BFK)
    large = len(frames_FW) * frame_bytes(query_BFPHD, slot_keys_BMQHD, frames_FW, slots_BFK) > SMALL_BYTES
    if backend == "auto" and large and can_merge(query_BFPHD, frames_FW):
        return merged_attention(*parts)
    return gathered_attention(*parts, backend=backend)


def frame_bytes(query_BFPHD: Tensor, slot_keys_BMQHD: Tensor, frames_FW: Tensor, slots_BFK: Tensor) -> int:
    """Size of all keys and values that one query frame reads, for the whole batch."""
    B, _, P, H, D = query_BFPHD.shape
    tokens = frames_FW.shape[1] * P + slots_BFK.shape[2] * slot_keys_BMQHD.shape[2]
    return 2 * B * tokens * H * D * query_BFPHD.element_size()


def gathered_attention(
    query_BFPHD: Tensor,
    keys_BGPHD: Tensor,
    values_BGPHD: Tensor,
    slot_keys_BMQHD: Tensor,
    slot_values_BMQHD: Tensor,
    frames_FW: Tensor,
    slots_BFK: Tensor,
    backend: str = "auto",
    gather_bytes: int = GATHER_BYTES,
) -> Tensor:
    """On any device, in any type: gather what a chunk of query frames reads, then one batched attention.

    Keys and values gathered at a time stay below `gather_bytes` (or one query frame); backward gathers them again
    instead of keeping them.
    """
    F = query_BFPHD.shape[1]
    one = frame_bytes(query_BFPHD, slot_keys_BMQHD, frames_FW, slots_BFK)
    step = max(1, min(F, gather_bytes // max(1, one)))
    frames_FW = frames_FW.to(query_BFPHD.device)
    out = []
    for start in range(0, F, step):
        part = slice(start, start + step)
        inputs = (query_BFPHD[:, part], keys_BGPHD, values_BGPHD, slot_keys_BMQHD, slot_values_BMQHD)
        chosen = (frames_FW[part], slots_BFK[:, part], backend)
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
    backend: str,
) -> Tensor:
    """Gather and attend for the query frames given; shapes as in `gathered_attention`."""
    B, F = query.shape[:2]
    M, flat_slots = slot_keys.shape[1], None
    if slots.shape[2]:  # some runtimes of graphs take no tensor of no rows
        flat_slots = (slots + M * torch.arange(B, device=slots.device)[:, None, None]).flatten()

    def gather(full: Tensor, memory: Tensor) -> Tensor:
        """Window and slots of every query frame side by side, (B * F, H, tokens, D)."""
        near = full.index_select(1, frames_FW.flatten()).unflatten(1, frames_FW.shape).flatten(2, 3)
        if flat_slots is None:
            return near.flatten(0, 1).transpose(1, 2)
        far = memory.flatten(0, 1).index_select(0, flat_slots).unflatten(0, slots.shape).flatten(2, 3)
        return torch.cat([near, far], dim=2).flatten(0, 1).transpose(1, 2)

    attended = attend(
        query.flatten(0, 1).transpose(1, 2), gather(keys, slot_keys), gather(values, slot_values), backend
    )
    return attended.transpose(1, 2).unflatten(0, (B, F))
