"""PSNR where memory shows: inside the boxes of subjects that were hidden and are back.

A model without memory can get everything else of a frame right; what a subject looks like that left the picture and
returns, and where it is then, it cannot know. Source: the returned subjects' boxes are those of the rendered world
(docs/world.md, certified stretches), so the metric exists for clips with annotations only.

Shape letters: T frames, S subjects, H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np

from hmcli.metrics.contract import BOXES, PREDICTION, REFERENCE, Metric, NothingToJudge, SubjectBoxes, check_pair
from hmcli.metrics.pixel import DATA_RANGE

ROUNDING = 1e-6  # pixels: a box that reaches less far into a pixel does so by the rounding of its scaling


def frame_psnr_returned(prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes) -> np.ma.MaskedArray:
    """(T,) dB over the pixels inside returned subjects' boxes; masked where there are none, infinite where they agree.

    Raises NothingToJudge when all frames would be masked.
    """
    check_boxed(prediction, reference, boxes)
    if not boxes.returned_TS.any():
        raise NothingToJudge("no subject comes back in the target after a certified stretch without it")
    inside_THW = returned_pixels(boxes, *reference.shape[1:3])
    judged_T = inside_THW.any(axis=(1, 2))
    if not judged_T.any():
        raise NothingToJudge("no subject that comes back is inside the compared frames")
    return psnr_inside(prediction, reference, inside_THW)


def check_boxed(prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes) -> None:
    """Raise ValueError unless both are videos of one shape, and the boxes are of as many frames."""
    check_pair(prediction, reference)
    if len(boxes.returned_TS) != len(reference):
        raise ValueError(f"the boxes are of {len(boxes.returned_TS)} frames, the reference has {len(reference)}")


def returned_pixels(boxes: SubjectBoxes, height: int, width: int) -> np.ndarray:
    """(T, H, W) bool: pixels that the box of a returned subject covers, in part at least."""
    return boxed_pixels(boxes, boxes.returned_TS, height, width)


def boxed_pixels(boxes: SubjectBoxes, whose_TS: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T, H, W) bool: pixels that the box of one of these subjects covers, in part at least."""
    inside_THW = np.zeros((len(whose_TS), height, width), bool)
    shown_TS = whose_TS & np.isfinite(boxes.amodal_TS4).all(axis=-1)
    for frame, subject in np.argwhere(shown_TS):
        inside_THW[frame, *covered(boxes.amodal_TS4[frame, subject], height, width)] = True
    return inside_THW


def psnr_inside(prediction: np.ndarray, reference: np.ndarray, inside_THW: np.ndarray) -> np.ma.MaskedArray:
    """(T,) dB over these pixels of each frame; masked where there are none, infinite where all of them agree."""
    values = np.ma.masked_all(len(reference), np.float64)
    with np.errstate(divide="ignore"):  # identical pixels: infinite, as the formula says
        for frame in np.flatnonzero(inside_THW.any(axis=(1, 2))):
            inside = inside_THW[frame]
            error = prediction[frame][inside].astype(np.float64) - reference[frame][inside]
            values[frame] = 10 * np.log10(DATA_RANGE**2 / np.mean(error**2))
    return values


def covered(box_4: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box (left, top, right, bottom) covers, in part at least."""
    left, top, right, bottom = box_4
    return _pixels(top, bottom, height), _pixels(left, right, width)


def _pixels(first: float, end: float, size: int) -> slice:
    """Pixels of a side that lie between two places, of those the picture has."""
    covered = np.clip([np.floor(first + ROUNDING), np.ceil(end - ROUNDING)], 0, size)
    return slice(int(covered[0]), int(covered[1]))


psnr_returned = Metric(
    name="psnr-returned",
    function=frame_psnr_returned,
    needs=(PREDICTION, REFERENCE, BOXES),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) of each uint8 RGB frame, one mean squared error over channels and those pixels "
    "that any amodal box of a returned subject covers (in part at least; boxes framed as the reference is); returned: "
    "a certified stretch without the subject has ended by this frame. Frames without such a pixel are not judged, "
    "clips without such a frame neither; a frame in which the pixels are identical is infinite",
    partial=True,
    order=("truth", "erased", "another"),
)
