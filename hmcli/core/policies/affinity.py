"""Policy `affinity`: HyDRA. A frame reads its window and the slots whose keys answer its queries best (Eq. 4 and 5)."""

from __future__ import annotations

from hmcli.core.retrieval import SLOTS, Reading, RetrievalRequest, affinity_scores, needs, read_best_slots, slots_near


@needs(SLOTS, plan=slots_near)
def affinity(asked: RetrievalRequest) -> Reading:
    """The local window and the `top_k` slots of highest affinity."""
    return read_best_slots(asked, affinity_scores(asked))
