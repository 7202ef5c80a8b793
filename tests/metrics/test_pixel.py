"""PSNR and SSIM against the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from hmcli.metrics.contract import BACKBONE
from hmcli.metrics.pixel import psnr, ssim
from hmcli.registry import find


def video(seed: int, frames: int = 3, height: int = 17, width: int = 22) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


def slow_psnr(made: np.ndarray, true: np.ndarray) -> float:
    total = 0.0
    for a, b in zip(made.reshape(-1).tolist(), true.reshape(-1).tolist(), strict=True):
        total += (a - b) ** 2
    return 10 * math.log10(255**2 / (total / made.size))


def slow_ssim(made: np.ndarray, true: np.ndarray) -> float:
    """Wang et al. 2004: an 11x11 Gaussian window of sigma 1.5, population covariance, borders left out."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(image, taps, axis=0), taps, axis=1)

    channels = []
    for channel in range(3):
        x, y = made[..., channel].astype(float), true[..., channel].astype(float)
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        index = ((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
        channels.append(index[5:-5, 5:-5].mean())
    return float(np.mean(channels))


def test_psnr_is_ten_log_of_range_squared_over_mean_squared_error():
    made, true = video(0), video(1)
    expected = [slow_psnr(a, b) for a, b in zip(made, true, strict=True)]
    np.testing.assert_allclose(psnr(prediction=made, reference=true), expected, rtol=1e-12)


def test_psnr_of_frames_one_grey_level_apart_is_48_db():
    true = np.full((2, 5, 7, 3), 100, np.uint8)
    np.testing.assert_allclose(psnr(prediction=true + 1, reference=true), 20 * math.log10(255), rtol=1e-12)


def test_psnr_of_an_identical_frame_is_infinite_and_of_the_others_is_not():
    true = video(0)
    made = true.copy()
    made[1] = 255 - made[1]
    values = psnr(prediction=made, reference=true)
    assert np.isinf(values).tolist() == [True, False, True]


def test_the_range_is_255_even_when_the_video_is_dark():
    dark, darker = np.full((1, 12, 13, 3), 4, np.uint8), np.full((1, 12, 13, 3), 3, np.uint8)
    assert psnr(prediction=dark, reference=darker)[0] == pytest.approx(20 * math.log10(255))


def test_ssim_is_that_of_wang_et_al():
    true = video(3)
    noise = np.random.default_rng(5).normal(0, 20, true.shape)
    made = np.clip(true + noise, 0, 255).astype(np.uint8)
    expected = [slow_ssim(a, b) for a, b in zip(made, true, strict=True)]
    np.testing.assert_allclose(ssim(prediction=made, reference=true), expected, rtol=1e-9)


def test_ssim_of_identical_frames_is_one_and_noise_lowers_it():
    true = video(0)
    assert ssim(prediction=true, reference=true).tolist() == [1.0, 1.0, 1.0]
    assert (ssim(prediction=video(1), reference=true) < 0.5).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_both_are_symmetric(metric):
    made, true = video(0), video(1)
    forth, back = metric(prediction=made, reference=true), metric(prediction=true, reference=made)
    np.testing.assert_allclose(forth, back, rtol=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_another_frame_count_is_refused_with_both_numbers(metric):
    with pytest.raises(ValueError, match="has 3 frames, the reference 4"):
        metric(prediction=video(0), reference=video(0, frames=4))


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_another_size_is_refused_with_both_sizes(metric):
    with pytest.raises(ValueError, match=r"17x22 pixels .* 22x17"):
        metric(prediction=video(0), reference=video(0, height=22, width=17))


def test_frames_smaller_than_the_window_have_no_ssim():
    small = video(0, height=10, width=30)
    with pytest.raises(ValueError, match="at least 11 pixels a side, these are 10x30"):
        ssim(prediction=small, reference=small)


def test_floats_are_refused_because_their_range_is_unknown():
    with pytest.raises(ValueError, match="uint8"):
        psnr(prediction=video(0) / 255.0, reference=video(1))


@pytest.mark.parametrize("name", ["psnr", "ssim", "subject-consistency", "background_consistency"])
def test_the_registry_knows_every_metric_under_its_own_name(name):
    metric = find("metric", name)
    assert metric.name == name.replace("_", "-")
    assert metric.better == "higher"
    assert (BACKBONE in metric.needs) == ("consistency" in name)
