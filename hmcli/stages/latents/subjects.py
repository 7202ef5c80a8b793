"""Where subjects are in latents: masks, boxes and visibility at latent size."""

from __future__ import annotations

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.stages.latents.layout import BOXES, MASKS, VISIBILITY

UNDEFINED = ("boxes",)  # arrays of a latents artifact in which NaN means something: not seen


def latent_masks(mask: np.ndarray, stride: int) -> np.ndarray:
    """(T, H, W) labels -> (F, H/stride, W/stride): a latent pixel shows the highest label in what it covers."""
    frames, rows, columns = mask.shape
    cells = mask.astype(np.uint8).reshape(frames, rows // stride, stride, columns // stride, stride)
    small = cells.max(axis=(2, 4))
    later = small[1:].reshape(-1, TIME_STRIDE, *small.shape[1:]).max(axis=1)
    return np.concatenate([small[:1], later])


def subject_arrays(masks: np.ndarray, full: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Masks (F, h, w) with boxes (F, S, 4) and visibility (F, S) of every subject label that occurs in `full`."""
    subjects = max(1, max(int(mask.max()) for mask in full))
    boxes = np.full((len(masks), subjects, 4), np.nan, np.float32)
    share = np.zeros((len(masks), subjects), np.float32)
    for subject in range(subjects):
        share[:, subject] = np.concatenate([covered(mask == subject + 1) for mask in full])
        for frame, mask in enumerate(masks):
            y, x = np.nonzero(mask == subject + 1)
            if len(y):
                boxes[frame, subject] = x.min(), y.min(), x.max() + 1, y.max() + 1
    return {MASKS: masks, BOXES: boxes, VISIBILITY: share}


def covered(shown: np.ndarray) -> np.ndarray:
    """Largest share of a frame that is covered, over the video frames of each latent frame: (T, H, W) -> (F,)."""
    share = shown.mean(axis=(1, 2))
    return np.concatenate([share[:1], share[1:].reshape(-1, TIME_STRIDE).max(axis=1)])
