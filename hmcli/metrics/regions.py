"""PSNR in parts of the picture: of each subject that returns, of what subjects show, of everything but subjects.

Beside `psnr-returned` (hmcli.metrics.returned), which takes all returned subjects of a frame together. Boxes, masks and
stretches are those of the rendered world.
Shape letters: T frames, S subjects, H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np

from hmcli.metrics.contract import (
    BOXES,
    MASKS,
    PREDICTION,
    REFERENCE,
    TRACKS,
    Metric,
    NothingToJudge,
    Stretch,
    SubjectBoxes,
    Tracks,
    check_pair,
)
from hmcli.metrics.returned import boxed_pixels, check_boxed, psnr_inside


def stretch_psnr(
    prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes, tracks: Tracks
) -> dict[Stretch, float]:
    """dB inside the box of the subject that is back, the mean over its frames, for each certified stretch.

    From the first frame after the stretch to the next stretch without it, or to the end. Raises NothingToJudge where
    no subject comes back.
    """
    check_pair(prediction, reference)
    found = {}
    for stretch in tracks.certified:
        if stretch.back is None:
            continue
        whose_TS = np.zeros(boxes.returned_TS.shape, bool)
        whose_TS[stretch.back : until(stretch, tracks), stretch.subject] = True
        values = psnr_inside(prediction, reference, boxed_pixels(boxes, whose_TS, *reference.shape[1:3]))
        if values.count():
            found[stretch] = float(values.mean())
    if not found:
        raise NothingToJudge("no subject comes back in the target after a certified stretch without it")
    return found


def until(stretch: Stretch, tracks: Tracks) -> int:
    """The target frame before which the subject is still there."""
    later = [other.first for other in tracks.subjects[stretch.subject].stretches if other.first > stretch.last]
    return int(np.searchsorted(tracks.target_T, min(later))) if later else len(tracks.target_T)


def frame_psnr_of_subjects(prediction: np.ndarray, reference: np.ndarray, masks: np.ndarray) -> np.ma.MaskedArray:
    """(T,) dB over the pixels in which the reference shows a subject; masked where it shows none."""
    check_pair(prediction, reference)
    if masks.shape != reference.shape[:3]:
        raise ValueError(f"masks of shape {masks.shape} for frames of shape {reference.shape[:3]}")
    if not masks.any():
        raise NothingToJudge("the target shows no subject")
    return psnr_inside(prediction, reference, masks > 0)


def frame_psnr_outside(prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes) -> np.ma.MaskedArray:
    """(T,) dB over the pixels outside every subject's box; masked where boxes cover everything."""
    check_boxed(prediction, reference, boxes)
    everyone_TS = np.ones(boxes.returned_TS.shape, bool)
    outside_THW = ~boxed_pixels(boxes, everyone_TS, *reference.shape[1:3])
    if not outside_THW.any():
        raise NothingToJudge("subjects' boxes cover all frames")
    return psnr_inside(prediction, reference, outside_THW)


psnr_stretch = Metric(
    name="psnr-stretch",
    function=stretch_psnr,
    needs=(PREDICTION, REFERENCE, BOXES, TRACKS),
    unit="dB",
    range=(0, math.inf),
    definition="for each certified stretch after which its subject is back in the target: the mean over the frames "
    "from then on (to its next stretch, or the end) of 10 log10(255^2 / MSE) over channels and those pixels that its "
    "amodal box covers; frames in which it has no box are not judged",
    partial=True,
    per="stretch",
    order=("truth", "erased", "another"),
)

psnr_subjects = Metric(
    name="psnr-subjects",
    function=frame_psnr_of_subjects,
    needs=(PREDICTION, REFERENCE, MASKS),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) of each uint8 RGB frame over channels and those pixels in which the reference's "
    "masks show a subject, hidden before or not; frames without such a pixel are not judged",
    partial=True,
    order=("truth", "erased"),
)

psnr_outside = Metric(
    name="psnr-outside",
    function=frame_psnr_outside,
    needs=(PREDICTION, REFERENCE, BOXES),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) of each uint8 RGB frame over channels and those pixels that no subject's amodal "
    "box covers, not even in part",
    partial=True,
    order=("truth", "another"),
)
