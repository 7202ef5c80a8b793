"""Pose files of real videos: what COLMAP, TUM and nerfstudio write -> poses as the project has them.

Pure parsing of text and bytes. All come out as world_from_camera, camera axes right, down, forward
(docs/conventions.md, "cameras"); the world's own axes and, for COLMAP and nerfstudio, its unit stay the file's: only
relative poses matter to the model, and `metres_per_unit` scales them. Shapes: T poses.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from hmcli.errors import DataError
from hmcli.world.files.captions import natural_key
from hmcli.world.views.cameras import focal_length

# COLMAP's camera models: name -> how many parameters, and where fx, fy, cx, cy stand among them (others: distortion)
_MODELS: dict[str, tuple[int, tuple[int, int, int, int]]] = {
    "SIMPLE_PINHOLE": (3, (0, 0, 1, 2)),
    "PINHOLE": (4, (0, 1, 2, 3)),
    "SIMPLE_RADIAL": (4, (0, 0, 1, 2)),
    "RADIAL": (5, (0, 0, 1, 2)),
    "OPENCV": (8, (0, 1, 2, 3)),
    "OPENCV_FISHEYE": (8, (0, 1, 2, 3)),
    "FULL_OPENCV": (12, (0, 1, 2, 3)),
    "FOV": (5, (0, 1, 2, 3)),
    "SIMPLE_RADIAL_FISHEYE": (4, (0, 0, 1, 2)),
    "RADIAL_FISHEYE": (5, (0, 0, 1, 2)),
    "THIN_PRISM_FISHEYE": (12, (0, 1, 2, 3)),
}
_MODEL_NUMBERS = tuple(_MODELS)  # in binary files a model is its number in this order
_GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])  # nerfstudio's camera looks along -z with y up
_UNIT_TOLERANCE = 1e-2  # of a quaternion's length; files carry 6 digits or more


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Pinhole intrinsics in pixels of an image of `size` (height, width), counted from its top left corner."""

    focal: tuple[float, float]  # fx, fy
    centre: tuple[float, float]  # cx, cy
    size: tuple[int, int]
    distorted: bool  # the file also has distortion, which is not modelled here


@dataclass(frozen=True, kw_only=True)
class PoseTrack:
    """Poses in order of time. Each has the name of its image, or its time in seconds."""

    world_from_camera: np.ndarray  # (T, 4, 4) float64
    names: tuple[str, ...] = ()
    times: np.ndarray | None = None  # (T,) seconds
    lens: Lens | None = None

    def scaled(self, metres_per_unit: float) -> PoseTrack:
        """The same track with its translations in metres."""
        poses = self.world_from_camera.copy()
        poses[:, :3, 3] *= metres_per_unit
        return replace(self, world_from_camera=poses)


# --- COLMAP ----------------------------------------------------------------------------------------------------------


def parse_colmap_text(cameras: str, images: str) -> PoseTrack:
    """COLMAP's cameras.txt and images.txt. Raises DataError naming file and line."""
    lenses: dict[int, Lens] = {}
    for number, line in _lines(cameras):
        fields = line.split()
        with _Line("cameras.txt", number, line):
            lenses[int(fields[0])] = _lens(
                fields[1], int(fields[2]), int(fields[3]), [float(value) for value in fields[4:]]
            )
    found = []
    for number, line in _lines(images, keep_empty=True)[::2]:  # every second line lists the image's points
        if not line:
            continue
        with _Line("images.txt", number, line):
            fields = line.split(maxsplit=9)
            values = np.array([float(value) for value in fields[1:8]])
            found.append((fields[9], _inverse(_pose(values[[1, 2, 3, 0]], values[4:7])), int(fields[8])))
    return _colmap_track(found, lenses)


def parse_colmap_binary(cameras: bytes, images: bytes) -> PoseTrack:
    """COLMAP's cameras.bin and images.bin. Raises DataError when they end early or hold what COLMAP does not write."""
    lenses: dict[int, Lens] = {}
    found = []
    try:
        at = 8
        for _ in range(struct.unpack_from("<Q", cameras, 0)[0]):
            number, model, width, height = struct.unpack_from("<iiQQ", cameras, at)
            name = _MODEL_NUMBERS[model]
            parameters = struct.unpack_from(f"<{_MODELS[name][0]}d", cameras, at + 24)
            lenses[number] = _lens(name, width, height, list(parameters))
            at += 24 + 8 * len(parameters)
        at = 8
        for _ in range(struct.unpack_from("<Q", images, 0)[0]):
            values = np.array(struct.unpack_from("<7d", images, at + 4))
            camera = struct.unpack_from("<i", images, at + 60)[0]
            end = images.index(b"\0", at + 64)
            points = struct.unpack_from("<Q", images, end + 1)[0]
            pose = _inverse(_pose(values[[1, 2, 3, 0]], values[4:7]))
            found.append((images[at + 64 : end].decode("utf-8"), pose, camera))
            at = end + 9 + 24 * points
        if at > len(images):
            raise ValueError("images.bin ends within the points of an image")
    except (struct.error, IndexError, ValueError) as error:
        raise DataError(
            "cameras.bin or images.bin is not whole", where={"because": error}, fix="write the COLMAP model again"
        ) from error
    return _colmap_track(found, lenses)


