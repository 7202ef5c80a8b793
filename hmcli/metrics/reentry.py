"""When a subject comes back: the frames in which a prediction is asked for it, and what was taken for it there.

A certified stretch after which its subject is back in the target has one re-entry: from the first frame on in which
the truth shows enough of it to be found (`FoundTrack.clear_T`), AFTER seconds long, or to its next stretch, or the end.
Shape letters: T target frames, J judged frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.metrics.appearance import unlike_colours
from hmcli.metrics.contract import (
    CAMERAS,
    DETECTIONS,
    PREDICTION,
    REFERENCE,
    TRACKS,
    ClipCameras,
    Detection,
    NothingToJudge,
    Stretch,
    Tracks,
    check_pair,
)
from hmcli.metrics.regions import until
from hmcli.metrics.tracks import CLEAR_PIXELS, CLEAR_SHARE, FoundTrack, FoundTracks, found_tracks

AFTER = 1.0  # seconds
WITHIN = 1.0  # body lengths, by which a subject may be off and still be the one that is back
ROUNDING = 1e-6  # seconds
NEEDS = (PREDICTION, REFERENCE, DETECTIONS, TRACKS, CAMERAS)

JUDGED = (
    f"judged are the frames of the first {AFTER:g} s (to its next stretch, at most) from the first on in which the box "
    f"of what the truth shows of the subject has at least {CLEAR_PIXELS} pixels and at least {CLEAR_SHARE:g} of it is "
    "uncovered, and no others"
)
TAKEN = (
    "in each frame detections and the subjects that the truth shows are paired so that the sum of the distances of "
    "their boxes' middles, in body lengths at the subject's true distance, is least (with several subjects plus 1 less "
    "the cosine of the square roots of their boxes' colour histograms in prediction and truth)"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReEntry:
    """One subject that comes back."""

    stretch: Stretch
    track: FoundTrack
    judged_J: np.ndarray  # target frames, at least one
    until: int  # the target frame in which it is gone again, or the number of frames
    seconds_T: np.ndarray  # of the target frames, in the clip

    @property
    def found_J(self) -> np.ndarray:  # noqa: N802
        """The judged frames in which somebody was taken for it, wherever."""
        return self.judged_J[self.track.found[self.judged_J]]


def clip_tracks(
    prediction: np.ndarray,
    reference: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
) -> FoundTracks:
    """Who is who in a clip, by place and, among several, by colours. Raises ValueError where lengths disagree."""
    check_pair(prediction, reference)
    if len(reference) != len(tracks.target_T):
        raise ValueError(f"the tracks are of {len(tracks.target_T)} target frames, the reference has {len(reference)}")
    several = len(tracks.subjects) > 1
    unlike = unlike_colours(prediction, detections, reference, tracks) if several else None
    return found_tracks(detections, tracks, cameras, unlike)


def re_entries(found: FoundTracks, tracks: Tracks) -> list[ReEntry]:
    """Every re-entry with a frame to judge."""
    seconds_T, every = tracks.target_T / tracks.fps, []
    for stretch in tracks.certified:
        if stretch.back is None:
            continue
        track, end = found.subjects[stretch.subject], until(stretch, tracks)
        clear = stretch.back + np.flatnonzero(track.clear_T[stretch.back : end])
        if len(clear):
            soon = seconds_T[clear] - seconds_T[clear[0]] < AFTER - ROUNDING
            every.append(ReEntry(stretch=stretch, track=track, judged_J=clear[soon], until=end, seconds_T=seconds_T))
    return every


def of_each(
    prediction: np.ndarray,
    reference: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
    *,
    value: Callable[[ReEntry, FoundTracks, Tracks, ClipCameras], float | None],
    otherwise: str,
) -> dict[Stretch, float]:
    """The value of each re-entry that has one. Raises NothingToJudge where none has: `otherwise` says why not."""
    found = clip_tracks(prediction, reference, detections, tracks, cameras)
    if not (entries := re_entries(found, tracks)):
        raise NothingToJudge("no subject is clearly seen in the target after a certified stretch without it")
    values = {of.stretch: value(of, found, tracks, cameras) for of in entries}
    if not (judged := {stretch: float(one) for stretch, one in values.items() if one is not None}):
        raise NothingToJudge(otherwise)
    return judged
