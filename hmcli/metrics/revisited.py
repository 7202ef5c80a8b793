"""Background that was seen before: where the target's camera looks again at what the context has shown.

What a model remembers of places, without subjects: the context holds these surfaces, so nothing about them has to be
invented. Shape letters: N context frames, T target frames, H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np

from hmcli.metrics.contract import (
    BOXES,
    CAMERAS,
    DEPTH,
    PREDICTION,
    REFERENCE,
    TRACKS,
    ClipCameras,
    ClipDepth,
    Metric,
    NothingToJudge,
    SubjectBoxes,
    Tracks,
    check_pair,
)
from hmcli.metrics.inside import psnr_inside
from hmcli.metrics.regions import boxed_pixels, covered
from hmcli.metrics.views import SKY, lifted, pixels_at, projected

SAME_SURFACE = 0.05  # relative difference of depth up to which two views show the same surface
PLACES = (BOXES, TRACKS, CAMERAS, DEPTH)
LEAST = 0.05  # of a frame's pixels: with fewer revisited it is not judged


def frame_psnr_revisited(
    revisited_THW: np.ndarray, prediction: np.ndarray, reference: np.ndarray
) -> np.ma.MaskedArray:  # fmt: skip
    """(T,) dB over the pixels outside subjects whose surface a context frame shows; masked where they are too few.

    Raises NothingToJudge where that is so in all frames.
    """
    check_pair(prediction, reference)
    if revisited_THW.shape != reference.shape[:3]:
        raise ValueError(f"boxes and depth are of {revisited_THW.shape}, the reference of {reference.shape[:3]}")
    enough_T = revisited_THW.mean(axis=(1, 2)) >= LEAST
    judged_THW = revisited_THW & enough_T[:, None, None]
    if not judged_THW.any():
        raise NothingToJudge("the target shows no background that the context has shown")
    return psnr_inside(prediction, reference, judged_THW)


def revisited(boxes: SubjectBoxes, tracks: Tracks, cameras: ClipCameras, depth: ClipDepth) -> np.ndarray:
    """(T, H, W) bool: outside subjects' amodal boxes, and shown by a context frame outside the boxes of what is seen
    of subjects there."""
    frames, height, width = depth.target_THW.shape
    subject_THW = boxed_pixels(boxes, np.ones(boxes.returned_TS.shape, bool), height, width)
    free_NHW = _free_of_subjects(tracks, height, width)
    return np.stack([_shown(frame, ~subject_THW[frame], free_NHW, cameras, depth) for frame in range(frames)])


def _free_of_subjects(tracks: Tracks, height: int, width: int) -> np.ndarray:
    """(N, H, W) bool: pixels of the context outside every subject's box."""
    free_NHW = np.ones((len(tracks.context_N), height, width), bool)
    for subject in tracks.subjects:
        for place, box in enumerate(subject.box_A4[tracks.context_N]):
            if np.isfinite(box).all():
                free_NHW[place, *covered(box, height, width)] = False
    return free_NHW


def _shown(
    frame: int, wanted_HW: np.ndarray, free_NHW: np.ndarray, cameras: ClipCameras, depth: ClipDepth
) -> np.ndarray:
    """(H, W) bool: which of the wanted pixels of a target frame some context frame shows; nearest cameras first."""
    pose, found = cameras.target_T44[frame], np.zeros_like(wanted_HW)
    points = lifted(depth.target_THW[frame], pose, cameras.intrinsics_4)
    aim = cameras.context_N44[:, :3, 2] @ pose[:3, 2]
    for other in np.argsort(-aim, kind="stable"):
        missing = wanted_HW & ~found
        if not missing.any():
            break
        at, z = projected(points[missing], cameras.context_N44[other], cameras.intrinsics_4)
        row, column, inside = pixels_at(at, *wanted_HW.shape)
        surface = np.minimum(depth.context_NHW[other][row, column], SKY)
        same = np.abs(np.log(np.maximum(z, 1e-6) / surface)) <= np.log1p(SAME_SURFACE)
        same |= (z > SKY / 2) & (surface >= SKY)  # sky is sky, at whatever angle to the axes
        found[missing] = inside & same & free_NHW[other][row, column]
    return found


background_revisited = Metric(
    name="background-revisited",
    function=frame_psnr_revisited,
    shared=revisited,
    shares=PLACES,
    needs=(PREDICTION, REFERENCE, *PLACES),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) of each uint8 RGB frame over channels and the revisited pixels: outside every "
    "subject's amodal box, and their point in the world (true depth and poses) is inside a context frame, outside the "
    "boxes of subjects' visible parts there, at the depth that frame has there, within "
    f"{SAME_SURFACE:.0%}. Frames with fewer than {LEAST:.0%} of their pixels revisited are not judged",
    partial=True,
    order=("truth", "another"),
)
