"""Data sets: a folder in any supported layout -> clips, and one clip -> arrays ready for a codec.

Here bytes (store) meet schema (world). `open_dataset` looks at every clip without decoding it and sets aside what
cannot be used; `load_clip` decodes one. Nothing is repaired unless the recipe says how (data.frames, poses.repair).
Shapes: T video frames, F latent frames, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmcli.contracts import TIME_STRIDE, Quarantined
from hmcli.errors import DataError
from hmcli.recipe.reading import DataConfig, PosesConfig, SplitConfig
from hmcli.store.files import read_csv, read_json, read_json_lines
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.manifest import Manifest, is_artifact, is_unfinished, read_manifest
from hmcli.store.video import VideoInfo, probe_video, read_video
from hmcli.world.files import schema
from hmcli.world.files.captions import parse_captions, parse_numbered_captions
from hmcli.world.files.layout import CAPTION_NAME, RENDERED_INDEX, ClipFiles, Layout, find_metadata, read_layout
from hmcli.world.views import framing
from hmcli.world.views.cameras import Cameras, latent_poses, parse_cameras, relative_camera_rows


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """One usable clip on disk. `files` maps roles of hmcli.world.files.layout to paths, `key` is a hash of them all."""

    id: str
    caption: str
    files: Mapping[str, Path]
    static: bool  # the camera does not move, says the metadata; there is no camera file
    context_info: VideoInfo
    target_info: VideoInfo | None
    poses: PosesConfig
    key: str
    notes: tuple[str, ...] = ()  # what is missing or left unread


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The clips of a folder, in natural order of their ids."""

    path: Path
    layout: str  # released, rendered, examples, plain
    clips: tuple[ClipSource, ...]
    quarantined: tuple[Quarantined, ...]
    fingerprint: str  # of the manifest while the folder is as `hm render` made it, else over all clips' keys
    notes: tuple[str, ...] = ()


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


# --- opening ---------------------------------------------------------------------------------------------------------


def open_dataset(path: Path, poses: PosesConfig) -> Dataset:
    """Find the clips of a folder. Raises DataError when it is no data set, or none of its clips can be used."""
    path = Path(path)
    if not path.is_dir():
        what = "a data set is a folder, this is a file" if path.exists() else "there is no such folder"
        raise DataError(what, where={"data": path}, fix="name a folder of clips (docs/conventions.md, data sets)")
    with _at(data=path):
        manifest = read_manifest(path, kinds=("dataset",)) if is_artifact(path) or is_unfinished(path) else None
        names = _list_files(path)
        if manifest is None and RENDERED_INDEX in names:
            fix = "run the `hm render` that was writing it again: it keeps what is done"
            raise DataError(f"there is {RENDERED_INDEX} but no manifest: the data set is unfinished", fix=fix)
        metadata = find_metadata(names)
        reader = read_csv if metadata and metadata.endswith(".csv") else read_json_lines
        layout = read_layout(names, reader(path / metadata) if metadata else ())
        captions = _captions(path, layout)
    cache = HashCache()
    clips: list[ClipSource] = []
    quarantined: list[Quarantined] = []
    hashes: dict[str, str] = {}
    seen: dict[str, str] = {}
    for clip in layout.clips:
        files = {role: path / name for role, name in clip.files.items()}
        try:
            found = _file_hashes(clip, files, cache)
            seen |= {clip.files[role]: value for role, value in found.items()}
            hashes[clip.id] = _clip_hash(clip, found, captions[clip.id])
            clips.append(_clip_source(clip, files, captions[clip.id], hashes[clip.id], poses))
        except DataError as error:
            quarantined.append(Quarantined(item=clip.id, reason=str(error)))
    if not clips:
        first = {f"clip {item.item}": item.reason for item in quarantined[:3]}
        raise DataError(f"none of the {len(quarantined)} clips can be used", where={"data": path, **first})
    changes = _changes(manifest, layout, names, seen, captions) if manifest else ()
    return Dataset(
        path=path,
        layout=layout.name,
        clips=tuple(clips),
        quarantined=tuple(quarantined),
        fingerprint=manifest.fingerprint if manifest and not changes else hash_json(["clips", hashes]),
        notes=(*_folder_notes(layout), *changes),
    )


