"""Cameras: the one place that turns released camera files into poses, and poses into the model's camera rows.

Released files are row-major camera-to-world matrices in Unreal's world: centimetres, Z up, rotation columns forward,
right, up.  Inside the project a pose is `world_from_camera`: metres, right-handed world with Z up, camera axes right,
down, forward (docs/conventions.md).  The official conversion leaves a left-handed world (determinant -1); the world's
Y is negated too, which makes every rotation proper and changes no relative pose.
Paper: Eq. 2 (camera rows).  Shapes: T video frames, F latent frames.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError

CENTIMETRES_PER_METRE = 100.0
RIGID_TOLERANCE = 1e-3  # largest entry of R^T R - 1; released float32 files stay below 2e-6
_CAMERA_COLUMNS = (1, 2, 0, 3)  # Unreal's forward, right, up -> right, up, forward
_UNREAL_COLUMNS = (2, 0, 1, 3)  # and back
_MIRROR_Y = np.diag([1.0, -1.0, 1.0, 1.0])  # of the world
_UP_TO_DOWN = np.array([1.0, -1.0, 1.0, 1.0])  # of the camera, one factor per column
_FRAME_NUMBER = re.compile(r"0|[1-9][0-9]*")
_NUMBER = re.compile(r"[^\s,]+")
_BRACKETS = re.compile(r"\s*" + r"\[([^\[\]]*)\]\s*" * 4)

Repair = Literal["refuse", "reference"]
PartName = Literal["context", "target"]
PREFIXES: dict[PartName, str] = {"context": "cond", "target": "tgt"}  # in released names of files and keys
_PAIR = {part: f"{prefix}_cam" for part, prefix in PREFIXES.items()}  # keys of a camera file


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """What one camera file holds: poses at video rate, or ready rows at latent rate, or None where it has nothing.

    `context` and `target` are world_from_camera, (T, 4, 4) float64, metres.  `context_rows` and `target_rows` are
    (F, 12) float64, already relative to the first target camera; a file holds either poses or rows.
    """

    form: str  # pair, arrays, rows, text, text repaired as the reference does
    context: np.ndarray | None = None
    target: np.ndarray | None = None
    context_rows: np.ndarray | None = None
    target_rows: np.ndarray | None = None
    ignored: tuple[str, ...] = ()  # top-level keys that say nothing about cameras


# --- conversion ----------------------------------------------------------------------------------------------------


def world_from_unreal(matrices: np.ndarray) -> np.ndarray:
    """(T, 4, 4) Unreal camera-to-world in centimetres -> (T, 4, 4) world_from_camera in metres, float64."""
    poses = np.asarray(matrices, dtype=np.float64)[..., _CAMERA_COLUMNS] * _UP_TO_DOWN
    poses[..., :3, 3] /= CENTIMETRES_PER_METRE
    return _MIRROR_Y @ poses


def unreal_from_world(world_from_camera: np.ndarray) -> np.ndarray:
    """Inverse of `world_from_unreal`: what a released camera.json holds, float64."""
    matrices = _MIRROR_Y @ np.asarray(world_from_camera, dtype=np.float64)
    matrices[..., :3, 3] *= CENTIMETRES_PER_METRE
    return (matrices * _UP_TO_DOWN)[..., _UNREAL_COLUMNS]


def world_point_from_unreal(points: np.ndarray) -> np.ndarray:
    """(..., 3) centimetres in Unreal's world -> (..., 3) metres in ours, float64."""
    return np.asarray(points, dtype=np.float64) * (1.0, -1.0, 1.0) / CENTIMETRES_PER_METRE


def unreal_point_from_world(points: np.ndarray) -> np.ndarray:
    """Inverse of `world_point_from_unreal`."""
    return np.asarray(points, dtype=np.float64) * (1.0, -1.0, 1.0) * CENTIMETRES_PER_METRE


def latent_poses(poses: np.ndarray) -> np.ndarray:
    """The pose of every latent frame: (1 + 4k, 4, 4) -> (1 + k, 4, 4), the first of each group of four video frames."""
    if poses.shape[0] % TIME_STRIDE != 1:
        raise ValueError(f"{poses.shape[0]} poses are not 4k+1")
    return poses[::TIME_STRIDE]


