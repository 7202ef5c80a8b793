"""DSC, dynamic subject consistency: do subjects of the prediction look as they do in the context, and in the truth?

Paper: Eq. 7, cosine similarities of subjects' features. Aligned, where the published script is not: features are of
each subject's own crop (not of the union of all of them, nor of a box laid over a picture cropped to a square),
subjects weigh alike, and DSC_GT compares frames of one time. Boxes are those of the rendered world, so a subject is
looked for where it truly is. Numbers do not compare with published ones.
Shape letters: N context frames, T target frames, A all frames of a clip, H rows, W columns, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hmcli.metrics.consistency import cosine
from hmcli.metrics.contract import (
    BACKBONE,
    CONTEXT,
    PREDICTION,
    REFERENCE,
    TRACKS,
    Metric,
    NothingToJudge,
    Tracks,
    check_pair,
    check_video,
)
from hmcli.metrics.regions import covered

LEAST = 12  # pixels of height, as where the identity of crops was measured (hmcli.metrics.identity)
GREY = 127  # around a crop
Features = Callable[[np.ndarray], np.ndarray]


def dsc_with_context(prediction: np.ndarray, context: np.ndarray, tracks: Tracks, backbone: Features) -> float:
    """The mean over subjects of the mean cosine over all pairs of a context and a target crop, in [-1, 1].

    Raises NothingToJudge where no subject is large enough to be seen in both.
    """
    _check(prediction, tracks)
    check_video("context", context)
    if context.shape[1:] != prediction.shape[1:] or len(context) != len(tracks.context_N):
        raise ValueError(f"a context of shape {context.shape} for a prediction of shape {prediction.shape}")
    found = []
    for subject in tracks.subjects:
        before_N4, after_T4 = subject.box_A4[tracks.context_N], subject.box_A4[tracks.target_T]
        before, after = seen(before_N4, *context.shape[1:3]), seen(after_T4, *prediction.shape[1:3])
        if before.any() and after.any():
            then_nD = crop_features(context[before], before_N4[before], backbone)
            now_mD = crop_features(prediction[after], after_T4[after], backbone)
            found.append(cosine(now_mD[:, None], then_nD[None]).mean())
    return _mean(found, f"no subject is {LEAST} pixels high both in the context and in the target")


def dsc_with_truth(prediction: np.ndarray, reference: np.ndarray, tracks: Tracks, backbone: Features) -> float:
    """The mean over subjects of the mean cosine, over target frames, of its crops in both videos, in [-1, 1].

    Raises NothingToJudge where no subject is large enough to be seen in the target.
    """
    check_pair(prediction, reference)
    _check(prediction, tracks)
    found = []
    for subject in tracks.subjects:
        box_T4 = subject.box_A4[tracks.target_T]
        if (after := seen(box_T4, *reference.shape[1:3])).any():
            crops = (crop_features(video[after], box_T4[after], backbone) for video in (prediction, reference))
            found.append(cosine(*crops).mean())
    return _mean(found, f"no subject is {LEAST} pixels high in the target")


def seen(box_A4: np.ndarray, height: int, width: int) -> np.ndarray:
    """(A,) bool: the box is inside the picture with at least LEAST rows and a column."""
    found = np.isfinite(box_A4).all(axis=-1)
    for frame in np.flatnonzero(found):
        rows, columns = covered(box_A4[frame], height, width)
        found[frame] = rows.stop - rows.start >= LEAST and columns.stop > columns.start
    return found


def crop_features(frames: np.ndarray, box_A4: np.ndarray, backbone: Features) -> np.ndarray:
    """(A, D) float64 features of what each frame's box covers. Raises ValueError where they are not finite."""
    every = [backbone(on_square(frame, box)[None])[0] for frame, box in zip(frames, box_A4, strict=True)]
    if not np.isfinite(every).all():
        raise ValueError("the backbone returned features that are not finite")
    return np.asarray(every, np.float64)


def on_square(frame: np.ndarray, box_4: np.ndarray) -> np.ndarray:
    """(side, side, 3) uint8: what a box covers of a frame, in the middle of a grey square of its longer side."""
    crop = frame[covered(box_4, *frame.shape[:2])]
    side = max(crop.shape[:2])
    picture = np.full((side, side, 3), GREY, np.uint8)
    top, left = (side - crop.shape[0]) // 2, (side - crop.shape[1]) // 2
    picture[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return picture


def _check(prediction: np.ndarray, tracks: Tracks) -> None:
    check_video("prediction", prediction)
    if len(prediction) != len(tracks.target_T):
        raise ValueError(
            f"the tracks are of {len(tracks.target_T)} target frames, the prediction has {len(prediction)}"
        )


def _mean(of_subjects: list[float], otherwise: str) -> float:
    if not of_subjects:
        raise NothingToJudge(otherwise)
    return float(np.mean(of_subjects))


_CROPS = (
    f"features of what the true box of the subject's visible part covers, in the middle of a grey ({GREY}) square of "
    f"its longer side; frames in which it has fewer than {LEAST} rows are not judged. Mean over the clip's subjects, "
    "each weighing alike (aligned: not the published script, whose numbers differ)"
)

dsc_ctx = Metric(
    name="dsc-ctx",
    function=dsc_with_context,
    needs=(PREDICTION, CONTEXT, TRACKS, BACKBONE),
    unit="",
    range=(-1, 1),
    definition="for each subject the mean cosine similarity over all pairs of a frame of the context and one of the "
    f"prediction, of {_CROPS}",
    finder="truth",
    partial=True,
    per="clip",
    order=("truth", "erased"),
)

dsc_gt = Metric(
    name="dsc-gt",
    function=dsc_with_truth,
    needs=(PREDICTION, REFERENCE, TRACKS, BACKBONE),
    unit="",
    range=(-1, 1),
    definition="for each subject the mean cosine similarity of prediction and truth over the frames of one time, of "
    f"{_CROPS}",
    finder="truth",
    partial=True,
    per="clip",
    order=("truth", "erased"),
)
