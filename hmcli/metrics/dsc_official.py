"""DSC as the published script has it: one box around all subjects, and every pair of frames of two videos.

Paper: Eq. 7. Beside `dsc-ctx` and `dsc-gt` (hmcli.metrics.dsc, aligned), to be set beside published numbers. Boxes of
context and truth are around all subjects of the masks, those of the prediction around all that the run's detector
finds, where the script calls a tracker that it does not define; features are those of hmcli.metrics.backbones.regions,
with their shift. Where one of the two videos shows nobody, the script raises and the video is in no mean, however bad
it is: such a clip is not judged here, and counted. Shape letters: A frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmcli.metrics.consistency import cosine
from hmcli.metrics.contract import (
    CONTEXT,
    CONTEXT_MASKS,
    DETECTIONS,
    MASKS,
    PREDICTION,
    REFERENCE,
    REGIONS,
    Detection,
    Metric,
    NothingToJudge,
    check_pair,
    check_video,
)

Regions = Callable[[np.ndarray, np.ndarray], np.ndarray]
PUBLISHED = "clip-regions"


def official_with_context(
    prediction: np.ndarray,
    context: np.ndarray,
    context_masks: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    regions: Regions,
) -> float:
    """Mean cosine over all pairs of a frame of the prediction and one of the context, in [-1, 1]."""
    check_video("prediction", prediction)
    check_video("context", context)
    return _all_pairs(prediction, detections, context, context_masks, "context", regions)


def official_with_truth(
    prediction: np.ndarray,
    reference: np.ndarray,
    masks: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    regions: Regions,
) -> float:
    """The same with the frames of the reference, at whatever time."""
    check_pair(prediction, reference)
    return _all_pairs(prediction, detections, reference, masks, "target", regions)


def _all_pairs(
    prediction: np.ndarray,
    detections: Sequence[Sequence[Detection]],
    other: np.ndarray,
    masks_AHW: np.ndarray,
    what: str,
    regions: Regions,
) -> float:
    if masks_AHW.shape != other.shape[:3]:
        raise ValueError(f"masks of shape {masks_AHW.shape} for frames of shape {other.shape[:3]}")
    found_A4, true_A4 = around_detections(detections), around_masks(masks_AHW)
    made, true = (np.isfinite(boxes).all(axis=-1) for boxes in (found_A4, true_A4))
    if not true.any():
        raise NothingToJudge(f"the {what} shows no subject")
    if not made.any():
        raise NothingToJudge("the detector finds nobody in the prediction: the published script leaves such a clip out")
    now, then = regions(prediction[made], found_A4[made]), regions(other[true], true_A4[true])
    return float(cosine(now.astype(np.float64)[:, None], then.astype(np.float64)[None]).mean())


def around_masks(masks_AHW: np.ndarray) -> np.ndarray:
    """(A, 4) left, top, right, bottom around the pixels of all subjects; NaN in a frame without any."""
    found = np.full((len(masks_AHW), 4), np.nan)
    for frame, mask in enumerate(masks_AHW > 0):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            found[frame] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found


def around_detections(detections: Sequence[Sequence[Detection]]) -> np.ndarray:
    """(A, 4) around all boxes of a frame; NaN in one without any."""
    found = np.full((len(detections), 4), np.nan)
    for frame, seen in enumerate(detections):
        if seen:
            boxes = np.stack([one.box_4 for one in seen])
            found[frame] = *boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)
    return found


_OFFICIAL = (
    "features of CLIP's patch tokens averaged over one box around all subjects (RoI-align 7x7; the network sees the "
    "frame's middle square, and boxes are scaled as if it were the whole frame: the published script's shift). Boxes: "
    "of the masks, and in the prediction around all that the detector finds; frames without are left out, and a clip "
    "in which one video has none is not judged, as in the published script"
)

dsc_ctx_official = Metric(
    name="dsc-ctx-official",
    function=official_with_context,
    needs=(PREDICTION, CONTEXT, CONTEXT_MASKS, DETECTIONS, REGIONS),
    unit="",
    range=(-1, 1),
    definition="mean cosine similarity over all pairs of a frame of the prediction and one of the context, of "
    f"{_OFFICIAL}",
    published=PUBLISHED,
    partial=True,
    per="clip",
)

dsc_gt_official = Metric(
    name="dsc-gt-official",
    function=official_with_truth,
    needs=(PREDICTION, REFERENCE, MASKS, DETECTIONS, REGIONS),
    unit="",
    range=(-1, 1),
    definition="mean cosine similarity over all pairs of a frame of the prediction and one of the truth, whatever "
    f"their times, of {_OFFICIAL}",
    published=PUBLISHED,
    partial=True,
    per="clip",
)
