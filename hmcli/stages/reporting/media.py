"""The videos of a report, each kept once however often it is shown: by the hash of its bytes.

What browsers play stays as it is, byte by byte; what they may not (lossless, another codec, other frames than were
compared) is written again, near-lossless.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hmcli.errors import DataError
from hmcli.recipe.sections import DataConfig
from hmcli.stages.data import pieces
from hmcli.stages.data.loading import rate
from hmcli.stages.data.opening import ClipSource
from hmcli.stages.sampling.foreign import read_foreign
from hmcli.stages.sampling.generations import Generated
from hmcli.store.hashing import hash_bytes, hash_file
from hmcli.store.video import plays_in_browsers, read_video, write_video

_LONG = 24  # letters of a hash that name a video


@dataclass
class Media:
    """Videos and pictures by file name, in the order they were first shown."""

    files: dict[str, bytes] = field(default_factory=dict)

    def add(self, data: bytes, suffix: str = ".mp4") -> str:
        """The name under which these bytes are kept."""
        name = hash_bytes(data).removeprefix("sha256:")[:_LONG] + suffix
        self.files.setdefault(name, data)
        return name

    @property
    def bytes(self) -> int:
        return sum(map(len, self.files.values()))


def generated_video(generated: Generated, clip: str) -> bytes:
    """The first sample of a clip. Raises DataError where there is none, or it is not what was written."""
    if clip not in generated.rows:
        raise DataError("it was not generated")
    row = generated.rows[clip]
    place = generated.path / row.video
    if generated.foreign is not None:
        return written(read_foreign(place, row, generated.foreign), row.fps)
    if not place.is_file():
        raise DataError("its video is missing")
    records = (record for record in generated.manifest.items.values() if record.get("path") == row.video)
    if (record := next(records, None)) is None or hash_file(place) != record["files"][""]["hash"]:
        raise DataError("its video was changed or damaged after it was written")
    return playable(place, row.fps)


def context_video(source: ClipSource, data: DataConfig) -> bytes:
    """The framed context. Raises DataError where it cannot be read."""
    shown = list(range(source.context_info.frames))
    if _as_stored(source, "context", data) and pieces.context_frames(source, data) == shown:
        return source.read("context").data
    return written(pieces.context_video(source, data), rate(source, data))


def target_video(source: ClipSource, data: DataConfig) -> bytes:
    """The framed true target. Raises DataError where there is none, or it cannot be read."""
    frames, first = pieces.target_frames(source, data), source.context_info.frames
    shown = list(range(first, pieces.all_frames(source)))
    if data.split is None and frames == shown and _as_stored(source, "target", data):
        return source.read("target").data
    return written(pieces.target_video(source, data), rate(source, data))


def _as_stored(source: ClipSource, role: str, data: DataConfig) -> bool:
    """Has the file the compared size, and does a browser play it?"""
    info = source.context_info if role == "context" else source.target_info
    return info is not None and (info.height, info.width) == data.size and plays_in_browsers(source.files[role])


def playable(file: Path, fps: float) -> bytes:
    """The bytes of a video as browsers play it."""
    return file.read_bytes() if plays_in_browsers(file) else written(read_video(file), fps)


def written(frames: np.ndarray, fps: float) -> bytes:
    """(T, H, W, 3) uint8 -> the bytes of an mp4; an odd side loses its last row or column."""
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "video.mp4"
        write_video(place, frames[:, :height, :width], fps=fps)
        return place.read_bytes()


def frames_of(video: bytes) -> np.ndarray:
    """(T, H, W, 3) uint8 of the bytes of an mp4."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "video.mp4"
        place.write_bytes(video)
        return read_video(place)


def png(picture: np.ndarray) -> bytes:
    """The file of a picture (H, W, 3) uint8."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()
