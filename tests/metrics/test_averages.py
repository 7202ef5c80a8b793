"""Averages over clips of different lengths, and numbers JSON cannot hold."""

from __future__ import annotations

import json
import math

import pytest

from hmcli.metrics.averages import json_number, mean_score


def test_frames_weigh_alike_or_videos_do():
    clips = [[1.0, 1.0, 1.0, 1.0], [0.5], [0.0, 0.25]]
    assert mean_score(clips, "frames") == pytest.approx((4 + 0.5 + 0.25) / 7)
    assert mean_score(clips, "videos") == pytest.approx((1 + 0.5 + 0.125) / 3)


def test_the_two_averages_agree_for_clips_of_one_length():
    clips = [[0.1, 0.9], [0.4, 0.2], [0.3, 0.7]]
    assert mean_score(clips, "frames") == pytest.approx(mean_score(clips, "videos"))


def test_no_clip_has_no_score_rather_than_zero():
    assert mean_score([], "frames") is None
    assert json_number(None) is None


def test_a_clip_without_values_and_an_unknown_average_are_refused():
    with pytest.raises(ValueError, match="leave it out and count it"):
        mean_score([[1.0], []], "videos")
    with pytest.raises(ValueError, match="known: frames, videos"):
        mean_score([[1.0]], "median")


def test_an_infinite_score_survives_json():
    mean = mean_score([[20.0, math.inf], [30.0]], "frames")
    assert float(json.loads(json.dumps(json_number(mean), allow_nan=False))) == math.inf
    assert json_number(20.5) == 20.5
