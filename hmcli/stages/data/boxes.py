"""Boxes of a clip's subjects in the target frames that a model makes: framed and cut to length as its videos are.

Shape letters: T target frames, S subjects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.errors import DataError
from hmcli.metrics.contract import SubjectBoxes
from hmcli.recipe.sections import DataConfig
from hmcli.stages.data.opening import ClipSource
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import SubjectState
from hmcli.world.views import framing


def target_boxes(source: ClipSource, states: Sequence[SubjectState], data: DataConfig) -> SubjectBoxes:
    """Amodal boxes, and who is back. Raises DataError when the subjects have not one entry per frame of the clip."""
    frames_T = _target_frames(source, data)
    info, target = source.context_info, source.target_info
    said, frames = {len(state.position) for state in states}, info.frames + (target.frames if target else 0)
    if said - {frames}:
        raise DataError(f"{STATES} is of {min(said - {frames})} frames, the clip has {frames}")
    amodal_TS4 = np.full((len(frames_T), len(states), 4), np.nan)
    returned_TS = np.zeros(amodal_TS4.shape[:2], bool)
    for subject, state in enumerate(states):
        for place, frame in enumerate(frames_T):
            if (box := state.amodal_box[frame]) is not None:
                amodal_TS4[place, subject] = box
            returned_TS[place, subject] = _is_back(state, frame)
    boxes = framing.resize_boxes(amodal_TS4, (info.height, info.width), data.size, data.fit)
    return SubjectBoxes(amodal_TS4=boxes, returned_TS=returned_TS)


def _is_back(state: SubjectState, frame: int) -> bool:
    """Has a certified stretch without it ended by this frame? One certified absent does not come back."""
    return any(gone.certified and not gone.absent and gone.last < frame for gone in state.hidden)


def _target_frames(source: ClipSource, data: DataConfig) -> list[int]:
    """The frames, counted over context and target together, that the framed target shows."""
    if data.split is not None:
        return list(range(data.split.context, data.split.context + data.split.target))
    if source.target_info is None:
        raise DataError("its reference has no target video")
    target = np.arange(source.target_info.frames) + source.context_info.frames
    return framing.to_frame_count(target, framing.frame_count(len(target), data.frames)).tolist()
