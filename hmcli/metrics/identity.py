"""Does a backbone know subjects again? How well its features tell "the same one" from "another one".

Crops of subjects before a hidden stretch are compared with crops after it. The area under the ROC curve (AUC) is the
chance that two crops of one subject are more alike than two crops of different ones: 1 is perfect, .5 a guess. A
consistency whose backbone stays below `RELIABLE` says little about identity. What was measured of this package's
backbones is in identity.json beside them, by `benchmarks/identity.py`.
Shape letters here: B crops before, A crops after, D features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.metrics.intervals import LEVEL

RELIABLE = 0.9
RESAMPLES = 500
RECORD = Path(__file__).parent / "backbones" / "identity.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Crops:
    """Features of crops, and whose they are: one subject of one clip, and what kind it is."""

    features: np.ndarray  # (number of crops, D)
    subjects: Sequence[str]
    families: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """How well subjects are known again, each number in [0, 1], higher is better."""

    auc: float
    nearest: float  # share of crops after whose nearest crop before is of the same subject


def identity(before: Crops, after: Crops) -> Identity:
    """From the cosines of every crop before with every crop after.

    Crops of one family in two clips are left out: they may well look the same. Raises ValueError where there is no
    pair of the same subject, or none of different ones.
    """
    every = (np.arange(len(crops.subjects)) for crops in (before, after))
    return _identity(alikeness(before, after), before, after, *every)


def _places(crops: Crops, drawn: Sequence[str]) -> np.ndarray:
    """Which crops are of the drawn subjects, as often as each is drawn."""
    by_subject: dict[str, list[int]] = {}
    for place, name in enumerate(crops.subjects):
        by_subject.setdefault(name, []).append(place)
    return np.array([place for name in drawn for place in by_subject.get(name, [])], int)


def alikeness(before: Crops, after: Crops) -> np.ndarray:
    """(B, A) cosines; of features that are all zero: 0."""
    unit = [
        of.features / np.maximum(np.linalg.norm(of.features, axis=1, keepdims=True), 1e-12) for of in (before, after)
    ]
    return unit[0].astype(np.float64) @ unit[1].astype(np.float64).T


def _identity(alike_BA: np.ndarray, before: Crops, after: Crops, rows: np.ndarray, columns: np.ndarray) -> Identity:
    alike_BA = alike_BA[rows][:, columns]
    same_BA = np.asarray(before.subjects)[rows][:, None] == np.asarray(after.subjects)[columns]
    other_BA = np.asarray(before.families)[rows][:, None] != np.asarray(after.families)[columns]
    if not same_BA.any() or not other_BA.any():
        raise ValueError("identity needs crops of one subject before and after, and crops of another family")
    nearest_A = np.where(same_BA | other_BA, alike_BA, -np.inf).argmax(axis=0)
    known = same_BA.any(axis=0)
    return Identity(
        auc=auc(alike_BA[same_BA], alike_BA[other_BA]),
        nearest=float(same_BA[nearest_A, np.arange(len(nearest_A))][known].mean()),
    )


def auc_interval(before: Crops, after: Crops, seed: int) -> tuple[float, float]:
    """Between which values the AUC lies for the middle 95 % of draws of the subjects with replacement."""
    alike_BA, subjects, rng = alikeness(before, after), sorted(set(before.subjects)), np.random.default_rng(seed)
    family, found = dict(zip(before.subjects, before.families, strict=True)), []
    for _ in range(RESAMPLES):
        drawn = [subjects[number] for number in rng.integers(len(subjects), size=len(subjects))]
        if len({family[name] for name in drawn}) > 1:
            places = (_places(crops, drawn) for crops in (before, after))
            found.append(_identity(alike_BA, before, after, *places).auc)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """The chance that a value of `same` is above one of `other`; equal values count half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([same, other]))
    return float((ranks[: len(same)].sum() - len(same) * (len(same) + 1) / 2) / (len(same) * len(other)))


# --- what was measured -----------------------------------------------------------------------------------------------


@cache
def record() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Backbone -> size of frames ("64x112") -> what was measured there."""
    found: Mapping[str, Mapping[str, Mapping[str, Any]]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def measured_auc(backbone: str, size: tuple[int, int]) -> float | None:
    """Identity AUC of a backbone on frames of this (height, width); None where it was not measured."""
    entry = record().get(backbone, {}).get("x".join(map(str, size)))
    return None if entry is None else float(entry["auc"])


def identity_note(backbone: str, size: tuple[int, int]) -> str:
    """What a column of this backbone says of it, such as `identity AUC .98` or `identity AUC .71, unreliable`."""
    found = measured_auc(backbone, size)
    if found is None:
        return "identity not measured"
    text = f"identity AUC {math.floor(found * 100) / 100:.2f}".replace("0.", ".")  # never rounded up to reliable
    return text if found >= RELIABLE else f"{text}, unreliable"
