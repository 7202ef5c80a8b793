"""How a latents artifact is laid out (docs/artifacts.md): shared by its writer, encode.py, and its reader, view.py.

An item is a clip or a caption. Clips of one shape are rows of the arrays of one group; captions are rows of `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.recipe.sections import CodecConfig, DataConfig, PosesConfig, TextConfig
from hmcli.stages.shared.typed import LeftOut
from hmcli.store.hashing import hash_json

KIND = "latents"
LATENTS, CAMERA, POSES, INTRINSICS = "latents", "camera", "poses", "intrinsics"
MASKS, BOXES, VISIBILITY = "masks", "boxes", "visibility"
TEXT, TEXT_ROWS, TEXT_INDEX, VALID = "text", "text_rows", "text_index", "valid"
_CAPTION, _CLIP = "caption ", "clip "
SUBJECTS = (MASKS, BOXES, VISIBILITY)
AXES: dict[str, tuple[list[str], str]] = {
    LATENTS: (["clip", "channel", "time", "y", "x"], "VAE latent, unit variance"),
    CAMERA: (["clip", "time", "row"], "3x4 pose relative to the first target camera, row by row; metres"),
    POSES: (["clip", "frame", "row", "column"], "world_from_camera, metres; camera axes right, down, forward"),
    INTRINSICS: (["clip", "parameter"], "fx, fy, cx, cy in pixels of the encoded size"),
    TEXT_INDEX: (["clip"], "row of text"),
    VALID: (["clip"], "whether the row holds a clip"),
    MASKS: (["clip", "time", "y", "x"], "0 background, otherwise the number of a subject"),
    BOXES: (["clip", "time", "subject", "side"], "left, top, right, bottom in latent pixels; NaN where not seen"),
    VISIBILITY: (["clip", "time", "subject"], "share of the frame covered by the subject"),
    TEXT: (["caption", "row", "channel"], "embedding, zero padded"),
    TEXT_ROWS: (["caption"], "rows of text in use"),
}


def clip_item(clip: str) -> str:
    """The item of a clip. Captions are prefixed too, so neither can be taken for the other."""
    return _CLIP + clip


def clips_of(items: Iterable[str]) -> list[str]:
    """The ids of the clips among items."""
    return [item.removeprefix(_CLIP) for item in items if item.startswith(_CLIP)]


def caption_item(caption: str) -> str:
    """The item of a caption's embedding."""
    return _CAPTION + hash_json(caption).removeprefix("sha256:")[:16]


def is_caption(item: str) -> bool:
    return item.startswith(_CAPTION)


@dataclass(frozen=True, kw_only=True)
class CaptionKey:
    """All that a caption's embedding is made from. What a path leads to counts, not the path."""

    caption: str
    encoder: str  # hash of the weights
    text: TextConfig  # without path


@dataclass(frozen=True, kw_only=True)
class ClipKey:
    """All that a clip's arrays, and what is said of it, are made from."""

    source: str  # hash of the clip's files, id and caption
    weights: str  # hash of the codec's
    codec: CodecConfig  # without path, and without what only its training reads
    data: DataConfig
    poses: PosesConfig


@dataclass(frozen=True, kw_only=True)
class CaptionAbout:
    """What the record of a caption says besides its arrays."""

    caption: str
    cut: LeftOut[str] = None  # what the model does not read of it, in words; left out: it reads all, or is older


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What clips of one group share: counts of latent frames, and of the video frames that `poses` has."""

    context: int
    target: int
    context_video_frames: int
    target_video_frames: int
    has_target: bool  # else there are target cameras, and no latents of the target


@dataclass(frozen=True, kw_only=True)
class ClipAbout:
    """What the record of a clip says besides its arrays."""

    caption: str
    fps: float
    shape: Shape
    notes: tuple[str, ...]
    rounding: LeftOut[float] = None  # root mean square of what data.keep_bits took from the latents


@dataclass(frozen=True, kw_only=True)
class Group:
    """Clips of one shape, in the order of their rows."""

    name: str
    ids: tuple[str, ...]
    shape: Shape
    arrays: tuple[str, ...]  # which arrays the group has


@dataclass(frozen=True, kw_only=True)
class LatentsAttributes:
    """What the manifest of a latents artifact says of its arrays."""

    groups: tuple[Group, ...]
    channels: int  # 0 where a part has no clip: all of its own were left out
    size: tuple[int, int]  # pixels: height, width of the encoded videos
    stride: int = 8  # pixels per latent pixel along a side
    text_length: int  # rows of a text embedding as the model sees it
    text_dim: int
    source: str  # the folder of clips, as an absolute path


def group_name(shape: Shape, arrays: Mapping[str, Any]) -> str:
    """One group per shape: context and target latent frames, latent size, and what else the clips have.

    `arrays` are those of a clip's record: name to dtype and shape.
    """
    _, _, rows, columns = arrays[LATENTS][1]
    target = f"{shape.target}" if shape.has_target else f"{shape.target}-cameras"
    subjects = f"-{arrays[VISIBILITY][1][1]}subjects" if VISIBILITY in arrays else ""
    lacks = "".join(f"-no-{name}" for name in (POSES, INTRINSICS) if name not in arrays)
    return f"{shape.context}+{target}x{rows}x{columns}{subjects}{lacks}"


def latent_rate(poses: np.ndarray, shape: Shape) -> np.ndarray:
    """The poses of latent frames among those of video frames, (T, 4, 4) -> (context + target, 4, 4)."""
    context = poses[: shape.context_video_frames]
    return np.concatenate([context[::TIME_STRIDE], poses[shape.context_video_frames :: TIME_STRIDE]])
