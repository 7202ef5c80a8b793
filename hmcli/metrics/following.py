"""Does the picture move as the camera was told to? Measured flow against what poses and depth imply.

A model that does not follow its camera shows another place than the one that is judged: read what subjects do there
with care. Shape letters: T frames, P pairs of frames, h rows and w columns of averaged frames (hmcli.metrics.motion).
"""

from __future__ import annotations

import numpy as np

from hmcli.metrics.contract import (
    BOXES,
    CAMERAS,
    DEPTH,
    FLOW,
    PREDICTION,
    REFERENCE,
    ClipCameras,
    ClipDepth,
    Metric,
    NothingToJudge,
    SubjectBoxes,
)
from hmcli.metrics.motion import FLOW as MEASURED
from hmcli.metrics.motion import Flow, averaged, coarseness, pairs
from hmcli.metrics.regions import boxed_pixels, check_boxed
from hmcli.metrics.views import lifted, projected

RIGHT = 1.0  # pixel of the averaged frames: where flow measured in the truth is further off, none can be measured
STILL = 0.05  # pixels per frame: a camera that moves the picture less, on average, asks for nothing to be followed
FOLLOWS = 0.5  # of a clip's camera-following: half of the way between a still picture and the asked one


def implied_flow(cameras: ClipCameras, depth: ClipDepth) -> np.ndarray:
    """(P, h, w, 2) as `pair_flow` measures it, if nothing but the camera moves; NaN where nothing can be said."""
    frames, height, width = depth.target_THW.shape
    factor = coarseness(height, width)
    middle = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    found = []
    for late in pairs(frames):
        points = lifted(depth.target_THW[late], cameras.target_T44[late], cameras.intrinsics_4)
        at, _ = projected(points, cameras.target_T44[late - 1], cameras.intrinsics_4)
        found.append(averaged(np.moveaxis(at - middle, -1, 0), factor) / factor)
    return np.moveaxis(np.stack(found), 1, -1)


def errors_of_flow(
    prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes, cameras: ClipCameras, depth: ClipDepth,
    flow: Flow,
) -> np.ndarray:  # fmt: skip
    """Mean distance of measured to implied flow, and mean length of the implied one, over the judged pixels.

    Judged are pixels outside subjects' boxes where the flow measured in the reference is right. Raises NothingToJudge
    where the camera stands still, or flow can be measured nowhere.
    """
    check_boxed(prediction, reference, boxes)
    if depth.target_THW.shape != reference.shape[:3]:
        raise ValueError(f"depth of shape {depth.target_THW.shape} for frames of shape {reference.shape[:3]}")
    implied = implied_flow(cameras, depth)
    true = np.linalg.norm(flow(reference) - implied, axis=-1)
    judged = (true <= RIGHT) & _outside(boxes, *reference.shape[1:3])  # NaN is not right
    if not judged.any():
        raise NothingToJudge("the truth's own flow can be measured nowhere outside subjects")
    asked = np.linalg.norm(implied[judged], axis=-1).mean()
    if asked < STILL:
        raise NothingToJudge("the camera moves the picture too little to be followed")
    return np.array([np.linalg.norm(flow(prediction)[judged] - implied[judged], axis=-1).mean(), asked])


def _outside(boxes: SubjectBoxes, height: int, width: int) -> np.ndarray:
    """(P, h, w) bool: no subject's box touches it in either frame of the pair."""
    covered = boxed_pixels(boxes, np.ones(boxes.returned_TS.shape, bool), height, width)
    free = averaged(covered.astype(float), coarseness(height, width)) == 0
    late = pairs(len(covered))
    return np.asarray(free[late] & free[late - 1])


def following(parts_n2: np.ndarray) -> float:
    """1 - error / implied, sums over clips; at least -1."""
    error, asked = parts_n2.sum(axis=0)
    return max(-1.0, float(1 - error / asked))


def share_following(parts_n2: np.ndarray) -> float:
    """Share of clips whose camera-following is at least FOLLOWS."""
    return float(np.mean([following(one[None]) >= FOLLOWS for one in parts_n2]))


_NEEDS = (PREDICTION, REFERENCE, BOXES, CAMERAS, DEPTH, FLOW)
_ERRORS = (
    "the mean distance between measured and implied flow, and the mean length of the implied one, over pixels outside "
    "subjects' amodal boxes at which the flow measured in the reference is within "
    f"{RIGHT:g} pixel of the implied one. Implied: where true depth and poses put each pixel in the frame before. "
    f"Measured: {MEASURED}; clips whose implied flow is below {STILL} pixels are not judged"
)

camera_following = Metric(
    name="camera-following",
    function=errors_of_flow,
    needs=_NEEDS,
    unit="",
    range=(-1, 1),
    definition=f"1 - error / implied, of sums over clips, at least -1: 1 as asked, 0 as a still picture. Sums of "
    f"{_ERRORS}",
    partial=True,
    per="clip",
    parts=("error", "implied"),
    pooled=following,
    order=("truth", "last-frame"),
)

camera_followed = Metric(
    name="camera-followed",
    function=errors_of_flow,
    needs=_NEEDS,
    unit="",
    range=(0, 1),
    definition=f"share of clips with 1 - error / implied of at least {FOLLOWS}; error and implied are {_ERRORS}",
    partial=True,
    per="clip",
    parts=("error", "implied"),
    pooled=share_following,
    order=("truth", "last-frame"),
)
