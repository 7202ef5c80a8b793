"""How a generation artifact is laid out (docs/artifacts.md): shared by its writer, generate.py, and its reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from hmcli.recipe.sections import DataConfig, SampleConfig
from hmcli.store.files import file_name

KIND = "generation"
LIST = "generations.jsonl"  # one Row a line
SHEET = "contact_sheet.png"
VIDEOS = "videos"
SUFFIX = ".mp4"
Count = Annotated[int, Field(ge=1)]


def video_path(clip: str) -> str:
    """Where a clip's video lies in the artifact."""
    return f"{VIDEOS}/{file_name(clip)}{SUFFIX}"


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
    sample: SampleConfig
    geometry: dict[str, Any]  # what cameras see, for policies that compare views
    seed: int
    past: tuple[str, ...]  # hashes of the clip's history before its context
    chance: int | None  # seed of what a policy that chooses by chance reads within the context


@dataclass(frozen=True, kw_only=True)
class Row:
    """A generated video."""

    id: str
    video: str  # path in the artifact
    caption: str
    seed: int  # of the clip's noise
    frames: Count
    fps: float
    height: Count
    width: Count
    context_frames: int  # video frames of the context
    steps: int
    guidance: float
    shift: float
    negative: str
    dtype: str
    memory: str  # on, or off: whether it was read
    camera: list[list[list[float]]]  # world_from_camera of target latent frames, metres; empty: only rows were known
    seconds: float  # that it took


@dataclass(frozen=True, kw_only=True)
class GenerationAttributes:
    """What the manifest of a generation says besides."""

    data: DataConfig  # size, fit, frames and split of the videos
    source_dataset: str  # folder of the clips, as an absolute path; empty: not known
    source_dataset_fingerprint: str
    model: str  # as an absolute path
    latents: str
