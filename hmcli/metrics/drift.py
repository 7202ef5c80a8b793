"""Drift: how much does a video's quality change from its first frames to its last ones?

The start-end contrast of Zhang and Agrawala (FramePack, 2025, arXiv 2504.12626): |M(start) - M(end)| of a measure M,
start being the first 15 % of the frames and end the last 15 %. The paper takes networks' scores for M; here M is an
error against the truth or, where there is none, what errors that pile up change first: sharpness and colour. BlockVid's
Video Drift Error (2025, arXiv 2511.22973) weighs the same differences over all pieces of a video.
Shape letters: T frames, E frames of an end, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hmcli.metrics.contract import PREDICTION, REFERENCE, Metric, check_pair, check_video

SHARE = 0.15  # of the frames, at each end
_LUMA = (0.299, 0.587, 0.114)


def ends(video: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last E frames, at least one each. Raises ValueError for a single frame: it has one end."""
    if len(video) < 2:
        raise ValueError(f"drift is between the ends of a video: it needs at least 2 frames, this one has {len(video)}")
    count = max(1, round(SHARE * len(video)))
    return video[:count], video[-count:]


def contrast(measure: Callable[[np.ndarray], np.ndarray], video: np.ndarray) -> float:
    """Distance between what is measured at both ends: a number, or a vector."""
    start, end = ends(video)
    return float(np.linalg.norm(np.atleast_1d(measure(end) - measure(start))))


def error_drift(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Grey levels by which the root mean square error differs between the ends."""
    check_pair(prediction, reference)
    off_THW3 = prediction.astype(np.float64) - reference
    return contrast(lambda some: np.sqrt((some**2).mean()), off_THW3)


def sharpness_drift(prediction: np.ndarray) -> float:
    """Grey levels by which the root mean square step from pixel to pixel differs between the ends."""
    check_video("prediction", prediction)
    if min(prediction.shape[1:3]) < 2:
        raise ValueError("sharpness is between pixels: frames need at least 2 a side")
    return contrast(sharpness, prediction)


def sharpness(frames: np.ndarray) -> np.ndarray:
    """Root mean square of the steps in luma from each pixel to those at its right and below, grey levels."""
    luma_EHW = frames @ np.array(_LUMA)
    steps = [np.diff(luma_EHW, axis=axis) for axis in (1, 2)]
    squares = sum(float((step**2).sum()) for step in steps)
    return np.sqrt(np.array(squares / sum(step.size for step in steps)))


def colour_drift(prediction: np.ndarray) -> float:
    """Grey levels between the mean colours of the ends."""
    check_video("prediction", prediction)
    return contrast(lambda some: some.mean(axis=(0, 1, 2)), prediction)


_ENDS = (
    f"between the first and the last {SHARE:.0%} of the frames (rounded, at least one; FramePack's start-end contrast)"
)
_READ = "The truth drifts too where its camera goes elsewhere: read it against the truth's own number"

drift_error = Metric(
    name="drift-error",
    function=error_drift,
    needs=(PREDICTION, REFERENCE),
    unit="grey levels",
    better="lower",
    range=(0, 255),
    definition="absolute difference of the root mean square error against the truth, over uint8 pixels and channels, "
    f"{_ENDS}. A video that is as wrong in the beginning as in the end has none",
    per="clip",
    order=("truth", "last-frame"),
)

drift_sharpness = Metric(
    name="drift-sharpness",
    function=sharpness_drift,
    needs=(PREDICTION,),
    unit="grey levels",
    better="neither",
    range=(0, 255),
    definition="absolute difference of sharpness, the root mean square of the steps in luma (.299, .587, .114) from "
    f"each pixel to those at its right and below, {_ENDS}. {_READ}",
    per="clip",
)

drift_colour = Metric(
    name="drift-colour",
    function=colour_drift,
    needs=(PREDICTION,),
    unit="grey levels",
    better="neither",
    range=(0, 255 * math.sqrt(3)),
    definition=f"Euclidean distance of the mean colours (uint8 RGB) {_ENDS}. {_READ}",
    per="clip",
)
