"""Pose files of real videos: what COLMAP, TUM and nerfstudio write -> poses as the project has them.

Pure parsing of text and bytes. All come out as world_from_camera, camera axes right, down, forward
(docs/conventions.md, "cameras"); the world's own axes and, for COLMAP and nerfstudio, its unit stay the file's: only
relative poses matter to the model, and `metres_per_unit` scales them. Shapes: T poses.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    "RAD_TAN_THIN_PRISM_FISHEYE": (16, (0, 1, 2, 3)),
    "SIMPLE_DIVISION": (4, (0, 0, 1, 2)),
    "DIVISION": (5, (0, 1, 2, 3)),
}
_MODEL_NUMBERS = tuple(_MODELS)  # in binary files a model is its number in this order
_GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])  # nerfstudio's camera looks along -z with y up
_FISHEYE = (
    "FISHEYE",
    "FOV",
    "EQUIRECT",
    "OMNI",
    "VR180",
    "SPHERICAL",
    "ORTHO",
)  # in names of models that are no pinhole
_OF_NERFSTUDIO = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
_SAME_LENS = 1e-6  # relative: what is written in text loses digits
_UPRIGHT, _MOSTLY = 0.99, 0.9  # size of a quaternion's scalar at the begin of a track, and all along
_UNIT_TOLERANCE = 1e-2  # of a quaternion's length; files carry 6 digits or more


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Pinhole intrinsics in pixels of an image of `size` (height, width), counted from its top left corner."""

    focal: tuple[float, float]  # fx, fy
    centre: tuple[float, float]  # cx, cy
    size: tuple[int, int]
    distorted: bool  # the file also has distortion, which is not modelled here
    size_is_the_videos: bool = False  # the file does not say for images of which size it was written


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
            name = _numbered_model(model)
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
    if not _alike([lenses[camera] for camera in used]):
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
    _refuse_fisheye(model)
    if model not in _MODELS:
        raise _unknown_model(model, _MODELS)
    count, places = _MODELS[model]
    if len(parameters) != count:
        raise ValueError(f"{len(parameters)} parameters, {model} has {count}")
    fx, fy, cx, cy = (parameters[place] for place in places)
    rest = [value for index, value in enumerate(parameters) if index not in places]
    return Lens(focal=(fx, fy), centre=(cx, cy), size=(height, width), distorted=any(rest))


def _numbered_model(number: int) -> str:
    if not 0 <= number < len(_MODEL_NUMBERS):
        raise _unknown_model(f"number {number}", _MODELS)
    return _MODEL_NUMBERS[number]


def _refuse_fisheye(model: str) -> None:
    """A fisheye is no pinhole, also where its coefficients are left out: its focal length means something else."""
    if any(word in model.upper() for word in _FISHEYE):
        raise DataError(
            f"the camera model {model} is no pinhole", where={"camera model": model},
            fix="undistort the video first (colmap image_undistorter), and give the poses of the undistorted images",
        )  # fmt: skip


def _unknown_model(model: str, known: Iterable[str]) -> DataError:
    return DataError(
        f"unknown camera model {model}", where={"camera model": model}, fix=f"known are {', '.join(known)}"
    )


def _alike(lenses: Sequence[Lens | None]) -> bool:
    """Are they one lens, as far as the digits go?"""
    first = lenses[0]
    for lens in lenses:
        if lens is None or first is None:
            if lens is not first:
                return False
        elif (lens.size, lens.distorted) != (first.size, first.distorted) or not np.allclose(
            [*lens.focal, *lens.centre], [*first.focal, *first.centre], rtol=_SAME_LENS, atol=0
        ):
            return False
    return True


# --- TUM -------------------------------------------------------------------------------------------------------------


def parse_tum(text: str) -> PoseTrack:
    """Lines of `timestamp tx ty tz qx qy qz qw`: world_from_camera, metres, seconds. DataError names a bad line.

    A comment that names the columns may say `qw qx qy qz`. Without one, a track that would begin upside down is asked
    about: it is one that begins upright with the scalar first.
    """
    order = _stated_order(text)
    times, poses, quaternions = [], [], []
    for number, line in _lines(text):
        with _Line("trajectory", number, line):
            values = np.array([float(value) for value in line.replace(",", " ").split()])
            if len(values) != 8:
                raise ValueError(f"{len(values)} numbers, not 8")
            times.append(values[0])
            quaternions.append(values[4:8])
            poses.append(_pose(values[[5, 6, 7, 4]] if order == "wxyz" else values[4:8], values[1:4]))
    if not poses:
        raise DataError("the trajectory is empty", fix="each line is: timestamp tx ty tz qx qy qz qw")
    if not order:
        _ask_order(np.array(quaternions))
    if (steps := np.diff(times)).size and steps.min() <= 0:
        late = int(np.argmax(steps <= 0)) + 1
        raise DataError(f"time does not go on at pose {late + 1}: {times[late - 1]:g} s, then {times[late]:g} s")
    return PoseTrack(world_from_camera=np.stack(poses), times=np.array(times))


