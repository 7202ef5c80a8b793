"""What a metric and a feature backbone promise: numbers per frame, stretch or clip, and what decides them named.

A metric is a `Metric` object under the registry kind `metric`; a backbone is a factory `(path, device) -> Backbone`
under the registry kind `backbone`. Both work on decoded video: uint8 arrays (T, H, W, 3), RGB in [0, 255].
Shape letters: N context frames, T target frames, A all frames of a clip, S subjects, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

PREDICTION, REFERENCE, CONTEXT, BACKBONE = "prediction", "reference", "context", "backbone"
LPIPS, FLOW, DETECTIONS, TRUE_DETECTIONS = "lpips", "flow", "detections", "true_detections"
UNSURE, OTHER_SAMPLES = "unsure", "other_samples"
BOXES, MASKS, TRACKS, CAMERAS, DEPTH = "boxes", "masks", "tracks", "cameras", "depth"
CONTEXT_MASKS, REGIONS = "context_masks", "regions"
Grain = Literal["frame", "stretch", "clip"]


class NothingToJudge(Exception):
    """A clip holds nothing that the metric judges: no failure, and no value. The text is the reason."""


# --- what metrics may need, beyond videos ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectBoxes:
    """Where the S subjects of a clip are in its T target frames, and since when they are back.

    `amodal_TS4` are left, top, right, bottom in pixels of the compared frames, of all of a subject, as if nothing stood
    in front; they may reach beyond those frames, and are NaN where nothing of it is in the clip's picture.
    `returned_TS`: a certified stretch without the subject has ended by this frame.
    """

    amodal_TS4: np.ndarray
    returned_TS: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of a clip without one of its subjects."""

    subject: int  # index among the clip's subjects
    name: str
    first: int  # frames of the clip, over context and target together
    last: int
    back: int | None  # the first target frame after it; None: after the target, or before it
    reason: str  # left the frame, occluded
    certified: bool
    absent: bool  # it does not come back, and is surely not where the camera looks for it again
    hidden_seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectTrack:
    """One subject over the A frames of context and target together; metres in the clip's world."""

    name: str
    number: int  # its value in masks
    family: str
    body_length: float  # metres
    position_A3: np.ndarray  # middle of its feet
    visible_A: np.ndarray  # share of its pixels inside the picture that nothing covers
    box_A4: np.ndarray  # of its visible part: left, top, right, bottom in pixels of the compared frames; NaN: none
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks:
    """Where a clip's subjects truly are."""

    subjects: tuple[SubjectTrack, ...]
    context_N: np.ndarray  # which of a track's frames the context frames are
    target_T: np.ndarray  # which of a track's frames the compared target frames are
    fps: float

    @property
    def certified(self) -> list[Stretch]:
        """Every certified stretch of every subject."""
        return [stretch for of in self.subjects for stretch in of.stretches if stretch.certified]

    @property
    def watched(self) -> list[Stretch]:
        """Those, and every stretch after which it is certain that its subject is elsewhere (split absent)."""
        return [stretch for of in self.subjects for stretch in of.stretches if stretch.certified or stretch.absent]

    def hidden_T(self, stretch: Stretch) -> np.ndarray:  # noqa: N802
        """(T,) bool: the compared target frames that belong to a stretch."""
        return (self.target_T >= stretch.first) & (self.target_T <= stretch.last)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipCameras:
    """world_from_camera of the N context and T target frames, in metres; the lens in pixels of the compared frames."""

    context_N44: np.ndarray
    target_T44: np.ndarray
    intrinsics_4: np.ndarray  # fx, fy, cx, cy


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipDepth:
    """Metres along the cameras' forward axes, infinite for the sky, at the size of the compared frames."""

    context_NHW: np.ndarray
    target_THW: np.ndarray


# --- what sees subjects in a video -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """A subject that a detector sees in one frame; who it is, a detector does not say."""

    box_4: np.ndarray  # left, top, right, bottom in pixels of the frame: of what is visible of it
    score: float  # how sure the detector is, 0 to 1
    mask_HW: np.ndarray | None = None  # bool: its pixels; None from a detector that knows boxes alone


class Detector(Protocol):
    """Frames -> the subjects in each. The registry kind `detector` holds factories `(path, device) -> Detector`.

    It may have a method `unsure`, frames -> what it sees and takes for nobody; one without it is always sure.
    """

    name: str  # the registry's name, part of every score's label
    about: dict[str, str]  # for the protocol card: what is found, by which network, at which thresholds

    def __call__(self, frames: np.ndarray) -> list[list[Detection]]:
        """(T, H, W, 3) uint8 -> T lists, the surest first."""


