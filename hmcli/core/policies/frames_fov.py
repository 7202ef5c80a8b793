"""Policy `frames-fov`: Context-as-Memory. Dense attention over the target and the context frames that saw most of it.

Shape letters: B batch, F query frames, A all frames, K context frames read.
"""

from __future__ import annotations

from torch import Tensor

from hmcli.core.camera import camera_overlap
from hmcli.core.retrieval import (
    ALL_FRAMES,
    CONTEXT_FRAMES,
    Reading,
    RetrievalRequest,
    check_frames_to_choose,
    needs,
    read_context_frames,
)

MEMO = "context frames with most field-of-view overlap"


@needs(ALL_FRAMES, CONTEXT_FRAMES, "intrinsics_B4", "image_size", "near", "far")
def frames_fov(asked: RetrievalRequest) -> Reading:
    """All target frames and the same `top_k` full-resolution context frames for every query frame of a clip or chunk.

    Frozen context knows no target yet, and reads itself densely.
    """
    check_frames_to_choose(asked)
    if asked.part == "context":
        return Reading(frames_FW=None)
    if MEMO not in asked.memo:  # cameras are the same for all blocks
        asked.memo[MEMO] = best_context_frames(asked)
    return read_context_frames(asked, asked.memo[MEMO])


def best_context_frames(asked: RetrievalRequest) -> Tensor:
    """The context frames that saw most of what the target sees, in the mean over target frames, best first: (B, K)."""
    n = asked.num_context
    overlap_BFA = camera_overlap(asked.camera_BAR[:, n:], asked.camera_BAR[:, :n], asked.given.lens())
    return overlap_BFA.mean(dim=1).sort(dim=-1, descending=True, stable=True).indices[:, : asked.top_k]
