"""PSNR by phase of a certified stretch: before it, while its subject is hidden, and (psnr-returned) after it.

Shape letters: T frames, S subjects, H rows, W columns.
"""

from __future__ import annotations

import math

import numpy as np

from hmcli.metrics.contract import (
    BOXES,
    PREDICTION,
    REFERENCE,
    TRACKS,
    Metric,
    NothingToJudge,
    SubjectBoxes,
    Tracks,
    check_pair,
)
from hmcli.metrics.returned import boxed_pixels, check_boxed, psnr_inside


def frame_psnr_visible(
    prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes, tracks: Tracks
) -> np.ma.MaskedArray:
    """(T,) dB inside the boxes of subjects before their certified stretch; masked where there are none."""
    check_boxed(prediction, reference, boxes)
    before_TS = np.zeros(boxes.returned_TS.shape, bool)
    for number, subject in enumerate(tracks.subjects):
        if certified := [stretch.first for stretch in subject.stretches if stretch.certified]:
            there = np.ones(len(tracks.target_T), bool)
            for stretch in subject.stretches:
                there &= (tracks.target_T < stretch.first) | (tracks.target_T > stretch.last)
            before_TS[:, number] = there & (tracks.target_T < min(certified))
    inside_THW = boxed_pixels(boxes, before_TS, *reference.shape[1:3])
    if not inside_THW.any():
        raise NothingToJudge("the target shows no subject before a certified stretch without it")
    return psnr_inside(prediction, reference, inside_THW)


def frame_psnr_hidden(prediction: np.ndarray, reference: np.ndarray, tracks: Tracks) -> np.ma.MaskedArray:
    """(T,) dB over all pixels of frames inside a certified stretch; the others are masked."""
    check_pair(prediction, reference)
    if len(tracks.target_T) != len(reference):
        raise ValueError(f"the tracks are of {len(tracks.target_T)} target frames, the reference has {len(reference)}")
    hidden_T = np.zeros(len(reference), bool)
    for stretch in tracks.certified:
        hidden_T |= (tracks.target_T >= stretch.first) & (tracks.target_T <= stretch.last)
    if not hidden_T.any():
        raise NothingToJudge("no certified stretch reaches into the target")
    return psnr_inside(prediction, reference, np.broadcast_to(hidden_T[:, None, None], reference.shape[:3]))


psnr_visible = Metric(
    name="psnr-visible",
    function=frame_psnr_visible,
    needs=(PREDICTION, REFERENCE, BOXES, TRACKS),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) of each uint8 RGB frame over channels and those pixels that the amodal box of a "
    "subject covers before its first certified stretch, outside its other stretches; frames without such a pixel are "
    "not judged",
    partial=True,
)

psnr_hidden = Metric(
    name="psnr-hidden",
    function=frame_psnr_hidden,
    needs=(PREDICTION, REFERENCE, TRACKS),
    unit="dB",
    range=(0, math.inf),
    definition="10 log10(255^2 / MSE) over all pixels and channels of each uint8 RGB frame in which a subject is "
    "hidden in a certified stretch; other frames are not judged",
    partial=True,
    order=("truth", "another"),
)
