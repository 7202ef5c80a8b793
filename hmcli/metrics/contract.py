"""What a metric and a feature backbone promise: a number per frame, and everything that decides it named.

A metric is a `Metric` object under the registry kind `metric`; a backbone is a factory `(path, device) -> Backbone`
under the registry kind `backbone`. Both work on decoded video: uint8 arrays (T, H, W, 3), RGB in [0, 255].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

PREDICTION, REFERENCE, BACKBONE, BOXES = "prediction", "reference", "backbone", "boxes"


class NothingToJudge(Exception):
    """A clip holds nothing that the metric judges: no failure, and no value. The text is the reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectBoxes:
    """Where the S subjects of a clip are in its T target frames, and since when they are back.

    `amodal_TS4` are left, top, right, bottom in pixels of the compared frames, of all of a subject, as if nothing stood
    in front; they may reach beyond those frames, and are NaN where nothing of it is in the clip's picture.
    `returned_TS`: a certified stretch without the subject has ended by this frame.
    """

    amodal_TS4: np.ndarray
    returned_TS: np.ndarray


class Backbone(Protocol):
    """Frames -> features."""

    name: str  # the registry's name, part of every score's label
    about: dict[str, str]  # for the protocol card: what is computed, on which pixels, with which weights

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T, D) float32, not normalised."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number per frame of a clip, and how to read it.

    `needs` names the keyword arguments of `function`: `prediction` and `reference` are uint8 videos (T, H, W, 3) of one
    shape, `backbone` maps frames to features, `boxes` are the SubjectBoxes of the reference. `function` returns one
    float64 value per frame (a metric of frame pairs: of all but the first); where `partial`, it may mask those that it
    does not judge (numpy.ma), or raise NothingToJudge. `definition` goes to the protocol card. `published` names the
    backbone of the published numbers; with any other the scores are not comparable with them.
    """

    name: str
    function: Callable[..., np.ndarray]
    needs: tuple[str, ...]
    unit: str
    definition: str
    better: Literal["higher", "lower"] = "higher"
    published: str = ""
    partial: bool = False  # are there frames, or clips, in which it has nothing to judge?

    def __call__(self, **inputs: Any) -> np.ndarray:
        """Per-frame values. Raises ValueError when a clip cannot be judged (sizes differ, too few frames), and
        NothingToJudge when nothing in it is to be."""
        return self.function(**{name: inputs[name] for name in self.needs})

    def label(self, backbone: str = "") -> str:
        """How the score is called wherever it is shown; a metric of features carries its backbone in its name."""
        return f"{self.name} ({backbone})" if BACKBONE in self.needs else self.name


def check_video(name: str, video: np.ndarray) -> None:
    """Raise ValueError unless `video` is (T, H, W, 3) uint8 with at least one frame and one pixel."""
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise ValueError(f"{name} must be (T, H, W, 3) uint8 and not empty, got {video.shape} {video.dtype}")


def check_pair(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Raise ValueError, with the numbers, unless both are videos of one shape."""
    check_video("prediction", prediction)
    check_video("reference", reference)
    if len(prediction) != len(reference):
        raise ValueError(f"the prediction has {len(prediction)} frames, the reference {len(reference)}")
    if prediction.shape != reference.shape:
        (height, width), (other_height, other_width) = prediction.shape[1:3], reference.shape[1:3]
        raise ValueError(
            f"frames of the prediction are {height}x{width} pixels (height x width), of the reference "
            f"{other_height}x{other_width}"
        )
