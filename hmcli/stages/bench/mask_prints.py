"""Prints of a clip's instance masks: how much of the picture each subject covers, and where, coarsely.

Like those of pictures (hmcli/stages/bench/prints.py): shares of every frame, and of the parts of some frames, so that
another size, where edges fall otherwise, shows the same. Shape letters: T frames of context and target, S subjects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.recipe.sections import DataConfig
from hmcli.stages.data.loading import context_labels, target_labels
from hmcli.stages.data.opening import ClipSource, read_cameras

ROLES = ("context_instances", "target_instances")


def instance_masks(source: ClipSource) -> np.ndarray | None:
    """(T, H, W) uint8 numbers of the subjects, 0 for none; None where the clip has no instance masks of both parts."""
    if not all(role in source.files for role in ROLES):
        return None
    info, cameras = source.context_info, read_cameras(source)
    own = DataConfig(size=(info.height, info.width))
    parts = [labels(source, cameras, own) for labels in (context_labels, target_labels)]
    return np.concatenate([part for part in parts if part is not None])


def shares_of_frames(masks_THW: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """(T, S) uint8: roots of the shares of each frame that show each subject, so that small ones count."""
    shares = [(masks_THW == number).mean(axis=(1, 2)) for number in numbers]
    return np.rint(255 * np.sqrt(np.stack(shares, axis=-1))).astype(np.uint8)


def of_each(masks_THW: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
    """(T, H, W, S) uint8: 255 where a pixel shows the subject."""
    return np.stack([np.where(masks_THW == number, 255, 0) for number in numbers], axis=-1).astype(np.uint8)
