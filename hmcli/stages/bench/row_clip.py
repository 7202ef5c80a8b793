"""A clip as model-free rows read it: every file once, and only when a row asks for it.

Shape letters: N context frames, T target frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hmcli.errors import DataError
from hmcli.stages.bench.redrawing import Origin, Redrawn, redraw
from hmcli.stages.data.annotations import read_depth
from hmcli.stages.data.opening import ClipSource, at, own_file, read_cameras, read_lens
from hmcli.store.hashing import Content, HashCache, hash_file, read_content
from hmcli.store.video import read_labels, read_video
from hmcli.world.files import layout
from hmcli.world.views.cutouts import Cutout, cut_out

DEPTH = "depth"  # as if it were a role of hmcli.world.files.layout


def depth_file(source: ClipSource) -> Path | None:
    """The clip's depth, None where it has none, or shares its folder with other clips."""
    return own_file(source, layout.DEPTH)


def has(source: ClipSource, what: str) -> bool:
    """Has the clip a file of this role?"""
    return depth_file(source) is not None if what == DEPTH else what in source.files


def depth_hash(source: ClipSource) -> str | None:
    return _hash(depth_file(source))


def states_hash(source: ClipSource) -> str | None:
    """Of the subjects' states, which say whether a clip that is drawn again is the same."""
    return _hash(own_file(source, layout.STATES))


def _hash(file: Path | None) -> str | None:
    return None if file is None else hash_file(file, cache=HashCache())


@dataclass(frozen=True, kw_only=True)
class RowClip:
    """One clip's inputs. Properties raise DataError for a file that is missing, damaged or of another length."""

    source: ClipSource
    depth_hash: str | None  # of the depth when the data set was opened
    origin: Origin | None
    next: ClipSource | None = None  # another one of the data set, where the row reads it

    @property
    def fps(self) -> float:
        return self.source.context_info.fps

    @cached_property
    def context(self) -> np.ndarray:
        """(N, H, W, 3) uint8."""
        return self._video("context")

    @cached_property
    def target(self) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        return self._video("target")

    @cached_property
    def another(self) -> np.ndarray:
        """(T, H, W, 3) uint8: the target of another clip."""
        if self.next is None:
            raise DataError("the data set has no other clip that is as long", where={"clip": self.source.id})
        if "target" not in self.next.files:
            raise DataError("the next clip has no target", where={"clip": self.next.id})
        with at(clip=self.next.id, file=self.next.files["target"]):
            return read_video(self.next.read("target"))

    @cached_property
    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        """world_from_camera of context and target, (N, 4, 4) and (T, 4, 4)."""
        cameras = read_cameras(self.source)
        if cameras.context is None or cameras.target is None:
            raise DataError("the clip has no poses of context and target", where={"clip": self.source.id})
        return cameras.context, cameras.target

    @cached_property
    def intrinsics(self) -> np.ndarray:
        """(4,) fx, fy, cx, cy in pixels of the clip's own size."""
        self._need("intrinsics")
        with at(clip=self.source.id):
            return read_lens(self.source)

    @cached_property
    def context_labels(self) -> np.ndarray:
        """(N, H, W) uint8 numbers of the subjects, 0 for none."""
        return self._labels("context_instances", self.context)

    @cached_property
    def target_labels(self) -> np.ndarray:
        """(T, H, W) uint8."""
        return self._labels("target_instances", self.target)

    @cached_property
    def depth(self) -> tuple[np.ndarray, np.ndarray]:
        """Metres along the cameras' forward axes in context and target, (N, H, W) and (T, H, W)."""
        with at(clip=self.source.id):
            content = self._depth_content()
            context, target = read_depth(content)
            with at(file=content.path):
                self._distances(context, len(self.poses[0]))
                self._distances(target, len(self.poses[1]))
        return context, target

    @cached_property
    def cutouts(self) -> list[Cutout]:
        """Every subject that the context shows, as it was last seen."""
        return [
            cut_out(
                self.context, self.context_labels == number, self.depth[0], self.poses[0], self.intrinsics, self.fps
            )
            for number in self.last_seen
        ]  # fmt: skip

    @cached_property
    def last_seen(self) -> dict[int, int]:
        """Number of each subject that the context shows -> the last of its frames that do."""
        labels = self.context_labels
        numbers = [number for number in np.unique(labels).tolist() if number]
        return {number: int(np.flatnonzero((labels == number).any((1, 2)))[-1]) for number in numbers}

    @property
    def redrawn(self) -> Redrawn | None:
        """The target drawn again, None where it cannot be."""
        return None if isinstance(self._drawing, DataError) else self._drawing

    @property
    def why_not_redrawn(self) -> str:
        return self._drawing.what if isinstance(self._drawing, DataError) else ""

    @cached_property
    def _drawing(self) -> Redrawn | DataError:
        try:
            return redraw(self.origin, self.source, self.target)
        except DataError as error:
            return error

    def _video(self, role: str) -> np.ndarray:
        self._need(role)
        with at(clip=self.source.id, file=self.source.files[role]):
            return read_video(self.source.read(role))

    def _labels(self, role: str, video: np.ndarray) -> np.ndarray:
        self._need(role)
        with at(clip=self.source.id, file=self.source.files[role]):
            labels = read_labels(self.source.read(role))
            if labels.shape != video.shape[:3]:
                raise DataError(f"masks of shape {labels.shape} for a video of shape {video.shape[:3]}")
            return labels

    def _distances(self, depth: np.ndarray, frames: int) -> None:
        """Raise DataError unless every pixel of the frames has a distance."""
        info = self.source.context_info
        if depth.shape != (frames, info.height, info.width):
            wanted = (frames, info.height, info.width)
            raise DataError(f"depth of shape {depth.shape} for frames of shape {wanted}")
        if depth.dtype.kind not in "fiu" or not (depth > 0).all():  # NaN is not
            raise DataError(
                "the depth holds values that are no distance", fix="write metres, and infinity where nothing is hit"
            )

    def _depth_content(self) -> Content:
        if (file := depth_file(self.source)) is None:
            raise DataError("the clip has no depth")
        content = read_content(file)
        if content.hash != self.depth_hash:
            fix = "run the same command again when nothing writes the file any more"
            raise DataError("the file changed while it was being used", where={"file": file}, fix=fix)
        return content

    def _need(self, role: str) -> None:
        if role not in self.source.files:
            raise DataError(f"the clip has no {role.replace('_', ' ')}", where={"clip": self.source.id})
