"""Is it the same one who comes back? Rank-1 among distractors, by a backbone's features of subjects alone, on grey.

What the detector's mask covers of the prediction is compared with what the true masks cover in these frames of the
subject and of the clip's other subjects, and with pictures of other families (`hmcli.metrics.distractors`): right is
whose nearest one is the subject. What it cannot see: what the backbone cannot tell apart (docs/metrics.md, Identity:
two of one family are no distractors), where the subject is, and who is not found at all. Light and sharpness are the
clip's own in prediction and truth, and not in the pictures, which makes it easier; chance is one in all that are
compared. From a detector without masks crops hold the background too. Source: rank-1 of re-identification benchmarks.
Shape letters: H rows, W columns, D features, m distractors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmcli.metrics.consistency import cosine
from hmcli.metrics.contract import (
    BACKBONE,
    MASKS,
    ClipCameras,
    Detection,
    Metric,
    NothingToJudge,
    Stretch,
    Tracks,
)
from hmcli.metrics.distractors import PICTURES_ARE, features_of_others
from hmcli.metrics.dsc import GREY, LEAST
from hmcli.metrics.reentry import JUDGED, NEEDS, TAKEN, ReEntry, clip_tracks, re_entries
from hmcli.metrics.regions import covered

AT_MOST = 5  # frames of a re-entry, spread evenly: features are most of what this costs
Features = Callable[[np.ndarray], np.ndarray]


def rank_1(
    prediction: np.ndarray,
    reference: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
    masks: np.ndarray,
    backbone: Features,
) -> dict[Stretch, float]:
    """For each re-entry the share of frames, of those in which somebody was taken for its subject, that are right."""
    found = clip_tracks(prediction, reference, detections, tracks, cameras)
    if masks.shape != reference.shape[:3]:
        raise ValueError(f"masks of shape {masks.shape} for frames of shape {reference.shape[:3]}")
    packaged_mD = features_of_others(backbone, frozenset(of.family for of in tracks.subjects))
    judged = {}
    for of in re_entries(found, tracks):
        frames = _spread(of)
        mine, others = _truth(reference, masks, frames, of.track.subject.number, tracks, backbone)
        asked = [alone(prediction[t], _pixels(detections[t][of.track.which_T[t]], masks.shape[1:])) for t in frames]
        if mine and (whole := [picture for picture in asked if picture is not None]):
            others_mD = np.concatenate([packaged_mD, *(one[None] for one in others)])
            judged[of.stretch] = float(np.mean([_is_right(one, np.stack(mine), others_mD, backbone) for one in whole]))
    if not judged:
        raise NothingToJudge(f"nobody of {LEAST} rows was found in the place of a subject that is back")
    return judged


def _truth(
    reference: np.ndarray, masks: np.ndarray, frames: np.ndarray, number: int, tracks: Tracks, backbone: Features
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features of the subject of this number in these frames of the truth, and of the clip's others."""
    mine: list[np.ndarray] = []
    others: list[np.ndarray] = []
    for t in frames:
        for who in tracks.subjects:
            if (picture := alone(reference[t], masks[t] == who.number)) is not None:
                (mine if who.number == number else others).append(_features(picture, backbone))
    return mine, others


def _spread(of: ReEntry) -> np.ndarray:
    """At most AT_MOST of the judged frames in which somebody was found."""
    places = np.linspace(0, len(of.found_J) - 1, min(AT_MOST, len(of.found_J))).round().astype(int)
    return np.asarray(of.found_J[places])


def _pixels(seen: Detection, size: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: what a detection covers; all of its box where it has no mask."""
    if seen.mask_HW is not None:
        return seen.mask_HW
    inside_HW = np.zeros(size, bool)
    inside_HW[covered(seen.box_4, *inside_HW.shape)] = True
    return inside_HW


def alone(frame: np.ndarray, mask_HW: np.ndarray) -> np.ndarray | None:
    """(side, side, 3) uint8: these pixels alone, in the middle of a grey square as long as their box's longer side.

    None where they have fewer than LEAST rows.
    """
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if len(rows) == 0 or rows[-1] + 1 - rows[0] < LEAST:
        return None
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    height, width = mask_HW[inside].shape
    side = max(height, width)
    picture = np.full((side, side, 3), GREY, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    picture[top : top + height, left : left + width][mask_HW[inside]] = frame[inside][mask_HW[inside]]
    return picture


def _is_right(picture: np.ndarray, mine_nD: np.ndarray, others_mD: np.ndarray, backbone: Features) -> bool:
    """Is the nearest one the subject? As near as somebody else is not."""
    asked = _features(picture, backbone)[None]
    return bool(cosine(asked, mine_nD).max() > cosine(asked, others_mD).max(initial=-1.0))


def _features(picture: np.ndarray, backbone: Features) -> np.ndarray:
    found = backbone(picture[None])[0].astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError("the backbone returned features that are not finite")
    return np.asarray(found)


identity_rank1 = Metric(
    name="identity-rank1",
    function=rank_1,
    needs=(*NEEDS, MASKS, BACKBONE),
    unit="",
    range=(0, 1),
    definition="for each certified stretch after which its subject is back in the target: the share of at most "
    f"{AT_MOST} frames, spread over those judged in which a detection was taken for it, in which the features of what "
    "it covers have their highest cosine with those of the subject in one of these frames of the truth, and not of "
    f"another subject there or of a packaged picture of another family ({PICTURES_ARE}); all cut out by masks (a "
    f"detector without them: by its box), in the middle of a grey ({GREY}) square, of at least {LEAST} rows. "
    f"{JUDGED.capitalize()}; {TAKEN}",
    partial=True,
    per="stretch",
    order=("truth", "another"),
)
