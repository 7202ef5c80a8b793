"""PSNR and SSIM in parts of the picture: what whole frames average away.

Both are measured in each region of hmcli/metrics/regions.py (as are perceptual distances: perceptual_inside.py), and
PSNR also in the box of each subject that returns, and in the pixels that subjects show. None of them sees whether a
subject is there at all: a right background with nobody before it beats the right subject at the wrong place.
Shape letters: T frames, H rows, W columns; h, w places of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

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
from hmcli.metrics.pixel import DATA_RANGE, Similarity, similarity
from hmcli.metrics.regions import REGIONS, Region, Shape, boxed_pixels, check_boxed, until

PAIR = (PREDICTION, REFERENCE)


# --- measures of pixels ----------------------------------------------------------------------------------------------


def psnr_inside(prediction: np.ndarray, reference: np.ndarray, inside_THW: np.ndarray) -> np.ma.MaskedArray:
    """(T,) dB over these pixels of each frame; masked where there are none, infinite where all of them agree."""
    values = np.ma.masked_all(len(reference), np.float64)
    with np.errstate(divide="ignore"):  # identical pixels: infinite, as the formula says
        for frame in np.flatnonzero(inside_THW.any(axis=(1, 2))):
            inside = inside_THW[frame]
            error = prediction[frame][inside].astype(np.float64) - reference[frame][inside]
            values[frame] = 10 * np.log10(DATA_RANGE**2 / np.mean(error**2))
    return values


def mean_inside(maps: Sequence[np.ndarray], inside_THW: np.ndarray) -> np.ma.MaskedArray:
    """(T,) means of maps (T, h, w) of whole frames over these pixels, summed over maps; masked where there are none.

    A place of a map stands for its part of the frame, and weighs as much as these pixels fill of that.
    """
    values = np.ma.masked_all(len(inside_THW), np.float64)
    for frame in np.flatnonzero(inside_THW.any(axis=(1, 2))):
        filled = [filled_shares(inside_THW[frame], *of.shape[1:]) for of in maps]
        values[frame] = sum(np.average(of[frame], weights=share) for of, share in zip(maps, filled, strict=True))
    return values


def filled_shares(inside_HW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns): of the part of a frame that each place of a map stands for, the share that is inside."""
    height, width = inside_HW.shape
    total = np.pad(inside_HW.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = _parts(height, rows), _parts(width, columns)
    pixels = total[bottom][:, right] - total[top][:, right] - total[bottom][:, left] + total[top][:, left]
    shares: np.ndarray = pixels / np.outer(bottom - top, right - left)
    return shares


def _parts(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where `count` parts of a side begin and end, in whole pixels; a pixel on an edge is in both."""
    edges = np.arange(count + 1)
    return edges[:-1] * length // count, -(-edges[1:] * length // count)


# --- measures in regions ---------------------------------------------------------------------------------------------


def psnr_in(region: Region, prediction: np.ndarray, reference: np.ndarray, **where: Any) -> np.ma.MaskedArray:
    """(T,) dB in a region. Raises NothingToJudge where it is empty."""
    check_pair(prediction, reference)
    return psnr_inside(prediction, reference, region.pixels(_shape(reference), **where))


def ssim_in(region: Region, of: Similarity, **where: Any) -> np.ma.MaskedArray:
    """(T,) structural similarity in a region, windows reaching beyond its edge. Raises NothingToJudge."""
    return mean_inside([of.map_THW], region.pixels(_shape(of.map_THW), **where))


def _shape(video: np.ndarray) -> Shape:
    frames, height, width = video.shape[:3]
    return frames, height, width


def _psnr(region: Region) -> Metric:
    return Metric(
        name=f"psnr-{region.name}",
        function=partial(psnr_in, region),
        needs=(*PAIR, *region.needs),
        unit="dB",
        range=(0, math.inf),
        definition="10 log10(255^2 / MSE) of each uint8 RGB frame, one mean squared error over channels and "
        f"{region.words}; a frame in which these pixels are identical is infinite",
        partial=True,
        order=region.order,
    )


def _ssim(region: Region) -> Metric:
    return Metric(
        name=f"ssim-{region.name}",
        function=partial(ssim_in, region),
        shared=similarity,
        shares=PAIR,
        needs=(*PAIR, *region.needs),
        unit="",
        range=(-1, 1),
        definition="the map of ssim (scikit-image structural_similarity with its settings there, full=True: 11x11 "
        "windows, which the frame's edges mirror), mean of the three channels, averaged over "
        f"{region.words}",
        partial=True,
        order=region.order,
    )


psnr_visible, psnr_hidden, psnr_returned, psnr_outside, psnr_outside_returned = map(_psnr, REGIONS)
ssim_visible, ssim_hidden, ssim_returned, ssim_outside, ssim_outside_returned = map(_ssim, REGIONS)


# --- PSNR by stretch, and of subjects' pixels ------------------------------------------------------------------------


def stretch_psnr(
    prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes, tracks: Tracks
) -> dict[Stretch, float]:
    """dB inside the box of the subject that is back, the mean over its frames, for each certified stretch.

    From the first frame after the stretch to the next stretch without it, or to the end. Raises NothingToJudge where
    no subject comes back.
    """
    check_boxed(prediction, reference, boxes)
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


def frame_psnr_of_subjects(prediction: np.ndarray, reference: np.ndarray, masks: np.ndarray) -> np.ma.MaskedArray:
    """(T,) dB over the pixels in which the reference shows a subject; masked where it shows none."""
    check_pair(prediction, reference)
    if masks.shape != reference.shape[:3]:
        raise ValueError(f"masks of shape {masks.shape} for frames of shape {reference.shape[:3]}")
    if not masks.any():
        raise NothingToJudge("the target shows no subject")
    return psnr_inside(prediction, reference, masks > 0)


psnr_stretch = Metric(
    name="psnr-stretch",
    function=stretch_psnr,
    needs=(*PAIR, BOXES, TRACKS),
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
    needs=(*PAIR, MASKS),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) of each uint8 RGB frame over channels and those pixels in which the reference's "
    "masks show a subject, hidden before or not; frames without such a pixel are not judged",
    partial=True,
    order=("truth", "erased"),
)