def relative_camera_rows(world_from_camera: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """inverse(reference) @ pose, the top 3x4 flattened row by row: (T, 4, 4) and (4, 4) -> (T, 12) float64.

    The model gets latent-rate poses of context and target, both relative to the first target camera.
    """
    relative = np.linalg.inv(np.asarray(reference, dtype=np.float64)) @ np.asarray(world_from_camera, dtype=np.float64)
    return relative[..., :3, :].reshape(*relative.shape[:-2], 12)


def focal_length(angle: float, width: float) -> float:
    """Pixels, from the horizontal field of view in radians and the picture's width in pixels."""
    return width / 2 / float(np.tan(angle / 2))


def field_of_view(focal: float, width: float) -> float:
    """The inverse of `focal_length`: radians."""
    return float(2 * np.arctan(width / 2 / focal))


# --- checks --------------------------------------------------------------------------------------------------------


def check_poses(matrices: np.ndarray, key: str) -> np.ndarray:
    """The (T, 4, 4) matrices as they are, or DataError naming the first frame that is no rigid right-handed pose."""
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or matrices.shape[0] == 0:
        raise _bad(f"cameras have shape {matrices.shape}, not (frames, 4, 4)", key)
    rotation = matrices[:, :3, :3]
    finite = np.isfinite(matrices).all(axis=(1, 2))
    rest = np.where(finite[:, None, None], rotation, np.eye(3))  # non-finite frames are reported before the others
    skew = np.abs(rest.swapaxes(1, 2) @ rest - np.eye(3)).max(axis=(1, 2))
    affine = np.abs(matrices[:, 3] - (0.0, 0.0, 0.0, 1.0)).max(axis=1)
    for bad, what in (
        (~finite, "is not finite"),
        (skew > RIGID_TOLERANCE, f"is no rotation: its columns are not orthonormal within {RIGID_TOLERANCE}"),
        (np.linalg.det(rest) < 0, "is a mirror image: the rotation's determinant is -1"),
        (affine > RIGID_TOLERANCE, "has a last row that is not 0 0 0 1"),
    ):
        if bad.any():
            frames = np.flatnonzero(bad)
            more = f" ({len(frames)} such frames)" if len(frames) > 1 else ""
            raise _bad(f"the camera of frame {frames[0]} {what}{more}", key)
    return matrices


def _bad(what: str, key: str, fix: str = "") -> DataError:
    return DataError(what, where={"key": key}, fix=fix or "correct the camera file, or leave the clip out")


# --- released forms ------------------------------------------------------------------------------------------------


def parse_cameras(content: Any, *, frames: int, repair: Repair) -> Cameras:
    """Read any released form of a camera file, given as parsed JSON.

    `frames` is the number of frames of the context video; only the text form needs it, which does not say where the
    target begins. `repair` is the recipe's poses.repair and concerns the text form alone. Raises DataError.
    """
    if not isinstance(content, Mapping) or not content:
        raise _bad("the camera file is not a JSON object with cameras in it", "(top level)")
    if any(key in content for key in _PAIR.values()):
        return _pair(content)
    if "context_camera" in content or "video_camera" in content:
        return _arrays(content)
    if all(_FRAME_NUMBER.fullmatch(str(key)) for key in content):
        return _text(content, frames, repair)
    known = f"{' and '.join(_PAIR.values())}, context_camera and video_camera, or frame numbers"
    raise _bad(f"unknown camera form with keys {_some(content)}", "(top level)", f"the keys must be {known}")


def _pair(content: Mapping[str, Any]) -> Cameras:
    """{"cond_cam": {"0": 4x4, ...}, "tgt_cam": {...}}."""
    poses = {part: _numbered(content[key], key) for part, key in _PAIR.items() if key in content}
    ignored = tuple(key for key in content if key not in _PAIR.values())
    return Cameras(form="pair", context=poses.get("context"), target=poses.get("target"), ignored=ignored)


def pair_file(poses: Mapping[PartName, np.ndarray]) -> dict[str, Any]:
    """A camera file of the form that `_pair` reads, from (T, 4, 4) world_from_camera in metres."""
    return {_PAIR[part]: by_frame(unreal_from_world(track)) for part, track in poses.items()}


def by_frame(values: np.ndarray) -> dict[str, Any]:
    """One entry per frame, as the released files have them."""
    return {str(frame): value.tolist() for frame, value in enumerate(values)}


def _numbered(frames: Any, key: str) -> np.ndarray:
    """{"0": 4x4, "1": 4x4, ...} in Unreal's world -> (T, 4, 4) world_from_camera."""
    if not isinstance(frames, Mapping) or not frames:
        raise _bad('cameras must be an object {"0": 4x4, "1": 4x4, ...}', key)
    wanted = [str(frame) for frame in range(len(frames))]
    if missing := [frame for frame in wanted if frame not in frames]:
        extra = [name for name in frames if name not in wanted]
        raise _bad(f"{len(frames)} cameras, but frame {_some(missing)} is missing (there is {_some(extra)})", key)
    matrices = np.stack([_matrix(frames[frame], f"{key}.{frame}") for frame in wanted])
    return world_from_unreal(check_poses(matrices, key))


def _arrays(content: Mapping[str, Any]) -> Cameras:
    """`context_camera` and `video_camera`: both (T, 4, 4) in Unreal's world, or both (F, 12) rows."""
    found = {key: _numbers(content[key], key) for key in ("context_camera", "video_camera") if key in content}
    ignored = tuple(key for key in content if key not in found)
    context, target = found.get("context_camera"), found.get("video_camera")
    if all(array.ndim == 2 and array.shape[1] == 12 for array in found.values()):
        for key, rows in found.items():
            _check_rows(rows, key)
        return Cameras(form="rows", context_rows=context, target_rows=target, ignored=ignored)
    for key, array in found.items():
        if array.ndim == 2 and array.shape[1:] == (12,):
            raise _bad("one of context_camera and video_camera is (F, 12) rows, the other is not", key)
    poses = {key: world_from_unreal(check_poses(_whole(array), key)) for key, array in found.items()}
    return Cameras(
        form="arrays", context=poses.get("context_camera"), target=poses.get("video_camera"), ignored=ignored
    )


def _check_rows(rows: np.ndarray, key: str) -> None:
    bottom = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (rows.shape[0], 1, 4))
    check_poses(np.concatenate([rows.reshape(-1, 3, 4), bottom], axis=1), key)


