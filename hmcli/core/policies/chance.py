"""Policy `random`: slots chosen by chance, the floor that any other choice of slots has to beat.

Shape letters: B batch, F query frames, M memory slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hmcli.core.retrieval import SLOTS, Reading, RetrievalRequest, RetrievalRun, needs, read_best_slots, slots_near

MEMO = "slots drawn"


def plan(run: RetrievalRun) -> Tensor:
    """Scores of every slot for every query frame, drawn once for all blocks: (B, F, M)."""
    if (generator := run.given.generator) is None:
        raise ValueError("policy random needs a generator")
    near_FM = slots_near(run)
    return run.once(MEMO, lambda: draw(generator, len(run.camera_BAR), *near_FM.shape).to(run.device))


@needs(SLOTS, "generator", plan=plan)
def random(asked: RetrievalRequest) -> Reading:
    """The local window and `top_k` slots outside of it, every set of them equally likely.

    The generator is read, not advanced: all blocks, denoising steps and guidance branches that are handed the same
    state choose alike, and so does frozen context read back. Who wants another choice hands in another state.
    """
    return read_best_slots(asked, plan(asked))


def draw(generator: torch.Generator | Sequence[torch.Generator], batch: int, frames: int, slots: int) -> Tensor:
    """Uniform numbers (B, F, M), drawn on the CPU so that every device chooses alike; generators stay as they were."""
    if isinstance(generator, torch.Generator):
        return torch.rand(batch, frames, slots, generator=generator.clone_state())
    if len(generator) != batch:
        raise ValueError(f"{len(generator)} generators for {batch} samples: give one for all or one for each")
    return torch.stack([torch.rand(frames, slots, generator=each.clone_state()) for each in generator])
