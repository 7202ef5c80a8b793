"""Attention over window and slots without gathering windows: two kernel calls, merged through their logsumexps.

Paper: Eq. 6, docs/paper-map.md row "attention". Equal to `plain_attention`, for float32 and float64 on a CPU.
Shape letters here: B batch, F query frames, G frames with full-resolution keys, P tokens of a frame, M memory slots,
Q tokens of a slot, W window frames, K slots kept, H heads, D channels of a head, n frames of one kernel call.

Windows whose first frames lie W apart tile the keys without overlap. So the keys of such a run of query frames are a
plain view of all keys, and their gradient is added to one contiguous stretch. Only the few tokens of chosen slots are
gathered, a chunk of frames at a time. Softmax over both parts is recovered exactly: with l = log sum exp of a part's
scores, each part weighs exp(l) / (exp(l_window) + exp(l_slots)). Backward hands the kernel the merged output and the
merged logsumexp, from which it restores the probabilities of the one softmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 8 * 2**20  # keys and values of one kernel call: work for every core, and still in cache
_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"


@dataclass(frozen=True)
class WindowRun:
    """Query frames that one kernel call serves: `count` windows side by side in the keys, each read by `shared` frames.

    Either neighbours share one window (count 1), or every W-th frame has a window of its own (shared 1).
    """

    frames: slice  # of the query
    keys: slice  # frames of the keys
    count: int
    shared: int


def can_merge(query: Tensor, frames_FW: Tensor) -> bool:
    """Is this form defined here: CPU, float32 or float64, and every window a run of neighbouring frames?"""
    known = (
        query.device.type == "cpu"
        and query.dtype in (torch.float32, torch.float64)
        and hasattr(torch.ops.aten, _KERNEL)
    )
    return known and bool((frames_FW.diff(dim=1) == 1).all())


def merged_attention(
    query_BFPHD: Tensor,
    keys_BGPHD: Tensor,
    values_BGPHD: Tensor,
    slot_keys_BMQHD: Tensor,
    slot_values_BMQHD: Tensor,
    frames_FW: Tensor,
    slots_BFK: Tensor,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """The same as `plain_attention` where `can_merge` says so.

    Beside the output, memory is taken for a few times `chunk_bytes`, or for what one query frame reads.
    """
    P, W = query_BFPHD.shape[2], frames_FW.shape[1]
    token_bytes = 2 * query_BFPHD[0, 0, 0].numel() * query_BFPHD.element_size()
    runs = window_runs(frames_FW[:, 0].tolist(), W, max(1, chunk_bytes // (token_bytes * W * P)))
    slot_tokens = slots_BFK.shape[2] * slot_keys_BMQHD.shape[2]
    step = max(1, chunk_bytes // (token_bytes * max(1, slot_tokens)))
    parts = (query_BFPHD, keys_BGPHD, values_BGPHD, slot_keys_BMQHD, slot_values_BMQHD)
    return _Merged.apply(*(part.contiguous() for part in parts), slots_BFK, runs, step)


def window_runs(first_F: list[int], window: int, most: int) -> list[WindowRun]:
    """Sort query frames, given the first frame of each one's window, into kernel calls of at most `most` windows."""
    shares: list[list[int]] = []  # frame, number of neighbours with the same window, first frame of the window
    for frame, first in enumerate(first_F):
        if shares and shares[-1][2] == first:
            shares[-1][1] += 1
        else:
            shares.append([frame, 1, first])
    runs: list[WindowRun] = []
    open_runs: dict[int, int] = {}  # key frame after the run's last -> index of that run
    for frame, shared, first in shares:
        at = open_runs.pop(first, None) if shared == 1 else None
        if at is not None and runs[at].count < most and runs[at].frames.stop - 1 + window == frame:
            old = runs[at]
            grown = slice(old.frames.start, frame + 1, window)
            runs[at] = WindowRun(grown, slice(old.keys.start, first + window), old.count + 1, 1)
        else:
            at = len(runs)
            runs.append(WindowRun(slice(frame, frame + shared), slice(first, first + window), 1, shared))
        if shared == 1:
            open_runs[first + window] = at
    return runs


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, slot_keys: Tensor, slot_values: Tensor,
        slots_BFK: Tensor, runs: list[WindowRun], step: int,
    ) -> Tensor:  # fmt: skip
        out, logsumexp_BFPH = torch.empty_like(query), query.new_empty(query.shape[:-1])
        for b in range(len(query)):
            for run in runs:
                part, part_logsumexp = _attend(
                    _queries(query[b], run), _windows(keys[b], run), _windows(values[b], run)
                )
                _queries(out[b], run).copy_(part)
                _queries(logsumexp_BFPH[b], run).copy_(part_logsumexp)
        for frames, chosen in _chunks(slots_BFK, slot_keys, step):
            whole, whole_logsumexp = out.flatten(0, 1)[frames], logsumexp_BFPH.flatten(0, 1)[frames]
            part, part_logsumexp = _attend(
                query.flatten(0, 1)[frames], _gather(slot_keys, chosen), _gather(slot_values, chosen)
            )
            whole.lerp_(part, torch.sigmoid(part_logsumexp - whole_logsumexp)[..., None])
            torch.logaddexp(whole_logsumexp, part_logsumexp, out=whole_logsumexp)
        ctx.save_for_backward(query, keys, values, slot_keys, slot_values, slots_BFK, out, logsumexp_BFPH)
        ctx.runs, ctx.step = runs, step
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, slot_keys, slot_values, slots_BFK, out, logsumexp = ctx.saved_tensors
        same = (grad_out.contiguous(), query, out, logsumexp)  # what both parts read of a query frame
        zeros = (torch.zeros_like(part) for part in (keys, values, slot_keys, slot_values))
        grads = (torch.empty_like(query), *zeros)
        grad_query, grad_keys, grad_values, grad_slot_keys, grad_slot_values = grads
        for b in range(len(query)):
            for run in ctx.runs:
                for_query, for_keys, for_values = _attend_backward(
                    [_queries(x[b], run) for x in same], _windows(keys[b], run), _windows(values[b], run)
                )
                _queries(grad_query[b], run).copy_(for_query)
                _windows(grad_keys[b], run).add_(for_keys)
                _windows(grad_values[b], run).add_(for_values)
        for frames, chosen in _chunks(slots_BFK, slot_keys, ctx.step):
            for_query, for_keys, for_values = _attend_backward(
                [x.flatten(0, 1)[frames] for x in same], _gather(slot_keys, chosen), _gather(slot_values, chosen)
            )
            grad_query.flatten(0, 1)[frames] += for_query
            _scatter_add(grad_slot_keys, chosen, for_keys)
            _scatter_add(grad_slot_values, chosen, for_values)
        return *grads, None, None, None


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel on (n, tokens, H, D): its output and logsumexp, (n, tokens, H, D) and (n, tokens, H)."""
    kernel = getattr(torch.ops.aten, _KERNEL)
    out, logsumexp = kernel(query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
    return out.transpose(1, 2), logsumexp.transpose(1, 2)


def _attend_backward(same: list[Tensor], keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, keys and values, (n, tokens, H, D), for probabilities exp(scores - logsumexp)."""
    kernel = getattr(torch.ops.aten, f"{_KERNEL}_backward")
    grad_out, query, out, logsumexp, keys, values = (x.transpose(1, 2) for x in (*same, keys, values))
    grads = kernel(grad_out, query, keys, values, out, logsumexp, 0.0, False)
    for_query, for_keys, for_values = (x.transpose(1, 2) for x in grads)
    return for_query, for_keys, for_values


