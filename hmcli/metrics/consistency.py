"""Consistency of a video with itself: does every frame look like its neighbour and like the first frame?

VBench's definition of subject and background consistency: for each frame after the first, the mean of the cosine
similarities of its features to those of the previous and of the first frame, each clamped at 0. The two metrics differ
in the backbone alone: VBench takes DINO ViT-B/16 for the subject and CLIP ViT-B/32 for the background. A video in
which nothing moves scores 1, so these numbers say nothing about motion.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hmcli.metrics.contract import BACKBONE, PREDICTION, Metric, check_video


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity along the last axis. Two vectors without any feature are alike (1), one is unlike (0).

    Learned features are never zero; gradient histograms of a blank frame are.
    """
    length = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_blank = ~a.any(axis=-1) & ~b.any(axis=-1)
    product = np.divide((a * b).sum(axis=-1), length, out=np.zeros_like(length), where=length > 0)
    return np.where(both_blank, 1.0, product)


def feature_consistency(features: np.ndarray) -> np.ndarray:
    """(T, D) features of a video's frames -> (T - 1,) consistency of frames 1 to T - 1, in [0, 1].

    Raises ValueError for a single frame: there is nothing it could be consistent with.
    """
    _check_frames(len(features))
    if not np.isfinite(features).all():
        raise ValueError("the backbone returned features that are not finite")
    features = features.astype(np.float64)
    to_previous = cosine(features[1:], features[:-1])
    to_first = cosine(features[1:], features[:1])
    return (np.maximum(to_previous, 0.0) + np.maximum(to_first, 0.0)) / 2


def frame_consistency(prediction: np.ndarray, backbone: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(T - 1,) consistency of every frame after the first by the backbone's features."""
    check_video("prediction", prediction)
    if len(prediction) < 2:
        raise ValueError(
            f"consistency compares frames of one video: it needs at least 2, this one has {len(prediction)}"
        )
    return feature_consistency(backbone(prediction))


def _check_frames(frames: int) -> None:
    if frames < 2:
        raise ValueError(f"consistency compares frames of one video: it needs at least 2, this one has {frames}")


_DEFINITION = (
    "for each frame after the first, the mean of the cosine similarities of its features to those of the previous and "
    "of the first frame, each clamped at 0 (VBench)"
)

subject_consistency = Metric(
    name="subject-consistency",
    function=frame_consistency,
    needs=(PREDICTION, BACKBONE),
    unit="",
    range=(0, 1),
    definition=_DEFINITION,
    published="dino",
    order=("last-frame", "truth"),  # nothing moves, and nothing changes
)

background_consistency = Metric(
    name="background-consistency",
    function=frame_consistency,
    needs=(PREDICTION, BACKBONE),
    unit="",
    range=(0, 1),
    definition=_DEFINITION,
    published="clip",
    order=("last-frame", "truth"),
)
