"""Who is seen when, in the frames that a report plays: from subjects.json, else from the stretches of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from hmcli.metrics.contract import ClipCameras, SubjectTrack, Tracks
from hmcli.recipe.sections import DataConfig
from hmcli.reports.report_page import Lane, Span
from hmcli.reports.top_down import Walked, top_down
from hmcli.stages.data import pieces
from hmcli.stages.data.opening import ClipSource, own_file
from hmcli.stages.data.subjects import subject_tracks
from hmcli.store.files import read_json
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import parse_states
from hmcli.world.views.cameras import field_of_view


@dataclass(frozen=True, kw_only=True)
class Absences:
    """What a clip is filtered by: longest certified stretch without a subject in seconds, and the reasons."""

    hidden_seconds: float | None
    reasons: tuple[str, ...]


def read_tracks(source: ClipSource, data: DataConfig) -> Tracks | None:
    """None where the clip has no subjects.json. Raises DataError where it is not of these frames."""
    if (file := own_file(source, STATES)) is None:
        return None
    return subject_tracks(source, parse_states(read_json(file)), data)


def absences_of(tracks: Tracks) -> Absences:
    certified = tracks.certified
    longest = max((stretch.hidden_seconds for stretch in certified), default=0.0)
    return Absences(hidden_seconds=longest, reasons=tuple(sorted({stretch.reason for stretch in certified})))


def absences_in(stretches: Sequence[Mapping[str, str]]) -> Absences:
    """The same from the rows of per_stretch.csv of one clip."""
    longest = max((float(row["hidden_seconds"]) for row in stretches), default=None)
    return Absences(hidden_seconds=longest, reasons=tuple(sorted({row["reason"] for row in stretches})))


def lanes_of(tracks: Tracks) -> tuple[Lane, ...]:
    """A lane per subject over the frames shown: context, then target."""
    shown = [*tracks.context_N.tolist(), *tracks.target_T.tolist()]
    return tuple(
        Lane(subject=one.name, family=one.family, spans=_spans([_state(one, frame) for frame in shown]))
        for one in tracks.subjects
    )


def _state(one: SubjectTrack, frame: int) -> tuple[str, str]:
    """What is seen of a subject in a frame, and why it is not."""
    for stretch in one.stretches:
        if stretch.first <= frame <= stretch.last:
            certified = "" if stretch.certified else ", not certified"
            return "hidden", f"{stretch.reason}{certified}{', does not come back' if stretch.absent else ''}"
    if one.visible_A[frame] <= 0:
        return "hidden", "out of sight"
    back = any(of.certified and not of.absent and of.last < frame for of in one.stretches)
    return ("returned" if back else "visible"), ""


def _spans(states: Sequence[tuple[str, str]]) -> tuple[Span, ...]:
    """Frames in a row that are alike."""
    spans, first = [], 0
    for (state, reason), run in groupby(states):
        count = len(list(run))
        spans.append(Span(state=state, first=first, count=count, reason=reason))
        first += count
    return tuple(spans)


def view_from_above(source: ClipSource, tracks: Tracks, data: DataConfig) -> np.ndarray:
    """(H, W, 3) uint8: the cameras of the frames shown, and the true places. Raises DataError without poses or lens."""
    cameras: ClipCameras = pieces.clip_cameras(source, data)
    poses = np.concatenate([cameras.context_N44, cameras.target_T44])
    shown = np.concatenate([tracks.context_N, tracks.target_T])
    walked = [
        Walked(
            name=one.name, place=one.position_A3[shown, :2],
            hidden=np.array([_state(one, int(frame))[0] == "hidden" for frame in shown]),
        )
        for one in tracks.subjects
    ]  # fmt: skip
    angle = field_of_view(float(cameras.intrinsics_4[0]), data.size[1])
    return top_down(poses, walked, context=len(tracks.context_N), field_of_view=angle)
