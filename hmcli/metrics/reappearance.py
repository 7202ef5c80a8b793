"""Do subjects come back where they should, and nobody else? Recall and precision of those who were hidden.

A subject that never returns is missed; one that does, but further off than WITHIN body lengths, is missed and a false
alarm; a copy beside it, and whoever is there while the one who is watched for is hidden, or never comes back, are
false alarms. What both cannot see: who it is that comes back (identity-rank1), and what the detector does not see.
Clips of split `absent` have neither: there nobody can be right, and `false-alarms` judges them.
Source: precision and recall of detection benchmarks, with distances in place of overlaps, at re-entries alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from hmcli.metrics.contract import ClipCameras, Detection, Metric, NothingToJudge, Tracks
from hmcli.metrics.reentry import JUDGED, NEEDS, TAKEN, WITHIN, ReEntry, clip_tracks, of_each, re_entries
from hmcli.metrics.tracks import FoundTracks


def share_found(of: ReEntry, found: FoundTracks, tracks: Tracks, cameras: ClipCameras) -> float:
    """Of the judged frames, those in which the subject was found within WITHIN."""
    return float(of.track.within(WITHIN)[of.judged_J].mean())


def right_and_claimed(
    prediction: np.ndarray,
    reference: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
) -> np.ndarray:
    """How many detections are a subject that is back, and how many claim to be one, over the frames that are judged.

    Those are the ones of re-entries, and all of the target in which the subject of a certified stretch is hidden.
    Raises NothingToJudge where there is none.
    """
    found = clip_tracks(prediction, reference, detections, tracks, cameras)
    watched_T, right, claimed = hidden_frames(tracks), 0, 0
    for of in re_entries(found, tracks):
        watched_T[of.judged_J] = True
        right += int(of.track.within(WITHIN)[of.judged_J].sum())
        claimed += len(of.found_J)
    if not watched_T.any():
        raise NothingToJudge("the target neither hides nor clearly shows a subject of a certified stretch")
    claimed += sum(len(found.nobodys[t]) for t in np.flatnonzero(watched_T))
    return np.array([right, claimed], np.float64)


def hidden_frames(tracks: Tracks) -> np.ndarray:
    """(T,) bool: target frames of a certified stretch, one whose subject comes back or does not."""
    return np.any([np.zeros(len(tracks.target_T), bool), *map(tracks.hidden_T, tracks.certified)], axis=0)


def precision(parts_n2: np.ndarray) -> float:
    """Right / claimed, sums over clips; NaN where nobody is claimed."""
    right, claimed = parts_n2.sum(axis=0)
    return float(right / claimed) if claimed else math.nan


reappearance_recall = Metric(
    name="reappearance-recall",
    function=partial(of_each, value=share_found, otherwise=""),
    needs=NEEDS,
    unit="",
    range=(0, 1),
    definition="for each certified stretch after which its subject is back in the target: the share of judged frames "
    f"in which a detection was taken for it whose box's middle is within {WITHIN:g} body length of the true one, 0 to "
    f"1. {JUDGED.capitalize()}; {TAKEN}",
    partial=True,
    per="stretch",
    order=("truth", "frozen", "erased"),
)

reappearance_precision = Metric(
    name="reappearance-precision",
    function=right_and_claimed,
    needs=NEEDS,
    unit="",
    range=(0, 1),
    definition="right / claimed, of sums over clips, 0 to 1, no value where nobody is claimed. Right: detections taken "
    f"for a subject that is back, within {WITHIN:g} body length, in its judged frames. Claimed: all detections taken "
    "for it there, however far off, and those taken for nobody in these frames and in all frames of the target in "
    f"which the subject of a certified stretch is hidden, come back or not. {JUDGED.capitalize()}; {TAKEN}",
    partial=True,
    per="clip",
    parts=("right", "claimed"),
    pooled=precision,
    order=("truth", "frozen"),
)
