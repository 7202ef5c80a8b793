"""Policy `fov`: slots chosen by what their camera saw (Table 6). Does geometry know better than affinity what to read?

A slot's camera is the mean of those of its frames. Shape letters: B batch, F query frames, A all frames, M slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.core.camera import camera_overlap
from hmcli.core.retrieval import SLOTS, Reading, RetrievalRequest, RetrievalRun, needs, read_best_slots, slots_near

MEMO = "field-of-view overlap with slots"


def plan(run: RetrievalRun) -> Tensor:
    """The overlap of all slots, computed once: cameras are the same for all blocks."""
    slots_near(run)
    return run.once(MEMO, lambda: slot_overlap(run).to(run.device))


@needs(SLOTS, "intrinsics_B4", "image_size", "near", "far", plan=plan)
def fov(asked: RetrievalRequest) -> Reading:
    """The local window and the `top_k` slots that saw the largest share of what the query frame's camera sees."""
    return read_best_slots(asked, plan(asked))


def slot_overlap(run: RetrievalRun) -> Tensor:
    """Share of what each query frame sees that each slot saw, (B, F, M): as given beforehand, else from the cameras."""
    if (camera_BMR := run.slot_camera_BMR) is None:
        raise ValueError("policy fov needs the cameras of memory slots, and these have none")
    inputs, slots = run.given, camera_BMR.shape[1]
    known_BFM = run.camera_BAR.new_full((len(run.camera_BAR), run.frames, slots), torch.nan)
    if inputs.overlap_BAM is not None:
        given = inputs.overlap_BAM[:, run.first_frame : run.total_frames, :slots].to(known_BFM)
        known_BFM[:, : given.shape[1], : given.shape[2]] = given
    unknown_BFM = known_BFM.isnan()
    if not unknown_BFM.any():
        return known_BFM
    computed_BFM = camera_overlap(run.camera_BAR[:, run.first_frame :], camera_BMR, inputs.lens())
    return torch.where(unknown_BFM, computed_BFM.to(known_BFM), known_BFM)
