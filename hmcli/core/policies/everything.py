"""Policy `all`: dense attention over every full-resolution frame, the paper's baseline (Table 1)."""

from __future__ import annotations

from hmcli.core.retrieval import ALL_FRAMES, Reading, RetrievalRequest, all_frames, needs


@needs(ALL_FRAMES, plan=all_frames)
def everything(asked: RetrievalRequest) -> Reading:
    """Every frame there is."""
    return Reading(frames=all_frames(asked))
