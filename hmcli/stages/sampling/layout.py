"""How a generation artifact is laid out (docs/artifacts.md): shared by its writers and its reader.

`hm generate` writes videos of a model, `hm bench rows` those that need none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from hmcli.recipe.sections import DataConfig
from hmcli.stages.shared.typed import LeftOut
from hmcli.store.files import file_name

KIND = "generation"
LIST = "generations.jsonl"  # one Row a line
SHEET = "contact_sheet.png"
STRIPS = "contact_sheet.npz"  # of a part: its rows of the sheet
VIDEOS = "videos"
CHUNKS = ".chunks"  # ending of the folder beside the artifact, for videos that are made in chunks
SUFFIX = ".mp4"
Count = Annotated[int, Field(ge=1)]
Uses = Literal["context", "context+depth", "target"]  # what of a clip a model-free row reads
READS: dict[Uses, str] = {
    "context": "the context video, all cameras, the intrinsics: what a model is given",
    "context+depth": "more than a model is given: the context's true depth and masks of its subjects",
    "target": "what no model may see: the true target",
}


def video_path(item: str) -> str:
    """Where a video lies in the artifact."""
    return f"{VIDEOS}/{file_name(item)}{SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class VideoKey:
    """All that a clip's video and row are made from. The memory of its own context gives what its latents give."""

    latents: str  # hash of the clip's latents, cameras and subjects
    caption: str
    text: str  # hash of the caption's embedding
    negative: str  # hash of the embedding that guidance leads away from; empty: without guidance
    fps: float
    model: str  # fingerprint
    codec: str  # hash of the weights that decode
    sample: dict[str, Any]  # how it is sampled
    number: LeftOut[int] = None  # of the sample; None: the first one
    geometry: dict[str, Any]  # what cameras see, for policies that compare views
    seed: int
    past: tuple[str, ...]  # hashes of the clip's history before its context
    chance: int | None  # seed of what a policy that chooses by chance reads within the context
    exported: LeftOut[str] = None  # fingerprint of the exported model that ran; None: torch did


@dataclass(frozen=True, kw_only=True)
class Again:
    """What makes the same pixels again (`hm generate --replay`), beside the clip and its sample."""

    made_of: VideoKey
    pixels: str  # hash of the frames before they were compressed
    recipe: dict[str, Any]  # what of it was read
    model: str  # absolute paths
    latents: str
    memory: tuple[str, ...] = ()  # artifacts of --memory, in their order
    exported: LeftOut[str] = None  # the folder of --exported
    device: str
    versions: dict[str, str]  # of what computes it: others may round otherwise
    threads: LeftOut[int] = None  # of a CPU: sums are rounded as they are shared among them; older rows do not say
    beside: LeftOut[tuple[tuple[str, int], ...]] = None  # all clips and samples of its batch; None: it was made alone


@dataclass(frozen=True, kw_only=True)
class Row:
    """A generated video. What only a model has (seed to memory) is None in a model-free row."""

    id: str  # of the clip
    video: str  # path in the artifact
    caption: str
    seed: int | None  # of the clip's noise
    frames: Count
    fps: float
    height: Count
    width: Count
    context_frames: int  # video frames of the context
    steps: int | None
    guidance: float | None
    shift: float | None
    negative: str | None
    dtype: str | None
    memory: str | None  # on, or off: whether it was read
    camera: list[list[list[float]]]  # world_from_camera of target latent frames, metres; empty: only rows were known
    seconds: float  # that it took
    peak_bytes: LeftOut[int] = None  # memory at most until it was made: on CUDA torch's there, else the process's
    made: str = ""  # how, where a model-free row has more than one way
    sample: Count = 1  # which of the clip's samples
    again: LeftOut[Again] = None  # None: no model made it, or an earlier version of hm


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """How a plain folder of other people's videos is read (hmcli.stages.sampling.foreign)."""

    videos: Literal["target", "joined"]  # what they hold: the target, or the context before it
    resize: Literal["refuse", "crop", "stretch"]
    size: tuple[int, int]  # height, width at which they are compared
    extra: tuple[str, ...] = ()  # videos of no true clip


@dataclass(frozen=True, kw_only=True)
class ModelFree:
    """Which model-free row a generation is, what it reads of a clip, and what it shows."""

    row: str
    uses: Uses
    definition: str


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is worth knowing of the model behind videos, where the model itself is not there."""

    parameters: int  # of its transformer
    policy: str  # how it read memory
    top_k: int  # slots, or frames, that each query frame may read; of no meaning where the policy chooses none


@dataclass(frozen=True, kw_only=True)
class GenerationAttributes:
    """What the manifest of a generation says besides."""

    data: DataConfig  # size, fit, frames, rate and split of the videos
    source_dataset: str  # folder of the clips, as an absolute path; empty: not known
    source_dataset_fingerprint: str
    model: str  # as an absolute path; empty: no model made it
    latents: str
    model_free: ModelFree | None = None  # None: a model made it
    network: LeftOut[Network] = None  # None: no model made it, or an earlier version of hm
