"""Policy `recent`: DFoT's window. Dense attention over the target and the context frames right before it.

The rest of DFoT is not attention: `flow.noise: per-frame`, `flow.loss: all` and `sample.history_guidance`.
"""

from __future__ import annotations

import torch

from hmcli.core.retrieval import (
    ALL_FRAMES,
    CONTEXT_FRAMES,
    Reading,
    RetrievalRequest,
    check_frames_to_choose,
    needs,
    read_context_frames,
)


@needs(ALL_FRAMES, CONTEXT_FRAMES)
def recent(asked: RetrievalRequest) -> Reading:
    """All target frames and the last `top_k` context frames. Nobody reads older ones, not even frozen context."""
    check_frames_to_choose(asked)
    last = torch.arange(asked.num_context - asked.top_k, asked.num_context)
    return read_context_frames(asked, last.expand(len(asked.query_BFPC), -1))
