"""Pixel metrics against the true continuation: PSNR and SSIM, frame by frame, by scikit-image.

Paper: table of results, columns PSNR and SSIM. The paper does not say which SSIM it means; here it is that of Wang et
al. (2004). Both are computed on decoded uint8 RGB frames, so a range of 255 is stated, never guessed from the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hmcli.metrics.contract import PREDICTION, REFERENCE, Metric, check_pair

DATA_RANGE = 255  # uint8 frames
SSIM_SIGMA = 1.5  # pixels
SSIM_WINDOW = 11  # pixels: what scikit-image derives from sigma (3.5 sigma each side); smaller frames have no SSIM


def frame_psnr(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(T,) peak signal-to-noise ratio of each frame in dB over all pixels and channels; infinite where frames agree."""
    from skimage.metrics import peak_signal_noise_ratio

    check_pair(prediction, reference)
    with np.errstate(divide="ignore"):  # identical frames: infinite, as the formula says
        pairs = zip(reference, prediction, strict=True)
        return np.array(
            [peak_signal_noise_ratio(true, made, data_range=DATA_RANGE) for true, made in pairs], np.float64
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Similarity:
    """Structural similarity of T frames: `values_T` of the whole, and `map_THW` of every pixel's window.

    `map_THW` is float32, the mean of the three channels; at the frames' edges, which `values_T` leave out, windows see
    mirrored pixels.
    """

    values_T: np.ndarray
    map_THW: np.ndarray


def similarity(prediction: np.ndarray, reference: np.ndarray) -> Similarity:
    """Raises ValueError for frames smaller than a window."""
    from skimage.metrics import structural_similarity

    check_pair(prediction, reference)
    if min(prediction.shape[1:3]) < SSIM_WINDOW:
        height, width = prediction.shape[1:3]
        raise ValueError(f"SSIM needs frames of at least {SSIM_WINDOW} pixels a side, these are {height}x{width}")
    values_T = np.empty(len(reference), np.float64)
    map_THW = np.empty(reference.shape[:3], np.float32)
    for frame, (true, made) in enumerate(zip(reference, prediction, strict=True)):
        values_T[frame], channels_HW3 = structural_similarity(
            true,
            made,
            data_range=DATA_RANGE,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=SSIM_SIGMA,
            use_sample_covariance=False,
            full=True,
        )
        map_THW[frame] = channels_HW3.mean(axis=-1)
    return Similarity(values_T=values_T, map_THW=map_THW)


def frame_ssim(of: Similarity) -> np.ndarray:
    """(T,) structural similarity of each frame in [-1, 1]: mean over pixels and over the three colour channels."""
    return of.values_T


psnr = Metric(
    name="psnr",
    function=frame_psnr,
    needs=(PREDICTION, REFERENCE),
    unit="dB",
    range=(0, math.inf),
    definition="scikit-image peak_signal_noise_ratio of each uint8 RGB frame, data_range=255, one mean squared error "
    "over pixels and channels; a frame identical to its reference is infinite and makes its mean infinite",
    order=("truth", "erased", "another"),
)

ssim = Metric(
    name="ssim",
    function=frame_ssim,
    shared=similarity,
    needs=(PREDICTION, REFERENCE),
    unit="",
    range=(-1, 1),
    definition="scikit-image structural_similarity of each uint8 RGB frame as in Wang et al. 2004: "
    "gaussian_weights=True, sigma=1.5 (11x11 window), use_sample_covariance=False, K1=0.01, K2=0.03, data_range=255, "
    "channel_axis=-1 (mean of the three channels)",
    order=("truth", "erased", "another"),
)
