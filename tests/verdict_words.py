"""Verdicts for tests of what shows them: the word depends on when a stretch begins, and nothing is looked at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hmcli import registry
from hmcli.metrics.contract import PREDICTION, TRACKS, Metric, Stretch, Tracks


def word(first: int) -> str:
    """The verdict on a stretch that begins in this frame of its clip."""
    return ("right", "vanished")[first % 2]


def _share(name: str) -> Callable[..., dict[Stretch, float]]:
    def share(prediction: np.ndarray, tracks: Tracks) -> dict[Stretch, float]:
        return {stretch: float(word(stretch.first) == name) for stretch in tracks.certified}

    return share


def _metric(name: str) -> Metric:
    return Metric(
        name=f"verdict-{name}", function=_share(name), needs=(PREDICTION, TRACKS), unit="share", per="stretch",
        definition="by the first frame", better="higher" if name == "right" else "lower",
    )  # fmt: skip


RIGHT, VANISHED = _metric("right"), _metric("vanished")
NAMES = (RIGHT.name, VANISHED.name)


def make_known(patch: pytest.MonkeyPatch) -> None:
    """Have these take the place of the verdicts of this package."""
    for name in NAMES:
        patch.setitem(registry.BUILT_IN["metric"], name, f"verdict_words:{name.removeprefix('verdict-').upper()}")