def _colmap_track(images: Sequence[tuple[str, np.ndarray, int]], lenses: Mapping[int, Lens]) -> PoseTrack:
    if not images:
        raise DataError("the COLMAP model has no images", fix="give the folder of the model that has the most images")
    in_order = sorted(images, key=lambda image: natural_key(image[0]))
    used = sorted({camera for _, _, camera in in_order})
    if absent := [camera for camera in used if camera not in lenses]:
        raise DataError(f"images use camera {absent[0]}, which the camera file does not have")
    if len({lenses[camera] for camera in used}) > 1:
        raise DataError(
            f"the images were taken with {len(used)} different cameras, a clip has one",
            fix="run COLMAP with a single camera (ImageReader.single_camera 1)",
        )
    return PoseTrack(
        world_from_camera=np.stack([pose for _, pose, _ in in_order]),
        names=tuple(name for name, _, _ in in_order),
        lens=lenses[used[0]],
    )


def _lens(model: str, width: int, height: int, parameters: list[float]) -> Lens:
    if model not in _MODELS:
        raise ValueError(f"unknown camera model {model}")
    count, places = _MODELS[model]
    if len(parameters) != count:
        raise ValueError(f"{len(parameters)} parameters, {model} has {count}")
    fx, fy, cx, cy = (parameters[place] for place in places)
    rest = [value for index, value in enumerate(parameters) if index not in places]
    return Lens(focal=(fx, fy), centre=(cx, cy), size=(height, width), distorted=any(rest) or "FISHEYE" in model)


# --- TUM -------------------------------------------------------------------------------------------------------------


def parse_tum(text: str) -> PoseTrack:
    """Lines of `timestamp tx ty tz qx qy qz qw`: world_from_camera, metres, seconds. DataError names a bad line."""
    times, poses = [], []
    for number, line in _lines(text):
        with _Line("trajectory", number, line):
            values = np.array([float(value) for value in line.replace(",", " ").split()])
            if len(values) != 8:
                raise ValueError(f"{len(values)} numbers, not 8")
            times.append(values[0])
            poses.append(_pose(values[4:8], values[1:4]))
    if not poses:
        raise DataError("the trajectory is empty", fix="each line is: timestamp tx ty tz qx qy qz qw")
    if (steps := np.diff(times)).size and steps.min() <= 0:
        late = int(np.argmax(steps <= 0)) + 1
        raise DataError(f"time does not go on at pose {late + 1}: {times[late - 1]:g} s, then {times[late]:g} s")
    return PoseTrack(world_from_camera=np.stack(poses), times=np.array(times))


# --- nerfstudio ------------------------------------------------------------------------------------------------------


