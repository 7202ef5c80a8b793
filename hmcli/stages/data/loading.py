"""One clip from disk as arrays: videos at the asked size, poses, masks, camera rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError
from hmcli.recipe.sections import DataConfig, SplitConfig
from hmcli.stages.data.opening import ClipSource, at, read_cameras, read_lens
from hmcli.stages.data.timing import said, taken
from hmcli.store.video import VideoInfo, read_video
from hmcli.world.views import framing
from hmcli.world.views.cameras import Cameras, latent_poses, relative_camera_rows


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """One clip at the recipe's size and length.

    Videos are (T, H, W, 3) uint8, masks (T, H, W) uint8 with the number of the subject (1 for any subject where the
    source does not tell them apart) and 0 for background, poses (T, 4, 4) float64
    world_from_camera in metres, intrinsics (4,) float64 fx, fy, cx, cy in pixels of the framed video.
    `camera_rows` (F, 12) float64 are what the model reads: latent-rate poses of context, then target, relative to the
    first target camera. Poses are None only when the source holds nothing but ready rows.
    """

    id: str
    caption: str
    fps: float
    context: np.ndarray
    target: np.ndarray | None  # None: no target video, only target cameras
    context_poses: np.ndarray | None
    target_poses: np.ndarray | None
    camera_rows: np.ndarray
    context_latent_frames: int  # how many of `camera_rows` belong to the context
    intrinsics: np.ndarray | None
    context_mask: np.ndarray | None
    target_mask: np.ndarray | None
    notes: tuple[str, ...]


@dataclass(kw_only=True)
class _Part:
    """Context or target while it is being cut to length: everything per video frame, or rows per latent frame."""

    video: np.ndarray | None
    poses: np.ndarray | None
    mask: np.ndarray | None
    rows: np.ndarray | None = None

    def cut(self, start: int, count: int) -> _Part:
        """Frames start .. start + count of everything; rows cannot be cut."""
        video, poses, mask = (
            None if values is None else values[start : start + count] for values in (self.video, self.poses, self.mask)
        )
        return _Part(video=video, poses=poses, mask=mask)

    def at_rate(self, frames_N: np.ndarray, of: int) -> _Part:
        """The frames taken of all `of`; the video has no others. Raises DataError for rows per latent frame."""
        if len(frames_N) == of:
            return self
        if self.rows is not None:
            raise DataError(
                "cameras given as rows per latent frame cannot be resampled",
                fix="give 4x4 cameras, one per video frame, or leave data.fps out",
            )
        poses, mask = (None if values is None else values[frames_N] for values in (self.poses, self.mask))
        return _Part(video=self.video, poses=poses, mask=mask)


def load_clip(source: ClipSource, data: DataConfig) -> LoadedClip:
    """Decode one clip and bring it to the recipe's size and length. Raises DataError; `notes` say what was changed."""
    notes = [*source.notes, *_differing_rates(source, data)]
    with at(clip=source.id):
        cameras = read_cameras(source)
        notes += [f"the camera file's {key} is not read" for key in cameras.ignored]
        if data.split is None:
            context, target = _whole(source, cameras, data, notes)
        else:
            context, target = _split(source, cameras, data, data.split, notes)
        rows = _camera_rows(context, target)
        intrinsics = framed_intrinsics(source, data)
    assert context.video is not None  # every clip has a context video
    return LoadedClip(
        id=source.id, caption=source.caption, fps=rate(source, data), intrinsics=intrinsics, notes=tuple(notes),
        context=context.video, target=target.video, context_poses=context.poses, target_poses=target.poses,
        context_mask=context.mask, target_mask=target.mask,
        camera_rows=np.concatenate(rows), context_latent_frames=len(rows[0]),
    )  # fmt: skip


def _differing_rates(source: ClipSource, data: DataConfig) -> list[str]:
    context, target = source.context_info, source.target_info
    if data.fps is not None or target is None or abs(target.fps - context.fps) <= 0.01 * context.fps:
        return []
    return [f"context has {context.fps:g} frames per second, target {target.fps:g}"]


