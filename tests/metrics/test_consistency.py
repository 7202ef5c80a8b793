"""Consistency against VBench's definition written as a loop, and what it must be for simple videos."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcli.metrics.backbones.hog import hog
from hmcli.metrics.consistency import background_consistency, cosine, feature_consistency, subject_consistency


def slow_consistency(features: list[list[float]]) -> list[float]:
    """The definition: after the first frame, half the clamped cosine to the previous and half that to the first."""

    def cos(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))

    values = []
    former = first = features[0]
    for frame in features[1:]:
        values.append((max(0.0, cos(former, frame)) + max(0.0, cos(first, frame))) / 2)
        former = frame
    return values


def video(seed: int, frames: int, height: int = 9, width: int = 14) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


@given(frames=st.integers(2, 9), dim=st.integers(1, 6), seed=st.integers(0, 999))
def test_consistency_matches_the_definition_written_as_a_loop(frames, dim, seed):
    features = np.random.default_rng(seed).normal(size=(frames, dim))
    np.testing.assert_allclose(feature_consistency(features), slow_consistency(features.tolist()), atol=1e-12)


@given(frames=st.integers(2, 9), seed=st.integers(0, 999))
def test_consistency_is_between_zero_and_one_and_ignores_the_length_of_features(frames, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(frames, 5))
    values = feature_consistency(features)
    assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    np.testing.assert_allclose(feature_consistency(features * rng.uniform(0.1, 9, (frames, 1))), values, atol=1e-12)


def test_each_cosine_is_clamped_alone():
    features = np.array([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert feature_consistency(features).tolist() == [0.0, 0.5]  # frame 2: previous 1, first clamped from -1


def test_a_still_video_scores_one_in_any_order():
    still = np.repeat(video(0, 1), 5, axis=0)
    backbone = hog("", "cpu")
    values = subject_consistency(prediction=still, backbone=backbone)
    np.testing.assert_allclose(values, np.ones(4), atol=1e-12)
    shuffled = still[np.random.default_rng(1).permutation(5)]
    assert subject_consistency(prediction=shuffled, backbone=backbone).tolist() == values.tolist()


def test_a_video_of_unlike_frames_scores_lower_than_a_still_one():
    backbone = hog("", "cpu")
    assert subject_consistency(prediction=video(0, 4), backbone=backbone).max() < 0.999


def test_swapping_later_frames_changes_the_score_because_neighbours_change():
    features = np.random.default_rng(0).normal(size=(5, 3))
    swapped = features[[0, 2, 1, 3, 4]]
    assert feature_consistency(features).mean() != pytest.approx(feature_consistency(swapped).mean(), abs=1e-6)


def test_blank_frames_are_alike_and_unlike_any_other():
    blank, some = np.zeros(3), np.array([1.0, 2.0, 0.0])
    assert cosine(blank, blank) == 1.0
    assert cosine(blank, some) == 0.0
    dark = np.zeros((3, 8, 11, 3), np.uint8)
    assert background_consistency(prediction=dark, backbone=hog("", "cpu")).tolist() == [1.0, 1.0]


def test_a_single_frame_is_refused():
    with pytest.raises(ValueError, match="at least 2, this one has 1"):
        subject_consistency(prediction=video(0, 1), backbone=hog("", "cpu"))
    with pytest.raises(ValueError, match="at least 2, this one has 1"):
        feature_consistency(np.ones((1, 4)))


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        feature_consistency(np.array([[1.0, np.nan], [1.0, 2.0]]))


def test_the_backbone_is_part_of_the_score_s_name():
    assert subject_consistency.label("hog") == "subject-consistency (hog)"
    assert background_consistency.published == "clip"
