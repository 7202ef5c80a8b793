"""Which pose belongs to which frame of a video? By their times, or by the numbers in their images' names.

Nothing is taken in order without looking: a pose is a frame's when its time is, to a millisecond, or its number. With
`interpolate`, frames between two poses get one in between; before the first and after the last none is made up.
Shapes: T poses, F video frames.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np

from hmcli.errors import DataError
from hmcli.world.files.pose_files import PoseTrack

TOLERANCE = 1e-3  # seconds; times are written with 4 decimals and more


def at_video_frames(track: PoseTrack, times_F: np.ndarray, *, interpolate: bool) -> np.ndarray:
    """One pose per video frame, (F, 4, 4); `times_F` are the frames' seconds, of which the first is the first pose's.

    Raises DataError naming the first frame without a pose.
    """
    poses = track.world_from_camera
    if track.times is None and not any(_numbers(track.names)):  # nothing says which is whose
        if len(poses) != len(times_F):
            raise _too_few(len(poses), len(times_F), "and no image's name has a number, so their frames are not known")
        return poses
    at_T, wanted_F, close = _places(track, times_F)
    nearest_F = _nearest(at_T, wanted_F)
    far_F = np.abs(at_T[nearest_F] - wanted_F) > close
    if not far_F.any():
        return poses[nearest_F]
    if interpolate:
        return _between(poses, at_T, wanted_F, close)
    frame = int(np.argmax(far_F))
    raise _too_few(len(poses), len(times_F), f"frame {frame} has none: {_said(track, int(nearest_F[frame]), times_F[frame])}")  # fmt: skip  # noqa: E501


def _places(track: PoseTrack, times_F: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Where poses and frames lie on one axis (seconds, or numbers of frames), and how close is the same."""
    if track.times is not None:
        return track.times - track.times[0], times_F - times_F[0], TOLERANCE
    return _image_numbers(track.names, len(times_F)), np.arange(len(times_F), dtype=np.float64), 0.0


def _image_numbers(names: tuple[str, ...], frames: int) -> np.ndarray:
    """(T,) frame of each image, from 0: numbers count from 0, from 1, or all frames one by one from any number."""
    found = _numbers(names)
    if None in found:
        raise DataError(
            "an image's name has no number, so its frame is not known", where={"image": names[found.index(None)]}
        )
    numbers = np.array(found, dtype=np.float64)
    if (steps := np.diff(numbers)).size and steps.min() <= 0:
        twice = int(np.argmax(steps <= 0))
        raise DataError(
            "two images have the same number, so their frames are not known",
            where={"images": f"{names[twice]}, {names[twice + 1]}"},
        )
    if len(numbers) == frames and numbers[-1] - numbers[0] == frames - 1:
        return numbers - numbers[0]
    numbers -= 0 if numbers[0] == 0 else 1
    if numbers[-1] > frames - 1:
        raise DataError(
            f"the images' numbers go on to frame {numbers[-1]:g}, the video has 0 to {frames - 1}",
            where={"image": names[-1]}, fix="give the video the images were taken from, all of its frames",
        )  # fmt: skip
    return numbers


def _numbers(names: tuple[str, ...]) -> list[int | None]:
    """The last number in each name."""
    digits = [re.findall(r"[0-9]+", PurePosixPath(name).stem) for name in names]
    return [int(row[-1]) if row else None for row in digits]


def _nearest(at_T: np.ndarray, wanted_F: np.ndarray) -> np.ndarray:
    """(F,) number of the pose nearest to each frame."""
    after = np.searchsorted(at_T, wanted_F).clip(0, len(at_T) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(at_T[before] - wanted_F) <= np.abs(at_T[after] - wanted_F), before, after)


def _between(poses: np.ndarray, at_T: np.ndarray, wanted_F: np.ndarray, close: float) -> np.ndarray:
    """Positions linearly, rotations on the shortest arc."""
    if at_T[0] > close or at_T[-1] < wanted_F[-1] - close:
        unit = "frames" if close == 0 else "seconds"
        raise DataError(
            f"the poses cover {unit} {at_T[0]:g} to {at_T[-1]:g}, the video has 0 to {wanted_F[-1]:g}",
            fix="cut the video to what was tracked: poses are interpolated, never invented beyond the first and last",
        )
    if len(poses) == 1:
        raise DataError("there is one pose, and none can be put between it and another")
    from scipy.spatial.transform import Rotation, Slerp

    inside_F = wanted_F.clip(at_T[0], at_T[-1])
    result = np.repeat(np.eye(4)[None], len(wanted_F), axis=0)
    result[:, :3, :3] = Slerp(at_T, Rotation.from_matrix(poses[:, :3, :3]))(inside_F).as_matrix()
    for axis in range(3):
        result[:, axis, 3] = np.interp(inside_F, at_T, poses[:, axis, 3])
    return result


def _said(track: PoseTrack, nearest: int, second: float) -> str:
    if track.times is None:
        return f"the nearest is of {track.names[nearest]}"
    pose = track.times[nearest] - track.times[0]
    return f"the nearest is at {pose:.4f} s after the first, the frame at {second:.4f} s"


def _too_few(poses: int, frames: int, why: str) -> DataError:
    return DataError(
        f"{poses} poses for {frames} video frames, {why}",
        fix="give one pose per frame, or --interpolate to place them by their times or image numbers",
    )
