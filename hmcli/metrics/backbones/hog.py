"""Histograms of oriented gradients: the backbone without weights, no notion of a subject."""

from __future__ import annotations

import numpy as np

from hmcli.metrics.backbones.networks import versions
from hmcli.metrics.backbones.paths import refuse_path
from hmcli.metrics.contract import check_video

HOG_SIDE = 128  # pixels: every frame is resized to this square


HOG = {"orientations": 9, "pixels_per_cell": (16, 16), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}


class Hog:
    """Histograms of oriented gradients of the whole frame by scikit-image; weights: none."""

    name = "hog"

    def __init__(self) -> None:
        settings = ", ".join(f"{key}={value}" for key, value in HOG.items())
        self.about = {
            "features": f"scikit-image hog, {settings}, strongest of the three channels' gradients",
            "resize": f"whole frame to {HOG_SIDE}x{HOG_SIDE} pixels, aspect ratio given up, PIL bilinear (antialiased)",
            "weights": "none",
            "versions": versions("scikit-image", "pillow"),
            "comparable": "no: not a learned backbone; scores are not comparable with VBench's or the paper's",
        }

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        from PIL import Image
        from skimage.feature import hog as histograms

        check_video("frames", frames)
        side = (HOG_SIDE, HOG_SIDE)
        small = (np.asarray(Image.fromarray(frame).resize(side, Image.Resampling.BILINEAR)) for frame in frames)
        return np.stack([histograms(frame, channel_axis=-1, **HOG) for frame in small]).astype(np.float32)


def hog(path: str, device: str) -> Hog:
    """It has no weights, so a path is refused; it runs on the CPU whatever the device."""
    refuse_path(
        path,
        "the backbone hog has no weights to load",
        fix="leave eval.backbone_path empty, or set eval.backbone to dino or clip",
    )
    return Hog()
