"""How an inspection is laid out (docs/inspecting.md): shared by its writer, memory.py, and its readers.

An item is a clip's folder; beside the folders lie the means over all clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

KIND = "inspection"
FORMAT = 1  # of numbers.json and readings.npz
CLIPS = "clips"  # folder of the items
NUMBERS = "numbers.json"  # of a clip: ClipNumbers; of all: Numbers
TABLE = "numbers.md"
LAYERS = "layers.csv"  # of a clip: one LayerRow a line
READINGS = "readings.npz"  # of a clip: arrays of Readings
TIMELINE, FRAMES, CHARTS = "timeline.png", "frames.png", "numbers.png"
Measure = Literal["recall", "precision", "mass"]
MEASURES: tuple[Measure, ...] = ("recall", "precision", "mass")


def affinity_picture_name(step: int) -> str:
    """The picture of one denoising step."""
    return f"affinity-step-{step:03d}.png"


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """What one block chose in one denoising step, or would have been chosen by others; NaN where not known."""

    branch: str  # of the caption, or of what guidance leads away from
    step: int
    layer: int
    choice: str  # who chose
    recall: float
    precision: float
    mass: float
    query_frames: int
    counted_frames: int  # query frames in which a subject is back

    def measure(self, name: Measure) -> float:
        return float(getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Every reading of a clip as arrays: R readings in the order of running, F query frames, K choices, M slots."""

    branch: np.ndarray  # (R,) text
    step: np.ndarray  # (R,)
    layer: np.ndarray  # (R,)
    slots: np.ndarray  # (R, F, K)
    span: np.ndarray  # (M, 2) first and last latent frame
    inside_window: np.ndarray  # (F, M) bool
    query_frame: np.ndarray  # (F,)
    scores: np.ndarray | None  # (R, F, M) of policies that have scores
    masses: Mapping[str, np.ndarray]  # by chooser: (R, F) share of attention that goes to memory
    relevant: np.ndarray | None  # (F, M) bool: shows a hidden subject; where that is known

    def arrays(self) -> dict[str, np.ndarray]:
        """By their names in the file."""
        always = ("branch", "step", "layer", "slots", "span", "inside_window", "query_frame")
        found: dict[str, np.ndarray] = {name: getattr(self, name) for name in always}
        if self.scores is not None:
            found["scores"] = self.scores
        found |= {f"mass_{who}": mass for who, mass in self.masses.items()}
        return found if self.relevant is None else found | {"relevant": self.relevant}


@dataclass(frozen=True, kw_only=True)
class ClipNumbers:
    """Means of a clip over layers and steps, by who chose; null where not known."""

    format: int
    clip: str
    context_frames: int
    target_frames: int
    slots: int
    top_k: int
    query_frames: int
    counted_frames: int
    subjects_known: bool
    recall: Mapping[str, float | None]
    precision: Mapping[str, float | None]
    mass: Mapping[str, float | None]

    def measure(self, name: Measure) -> Mapping[str, float | None]:
        found: Mapping[str, float | None] = getattr(self, name)
        return found


@dataclass(frozen=True, kw_only=True)
class Mean:
    """Over the clips that have a value, and how many those are."""

    mean: float | None
    clips: int


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """numbers.json of the artifact; `mean` by measure and who chose."""

    format: int
    clips: Mapping[str, ClipNumbers]
    mean: Mapping[Measure, Mapping[str, Mean]]
