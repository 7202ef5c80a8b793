"""How well a detector finds subjects whose true masks are known: overlap, recall by size, false alarms.

A true subject counts in a frame where at least COUNTED of it are seen. It is found by a detection whose mask
overlaps its own by SAME (intersection over union); each detection finds one subject at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from hmcli.metrics.contract import Detection

SAME = 0.5  # intersection over union from which on two masks are of one subject
COUNTED = 12  # pixels: of a subject that counts, at least
SIZES = (COUNTED, 64, 256)  # pixels: where small, middling and large subjects begin


@dataclass(kw_only=True)
class Tally:
    """What was counted over frames, and the shares that follow; NaN where there was nothing to count."""

    frames: int = 0
    empty: int = 0  # frames that show no subject
    alarmed: int = 0  # of these, frames in which one is found
    detections: int = 0
    subjects: np.ndarray = field(default_factory=lambda: np.zeros(len(SIZES), int))  # by size
    found: np.ndarray = field(default_factory=lambda: np.zeros(len(SIZES), int))
    both: int = 0  # pixels of subjects, and marked
    either: int = 0

    @property
    def iou(self) -> float:
        """Of all pixels of subjects, over all frames together."""
        return _share(self.both, self.either)

    @property
    def recall(self) -> float:
        return _share(self.found.sum(), self.subjects.sum())

    @property
    def precision(self) -> float:
        """Share of detections that find a subject, in frames that show one and others."""
        return _share(self.found.sum(), self.detections)

    @property
    def false_alarms(self) -> float:
        return _share(self.alarmed, self.empty)

    @property
    def by_size(self) -> list[float]:
        """Recall of small, middling and large subjects."""
        return [_share(found, of) for found, of in zip(self.found, self.subjects, strict=True)]

    def add(self, seen: Sequence[Detection], labels_HW: np.ndarray) -> None:
        """Count one frame: detections with masks, and which subject each pixel truly shows (0: none)."""
        masks = [one.mask_HW for one in seen if one.mask_HW is not None]
        if len(masks) != len(seen):
            raise ValueError("a detection without a mask cannot be held against masks")
        marked, shown = np.any(masks, axis=0) if masks else np.zeros(labels_HW.shape, bool), labels_HW > 0
        self.frames, self.detections = self.frames + 1, self.detections + len(seen)
        self.both, self.either = self.both + int((marked & shown).sum()), self.either + int((marked | shown).sum())
        if not shown.any():
            self.empty, self.alarmed = self.empty + 1, self.alarmed + bool(seen)
        truth = [labels_HW == number for number in np.unique(labels_HW[shown])]
        truth = [mask for mask in truth if mask.sum() >= COUNTED]
        overlap = np.array([_overlap(mask, true) for mask in masks for true in truth]).reshape(len(masks), len(truth))
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        same = set(columns[overlap[rows, columns] >= SAME].tolist())
        for number, mask in enumerate(truth):
            size = int(np.searchsorted(SIZES, mask.sum(), side="right")) - 1
            self.subjects[size] += 1
            self.found[size] += number in same


def tally(found: Iterable[Sequence[Detection]], labels_THW: np.ndarray, into: Tally | None = None) -> Tally:
    """Count the frames of a video, together with what was counted before."""
    into = into or Tally()
    for seen, labels in zip(found, labels_THW, strict=True):
        into.add(seen, labels)
    return into


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