def _stated_order(text: str) -> str:
    """xyzw or wxyz, where a comment names the columns (`# timestamp tx ty tz qw qx qy qz`); otherwise empty."""
    for line in text.splitlines():
        if line.startswith("#") and len(named := re.findall(r"\bq_?([wxyz])\b", line.lower())) == 4:
            if (order := "".join(named)) in ("xyzw", "wxyz"):
                return order
            raise DataError(f"quaternions in the order {order}", where={"line": line}, fix="write qx qy qz qw")
    return ""


def _ask_order(quaternions_T4: np.ndarray) -> None:
    """Raises DataError where the first number is the scalar, by its looks.

    Lengths are the same in both orders and so are the angles between poses; but trackers begin upright, which is
    0 0 0 1 with the scalar last, and would be half a turn about x with the scalar first.
    """
    one, last = np.abs(quaternions_T4[0, [0, 3]])
    usually, rarely = np.median(np.abs(quaternions_T4[:, [0, 3]]), axis=0)
    if (one > _UPRIGHT and last < 1 - _UPRIGHT) or (usually > _MOSTLY and rarely < 1 - _MOSTLY):
        raise DataError(
            "the quaternions seem to have their scalar first, and nothing says their order",
            where={"first": " ".join(f"{value:g}" for value in quaternions_T4[0])},
            fix="name the columns in the first line: '# timestamp tx ty tz qw qx qy qz' if the scalar is first, "
            "'# timestamp tx ty tz qx qy qz qw' if it is last",
        )


# --- nerfstudio ------------------------------------------------------------------------------------------------------


def parse_nerfstudio(content: Any, video: tuple[int, int] | None = None) -> PoseTrack:
    """transforms.json: camera-to-world matrices with y up and z backwards. Raises DataError naming the frame.

    Intrinsics without w and h are of images of the size of the `video` (height, width).
    """
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
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise DataError("transform_matrix must be 4x4 finite numbers", where={"key": place})
        found.append(
            (str(frame["file_path"]), matrix @ _GL_TO_CV, _nerfstudio_lens({**content, **frame}, place, video))
        )
    in_order = sorted(found, key=lambda row: natural_key(row[0]))
    lenses = [lens for _, _, lens in in_order]
    if not _alike(lenses):
        raise DataError(f"the frames have {len(set(lenses))} different intrinsics, a clip has one")
    return PoseTrack(
        world_from_camera=np.stack([pose for _, pose, _ in in_order]),
        names=tuple(name for name, _, _ in in_order),
        lens=lenses[0],
    )


def _nerfstudio_lens(values: Mapping[str, Any], place: str, video: tuple[int, int] | None) -> Lens | None:
    """Intrinsics from fl_x, fl_y, cx, cy, w, h, or from camera_angle_x; None when there are none."""
    model = str(values.get("camera_model") or "OPENCV")
    _refuse_fisheye(model)
    if model.upper() not in _OF_NERFSTUDIO:
        raise _unknown_model(model, _OF_NERFSTUDIO)
    if not any(key in values for key in ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")):
        return None
    sized = {"w", "h"} <= set(values)
    if not sized and video is None:
        raise DataError("intrinsics without w and h", where={"key": place})
    try:
        height, width = (int(values["h"]), int(values["w"])) if sized or video is None else video
        one, other = _focal(values, "x", width), _focal(values, "y", height)
        fx = other if one is None else one
        fy = one if other is None else other
        assert fx is not None
        assert fy is not None
        cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
        distortion = [float(values[key]) for key in ("k1", "k2", "k3", "k4", "p1", "p2") if key in values]
    except (TypeError, ValueError) as error:
        raise DataError("intrinsics must be numbers", where={"key": place}) from error
    return Lens(
        focal=(fx, fy), centre=(cx, cy), size=(height, width), distorted=any(distortion), size_is_the_videos=not sized
    )


def _focal(values: Mapping[str, Any], axis: str, side: int) -> float | None:
    """Pixels, written or from an angle over a side of so many pixels."""
    if f"fl_{axis}" in values:
        return float(values[f"fl_{axis}"])
    return focal_length(float(values[f"camera_angle_{axis}"]), side) if f"camera_angle_{axis}" in values else None


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
