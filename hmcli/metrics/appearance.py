"""How unlike a detection and a true subject look, by their colours: who is who where a frame shows several subjects.

A colour histogram knows subjects of these worlds apart as well as any network does (docs/metrics.md, Identity), costs
nothing, and is no backbone that a score is named after. Shape letters: T target frames, S subjects, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.metrics.backbones.colours import Colours
from hmcli.metrics.contract import Detection, Tracks
from hmcli.metrics.regions import covered


def unlike_colours(
    prediction: np.ndarray, detections: Sequence[Sequence[Detection]], reference: np.ndarray, tracks: Tracks
) -> list[np.ndarray]:
    """For each frame (D, S): 1 less the cosine of the square roots of both boxes' colour histograms.

    0 for the same colours, 1 for none in common; boxes are the detection's in the prediction, and of what the reference
    shows of the subject in the same frame. 1 too where it shows nothing. Computed where it shows several subjects; all
    other frames have zeros.
    """
    true_TS4 = np.stack([of.box_A4[tracks.target_T] for of in tracks.subjects], axis=1)
    found = []
    for frame, truth, seen, true_S4 in zip(prediction, reference, detections, true_TS4, strict=True):
        if len(seen) and np.isfinite(true_S4).all(axis=-1).sum() > 1:
            colours_D = np.stack([_colours(frame, one.box_4) for one in seen])
            found.append(1 - colours_D @ np.stack([_colours(truth, box) for box in true_S4]).T)
        else:
            found.append(np.zeros((len(seen), len(true_S4))))
    return found


def _colours(frame: np.ndarray, box_4: np.ndarray) -> np.ndarray:
    """(512,) float64 of unit length; zeros where the box covers no pixel of the frame."""
    if np.isfinite(box_4).all():
        crop = frame[covered(box_4, *frame.shape[:2])]
        if crop.size:
            return Colours()(crop[None])[0].astype(np.float64)
    return np.zeros(len(Colours()(frame[None])[0]))
