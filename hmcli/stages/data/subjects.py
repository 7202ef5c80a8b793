"""Where a clip's subjects are, for metrics: framed and cut to length as the videos that a model makes are.

Shape letters: T target frames, S subjects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.errors import DataError
from hmcli.metrics.contract import Stretch, SubjectBoxes, SubjectTrack, Tracks
from hmcli.recipe.sections import DataConfig
from hmcli.stages.data.opening import ClipSource
from hmcli.stages.data.pieces import all_frames, context_frames, target_frames
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import Box, HiddenStretch, SubjectState
from hmcli.world.views import framing


def target_boxes(source: ClipSource, states: Sequence[SubjectState], data: DataConfig) -> SubjectBoxes:
    """Amodal boxes, and who is back. Raises DataError when the subjects have not one entry per frame of the clip."""
    frames_T, info = target_frames(source, data), source.context_info
    _check_length(source, states)
    amodal_TS4 = np.full((len(frames_T), len(states), 4), np.nan)
    returned_TS = np.zeros(amodal_TS4.shape[:2], bool)
    for subject, state in enumerate(states):
        for place, frame in enumerate(frames_T):
            if (box := state.amodal_box[frame]) is not None:
                amodal_TS4[place, subject] = box
            returned_TS[place, subject] = _is_back(state, frame)
    boxes = framing.resize_boxes(amodal_TS4, (info.height, info.width), data.size, data.fit)
    return SubjectBoxes(amodal_TS4=boxes, returned_TS=returned_TS)


def subject_tracks(source: ClipSource, states: Sequence[SubjectState], data: DataConfig) -> Tracks:
    """Places and stretches of the subjects. Raises DataError as `target_boxes` does."""
    _check_length(source, states)
    frames_T, info = np.array(target_frames(source, data)), source.context_info
    subjects = tuple(
        SubjectTrack(
            name=state.name, number=state.number, family=state.family, body_length=state.body_length,
            position_A3=state.position, visible_A=state.visible,
            box_A4=framing.resize_boxes(_boxes(state.box), (info.height, info.width), data.size, data.fit),
            stretches=tuple(_stretch(index, state, gone, frames_T) for gone in state.hidden),
        )
        for index, state in enumerate(states)
    )  # fmt: skip
    context_N = np.array(context_frames(source, data))
    return Tracks(subjects=subjects, context_N=context_N, target_T=frames_T, fps=info.fps)


def _boxes(every: Sequence[Box | None]) -> np.ndarray:
    """(A, 4), NaN where there is none."""
    return np.array([(np.nan,) * 4 if box is None else box for box in every], np.float64)


def _stretch(subject: int, state: SubjectState, gone: HiddenStretch, frames_T: np.ndarray) -> Stretch:
    """A stretch as metrics see it: `back` counts the compared frames, which may repeat the last one."""
    after = np.flatnonzero(frames_T > gone.last)
    comes_back = len(after) and frames_T[0] <= gone.last + 1 and not gone.absent
    return Stretch(
        subject=subject, name=state.name, first=gone.first, last=gone.last, back=int(after[0]) if comes_back else None,
        reason=gone.reason, certified=gone.certified, absent=bool(gone.absent), hidden_seconds=gone.hidden_seconds,
    )  # fmt: skip


def _check_length(source: ClipSource, states: Sequence[SubjectState]) -> None:
    said, frames = {len(state.position) for state in states}, all_frames(source)
    if said - {frames}:
        raise DataError(f"{STATES} is of {min(said - {frames})} frames, the clip has {frames}")


def _is_back(state: SubjectState, frame: int) -> bool:
    """Has a certified stretch without it ended by this frame? One certified absent does not come back."""
    return any(gone.certified and not gone.absent and gone.last < frame for gone in state.hidden)
