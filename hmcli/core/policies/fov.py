"""Policy `fov`: slots chosen by what their camera saw (Table 6). Does geometry know better than affinity what to read?

A slot's camera is the mean of those of its frames. Shape letters: B batch, F query frames, A all frames, M slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hmcli.core.camera import camera_overlap
from hmcli.core.retrieval import SLOTS, Reading, RetrievalRequest, needs, read_best_slots, slots_of

MEMO = "field-of-view overlap with slots"


@needs(SLOTS, "intrinsics_B4", "image_size", "near", "far")
def fov(asked: RetrievalRequest) -> Reading:
    """The local window and the `top_k` slots that saw the largest share of what the query frame's camera sees."""
    if MEMO not in asked.memo:  # cameras are the same for all blocks
        asked.memo[MEMO] = slot_overlap(asked)
    return read_best_slots(asked, asked.memo[MEMO])


def slot_overlap(asked: RetrievalRequest) -> Tensor:
    """Share of what each query frame sees that each slot saw, (B, F, M): as given beforehand, else from the cameras."""
    slots, inputs, last = slots_of(asked), asked.given, asked.first_frame + asked.frames
    if slots.camera_BMR is None:
        raise ValueError("policy fov needs the cameras of memory slots, and these have none")
    known_BFM = asked.camera_BAR.new_full((len(asked.camera_BAR), asked.frames, slots.count), torch.nan)
    if inputs.overlap_BAM is not None:
        given = inputs.overlap_BAM[:, asked.first_frame : last, : slots.count].to(known_BFM)
        known_BFM[:, : given.shape[1], : given.shape[2]] = given
    unknown_BFM = known_BFM.isnan()
    if not unknown_BFM.any():
        return known_BFM
    computed_BFM = camera_overlap(asked.camera_BAR[:, asked.first_frame : last], slots.camera_BMR, inputs.lens())
    return torch.where(unknown_BFM, computed_BFM.to(known_BFM), known_BFM)
