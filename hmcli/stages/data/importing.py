"""`hm dataset import`: a real video and its poses (COLMAP, TUM, nerfstudio) become a clip of a folder that hm reads.

The folder has the plain form of docs/conventions.md: videos beside metadata.jsonl. Importing a clip of the same id
again replaces it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.store.files import read_json, read_json_lines, write_json, write_json_lines
from hmcli.store.video import VideoInfo, check_video
from hmcli.world.files.layout import METADATA_LINES, plain_row
from hmcli.world.files.pose_files import (
    Lens,
    PoseTrack,
    at_video_frames,
    parse_colmap_binary,
    parse_colmap_text,
    parse_nerfstudio,
    parse_tum,
)
from hmcli.world.files.schema import intrinsics_json
from hmcli.world.views.cameras import check_poses, pair_file

Form = Literal["auto", "colmap", "tum", "nerfstudio"]


def run(
    video: Path, *, poses: Path, form: Form, caption: str, name: str, interpolate: bool, metres_per_unit: float,
    out: Path, reporter: Reporter,
) -> StageResult:  # fmt: skip
    """Add one clip to the folder `out`; see `hm dataset import --help`. Raises DataError naming what does not fit."""
    if metres_per_unit <= 0:
        raise UsageError(f"--metres-per-unit={metres_per_unit:g} must be positive")
    if not video.is_file():
        raise DataError("there is no such video", where={"video": video})
    info = check_video(video)
    kind = _form(poses) if form == "auto" else form
    track = _read(poses, kind).scaled(metres_per_unit)
    try:
        world_from_camera = check_poses(
            at_video_frames(track, info.frames, info.fps, interpolate=interpolate), str(poses)
        )
    except DataError as error:
        error.where = {"video": video, "poses": poses, **error.where}
        raise
    if kind != "tum" and metres_per_unit == 1:
        reporter.note(f"{kind} does not know metres: lengths are taken as they are (--metres-per-unit)")
    name = name or video.stem
    _write(out, name, video, info, world_from_camera, track.lens, caption, reporter)
    reporter.note(f"clip {name}: {info.frames} frames, {len(track.world_from_camera)} poses from {kind}")
    return StageResult(path=out, kind="folder", counts={"clips": len(read_json_lines(out / METADATA_LINES))})


def _form(poses: Path) -> Literal["colmap", "tum", "nerfstudio"]:
    """What the path looks like."""
    if poses.is_dir():
        return "nerfstudio" if (poses / "transforms.json").is_file() else "colmap"
    if poses.suffix == ".json":
        return "nerfstudio"
    return "colmap" if poses.name in ("images.txt", "images.bin", "cameras.txt", "cameras.bin") else "tum"


def _read(poses: Path, form: str) -> PoseTrack:
    try:
        if form == "nerfstudio":
            return parse_nerfstudio(read_json(poses / "transforms.json" if poses.is_dir() else poses))
        if form == "tum":
            return parse_tum(poses.read_text(encoding="utf-8"))
        folder = poses if poses.is_dir() else poses.parent
        if (folder / "images.bin").is_file():
            return parse_colmap_binary((folder / "cameras.bin").read_bytes(), (folder / "images.bin").read_bytes())
        return parse_colmap_text(
            (folder / "cameras.txt").read_text("utf-8"), (folder / "images.txt").read_text("utf-8")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "the poses cannot be read", where={"poses": poses, "because": error},
            fix="give a COLMAP model folder (cameras and images, .txt or .bin), a TUM trajectory, or transforms.json",
        ) from error  # fmt: skip
    except DataError as error:
        error.where = {"poses": poses, **error.where}
        raise


def _write(
    out: Path, name: str, video: Path, info: VideoInfo, poses: np.ndarray, lens: Lens | None, caption: str,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Video, camera file, intrinsics and the folder's index."""
    if not name or any(sign in name for sign in "/\\\0") or name.startswith("."):
        raise UsageError(f"{name!r} cannot be the id of a clip", fix="choose another one with --id")
    there = read_json_lines(out / METADATA_LINES) if (out / METADATA_LINES).is_file() else []
    if out.exists() and not there and any(out.iterdir()):
        raise UsageError(f"{out} holds something else", fix=f"name a new folder, or one with a {METADATA_LINES}")
    out.mkdir(parents=True, exist_ok=True)
    copy, cameras = f"{name}{video.suffix}", f"{name}.camera.json"
    part = out / f".{copy}.part"
    shutil.copyfile(video, part)
    os.replace(part, out / copy)
    write_json(out / cameras, pair_file({"context": poses}))
    intrinsics = "" if lens is None else f"{name}.intrinsics.json"
    if lens is not None:
        write_json(out / intrinsics, intrinsics_json(_intrinsics(lens, info), (info.height, info.width)))
        if lens.distorted:
            reporter.warn(f"{name}: the lens distorts, and only its focal length is used; undistort the video first")
    row = plain_row(id=name, video=copy, caption=caption, cameras=cameras, intrinsics=intrinsics)
    write_json_lines(out / METADATA_LINES, [*(other for other in there if other.get("id") != name), row])


def _intrinsics(lens: Lens, info: VideoInfo) -> np.ndarray:
    """(4,) fx, fy, cx, cy in pixels of the video, which may be a scaled version of the images that were calibrated."""
    down, across = info.height / lens.size[0], info.width / lens.size[1]
    if abs(down / across - 1) > 0.01:
        calibrated = f"{lens.size[0]}x{lens.size[1]}"
        raise DataError(
            f"the lens was calibrated for images of {calibrated}, the video is {info.height}x{info.width}",
            fix="use the video the poses were made from, or a scaled version of it that is not cropped",
        )
    (fx, fy), (cx, cy) = lens.focal, lens.centre
    return np.array([fx * across, fy * down, cx * across, cy * down])
