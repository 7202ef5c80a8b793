"""Inspection: what did every block read, at which denoising step, and how much of its attention went to memory?

Nothing is kept unless somebody listens (`with recorded() as readings`). Definitions: docs/inspecting.md.
Shape letters here: B batch, F query frames, A all frames of the clip, P tokens of a frame, G frames with keys at full
resolution, M memory slots, Q tokens of a slot, W window frames, K slots kept, H heads, D channels of a head,
S subjects, N draws of a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hmcli.core.precision import without_autocast
from hmcli.core.reading import inside_window
from hmcli.core.retrieval import Reading, RetrievalRequest, topk_slots

MASS_BYTES = 64 * 2**20  # scores that are held at a time while attention mass is measured
CAPTION, NEGATIVE = "caption", "negative"  # branches of guidance
MODEL, RANDOM, ORACLE = "model", "random", "oracle"  # who chooses slots


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What one block read in one run of the model. All tensors lie on the CPU."""

    frames_FW: Tensor | None  # absolute numbers of the frames of each window
    everywhere_BN: Tensor | None = None  # instead: of the frames that every query frame of a sample reads
    slots_BFK: Tensor | None = None  # indices into the slots, best first
    scores_BFM: Tensor | None = None  # before masking
    block: int
    part: str  # which run of the blocks: joint, context or target
    step: int  # of denoising, from 0; -1 outside of the sampler
    branch: str  # caption or negative; empty outside of the sampler
    first_frame: int  # number of the first query frame
    num_context: int  # the first frames, which are context
    top_k: int
    span_M2: Tensor | None = None  # None where there are no slots
    near_FM: Tensor | None = None  # slots wholly inside the window
    mass_BF: dict[str, Tensor] = field(default_factory=dict)  # who chooses -> share of attention that goes to slots


Choosers = Callable[[Recorded], Mapping[str, Tensor]]  # who chooses -> slots (N, B, F, K)


@dataclass(kw_only=True)
class _Listener:
    """One open `recorded`."""

    readings: list[Recorded] = field(default_factory=list)
    choosers: Choosers | None = None


_LISTENER: ContextVar[_Listener | None] = ContextVar("hm_listener", default=None)
_PLACE: ContextVar[tuple[int, str]] = ContextVar("hm_place", default=(-1, ""))


# --- listening -----------------------------------------------------------------------------------------------------


@contextmanager
def recorded(choosers: Choosers | None = None) -> Iterator[list[Recorded]]:
    """Collect what every block reads while this is open, in the order of running.

    With `choosers`, attention mass is measured too: for every choice of slots that it returns of a reading (the mean
    over the N draws of each), on the block's own queries and keys. Without, nothing is computed.
    """
    listener = _Listener(choosers=choosers)
    token = _LISTENER.set(listener)
    try:
        yield listener.readings
    finally:
        _LISTENER.reset(token)


@contextmanager
def sampling(step: int, branch: str) -> Iterator[None]:
    """Readings recorded in here belong to this denoising step and guidance branch."""
    token = _PLACE.set((step, branch))
    try:
        yield
    finally:
        _PLACE.reset(token)


def record(asked: RetrievalRequest, reading: Reading, block: int) -> None:
    """Note a reading if somebody is listening."""
    if (listener := _LISTENER.get()) is None:
        return
    frames = reading.frames
    frames_FW, everywhere_BN = (_on_cpu(frames.numbers(index)) for index in (frames.windows_FW, frames.everywhere_BN))
    step, branch = _PLACE.get()
    span_M2 = near_FM = None
    if asked.slots is not None and asked.span_M2 is not None and frames_FW is not None:
        span_M2, near_FM = asked.span_M2, inside_window(asked.span_M2, frames_FW[:, 0], frames_FW[:, -1])
    listener.readings.append(
        Recorded(
            frames_FW=frames_FW, everywhere_BN=everywhere_BN, slots_BFK=_on_cpu(reading.slots_BFK),
            scores_BFM=_on_cpu(reading.scores_BFM), block=block, part=asked.part, step=step, branch=branch,
            first_frame=asked.first_frame, num_context=asked.num_context, top_k=asked.top_k, span_M2=span_M2,
            near_FM=near_FM,
        )
    )  # fmt: skip


