"""Policy `oracle`: slots that show the subject which hides later, the ceiling for any choice of slots.

Shape letters: B batch, F query frames, M memory slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.core.retrieval import SLOTS, Reading, RetrievalRequest, affinity_scores, needs, read_best_slots


@needs(SLOTS, "visibility_BM")
def oracle(asked: RetrievalRequest) -> Reading:
    """The local window and `top_k` slots: those that show a subject hidden later first, each group by affinity."""
    if (visibility_BM := asked.given.visibility_BM) is None:
        raise ValueError("policy oracle needs to know which slots show a subject that is hidden later")
    return read_best_slots(asked, showing_first(affinity_scores(asked), visibility_BM))


def showing_first(affinity_BFM: Tensor, visibility_BM: Tensor) -> Tensor:
    """Scores (B, F, M) that rank slots with visibility above all others, and by affinity otherwise.

    A rank instead of a bonus on the affinity, which would round small differences away. Slots beyond those that
    `visibility_BM` speaks of show nothing.
    """
    slots = affinity_BFM.shape[-1]
    order_BFM = affinity_BFM.sort(dim=-1, descending=True, stable=True).indices
    rank_BFM = torch.empty_like(order_BFM).scatter_(
        -1, order_BFM, torch.arange(slots, 0, -1, device=order_BFM.device).expand_as(order_BFM)
    )
    shows_BM = torch.zeros(len(affinity_BFM), slots, dtype=torch.bool, device=affinity_BFM.device)
    given = visibility_BM[:, :slots].to(affinity_BFM.device) > 0
    shows_BM[:, : given.shape[1]] = given
    return (rank_BFM + slots * shows_BM[:, None]).to(affinity_BFM.dtype)
