"""Policy `frames-fov`: Context-as-Memory. Dense attention over the target and the context frames that saw most of it.

Shape letters: B batch, F query frames, A all frames, K context frames read.
"""

from __future__ import annotations

from torch import Tensor

from hmcli.core.camera import camera_overlap
from hmcli.core.retrieval import (
    ALL_FRAMES,
    CONTEXT_FRAMES,
    FramesRead,
    Reading,
    RetrievalRequest,
    RetrievalRun,
    all_frames,
    check_frames_to_choose,
    context_frames,
    needs,
)


def plan(run: RetrievalRun) -> FramesRead:
    """The choice, made once: cameras are the same for all blocks."""
    check_frames_to_choose(run)
    if run.part == "context":
        return all_frames(run)
    return context_frames(run, lambda: best_context_frames(run))


@needs(ALL_FRAMES, CONTEXT_FRAMES, "intrinsics_B4", "image_size", "near", "far", plan=plan)
def frames_fov(asked: RetrievalRequest) -> Reading:
    """All target frames and the same `top_k` full-resolution context frames for every query frame of a clip or chunk.

    Frozen context knows no target yet, and reads itself densely.
    """
    return Reading(frames=plan(asked))


def best_context_frames(run: RetrievalRun) -> Tensor:
    """The context frames that saw most of what the target sees, in the mean over target frames, best first: (B, K)."""
    n = run.num_context
    overlap_BFA = camera_overlap(run.camera_BAR[:, n:], run.camera_BAR[:, :n], run.given.lens())
    return overlap_BFA.mean(dim=1).sort(dim=-1, descending=True, stable=True).indices[:, : run.top_k]