def record_mass(query_BFPHD: Tensor, keys_BGPHD: Tensor, frames_FW: Tensor, slot_keys: Iterable[Tensor]) -> None:
    """Measure attention mass of the reading just recorded, if a listener wants it; everything is rotated already.

    `frames_FW` indexes G; `slot_keys` brings the keys of all slots in order, some (B, m, Q, H, D) at a time, and is not
    touched when nobody listens.
    """
    listener = _LISTENER.get()
    if listener is None or listener.choosers is None:
        return
    with torch.no_grad(), without_autocast(query_BFPHD.device):
        choices = listener.choosers(listener.readings[-1])
        if choices:
            mass = memory_mass(query_BFPHD, keys_BGPHD, frames_FW, slot_keys, choices)
            listener.readings[-1].mass_BF.update({name: value.cpu() for name, value in mass.items()})


def _on_cpu(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().cpu()


# --- attention mass ------------------------------------------------------------------------------------------------


def memory_mass(
    query_BFPHD: Tensor,
    keys_BGPHD: Tensor,
    frames_FW: Tensor,
    slot_keys: Iterable[Tensor],
    choices: Mapping[str, Tensor],
    max_bytes: int = MASS_BYTES,
) -> dict[str, Tensor]:
    """Share of the softmax of Eq. 6 that falls on memory slots, for each choice of slots (N, B, F, K): (B, F) each.

    Mean over heads, tokens and draws. One softmax spans window and slots, so the share is
    sigmoid(log-sum-exp over the slots' tokens - log-sum-exp over the window's tokens): the sum of each slot is made
    once for all choices. Scores held at a time stay below `max_bytes` (or one token's).
    """
    B, F, P, H, D = query_BFPHD.shape
    precise = torch.promote_types(query_BFPHD.dtype, torch.float32)
    query = query_BFPHD.to(precise) / D**0.5
    near_BFHP = query.new_empty(B, F, H, P)
    for f, window_W in enumerate(frames_FW.to(keys_BGPHD.device)):
        window = keys_BGPHD[:, window_W].flatten(1, 2).to(precise)
        for part in _parts(P, max_bytes // (8 * B * H * window.shape[1])):
            scores = torch.einsum("bphd,bnhd->bhpn", query[:, f, part], window)
            near_BFHP[:, f, :, part] = scores.logsumexp(dim=-1)
    far = {name: near_BFHP.new_full((len(c), *near_BFHP.shape), -torch.inf) for name, c in choices.items()}
    number = 0
    for piece in slot_keys:
        m, Q = piece.shape[1:3]
        numbers_m = torch.arange(number, number + m)
        taken = {name: (c[..., None].cpu() == numbers_m).any(dim=-2).to(query.device) for name, c in choices.items()}
        for f in range(F):
            for part in _parts(P, max_bytes // (8 * B * H * m * Q)):
                scores = torch.einsum("bphd,bmqhd->bhpmq", query[:, f, part], piece.to(precise)).logsumexp(dim=-1)
                for name, taken_NBFm in taken.items():
                    chosen = scores.masked_fill(~taken_NBFm[:, :, f, None, None], -torch.inf).logsumexp(dim=-1)
                    far[name][:, :, f, :, part] = torch.logaddexp(far[name][:, :, f, :, part], chosen)
        number += m
    return {name: torch.sigmoid(far_NBFHP - near_BFHP).mean(dim=(0, 3, 4)) for name, far_NBFHP in far.items()}


def _parts(length: int, step: int) -> list[slice]:
    """0 .. length in parts of `step`, at least 1."""
    return [slice(start, start + max(1, step)) for start in range(0, length, max(1, step))]


# --- who would have chosen what --------------------------------------------------------------------------------------


def hidden_from(seen_AS: Tensor) -> Tensor:
    """Where a subject is back after hiding, the first frame of its last hidden stretch; -1 elsewhere: (A, S) int64.

    A hidden stretch lies between two frames in which the subject is seen.
    """
    found = torch.full(seen_AS.shape, -1, dtype=torch.int64)
    for s, seen_A in enumerate(seen_AS.T.tolist()):
        start = -1
        for a, seen in enumerate(seen_A):
            if seen:
                found[a, s] = start
            elif a and seen_A[a - 1]:
                start = a
    return found


def relevant_slots(seen_AS: Tensor, reading: Recorded) -> Tensor:
    """Slots that show, before it was last hidden, a subject that is back in the query frame: (F, M) bool.

    A slot shows a subject when one of the frames it covers does. Slots wholly inside the window do not count: their
    frames are read anyway. Context query frames have none. `seen_AS` must cover the query frames; behind
    its end, where the guess of a released span may reach, nothing is seen.
    """
    if reading.span_M2 is None or reading.near_FM is None:
        raise ValueError("this reading has no slots")
    frame_F = reading.first_frame + torch.arange(reading.near_FM.shape[0])
    if len(seen_AS) < int(frame_F[-1]) + 1:
        raise ValueError(
            f"subjects are known in {len(seen_AS)} frames, the reading goes on to frame {int(frame_F[-1])}"
        )
    sightings_AS = torch.cat([torch.zeros_like(seen_AS[:1]), seen_AS]).long().cumsum(dim=0)  # in frames before a
    before_F1S = hidden_from(seen_AS)[frame_F][:, None]
    first_M, end_M = (reading.span_M2 + torch.tensor([0, 1])).clamp(max=len(seen_AS)).unbind(dim=1)
    until_FMS = torch.minimum(end_M[None, :, None], before_F1S).maximum(first_M[None, :, None])
    shown_FMS = (
        sightings_AS.gather(0, until_FMS.flatten(0, 1)).unflatten(0, until_FMS.shape[:2]) > sightings_AS[first_M]
    )
    return shown_FMS.any(dim=2) & ~reading.near_FM & (frame_F >= reading.num_context)[:, None]


def oracle_choice(relevant_FM: Tensor, near_FM: Tensor, top_k: int, scores_FM: Tensor | None) -> Tensor:
    """Relevant slots first, then other free ones; among equals the better score, then the earlier slot: (F, K)."""
    scores_FM = torch.zeros(near_FM.shape) if scores_FM is None else scores_FM
    order_FM = scores_FM.sort(dim=-1, descending=True, stable=True).indices
    rank_FM = torch.empty(order_FM.shape).scatter_(
        1, order_FM, torch.arange(order_FM.shape[1], 0, -1.0).expand_as(order_FM)
    )
    return topk_slots((rank_FM + relevant_FM.shape[1] * relevant_FM)[None], near_FM, top_k)[0]


def random_choice(near_FM: Tensor, top_k: int, generator: torch.Generator) -> Tensor:
    """Any free slots, each set of them alike likely: (F, K)."""
    return topk_slots(torch.rand(1, *near_FM.shape, generator=generator), near_FM, top_k)[0]


# --- numbers ---------------------------------------------------------------------------------------------------------


def hits(chosen_FK: Tensor, relevant_FM: Tensor) -> Tensor:
    """How many of the chosen slots are relevant, (F,) float64."""
    return relevant_FM.gather(1, chosen_FK).sum(dim=1).double()


def expected_random_hits(relevant_FM: Tensor, near_FM: Tensor, top_k: int) -> Tensor:
    """Mean of `hits` over all equally likely choices of `top_k` free slots, (F,) float64."""
    free_F = (~near_FM).sum(dim=1).double()
    taken_F = free_F.clamp(max=top_k)
    return torch.where(free_F > 0, relevant_FM.sum(dim=1).double() * taken_F / free_F.clamp(min=1), 0.0)


def recall_and_precision(hits_F: Tensor, relevant_FM: Tensor, top_k: int) -> tuple[float, float]:
    """Means, over the query frames that have a relevant slot, of hits / relevant slots and of hits / K.

    NaN when no query frame has one (or, for precision, when nothing is chosen).
    """
    there_F = relevant_FM.sum(dim=1).double()
    counted = there_F > 0
    if not counted.any():
        return float("nan"), float("nan")
    recall = float((hits_F[counted] / there_F[counted]).mean())
    return recall, float(hits_F[counted].mean() / top_k) if top_k else float("nan")
