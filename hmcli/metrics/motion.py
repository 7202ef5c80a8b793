"""How much moves in a video: read it beside every consistency, which a video that stands still wins.

Flow is scikit-image's iterative Lucas-Kanade (Le Besnerais and Champagnat, 2005) between successive frames, on grey
pictures of about COARSE pixels a side. Shape letters: T frames, H rows, W columns, P pairs of frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hmcli.metrics.contract import FLOW as FLOW_INPUT
from hmcli.metrics.contract import PREDICTION, Metric, check_video

COARSE = 64  # pixels: frames are averaged down while their shorter side stays at least so long
EVERY = 4  # of the frames after the first, every so many are compared with the frame before them
RADIUS, WARPS = 5, 5  # of the flow: pixels around each, and rounds
_LUMA = (0.299, 0.587, 0.114)
Flow = Callable[[np.ndarray], np.ndarray]  # `pair_flow`, or what it has made already


def pairs(frames: int) -> np.ndarray:
    """(P,) the later frame of each compared pair. Raises ValueError for a single frame: nothing moves in it."""
    if frames < 2:
        raise ValueError(f"motion is between frames: it needs at least 2, this video has {frames}")
    return np.arange(1, frames, EVERY)


def coarseness(height: int, width: int) -> int:
    """By how much frames are averaged down, each side."""
    return max(1, min(height, width) // COARSE)


def pair_flow(video: np.ndarray) -> np.ndarray:
    """(P, h, w, 2) pixels of the averaged frames, x and y, from each later frame back to where the earlier shows it."""
    from skimage.registration import optical_flow_ilk

    grey = averaged(video @ np.array(_LUMA), coarseness(*video.shape[1:3])) / 255
    found = [
        optical_flow_ilk(grey[late], grey[late - 1], radius=RADIUS, num_warp=WARPS)[::-1] for late in pairs(len(video))
    ]
    return np.moveaxis(np.stack(found), 1, -1)


def averaged(pictures_THW: np.ndarray, factor: int) -> np.ndarray:
    """(T, H // factor, W // factor): the mean of every block of pixels; a rest at the right and below is left out."""
    frames, height, width = pictures_THW.shape
    height, width = height // factor, width // factor
    cut = pictures_THW[:, : height * factor, : width * factor]
    return np.asarray(cut.reshape(frames, height, factor, width, factor).mean(axis=(2, 4)))


def mean_motion(prediction: np.ndarray, flow: Flow) -> float:
    """Percent of the picture's width by which its pixels move from frame to frame, on average."""
    check_video("prediction", prediction)
    flow_PHW2 = flow(prediction)
    return float(100 * np.linalg.norm(flow_PHW2, axis=-1).mean() / flow_PHW2.shape[2])


FLOW = (
    f"scikit-image optical_flow_ilk (radius={RADIUS}, num_warp={WARPS}) on grey frames averaged down while the shorter "
    f"side has at least {COARSE} pixels, of every {EVERY}th frame to the one before it, from the second on"
)

motion_amount = Metric(
    name="motion-amount",
    function=mean_motion,
    needs=(PREDICTION, FLOW_INPUT),
    unit="% of width per frame",
    range=(0, math.inf),
    definition=f"mean length of the flow over pixels and pairs of frames, in percent of the width. Flow: {FLOW}. No "
    "more is better than the truth has: read it beside consistencies, and against the truth's own number",
    better="neither",
    per="clip",
)