def _whole(source: ClipSource, cameras: Cameras, data: DataConfig, notes: list[str]) -> tuple[_Part, _Part]:
    """Context and target as the clip has them, each brought to 4k+1 frames as data.frames says."""
    if cameras.target is None and cameras.target_rows is None:
        fix = "add target cameras, or set data.split to cut the clip into context and target"
        raise DataError("there is neither a target video nor are there target cameras", fix=fix)
    info, target_info = source.context_info, _target_info(source, cameras)
    context = _Part(
        video=framed_video(source, "context", info, data),
        poses=cameras.context, rows=cameras.context_rows, mask=context_labels(source, cameras, data),
    )  # fmt: skip
    target = _Part(
        video=framed_video(source, "target", target_info, data) if source.target_info else None,
        poses=cameras.target, rows=cameras.target_rows, mask=target_labels(source, cameras, data),
    )  # fmt: skip
    context = context.at_rate(taken(info, data.fps), info.frames)
    target = target.at_rate(taken(target_info, data.fps), target_info.frames)
    notes += [*said("context", info, data.fps), *said("target", target_info, data.fps)]
    return _to_length(context, "context", data, notes), _to_length(target, "target", data, notes)


def _split(
    source: ClipSource, cameras: Cameras, data: DataConfig, split: SplitConfig, notes: list[str]
) -> tuple[_Part, _Part]:
    """The context video cut in two; its own cameras and masks go with it, and the clip's target is left out."""
    info, wanted = source.context_info, split.context + split.target
    if (frames := len(taken_N := taken(info, data.fps))) < wanted:
        what = f"data.split needs {split.context} + {split.target} = {wanted} frames, the video has {frames}"
        what += "" if frames == info.frames else f" at data.fps={data.fps:g}"
        raise DataError(what, fix="choose smaller data.split.context and data.split.target, each 4k+1")
    if cameras.context is None:
        fix = "give 4x4 cameras, one per video frame, or leave data.split out"
        raise DataError("cameras given as rows per latent frame cannot be split", fix=fix)
    mask = context_labels(source, cameras, data)
    video = framed_video(source, "context", info, data, count=wanted)
    whole = _Part(video=video, poses=cameras.context, mask=mask).at_rate(taken_N, info.frames)
    notes += said("context", info, data.fps)
    if frames > wanted:
        notes.append(f"the last {frames - wanted} of {frames} frames are left out by data.split")
    if source.target_info is not None:
        notes.append("the target video is left out by data.split")
    return whole.cut(0, split.context), whole.cut(split.context, split.target)


def _to_length(part: _Part, name: str, data: DataConfig, notes: list[str]) -> _Part:
    """Trim or pad one part to 4k+1 frames, or refuse; rows must already be as many as the latent frames."""
    values = part.video if part.video is not None else part.poses
    if values is None:  # ready rows and no video
        return part
    frames = len(values)
    with at(video=name):
        count = framing.frame_count(frames, data.frames)
        latent = 1 + (count - 1) // TIME_STRIDE
        if part.rows is not None and len(part.rows) != latent:
            raise DataError(f"{len(part.rows)} camera rows for {latent} latent frames ({count} video frames)")
    if count < frames:
        notes.append(f"{name}: the last {frames - count} of {frames} frames are dropped (data.frames=trim)")
    if count > frames:
        notes.append(f"{name}: the last of {frames} frames is repeated {count - frames} times (data.frames=pad)")
    video, poses, mask = (
        None if array is None else framing.to_frame_count(array, count) for array in (part.video, part.poses, part.mask)
    )
    return _Part(video=video, poses=poses, mask=mask, rows=part.rows)


def _camera_rows(context: _Part, target: _Part) -> tuple[np.ndarray, np.ndarray]:
    """(F, 12) rows of context and of target, relative to the first target camera."""
    if context.poses is not None and target.poses is not None:
        first = target.poses[0]
        context_rows = relative_camera_rows(latent_poses(context.poses), first)
        return context_rows, relative_camera_rows(latent_poses(target.poses), first)
    if context.rows is None or target.rows is None:
        raise DataError("context and target cameras are not given in the same form")
    return context.rows, target.rows


