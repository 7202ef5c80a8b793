"""Parts of a clip, each read by itself: what a metric needs is read, and nothing else.

Framed and cut to length as `load_clip` does it. Shape letters: N context frames, T target frames, A all frames.
"""

from __future__ import annotations

import numpy as np

from hmcli.errors import DataError
from hmcli.metrics.contract import ClipCameras, ClipDepth
from hmcli.recipe.sections import DataConfig, SplitConfig
from hmcli.stages.data.annotations import read_depth
from hmcli.stages.data.loading import context_labels, framed_intrinsics, framed_video, target_labels
from hmcli.stages.data.opening import ClipSource, at, read_cameras
from hmcli.stages.data.timing import taken
from hmcli.store.hashing import Content
from hmcli.world.views import framing


def context_frames(source: ClipSource, data: DataConfig) -> list[int]:
    """Which of the clip's frames, counted over context and target together, the framed context shows."""
    if data.split is not None:
        return _split(source, data, data.split)[: data.split.context]
    return _cut(taken(source.context_info, data.fps), data)


def target_frames(source: ClipSource, data: DataConfig) -> list[int]:
    """The same of the framed target. Raises DataError when there is no target."""
    if data.split is not None:
        return _split(source, data, data.split)[data.split.context :]
    if source.target_info is None:
        raise DataError("its reference has no target video")
    return _cut(taken(source.target_info, data.fps) + source.context_info.frames, data)


def all_frames(source: ClipSource) -> int:
    """Frames of context and target together."""
    return source.context_info.frames + (source.target_info.frames if source.target_info else 0)


def _split(source: ClipSource, data: DataConfig, split: SplitConfig) -> list[int]:
    """Frames of the context video that become context and target."""
    wanted, frames = split.context + split.target, taken(source.context_info, data.fps)
    if len(frames) < wanted:
        raise DataError(f"data.split needs {wanted} frames, the video has {len(frames)}")
    found: list[int] = frames[:wanted].tolist()
    return found


def _cut(frames: np.ndarray, data: DataConfig) -> list[int]:
    return framing.to_frame_count(frames, framing.frame_count(len(frames), data.frames)).tolist()


def context_video(source: ClipSource, data: DataConfig) -> np.ndarray:
    """(N, *size, 3) uint8; of the clip's videos this one is decoded."""
    return _video(source, "context", context_frames(source, data), data)


def target_video(source: ClipSource, data: DataConfig) -> np.ndarray:
    """(T, *size, 3) uint8; of the clip's videos the one that holds it is decoded."""
    frames = target_frames(source, data)
    if data.split is not None:
        return _video(source, "context", frames, data)
    return _video(source, "target", [frame - source.context_info.frames for frame in frames], data)


def _video(source: ClipSource, role: str, frames: list[int], data: DataConfig) -> np.ndarray:
    info = source.context_info if role == "context" else source.target_info
    assert info is not None
    places = np.searchsorted(taken(info, data.fps), frames)
    count = None if data.split is None else int(places[-1]) + 1
    return framed_video(source, role, info, data, count)[places]


def target_masks(source: ClipSource, data: DataConfig) -> np.ndarray:
    """(T, *size) uint8: numbers of the subjects in the target frames, 0 for none; 1 where they are not told apart."""
    cameras, frames = read_cameras(source), target_frames(source, data)
    if data.split is not None:
        labels, first = context_labels(source, cameras, data), 0
    else:
        labels, first = target_labels(source, cameras, data), source.context_info.frames
    if labels is None:
        raise DataError("its reference has no masks of the target")
    return labels[[frame - first for frame in frames]]


def context_masks(source: ClipSource, data: DataConfig) -> np.ndarray:
    """(N, *size) uint8: the same in the context frames."""
    labels = context_labels(source, read_cameras(source), data)
    if labels is None:
        raise DataError("its reference has no masks of the context")
    return labels[context_frames(source, data)]


def clip_cameras(source: ClipSource, data: DataConfig) -> ClipCameras:
    """Poses of context and target frames, and the lens. Raises DataError for a clip that lacks one of them."""
    cameras, lens = read_cameras(source), framed_intrinsics(source, data)
    if lens is None:
        raise DataError("its reference has no intrinsics")
    if cameras.context is None or (cameras.target is None and data.split is None):
        raise DataError("its reference has no poses of context and target")
    every = np.concatenate([cameras.context, *([] if cameras.target is None else [cameras.target])])
    return ClipCameras(
        context_N44=every[context_frames(source, data)], target_T44=every[target_frames(source, data)],
        intrinsics_4=lens,
    )  # fmt: skip


def clip_depth(source: ClipSource, content: Content, data: DataConfig) -> ClipDepth:
    """Depth of context and target frames, from the bytes of its file."""
    with at(file=content.path):
        every = np.concatenate(read_depth(content))
        info = source.context_info
        if every.shape != (wanted := (all_frames(source), info.height, info.width)):
            raise DataError(f"depth of shape {every.shape} for frames of shape {wanted}")
        every = framing.resize_depth(every, data.size, data.fit)
    return ClipDepth(context_NHW=every[context_frames(source, data)], target_THW=every[target_frames(source, data)])