def _text(content: Mapping[str, Any], frames: int, repair: Repair) -> Cameras:
    """{"0": "[..] [..] [..] [..]", ...}: one trajectory over context and target, four column vectors per frame."""
    if repair == "reference":
        form, matrices = "text repaired as the reference does", _text_as_the_reference_reads_it(content, frames)
    else:
        form, matrices = "text", _text_strictly(content, frames)
    poses = world_from_unreal(check_poses(matrices, "(text cameras)"))
    return Cameras(form=form, context=poses[:frames], target=poses[frames:])


def _text_strictly(content: Mapping[str, Any], frames: int) -> np.ndarray:
    """Every frame as written; the first `frames` are the context. Raises DataError naming what is missing."""
    last = max(int(key) for key in content)
    missing = [str(frame) for frame in range(last + 1) if str(frame) not in content]
    matrices = {key: parse_text_matrix(value) for key, value in content.items()}
    unreadable = sorted((key for key, matrix in matrices.items() if matrix is None), key=int)
    fix = "correct the camera file, or set poses.repair=reference to repair it as the released loader does"
    if missing or unreadable:
        faults = {"missing": missing, "unreadable": unreadable}
        listed = " and ".join(f"{fault} {_some(which)}" for fault, which in faults.items() if which)
        raise _bad(f"text cameras with frames {listed}", "(text cameras)", fix)
    if last < frames:
        what = f"{last + 1} text cameras leave none for the target after a {frames}-frame context"
        raise _bad(what, "(text cameras)", fix)
    return np.stack([matrix for key in range(last + 1) if (matrix := matrices[str(key)]) is not None])


def _text_as_the_reference_reads_it(content: Mapping[str, Any], frames: int) -> np.ndarray:
    """The released loader's repairs (docs/parity.md): (2 * frames, 4, 4), context then target.

    The file counts 2 * (frames - 2) - 1 frames, 149 for 77. Frame 0 becomes frame 1, a missing frame repeats the one
    before, an unreadable one becomes the identity, the last is repeated; then the two halves are each padded by
    their own first and last pose.
    """
    half = frames - 2
    count = 2 * half - 1
    if half < 1 or (extra := [key for key in content if int(key) >= max(count, 1)]):
        found = f"frame {_some(extra)} exists" if half >= 1 else "the video is too short"
        raise _bad(f"a {frames}-frame context means {count} text cameras, but {found}", "(text cameras)")
    if "1" not in content:
        raise _bad("text cameras without frame 1, which the released loader starts from", "(text cameras)")
    read: list[np.ndarray] = []
    for frame in range(count):
        text = content.get(str(frame)) if frame else content["1"]
        matrix = parse_text_matrix(text)
        if matrix is None:
            matrix = read[-1] if text is None and read else np.eye(4)
        read.append(matrix)
    matrices = np.stack([*read, read[-1]])
    pad = [0, *range(half), half - 1]
    return np.concatenate([matrices[:half][pad], matrices[half:][pad]])


def parse_text_matrix(text: Any) -> np.ndarray | None:
    """Four bracketed column vectors of four numbers -> (4, 4), or None when the text is something else."""
    if not isinstance(text, str) or (match := _BRACKETS.fullmatch(text)) is None:
        return None
    try:
        columns = [[float(number) for number in _NUMBER.findall(group)] for group in match.groups()]
    except ValueError:
        return None
    return np.array(columns).T if all(len(column) == 4 for column in columns) else None


def _matrix(value: Any, key: str) -> np.ndarray:
    """(4, 4); the last row, which says nothing, may be left out."""
    array = _whole(_numbers(value, key))
    if array.shape != (4, 4):
        raise _bad(f"a camera of shape {array.shape}, not (4, 4) or (3, 4)", key)
    return array


def _whole(matrices: np.ndarray) -> np.ndarray:
    """(..., 3, 4) with their last row 0 0 0 1; everything else as it is."""
    if matrices.shape[-2:] != (3, 4):
        return matrices
    last = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (*matrices.shape[:-2], 1, 4))
    return np.concatenate([matrices, last], axis=-2)


def _numbers(value: Any, key: str) -> np.ndarray:
    """A nested list of numbers as float64; DataError for text, ragged lists and anything else."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise _bad("cameras must be nested lists of numbers, all of one length", key)
    return array.astype(np.float64)


def _some(names: Sequence[str] | Mapping[str, Any]) -> str:
    """The first few of many names, for a message."""
    shown = [str(name) for name in list(names)[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if shown else "no other"
