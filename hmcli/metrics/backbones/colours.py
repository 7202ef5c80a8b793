"""A colour histogram: the control that any learned backbone has to beat. It knows no shape at all."""

from __future__ import annotations

import numpy as np

from hmcli.metrics.backbones.networks import versions
from hmcli.metrics.backbones.paths import refuse_path
from hmcli.metrics.contract import check_video

LEVELS = 8  # of each channel


class Colours:
    """Square roots of the shares of a frame's pixels in 8 x 8 x 8 boxes of RGB; weights: none."""

    name = "colours"

    def __init__(self) -> None:
        self.about = {
            "features": f"square root of the joint histogram of RGB, {LEVELS} equal levels a channel, over all pixels",
            "resize": "none",
            "weights": "none",
            "versions": versions("numpy"),
            "comparable": "no: a control; scores are not comparable with VBench's or the paper's",
        }

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        check_video("frames", frames)
        level = frames.astype(np.int64) * LEVELS // 256
        box = (level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]
        counts = np.stack([np.bincount(of.ravel(), minlength=LEVELS**3) for of in box])
        return np.sqrt(counts / box[0].size).astype(np.float32)


def colours(path: str, device: str) -> Colours:
    """It has no weights, so a path is refused; it runs on the CPU whatever the device."""
    refuse_path(path, "the backbone colours has no weights to load", fix="leave eval.backbone_path empty")
    return Colours()
