"""`hm dataset import`: a real video and its poses (COLMAP, TUM, nerfstudio) become a clip of a folder that hm reads.

The folder has the plain form of docs/conventions.md: videos beside metadata.jsonl. Everything is checked before the
first file is written; importing a clip of the same id again replaces it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.store.files import read_json, read_json_lines, sync_tree, write_json, write_json_lines
from hmcli.store.lock import ArtifactLock, writing_output
from hmcli.store.video import VideoInfo, check_video, frame_times
from hmcli.world.files.layout import METADATA_LINES, plain_row
from hmcli.world.files.pose_files import (
    Lens,
    PoseTrack,
    parse_colmap_binary,
    parse_colmap_text,
    parse_nerfstudio,
    parse_tum,
)
from hmcli.world.files.pose_times import at_video_frames
from hmcli.world.files.schema import intrinsics_json
from hmcli.world.views.cameras import check_poses, pair_file

Form = Literal["auto", "colmap", "tum", "nerfstudio"]
_FILE_COLUMNS = plain_row(id="", video="video", caption="", cameras="camera", intrinsics="lens").keys() - {"caption"}
_TEMPORARY = ".import-"
_LONGEST_NAME = 200  # bytes; suffixes are added


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """A clip whose parts fit together, before anything of it is written."""

    id: str
    caption: str
    video: Path
    poses: np.ndarray  # (T, 4, 4) world_from_camera, metres, one per frame
    size: tuple[int, int]  # height, width
    intrinsics: np.ndarray | None  # (4,) fx, fy, cx, cy in pixels of the video


def run(
    video: Path, *, poses: Path, form: Form, caption: str, name: str, interpolate: bool, metres_per_unit: float,
    out: Path, reporter: Reporter,
) -> StageResult:  # fmt: skip
    """Add one clip to the folder `out`; see `hm dataset import --help`. Raises DataError naming what does not fit."""
    if not (0 < metres_per_unit < float("inf")):
        raise UsageError(f"--metres-per-unit={metres_per_unit:g} must be positive")
    name = checked_name(name or video.stem)
    caption = checked_caption(caption)
    if not video.is_file():
        raise DataError("there is no such video", where={"video": video})
    info = check_video(video)
    size = (info.height, info.width)
    kind = _form(poses) if form == "auto" else form
    track = _read(poses, kind, size).scaled(metres_per_unit)
    try:
        placed = at_video_frames(track, frame_times(video), interpolate=interpolate)
        world_from_camera = check_poses(placed, str(poses))
        intrinsics = None if track.lens is None else _intrinsics(track.lens, info)
    except DataError as error:
        error.where = {"video": video, "poses": poses, **error.where}
        raise
    clip = _Clip(
        id=name, caption=caption, video=video, poses=world_from_camera, size=size, intrinsics=intrinsics
    )  # fmt: skip
    with ArtifactLock(out), writing_output(out):
        rows = _write(out, clip, _rows(out))
    _say(reporter, name, kind, track, metres_per_unit)
    for note in info.notes:
        reporter.note(f"{video.name}: {note}")
    reporter.note(f"clip {name}: {info.frames} frames, {len(track.world_from_camera)} poses from {kind}")
    return StageResult(path=out, kind="folder", counts={"clips": rows})


def _say(reporter: Reporter, name: str, kind: str, track: PoseTrack, metres_per_unit: float) -> None:
    """What was taken for granted."""
    if kind != "tum" and metres_per_unit == 1:
        reporter.note(f"{kind} does not know metres: lengths are taken as they are (--metres-per-unit)")
    if track.times is not None and track.times[0] != 0:
        reporter.note(f"the first pose (time {track.times[0]:.4f} s) is taken for the first frame's")
    if track.lens is not None and track.lens.size_is_the_videos:
        reporter.note("the poses do not say how large their images were: their intrinsics are taken for the video's")
    if track.lens is not None and track.lens.distorted:
        reporter.warn(f"{name}: the lens distorts, and only its focal length is used; undistort the video first")


# --- reading ---------------------------------------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """The id of a clip that files are named after. Raises UsageError for one that cannot be."""
    if not name or any(sign in name for sign in "/\\") or not name.isprintable() or name.startswith("."):
        raise UsageError(f"{name!r} cannot be the id of a clip", fix="choose another one with --id")
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        raise UsageError(f"an id of {len(name)} letters is too long for a file", fix="choose another one with --id")
    return name


def checked_caption(caption: str) -> str:
    """Raises UsageError for text that no file can hold."""
    try:
        caption.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError("the caption is not UTF-8", where={"at": error}) from error
    if "\0" in caption:
        raise UsageError("the caption has a NUL in it")
    return caption


def _form(poses: Path) -> Literal["colmap", "tum", "nerfstudio"]:
    """What the path looks like."""
    if poses.is_dir():
        return "nerfstudio" if (poses / "transforms.json").is_file() else "colmap"
    if poses.suffix == ".json":
        return "nerfstudio"
    return "colmap" if poses.name in ("images.txt", "images.bin", "cameras.txt", "cameras.bin") else "tum"


def _read(poses: Path, form: str, video: tuple[int, int]) -> PoseTrack:
    try:
        if form == "nerfstudio":
            return parse_nerfstudio(read_json(poses / "transforms.json" if poses.is_dir() else poses), video)
        if form == "tum":
            return parse_tum(poses.read_text(encoding="utf-8"))
        cameras, images = _colmap_files(poses)
        if images.suffix == ".bin":
            return parse_colmap_binary(cameras.read_bytes(), images.read_bytes())
        return parse_colmap_text(cameras.read_text("utf-8"), images.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "the poses cannot be read", where={"poses": poses, "because": error},
            fix="give a COLMAP model folder (cameras and images, .txt or .bin), a TUM trajectory, or transforms.json",
        ) from error  # fmt: skip
    except DataError as error:
        error.where = {"poses": poses, **error.where}
        raise


def _colmap_files(poses: Path) -> tuple[Path, Path]:
    """Camera and image file. A file that was given is the one that is read, and its partner is of the same kind."""
    if poses.is_dir():
        suffix = ".bin" if (poses / "images.bin").is_file() else ".txt"  # as COLMAP does
        return poses / f"cameras{suffix}", poses / f"images{suffix}"
    if poses.stem == "cameras":
        return poses, poses.with_stem("images")
    return poses.with_stem("cameras"), poses


def _intrinsics(lens: Lens, info: VideoInfo) -> np.ndarray:
    """(4,) fx, fy, cx, cy in pixels of the video, which may be a scaled version of the images that were calibrated."""
    if min(lens.size) <= 0:
        raise DataError(f"the lens was calibrated for images of {lens.size[0]}x{lens.size[1]}")
    down, across = info.height / lens.size[0], info.width / lens.size[1]
    if abs(down / across - 1) > 0.01:
        calibrated = f"{lens.size[0]}x{lens.size[1]}"
        raise DataError(
            f"the lens was calibrated for images of {calibrated}, the video is {info.height}x{info.width}",
            fix="use the video the poses were made from, or a scaled version of it that is not cropped",
        )
    (fx, fy), (cx, cy) = lens.focal, lens.centre
    if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        raise DataError(f"a lens with focal lengths {fx:g}, {fy:g} and centre {cx:g}, {cy:g}")
    return np.array([fx * across, fy * down, cx * across, cy * down])


# --- writing ---------------------------------------------------------------------------------------------------------


def _rows(out: Path) -> list[dict[str, Any]]:
    """The clips that are there. Raises UsageError for a folder that holds something else."""
    if (out / METADATA_LINES).is_file():
        return read_json_lines(out / METADATA_LINES)
    if out.exists() and any(not file.name.startswith(_TEMPORARY) for file in out.iterdir()):
        raise UsageError(f"{out} holds something else", fix=f"name a new folder, or one with a {METADATA_LINES}")
    return []


def _write(out: Path, clip: _Clip, there: list[dict[str, Any]]) -> int:
    """Files beside their places first, then all of them renamed, then the index. Returns how many clips it has."""
    out.mkdir(parents=True, exist_ok=True)
    names = {"video": f"{clip.id}{clip.video.suffix}", "cameras": f"{clip.id}.camera.json"}
    if clip.intrinsics is not None:
        names["intrinsics"] = f"{clip.id}.intrinsics.json"
    rest = [row for row in there if row.get("id") != clip.id]
    taken = {name: row.get("id") for row in rest for name in _files(row)}
    if clash := [name for name in names.values() if name in taken]:
        where = {"file": clash[0], "of clip": taken[clash[0]]}
        raise UsageError("another clip has a file of that name", where=where, fix="choose another id with --id")
    staged = {role: out / f"{_TEMPORARY}{os.getpid()}-{role}" for role in names}
    try:
        shutil.copyfile(clip.video, staged["video"])
        write_json(staged["cameras"], pair_file({"context": clip.poses}))
        if clip.intrinsics is not None:
            write_json(staged["intrinsics"], intrinsics_json(clip.intrinsics, clip.size))
        sync_tree(out, [staged["video"].name])
        for role, name in names.items():
            os.replace(staged[role], out / name)
    finally:
        for file in staged.values():
            file.unlink(missing_ok=True)
    row = plain_row(id=clip.id, caption=clip.caption, **{"intrinsics": "", **names})
    write_json_lines(out / METADATA_LINES, [*rest, row])
    for old in {name for row in there if row.get("id") == clip.id for name in _files(row)} - {*names.values(), *taken}:
        if Path(old).name == old:
            (out / old).unlink(missing_ok=True)
    return len(rest) + 1


def _files(row: Mapping[str, Any]) -> set[str]:
    """Files that a row of the index names."""
    return {str(row[column]) for column in _FILE_COLUMNS if row.get(column)}
