"""Policy `recent`: DFoT's window. Dense attention over the target and the context frames right before it.

The rest of DFoT is not attention: `flow.noise: per-frame`, `flow.loss: all` and `sample.history_guidance`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.core.retrieval import (
    ALL_FRAMES,
    CONTEXT_FRAMES,
    FramesRead,
    Reading,
    RetrievalRequest,
    RetrievalRun,
    check_frames_to_choose,
    context_frames,
    needs,
)


def plan(run: RetrievalRun) -> FramesRead:
    """The same frames for all blocks and samples."""
    check_frames_to_choose(run)

    def last() -> Tensor:
        return torch.arange(run.num_context - run.top_k, run.num_context).expand(len(run.camera_BAR), -1)

    return context_frames(run, last)


@needs(ALL_FRAMES, CONTEXT_FRAMES, plan=plan)
def recent(asked: RetrievalRequest) -> Reading:
    """All target frames and the last `top_k` context frames. Nobody reads older ones, not even frozen context."""
    return Reading(frames=plan(asked))