# --- what a metric is ------------------------------------------------------------------------------------------------


class Backbone(Protocol):
    """Frames -> features."""

    name: str  # the registry's name, part of every score's label
    about: dict[str, str]  # for the protocol card: what is computed, on which pixels, with which weights

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (T, D) float32, not normalised."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is judged in a clip, and how to read it.

    `needs` names the keyword arguments of `function`: `prediction`, `reference` and `context` are uint8 videos (T, H,
    W, 3), the first two of one shape, `backbone` maps frames to features, `flow` a video to its flow
    (hmcli.metrics.motion), `lpips` is LPIPS's loaded network (hmcli.metrics.lpips), `detections` are T lists of
    `Detection`, the prediction's by the run's detector, `true_detections` the reference's by the same, `unsure` maps a
    video to what the detector sees in it and takes for nobody, `other_samples` are pairs of a prediction and its
    detections, of the clip's further samples (such a metric is computed once, with the first one as the prediction),
    `masks` are (T, H, W) uint8 numbers of the reference's subjects (0: none), `context_masks` the context's, `regions`
    maps frames and a box of each to features, `boxes`, `tracks`, `cameras` and `depth` the classes above. Two metrics
    of one function and the same needs, which read its result differently, share it.

    `per` says what one value is of. `frame`: `function` returns one float64 value per frame (a metric of frame pairs:
    of all but the first). `stretch`: a mapping of those of the clip's stretches that it judges to their values. `clip`:
    the numbers named in `parts` (one number, where it names none). Where `partial`, it may mask frames that it does not
    judge (numpy.ma), or raise NothingToJudge. `pooled` makes the number of a set from the (n, k) parts of its n clips,
    such as a ratio of sums; without it means are formed. `definition` goes to the protocol card. `published` names the
    backbone of the published numbers; with any other the scores are not comparable with them. `finder` names what finds
    the subjects whose features are compared, such as truth. `range` holds every value, of a clip and of a set.
    `order` names rows of `hm bench rows`, the best first, which it has to put in this order over a set of clips: a test
    holds it to that. `shared` is computed once for all metrics that name the same one: it takes those of the `needs`
    that `shares` names (all, where it names none), and `function` what it returns and the other needs. Where these are
    of the reference alone it returns an array, which is kept for other evaluations.
    """

    name: str
    function: Callable[..., Any]
    needs: tuple[str, ...]
    unit: str
    definition: str
    better: Literal["higher", "lower", "neither"] = "higher"  # neither: read against the truth's own
    published: str = ""
    finder: str = ""
    partial: bool = False  # are there frames, or clips, in which it has nothing to judge?
    per: Grain = "frame"
    parts: tuple[str, ...] = ()
    pooled: Callable[[np.ndarray], float] | None = None
    range: tuple[float, float] = (-math.inf, math.inf)
    order: tuple[str, ...] = ()
    shared: Callable[..., Any] | None = None
    shares: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.parts or self.pooled) and self.per != "clip":
            raise ValueError(f"{self.name}: parts of a clip, and what is pooled from them, need per='clip'")
        for beside in (TRUE_DETECTIONS, UNSURE, OTHER_SAMPLES):
            if beside in self.needs and DETECTIONS not in self.needs:
                raise ValueError(f"{self.name}: {beside} is read beside {DETECTIONS}")
        if set(self.shares) - set(self.needs) or (self.shares and self.shared is None):
            raise ValueError(f"{self.name}: shares names needs of a metric that has something shared")

    def __call__(self, **inputs: Any) -> Any:
        """Values, as `per` says. Raises ValueError when a clip cannot be judged (sizes differ, too few frames), and
        NothingToJudge when nothing in it is to be."""
        given = {name: inputs[name] for name in self.needs}
        if self.shared is None:
            return self.function(**given)
        made = self.shared(**{name: given.pop(name) for name in self.shares or self.needs})
        return self.function(made, **given)

    def label(self, backbone: str = "", known: str = "", detector: str = "") -> str:
        """How the score is called wherever it is shown; a metric of features carries its backbone in its name, one of
        detections its detector.

        With it go what finds the subjects, where only their features are compared, and what is `known` of the backbone,
        such as how well it tells subjects apart.
        """
        if not {BACKBONE, LPIPS, DETECTIONS} & {*self.needs}:
            return self.name
        return f"{self.name} ({', '.join(filter(None, (backbone, detector or self.finder, known)))})"


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