def parse_nerfstudio(content: Any) -> PoseTrack:
    """transforms.json: camera-to-world matrices with y up and z backwards. Raises DataError naming the frame."""
    frames = content.get("frames") if isinstance(content, Mapping) else None
    if not isinstance(frames, list) or not frames:
        raise DataError("transforms.json has no list of frames", where={"key": "frames"})
    found = []
    for index, frame in enumerate(frames):
        place = f"frames[{index}]"
        if not isinstance(frame, Mapping) or not {"file_path", "transform_matrix"} <= set(frame):
            raise DataError("a frame needs file_path and transform_matrix", where={"key": place})
        try:
            matrix = np.array(frame["transform_matrix"], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("transform_matrix must be 4x4 numbers", where={"key": place}) from error
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise DataError("transform_matrix must be 4x4 finite numbers", where={"key": place})
        found.append((str(frame["file_path"]), matrix @ _GL_TO_CV, _nerfstudio_lens({**content, **frame}, place)))
    in_order = sorted(found, key=lambda row: natural_key(row[0]))
    lenses = {lens for _, _, lens in in_order}
    if len(lenses) > 1:
        raise DataError(f"the frames have {len(lenses)} different intrinsics, a clip has one")
    return PoseTrack(
        world_from_camera=np.stack([pose for _, pose, _ in in_order]),
        names=tuple(name for name, _, _ in in_order),
        lens=lenses.pop(),
    )


def _nerfstudio_lens(values: Mapping[str, Any], place: str) -> Lens | None:
    """Intrinsics from fl_x, fl_y, cx, cy, w, h, or from camera_angle_x with w and h; None when there are none."""
    size = {"w", "h"} <= set(values)
    if not size or not ({"fl_x", "camera_angle_x"} & set(values)):
        return None
    try:
        width, height = int(values["w"]), int(values["h"])
        angle = values.get("camera_angle_x")
        fx = float(values["fl_x"]) if "fl_x" in values else focal_length(float(angle), width)  # type: ignore[arg-type]
        fy = float(values["fl_y"]) if "fl_y" in values else fx
        cx = float(values["cx"]) if "cx" in values else width / 2
        cy = float(values["cy"]) if "cy" in values else height / 2
        distortion = [float(values[key]) for key in ("k1", "k2", "k3", "k4", "p1", "p2") if key in values]
    except (TypeError, ValueError) as error:
        raise DataError("intrinsics must be numbers", where={"key": place}) from error
    return Lens(focal=(fx, fy), centre=(cx, cy), size=(height, width), distorted=any(distortion))


# --- to the frames of a video ----------------------------------------------------------------------------------------


def at_video_frames(track: PoseTrack, frames: int, fps: float, *, interpolate: bool) -> np.ndarray:
    """One pose per video frame, (frames, 4, 4).

    As many poses as frames are taken in order. Otherwise, with `interpolate`, poses lie at their times (the first at
    frame 0) or at the number in their image's name, and frames between two are interpolated (positions linearly,
    rotations on the shortest arc); frames before the first or after the last pose are never made up.
    """
    poses = track.world_from_camera
    if len(poses) == frames:
        return poses
    if not interpolate:
        raise DataError(
            f"{len(poses)} poses for {frames} video frames",
            fix="give one pose per frame, or --interpolate to place them by their times or image numbers",
        )
    at = _frame_numbers(track, fps)
    if at[0] > 1e-6 or at[-1] < frames - 1 - 1e-6:
        raise DataError(
            f"the poses cover frames {at[0]:g} to {at[-1]:g}, the video has 0 to {frames - 1}",
            fix="cut the video to what was tracked: poses are interpolated, never invented beyond the first and last",
        )
    from scipy.spatial.transform import Rotation, Slerp

    wanted = np.arange(frames, dtype=np.float64).clip(at[0], at[-1])
    result = np.repeat(np.eye(4)[None], frames, axis=0)
    result[:, :3, :3] = Slerp(at, Rotation.from_matrix(poses[:, :3, :3]))(wanted).as_matrix()
    for axis in range(3):
        result[:, axis, 3] = np.interp(wanted, at, poses[:, axis, 3])
    return result


def _frame_numbers(track: PoseTrack, fps: float) -> np.ndarray:
    """(T,) which video frame, counted from 0, each pose belongs to (with times: a fraction)."""
    if track.times is not None:
        return (track.times - track.times[0]) * fps
    digits = [re.findall(r"[0-9]+", PurePosixPath(name).stem) for name in track.names]
    if any(not row for row in digits):
        raise DataError(
            "an image's name has no number, so its frame is not known",
            where={"image": next(name for name, row in zip(track.names, digits, strict=True) if not row)},
        )
    numbers = np.array([int(row[-1]) for row in digits], dtype=np.float64)
    if np.diff(numbers).min(initial=1) <= 0:
        raise DataError("two images have the same number, so their frames are not known")
    return numbers - (0 if numbers[0] == 0 else 1)


# --- parts -----------------------------------------------------------------------------------------------------------


class _Line:
    """Turns what goes wrong with a line into a DataError that names it."""

    def __init__(self, file: str, number: int, line: str) -> None:
        self.file, self.number, self.line = file, number, line

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ValueError, IndexError)):
            because = "too few fields" if isinstance(error, IndexError) else str(error)
            raise DataError(
                "a line cannot be read",
                where={"file": self.file, "line": f"{self.number}: {self.line[:80]}", "because": because},
            ) from error


def _lines(text: str, *, keep_empty: bool = False) -> list[tuple[int, str]]:
    """Numbered lines without comments."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in lines if not line.startswith("#") and (line or keep_empty)]


def _pose(quaternion_xyzw: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(4, 4) from a rotation as a quaternion, scalar last, and a translation."""
    length = float(np.linalg.norm(quaternion_xyzw))
    if not np.isfinite(translation).all() or not abs(length - 1) <= _UNIT_TOLERANCE:
        raise ValueError(f"the quaternion has length {length:.4g}, not 1, or a number is not finite")
    x, y, z, w = quaternion_xyzw / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose


def _inverse(pose: np.ndarray) -> np.ndarray:
    """The inverse of a rigid pose."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse
