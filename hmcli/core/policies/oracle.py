"""Policy `oracle`: slots that show the subject which hides later, the ceiling for any choice of slots.

Shape letters: B batch, F query frames, M memory slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.core.retrieval import (
    SLOTS,
    Reading,
    RetrievalRequest,
    RetrievalRun,
    affinity_scores,
    needs,
    read_best_slots,
    slots_near,
)

MEMO = "slots that show a subject hidden later"


def plan(run: RetrievalRun) -> Tensor:
    """Which slots show a subject that is hidden later, (B, M) bool. Slots beyond those that are known show nothing."""
    if (visibility_BM := run.given.visibility_BM) is None:
        raise ValueError("policy oracle needs to know which slots show a subject that is hidden later")
    slots = slots_near(run).shape[1]

    def make() -> Tensor:
        known_BM = visibility_BM[:, :slots] > 0
        return torch.nn.functional.pad(known_BM, (0, slots - known_BM.shape[1])).to(run.device)

    return run.once(MEMO, make)


@needs(SLOTS, "visibility_BM", plan=plan)
def oracle(asked: RetrievalRequest) -> Reading:
    """The local window and `top_k` slots: those that show a subject hidden later first, each group by affinity."""
    return read_best_slots(asked, showing_first(affinity_scores(asked), plan(asked)))


def showing_first(affinity_BFM: Tensor, shows_BM: Tensor) -> Tensor:
    """Scores (B, F, M) that rank slots which show something above all others, and by affinity otherwise.

    A rank instead of a bonus on the affinity, which would round small differences away; float32 at least, since half
    precision cannot tell the ranks of many slots apart.
    """
    slots = affinity_BFM.shape[-1]
    order_BFM = affinity_BFM.sort(dim=-1, descending=True, stable=True).indices
    rank_BFM = torch.empty_like(order_BFM).scatter_(
        -1, order_BFM, torch.arange(slots, 0, -1, device=order_BFM.device).expand_as(order_BFM)
    )
    return (rank_BFM + slots * shows_BM[:, None]).to(torch.promote_types(affinity_BFM.dtype, torch.float32))
