"""Drift: known changes from the beginning of a video to its end have known contrasts."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.metrics.drift import drift_colour, drift_error, drift_sharpness, ends

T, H, W = 20, 6, 8


def grey(levels) -> np.ndarray:
    """(T, H, W, 3) of one level a frame."""
    return np.broadcast_to(np.asarray(levels, np.uint8)[:, None, None, None], (len(levels), H, W, 3)).copy()


def stripes(height: int) -> np.ndarray:
    """(H, W, 3) with columns of 100 and 100 + height in turn."""
    return np.tile(np.array([100, 100 + height], np.uint8), (H, W // 2))[..., None].repeat(3, -1)


def test_ends_are_15_percent_of_the_frames_and_one_at_least():
    for frames, count in ((2, 1), (5, 1), (20, 3), (33, 5), (1001, 150)):
        start, end = ends(np.arange(frames))
        assert (list(start), list(end)) == ([*range(count)], [*range(frames - count, frames)])


def test_error_that_grows_is_the_difference_of_root_mean_squares():
    truth, off = grey([100] * T), np.repeat([2, 50, 14], [3, T - 6, 3])
    made = grey(100 + off)
    assert drift_error(prediction=made, reference=truth) == pytest.approx(12)
    made[-1] = 100 - 14  # to the other side is as wrong
    assert drift_error(prediction=made, reference=truth) == pytest.approx(12)
    assert drift_error(prediction=made[::-1], reference=truth) == pytest.approx(12)
    assert drift_error(prediction=grey([130] * T), reference=truth) == 0  # as wrong all along
    made = grey([100] * T)
    made[-3:, ..., 0] = 109
    assert drift_error(prediction=made, reference=truth) == pytest.approx(9 / 3**0.5)


def test_sharpness_is_of_steps_from_pixel_to_pixel():
    video = np.stack([stripes(40)] * (T - 3) + [stripes(10)] * 3)
    steps = H * (W - 1)
    share = (steps / (steps + (H - 1) * W)) ** 0.5  # stripes have no steps downwards
    assert drift_sharpness(prediction=video) == pytest.approx(30 * share)
    assert drift_sharpness(prediction=video.swapaxes(1, 2)[:, :W]) > 0
    assert drift_sharpness(prediction=video[: T - 3]) == 0
    brighter = video[:17].copy()
    brighter[-3:] += 50
    assert drift_sharpness(prediction=brighter) == pytest.approx(0, abs=1e-9)


def test_colour_is_a_distance_of_means():
    video = grey([100] * T)
    video[-3:, ..., 0] += 3
    video[-3:, ..., 2] += 4
    assert drift_colour(prediction=video) == pytest.approx(5)
    shuffled = np.stack([stripes(40)] * T)
    shuffled[-3:] = shuffled[-3:, :, ::-1]
    assert drift_colour(prediction=shuffled) == pytest.approx(0, abs=1e-9)


def test_what_cannot_be_judged_is_refused_with_its_numbers():
    for metric in (drift_sharpness, drift_colour):
        with pytest.raises(ValueError, match="at least 2 frames, this one has 1"):
            metric(prediction=grey([1]))
    with pytest.raises(ValueError, match="the prediction has 4 frames, the reference 5"):
        drift_error(prediction=grey([1] * 4), reference=grey([1] * 5))
    with pytest.raises(ValueError, match="at least 2 a side"):
        drift_sharpness(prediction=grey([1, 2])[:, :1])
