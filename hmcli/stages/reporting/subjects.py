"""Who is seen when and where, in the frames that a report plays: from subjects.json, and from what evaluations keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from hmcli.metrics.contract import ClipCameras, SubjectTrack, Tracks
from hmcli.metrics.reentry import WITHIN
from hmcli.metrics.tracks import CLEAR_PIXELS, CLEAR_SHARE
from hmcli.recipe.sections import DataConfig
from hmcli.reports.report_page import Ground, Lane, Metres, Sight, Span
from hmcli.stages.data import pieces
from hmcli.stages.data.opening import ClipSource, own_file
from hmcli.stages.data.subjects import subject_tracks
from hmcli.stages.scoring.layout import PlacedSubject, Places
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


def ground_of(source: ClipSource, tracks: Tracks, data: DataConfig) -> Ground:
    """The cameras of the frames shown, and the true places. Raises DataError without poses or lens."""
    cameras: ClipCameras = pieces.clip_cameras(source, data)
    poses = np.concatenate([cameras.context_N44, cameras.target_T44])
    shown = np.concatenate([tracks.context_N, tracks.target_T])
    ahead = poses[:, :2, 2] / np.maximum(np.linalg.norm(poses[:, :2, 2], axis=1, keepdims=True), 1e-9)
    return Ground(
        eyes=_metres(poses[:, :2, 3]), ahead=_metres(ahead),
        angle=field_of_view(float(cameras.intrinsics_4[0]), data.size[1]),
        walks=tuple((one.name, _metres(one.position_A3[shown, :2])) for one in tracks.subjects),
    )  # fmt: skip


def _metres(places: np.ndarray) -> tuple[Metres, ...]:
    return tuple((round(float(x), 3), round(float(y), 3)) for x, y in places)


# --- what a row made of them -----------------------------------------------------------------------------------------


def sights_of(places: Places, tracks: Tracks) -> tuple[Sight, ...]:
    """A sight of each subject, then one of who was taken for none of them, if there is anybody."""
    by_name = {one.name: one for one in tracks.subjects}
    found = [
        Sight(subject=one.subject, places=one.places, spans=_in_target(tracks, _taken(one, of, tracks)))
        for one in places.subjects
        if (of := by_name.get(one.subject)) is not None and len(one.off) == len(tracks.target_T)
    ]  # fmt: skip
    if any(places.others):
        others = ["off" if boxes else "" for boxes in places.others]
        found.append(Sight(subject="", places=(), spans=_in_target(tracks, others)))
    return tuple(found)


def _taken(one: PlacedSubject, of: SubjectTrack, tracks: Tracks) -> list[str]:
    """By target frame: was it found in its place, off it, or missed though the truth shows it clearly?"""
    box_T4 = of.box_A4[tracks.target_T]
    clear_T = (box_T4[:, 2] - box_T4[:, 0]) * (box_T4[:, 3] - box_T4[:, 1]) >= CLEAR_PIXELS  # NaN is not
    clear_T &= of.visible_A[tracks.target_T] >= CLEAR_SHARE
    return [
        ("missed" if clear else "") if off is None else "place" if off <= WITHIN else "off"
        for off, clear in zip(one.off, clear_T.tolist(), strict=True)
    ]


def _in_target(tracks: Tracks, states: Sequence[str]) -> tuple[Span, ...]:
    """Spans of the frames shown, of what is known of the target; frames without a state are in none."""
    context = [("", "")] * len(tracks.context_N)
    return tuple(span for span in _spans([*context, *((state, "") for state in states)]) if span.state)