def _queries(x_FPH: Tensor, run: WindowRun) -> Tensor:
    """View of what belongs to the run's query frames, (n, shared * P, H, ...); x is (F, P, H, ...)."""
    return x_FPH[run.frames].unflatten(0, (run.count, run.shared)).flatten(1, 2)


def _windows(x_GPHD: Tensor, run: WindowRun) -> Tensor:
    """View of the run's windows, (n, W * P, H, D)."""
    return x_GPHD[run.keys].unflatten(0, (run.count, -1)).flatten(1, 2)


def _chunks(slots_BFK: Tensor, slot_keys: Tensor, step: int) -> list[tuple[slice, Tensor]]:
    """Frames of all samples in chunks: where they lie in B * F, and their slots (n, K) as rows of B * M."""
    M, Q = slot_keys.shape[1:3]
    if slots_BFK.shape[2] * Q == 0:
        return []
    chosen = (slots_BFK + M * torch.arange(len(slots_BFK))[:, None, None]).flatten(0, 1)
    return [(slice(start, start + step), chosen[start : start + step]) for start in range(0, len(chosen), step)]


def _gather(slots_BMQHD: Tensor, chosen_nK: Tensor) -> Tensor:
    """Tokens of the chosen slots, (n, K * Q, H, D)."""
    rows = slots_BMQHD.flatten(0, 1).index_select(0, chosen_nK.flatten())
    return rows.unflatten(0, chosen_nK.shape).flatten(1, 2)


def _scatter_add(grad_BMQHD: Tensor, chosen_nK: Tensor, for_tokens: Tensor) -> None:
    """Add what each frame found for its slots, (n, K * Q, H, D), to those slots."""
    K = chosen_nK.shape[1]
    rows = for_tokens.unflatten(1, (K, -1)).flatten(0, 1)
    grad_BMQHD.flatten(0, 1).index_add_(0, chosen_nK.flatten(), rows)
