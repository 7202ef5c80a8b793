"""Whom a subject may be taken for: pictures of other subjects of HM-World, on grey.

They ship with the package (distractors.npz), so that rank-1 asks the same question of every clip and every model.
`benchmarks/distractors.py` drew them. Shape letters: m pictures, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np

PICTURES = Path(__file__).parent / "backbones" / "distractors.npz"
PICTURES_ARE = "sha256:b24448ae35618f0c"  # the file: part of a definition, so that other pictures are another number


@cache
def pictures() -> Mapping[str, np.ndarray]:
    """(side, side, 3) uint8 by name: `family.number`."""
    with np.load(PICTURES) as file:
        return {name: file[name] for name in sorted(file.files)}


def features_of_others(backbone: Callable[[np.ndarray], np.ndarray], families: Collection[str]) -> np.ndarray:
    """(m, D) features of the pictures of other families than these: two of one family may well look alike."""
    found = [backbone(picture[None]) for name, picture in pictures().items() if name.partition(".")[0] not in families]
    return np.concatenate(found).astype(np.float64)