def _list_files(root: Path) -> list[str]:
    """Relative POSIX names of all files below a folder, through links, hidden ones left out."""
    names: list[str] = []
    seen: set[str] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _captions(path: Path, layout: Layout) -> dict[str, str]:
    """The caption of every clip, usable or not; empty where the folder has no captions at all (noted)."""
    ids = [clip.id for clip in layout.clips]
    if layout.captions == "metadata":
        return {clip.id: clip.caption or "" for clip in layout.clips}
    if layout.captions == "absent":
        return dict.fromkeys(ids, "")
    try:
        text = (path / CAPTION_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the captions cannot be read", where={"file": CAPTION_NAME, "at": error}) from error
    return parse_numbered_captions(text, ids) if layout.captions == "numbered" else parse_captions(text, ids)


def _folder_notes(layout: Layout) -> tuple[str, ...]:
    notes = []
    if layout.captions == "absent":
        notes.append(f"there is no {CAPTION_NAME}: every caption is empty")
    if layout.unused:
        notes.append(f"{len(layout.unused)} videos belong to no clip, the first is {layout.unused[0]}")
    if layout.ignored_columns:
        notes.append(f"columns without a meaning here: {', '.join(layout.ignored_columns)}")
    return tuple(notes)


def _file_hashes(clip: ClipFiles, files: Mapping[str, Path], cache: HashCache) -> dict[str, str]:
    """Hashes of the clip's files by role; one that is not there is left out."""
    try:
        return {role: hash_file(file, cache=cache) for role, file in files.items() if file.exists()}
    except OSError as error:
        raise DataError("a file cannot be read", where={"clip": clip.id, "at": error}) from error


def _clip_hash(clip: ClipFiles, hashes: Mapping[str, str], caption: str) -> str:
    """Hash of everything `load_clip` may read, so that a stage redoes a clip when, and only when, it changed."""
    return hash_json({"id": clip.id, "caption": caption, "static": clip.static, "files": hashes})


def _changes(
    manifest: Manifest,
    layout: Layout,
    names: Collection[str],
    seen: Mapping[str, str],
    captions: Mapping[str, str],
) -> tuple[str, ...]:
    """How a rendered folder differs from what its manifest says: notes about changed, new and missing clips.

    `names` are all files of the folder, `seen` the hashes of those that a stage may read.
    """
    there = set(names)
    records = {record["path"]: record for record in manifest.items.values()}
    edited, new = [], []
    for clip in layout.clips:
        if (record := records.pop(clip.id, None)) is None:
            new.append(clip.id)
            continue
        written = {f"{clip.id}/{name}": entry["hash"] for name, entry in record["files"].items()}
        same = written.keys() <= there and all(written.get(name) == seen.get(name) for name in clip.files.values())
        if not same or captions[clip.id] != record["meta"].get("caption", captions[clip.id]):
            edited.append(clip.id)
    found = ((edited, "changed since they were rendered"), (new, "added"), (list(records), "gone"))
    return tuple(f"{len(ids)} clips {what}: {_some(ids)}" for ids, what in found if ids)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _clip_source(clip: ClipFiles, files: Mapping[str, Path], caption: str, key: str, poses: PosesConfig) -> ClipSource:
    """Check what can be checked without decoding: both videos open, cameras are sound and as many as frames."""
    with _at(clip=clip.id):
        if clip.problem:
            raise DataError(clip.problem)
        context = _probe(files["context"])
        target = _probe(files["target"]) if "target" in files else None
        if target and (target.height, target.width) != (context.height, context.width):
            sizes = f"{context.height}x{context.width} and {target.height}x{target.width}"
            raise DataError(f"context and target video differ in size: {sizes}")
        notes = [f"not in the data set: {', '.join(clip.missing)}"] if clip.missing else []
        if target and abs(target.fps - context.fps) > 0.01 * context.fps:
            notes.append(f"context has {context.fps:g} frames per second, target {target.fps:g}")
        source = ClipSource(
            id=clip.id, caption=caption, files=files, static=clip.static, context_info=context, target_info=target,
            poses=poses, key=key, notes=tuple(notes),
        )  # fmt: skip
        read_cameras(source)
        return source


def _probe(file: Path) -> VideoInfo:
    with _at(file=file):
        return probe_video(file)


@contextmanager
def _at(**places: object) -> Iterator[None]:
    """Add places (clip, file, folder) to a DataError that passes through, outermost first."""
    try:
        yield
    except DataError as error:
        error.where = {**places, **error.where}
        raise


# --- cameras ---------------------------------------------------------------------------------------------------------


def read_cameras(source: ClipSource) -> Cameras:
    """The clip's cameras, one per frame of its videos. Raises DataError naming the counts that differ."""
    context, target = source.context_info.frames, source.target_info and source.target_info.frames
    if source.static:
        still = np.repeat(np.eye(4)[None], max(context, target or 0), axis=0)
        return Cameras(form="static", context=still[:context], target=None if target is None else still[:target])
    with _at(file=source.files["cameras"]):
        cameras = parse_cameras(read_json(source.files["cameras"]), frames=context, repair=source.poses.repair)
        if cameras.context is None and cameras.context_rows is None:
            raise DataError("the camera file has no cameras of the context video")
        if cameras.context is not None and len(cameras.context) != context:
            raise DataError(f"{len(cameras.context)} context cameras for {context} video frames")
        if cameras.target is not None and target is not None and len(cameras.target) != target:
            raise DataError(f"{len(cameras.target)} target cameras for {target} video frames")
    return cameras


# --- loading ---------------------------------------------------------------------------------------------------------


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


def load_clip(source: ClipSource, data: DataConfig) -> LoadedClip:
    """Decode one clip and bring it to the recipe's size and length. Raises DataError; `notes` say what was changed."""
    notes = list(source.notes)
    with _at(clip=source.id):
        cameras = read_cameras(source)
        notes += [f"the camera file's {key} is not read" for key in cameras.ignored]
        if data.split is None:
            context, target = _whole(source, cameras, data, notes)
        else:
            context, target = _split(source, cameras, data, data.split, notes)
        rows = _camera_rows(context, target)
        intrinsics = _intrinsics(source, data)
    assert context.video is not None  # every clip has a context video
    return LoadedClip(
        id=source.id, caption=source.caption, fps=source.context_info.fps, intrinsics=intrinsics, notes=tuple(notes),
        context=context.video, target=target.video, context_poses=context.poses, target_poses=target.poses,
        context_mask=context.mask, target_mask=target.mask,
        camera_rows=np.concatenate(rows), context_latent_frames=len(rows[0]),
    )  # fmt: skip


def _whole(source: ClipSource, cameras: Cameras, data: DataConfig, notes: list[str]) -> tuple[_Part, _Part]:
    """Context and target as the clip has them, each brought to 4k+1 frames as data.frames says."""
    if cameras.target is None and cameras.target_rows is None:
        fix = "add target cameras, or set data.split to cut the clip into context and target"
        raise DataError("there is neither a target video nor are there target cameras", fix=fix)
    context = _Part(
        video=_read_video(source, "context", source.context_info, data),
        poses=cameras.context, rows=cameras.context_rows, mask=_context_mask(source, cameras, data),
    )  # fmt: skip
    target = _Part(
        video=_read_video(source, "target", source.target_info, data) if source.target_info else None,
        poses=cameras.target, rows=cameras.target_rows, mask=_target_mask(source, cameras, data),
    )  # fmt: skip
    return _to_length(context, "context", data, notes), _to_length(target, "target", data, notes)


def _split(
    source: ClipSource, cameras: Cameras, data: DataConfig, split: SplitConfig, notes: list[str]
) -> tuple[_Part, _Part]:
    """The context video cut in two; its own cameras and masks go with it, and the clip's target is left out."""
    wanted, frames = split.context + split.target, source.context_info.frames
    if frames < wanted:
        what = f"data.split needs {split.context} + {split.target} = {wanted} frames, the video has {frames}"
        raise DataError(what, fix="choose smaller data.split.context and data.split.target, each 4k+1")
    if cameras.context is None:
        fix = "give 4x4 cameras, one per video frame, or leave data.split out"
        raise DataError("cameras given as rows per latent frame cannot be split", fix=fix)
    mask = _context_mask(source, cameras, data)
    video = _read_video(source, "context", source.context_info, data, count=wanted)
    whole = _Part(video=video, poses=cameras.context, mask=mask)
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
    with _at(video=name):
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


def _read_video(
    source: ClipSource, role: str, info: VideoInfo, data: DataConfig, count: int | None = None
) -> np.ndarray:
    with _at(file=source.files[role]):
        video = read_video(source.files[role], count=count)
        if len(video) != (wanted := info.frames if count is None else count):
            raise DataError(f"{len(video)} of {wanted} frames can be decoded")
    return framing.resize_frames(video, data.size, data.fit)


def _context_mask(source: ClipSource, cameras: Cameras, data: DataConfig) -> np.ndarray | None:
    """Where subjects are in the context video, from the most telling form the clip has; None where it has none."""
    frames = source.context_info.frames
    for role in ("context_instances", "context_mask"):
        if role in source.files:
            return _mask(source, role, {frames}, data)
    joint = _joint_mask(source, cameras, data)
    return None if joint is None else joint[:frames]


def _target_mask(source: ClipSource, cameras: Cameras, data: DataConfig) -> np.ndarray | None:
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
    with _at(file=source.files[role]):
        video = read_video(source.files[role])
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


def _intrinsics(source: ClipSource, data: DataConfig) -> np.ndarray | None:
    """fx, fy, cx, cy after framing, or None when the source has none."""
    if "intrinsics" not in source.files:
        return None
    info = source.context_info
    with _at(file=source.files["intrinsics"]):
        found = schema.parse_intrinsics(read_json(source.files["intrinsics"]), (info.height, info.width))
    return framing.resize_intrinsics(found, (info.height, info.width), data.size, data.fit)