def framed_video(
    source: ClipSource, role: str, info: VideoInfo, data: DataConfig, count: int | None = None
) -> np.ndarray:
    """(T, *size, 3) uint8: the frames of a video of the clip that data.fps takes, or the first `count` of them."""
    with at(file=source.files[role]):
        frames_N = taken(info, data.fps)[:count]
        video = read_video(source.read(role), count=int(frames_N[-1]) + 1)
        if len(video) <= frames_N[-1]:
            raise DataError(f"{len(video)} of {frames_N[-1] + 1} frames can be decoded")
        video = video if len(video) == len(frames_N) else video[frames_N]
    return framing.resize_frames(video, data.size, data.fit)


def rate(source: ClipSource, data: DataConfig) -> float:
    """Frames per second of a clip at the recipe's rate."""
    return source.context_info.fps if data.fps is None else data.fps


def _target_info(source: ClipSource, cameras: Cameras) -> VideoInfo:
    """Target cameras without a video are as far apart as the frames of the context."""
    if source.target_info is not None:
        return source.target_info
    info, frames = source.context_info, _target_frames(source, cameras)
    return replace(info, frames=frames, varies=False, times=tuple((np.arange(frames) / info.fps).tolist()))


def context_labels(source: ClipSource, cameras: Cameras, data: DataConfig) -> np.ndarray | None:
    """Where subjects are in the context video, from the most telling form the clip has; None where it has none."""
    frames = source.context_info.frames
    for role in ("context_instances", "context_mask"):
        if role in source.files:
            return _mask(source, role, {frames}, data)
    joint = _joint_mask(source, cameras, data)
    return None if joint is None else joint[:frames]


def target_labels(source: ClipSource, cameras: Cameras, data: DataConfig) -> np.ndarray | None:
    """The same of the target video."""
    for role in ("target_instances", "target_mask"):
        if role in source.files:
            return _mask(source, role, {_target_frames(source, cameras)}, data)
    joint = _joint_mask(source, cameras, data)
    return None if joint is None or len(joint) == source.context_info.frames else joint[source.context_info.frames :]


def _joint_mask(source: ClipSource, cameras: Cameras, data: DataConfig) -> np.ndarray | None:
    """One mask video over context and target, or over the context alone."""
    if "joint_mask" not in source.files:
        return None
    context = source.context_info.frames
    return _mask(source, "joint_mask", {context, context + _target_frames(source, cameras)}, data)


def _target_frames(source: ClipSource, cameras: Cameras) -> int:
    if source.target_info is not None:
        return source.target_info.frames
    return 0 if cameras.target is None else len(cameras.target)


def _mask(source: ClipSource, role: str, allowed: set[int], data: DataConfig) -> np.ndarray:
    """(T, *size) uint8 labels of one mask video, which must have one of the `allowed` lengths."""
    with at(file=source.files[role]):
        video = read_video(source.read(role))
        if len(video) not in allowed:
            wanted = " or ".join(str(count) for count in sorted(allowed))
            raise DataError(f"{len(video)} mask frames for {wanted} video frames")
        info = source.context_info
        if video.shape[1:3] != (info.height, info.width):
            sizes = f"{video.shape[1]}x{video.shape[2]}, the video {info.height}x{info.width}"
            raise DataError(f"the mask is {sizes}")
    if role.endswith("_instances"):  # lossless grey, the value is the subject's number
        labels = np.ascontiguousarray(video[..., 0])
    else:
        labels = (framing.red_mask(video) if role == "joint_mask" else framing.white_mask(video)).astype(np.uint8)
    return framing.resize_labels(labels, data.size, data.fit)


def framed_intrinsics(source: ClipSource, data: DataConfig) -> np.ndarray | None:
    """fx, fy, cx, cy after framing, or None when the source has none."""
    if "intrinsics" not in source.files:
        return None
    info = source.context_info
    return framing.resize_intrinsics(read_lens(source), (info.height, info.width), data.size, data.fit)
