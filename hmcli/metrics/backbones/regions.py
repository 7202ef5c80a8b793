"""CLIP ViT-B/16 of a region: features of what a box covers, as the published DSC script takes them.

The network sees the whole frame, resized and cropped to its middle square; its patch tokens are then averaged over the
box by RoI-align. Boxes are scaled as if that square were the whole frame. It is not, unless the frame is a square: in a
wide frame a box lies beside its subject, the further from the middle the more. That is the script's own shift, kept
here and nowhere else. Shape letters: n frames, g cells a side, D features.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.errors import DataError
from hmcli.metrics.backbones.networks import (
    CLIP_MEAN,
    CLIP_STD,
    input_side,
    load_network,
    normalised,
    versions,
    weights_folder,
    weights_hash,
)
from hmcli.metrics.contract import check_video

NAME = "clip-regions"
BINS = 7  # of RoI-align, each side
AT_ONCE = 8  # frames through the network at once


class ClipRegions:
    """(n, H, W, 3) uint8 frames, and a box of each in pixels of the frame -> (n, D) float32 features."""

    name = NAME

    def __init__(self, model: Any, side: int, device: str, about: dict[str, str]) -> None:
        self.about = about
        self._model, self._side, self._device = model, side, device

    def __call__(self, frames: np.ndarray, box_n4: np.ndarray) -> np.ndarray:
        check_video("frames", frames)
        parts = (slice(start, start + AT_ONCE) for start in range(0, len(frames), AT_ONCE))
        return np.concatenate([self._regions(frames[part], box_n4[part]) for part in parts])

    def _regions(self, frames: np.ndarray, box_n4: np.ndarray) -> np.ndarray:
        tokens_nggD, (height, width) = self._tokens(frames), frames.shape[1:3]
        cells = tokens_nggD.shape[1]
        scaled_n4 = box_n4 * cells / np.array([width, height, width, height])
        across = np.stack([line_weights(box[0], box[2], cells) for box in scaled_n4])
        down = np.stack([line_weights(box[1], box[3], cells) for box in scaled_n4])
        return np.einsum("ny,nx,nyxd->nd", down, across, tokens_nggD).astype(np.float32)

    def _tokens(self, frames: np.ndarray) -> np.ndarray:
        """(n, g, g, D) patch tokens, as the network's last block leaves them."""
        import torch

        pixels = tensor_of(np.stack([middle_square(frame, self._side) for frame in frames]))
        with torch.inference_mode():
            batch = normalised(pixels.to(self._device).permute(0, 3, 1, 2).float(), CLIP_MEAN, CLIP_STD)
            tokens = self._model(pixel_values=batch).last_hidden_state[:, 1:].float().cpu().numpy()
        cells = math.isqrt(tokens.shape[1])
        return np.asarray(tokens.reshape(len(tokens), cells, cells, -1), np.float64)


def middle_square(frame: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8 as CLIP's image processor makes it: shorter side resized (PIL, bicubic), middle cut out."""
    from PIL import Image

    height, width = frame.shape[:2]
    short = min(height, width)
    high, wide = (side if length == short else int(side * length / short) for length in (height, width))
    resized = np.asarray(Image.fromarray(frame).resize((wide, high), Image.Resampling.BICUBIC))
    top, left = (high - side) // 2, (wide - side) // 2
    return resized[top : top + side, left : left + side]


def line_weights(start: float, end: float, cells: int) -> np.ndarray:
    """(cells,) by how much each cell of a line counts in the mean of RoI-align's bins over a box's side.

    As torchvision computes it by default (aligned=False, sampling_ratio=-1): the side is at least one cell long, every
    bin has ceil(length / BINS) places, and what is between two cells' places is interpolated.
    """
    length = max(end - start, 1.0)
    places = BINS * math.ceil(length / BINS)
    found = np.zeros(cells)
    for at in start + (np.arange(places) + 0.5) * length / places:
        if not -1 <= at <= cells:
            continue  # nothing is there
        at = min(max(at, 0.0), cells - 1.0)
        low = min(int(at), cells - 1)
        found[low] += 1 - (at - low)
        found[min(low + 1, cells - 1)] += at - low
    return found / places


def clip_regions(path: str, device: str) -> ClipRegions:
    """Raises MissingPartError without weights, DataError for others."""
    from transformers import CLIPVisionModel

    what = "CLIP ViT-B/16 as transformers saves a CLIPModel (openai/clip-vit-base-patch16)"
    folder = weights_folder(NAME, path, what, key="eval.dsc_path")
    model = load_network(CLIPVisionModel, folder, device)
    side, patch = input_side(NAME, folder, model.config.image_size), model.config.patch_size
    if side % patch:
        raise DataError("the weights' patches do not fill their input", where={"file": folder / "config.json"})
    about = {
        "features": f"patch tokens of the last block (patches of {patch}, width {model.config.hidden_size}), averaged "
        f"over the box by RoI-align, {BINS}x{BINS} bins, torchvision's defaults",
        "resize": f"shorter side to {side}, PIL bicubic (antialiased), centre crop; boxes scaled as if the crop were "
        "the whole frame: the published script's shift",
        "weights": f"sha256:{weights_hash(folder)}",
        "precision": "float32",
        "versions": versions("torch", "transformers", "pillow"),
        "comparable": "with published DSC where the weights are CLIP ViT-B/16, but for who finds subjects in the "
        "prediction (the script's tracker is not defined)",
    }
    return ClipRegions(model, side, device, about)
