"""How an evaluation is laid out (docs/artifacts.md): shared by its writer, this room, and its reader, the benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hmcli.recipe.sections import DataConfig
from hmcli.stages.sampling.layout import Network
from hmcli.stages.shared.typed import LeftOut

KIND = "evaluation"
FORMAT = 1  # of scores.json and frames/*.json
SCORES, TABLE, CARD = "scores.json", "per_clip.csv", "protocol.md"
STRETCHES = "per_stretch.csv"  # where a metric has a value for each stretch
FRAMES = "frames"  # folder of the items: Values of one metric of one clip
PLACES = "places"  # folder of more items: Places of one clip, where metrics look at them
OK, KEPT, FAILED, NOT_JUDGED = "ok", "kept", "failed", "not judged"  # what the table says of a value
COLUMNS = ("clip", "metric", "value", "frames", "unit", "status", "reason")  # of the table
STRETCH_COLUMNS = (
    "clip", "metric", "subject", "first", "last", "reason", "absent", "hidden_seconds", "family", "height", "value",
    "unit",
)  # fmt: skip
MISSED = "missed.csv"  # where clips without a video have subjects
MISSED_COLUMNS = ("clip", "subject", "family", "returns", "reason")
SLICES = "slices.csv"  # where a metric has a value, and the clips or stretches it is of are known to differ
SLICE_COLUMNS = ("metric", "slice", "class", "value", "unit", "values", "clips")
Number = float | Literal["inf", "-inf"]  # JSON has no infinity
Better = Literal["higher", "lower", "neither"]
Grain = Literal["frame", "stretch", "clip"]  # what one value is of
Average = Literal["frames", "videos"]  # over what a mean is formed: all frames, or the means of videos


def number(value: float) -> Number:
    """The value as JSON takes it."""
    return float(value) if math.isfinite(value) else "inf" if value > 0 else "-inf"


@dataclass(frozen=True, kw_only=True)
class NetworkKey:
    """A backbone or detector as the protocol card tells it: what it makes of which pixels, with which weights."""

    name: str
    about: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ReferenceKey:
    """What of a reference's clip is read: hashes of its files by role or name, and how they become frames."""

    files: dict[str, str]
    shapes: tuple[tuple[int, int, int], ...]  # frames, height, width of its videos
    fps: float
    data: DataConfig


@dataclass(frozen=True, kw_only=True)
class ValuesKey:
    """All that the values of one metric of one clip are made from."""

    format: int
    metric: str
    definition: str
    unit: str
    versions: dict[str, str]  # of the packages that compute it
    video: str  # hash of the generated video
    samples: LeftOut[tuple[str, ...]] = None  # of the further ones, where a clip has several samples
    mean_of: LeftOut[int] = None  # their mean picture is judged
    reference: ReferenceKey | None
    backbone: NetworkKey | None
    detector: LeftOut[NetworkKey] = None  # of a metric of detections


@dataclass(frozen=True, kw_only=True)
class StretchRow:
    """The stretch that a value is of."""

    subject: str
    first: int  # frames of the clip, over context and target together
    last: int
    reason: str
    absent: bool
    hidden_seconds: float
    family: LeftOut[str] = None
    height: LeftOut[float] = None  # of the box of what is seen of it, at most, in the picture's, once it is back


@dataclass(frozen=True, kw_only=True)
class Values:
    """A metric of one clip: a value for each of its last frames, null for one that is not judged.

    A metric of stretches has one for each in `stretches`, a metric of clips its parts; their `first_frame` is 0.
    `not_judged` says why nothing of the clip is.
    """

    format: int
    clip: str
    metric: str  # with its backbone
    unit: str
    first_frame: int
    values: tuple[Number | None, ...]
    stretches: LeftOut[tuple[StretchRow, ...]] = None
    not_judged: LeftOut[str] = None

    @property
    def judged(self) -> list[float]:
        """The values of judged frames."""
        return [float(value) for value in self.values if value is not None]


Four = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class PlacedSubject:
    """What was taken for a subject in each target frame of a prediction, null where nobody was."""

    subject: str
    boxes: tuple[Four | None, ...]  # left, top, right, bottom in pixels of the compared frames
    places: tuple[tuple[float, float] | None, ...]  # metres on the ground (hmcli.metrics.places)
    off: tuple[float | None, ...]  # body lengths from its true place in the picture


@dataclass(frozen=True, kw_only=True)
class Places:
    """Who was seen where in a clip's first sample; `others` are, by frame, the boxes that are nobody's."""

    format: int
    clip: str
    detector: str
    subjects: tuple[PlacedSubject, ...]
    others: tuple[tuple[Four, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that is in no mean, and why."""

    clip: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Score:
    """A metric over all clips. `mean` is null where no clip could be judged.

    A clip in which there is nothing to judge has not failed, and is in no mean: it is counted apart.
    """

    metric: str  # without its backbone
    mean: Number | None
    unit: str
    better: Better
    n: int  # clips
    frames: int  # values: of frames, of stretches or of clips, as `per` says
    failed: int
    failures: tuple[Failure, ...]
    not_judged: int = 0
    unjudged: tuple[Failure, ...] = ()
    per: Grain = "frame"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """scores.json; `metrics` by label."""

    format: int
    average: Average
    clips: int
    metrics: Mapping[str, Score]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was scored, for those who only have the scores: model, sampler, clips, sizes, time."""

    inputs: dict[str, str]  # of the generation
    recipe: dict[str, Any]
    seed: int
    source: str  # folder of the clips; empty: not known
    source_fingerprint: str
    shapes: tuple[tuple[int, int, int], ...]  # frames, height, width of the videos
    seconds_per_clip: float | None  # median; null without videos
    model_free: str = ""  # which row without a model it is; empty: a model made it
    path: str = ""  # where the generation lay, as an absolute path; empty: not said
    network: LeftOut[Network] = None  # left out: a model-free row, or the generation does not say
    peak_bytes: LeftOut[int] = None  # of memory while it was made, at most; likewise
    devices: LeftOut[tuple[str, ...]] = None  # that videos were made on


@dataclass(frozen=True, kw_only=True)
class EvaluationAttributes:
    """What the manifest of an evaluation says besides."""

    protocol: dict[str, dict[str, str]]  # sections of the protocol card
    generation: Judged
    reference: str = ""  # folder of the true targets, as an absolute path; empty: none was read, or not said
