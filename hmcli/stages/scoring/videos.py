"""The generated videos of a clip: as they were written, of each sample, and the mean picture of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hmcli.errors import DataError
from hmcli.stages.sampling.foreign import hash_foreign, read_foreign
from hmcli.stages.sampling.generations import Generated
from hmcli.stages.sampling.layout import Row
from hmcli.store.files import inside
from hmcli.store.hashing import HashCache, hash_file, hash_json, read_content
from hmcli.store.video import read_video


class ClipVideos:
    """What a generation holds of one clip. Raises DataError for what is missing, or is not what was written."""

    def __init__(self, generated: Generated, clip: str, cache: HashCache) -> None:
        self._generated, self._clip, self._cache = generated, clip, cache

    @property
    def rows(self) -> tuple[Row, ...]:
        """One of each sample; all clips of a generation have as many."""
        if self._clip not in self._generated.samples:
            reasons = {row["item"]: row["reason"] for row in self._generated.manifest.quarantined}
            left_out = "it was not generated: " if self._generated.foreign is None else ""
            raise DataError(f"{left_out}{reasons[self._clip]}")
        rows = self._generated.samples[self._clip]
        if len(rows) != self._generated.count:
            raise DataError(f"{len(rows)} of its {self._generated.count} samples were generated")
        return rows

    def hashes(self) -> tuple[str, ...]:
        """Of the files as they are now; they must be the ones that were generated."""
        return tuple(self._hash(self._file(row)) for row in self.rows)

    def read(self, row: Row) -> np.ndarray:
        """(T, H, W, 3) uint8 of one sample."""
        file = self._file(row)
        if (how := self._generated.foreign) is not None:
            return read_foreign(file, row, how)
        content = read_content(file)
        self._as_recorded(content.hash, file)
        frames = read_video(content)
        if len(frames) != row.frames:
            raise DataError(f"the generated video has {len(frames)} frames, generations.jsonl says {row.frames}")
        return frames

    def mean(self) -> np.ndarray:
        """(T, H, W, 3) uint8: the mean of all samples, rounded."""
        first, *others = self.rows
        total = self.read(first).astype(np.uint32)
        for row in others:
            total += self.read(row)
        return ((2 * total + len(self.rows)) // (2 * len(self.rows))).astype(np.uint8)

    def _file(self, row: Row) -> Path:
        return inside(self._generated.path, row.video)

    def _hash(self, video: Path) -> str:
        if (how := self._generated.foreign) is not None:
            return hash_json([hash_foreign(video, self._cache), how.videos, how.resize, how.size])
        if not video.is_file():
            raise DataError("the generated video is missing", where={"file": video})
        return self._as_recorded(hash_file(video, cache=self._cache), video)

    def _as_recorded(self, found: str, video: Path) -> str:
        """The hash of a generated video. Raises DataError unless it is that of the one that was written."""
        name = video.relative_to(self._generated.path).as_posix()
        if found != self._generated.hashes.get(name, found):
            what = "the generated video was changed or damaged after it was written"
            raise DataError(what, where={"file": video})
        return found
