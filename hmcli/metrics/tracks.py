"""Which detection of a prediction is which true subject, frame by frame: what is built on who was found, and where.

A detector says where somebody is, not who. In each frame the subjects that the truth shows there are given to the
detections one to one, so that the sum of what it costs is least: the distance of a detection's middle from the middle
of what is truly visible of the subject, in body lengths at its true distance, and where the truth shows several
subjects, also how unlike they look (`hmcli.metrics.appearance`). No distance is too far: a subject that stands
elsewhere is found there, and whoever reads the track says how far is wrong. With fewer detections than subjects some
subjects are not found; with more, the rest is nobody's: copies, inventions, and who should be hidden.

Frames are judged each by itself, so a track may jump. What it cannot see: that a detection is something else than a
subject (whatever is there is the subject, however far off), and, where it is given no appearance, that two subjects
have changed places.
Shape letters: T target frames, S subjects, D detections of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from hmcli.metrics.contract import ClipCameras, Detection, SubjectTrack, Tracks

CLEAR_PIXELS = 128  # of the box of what is visible of a subject: below it, a detector is no judge of who is missing
CLEAR_SHARE = 0.5  # of a subject's pixels inside the picture, that nothing covers
NOBODY = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundTrack:
    """One true subject in the T target frames of a prediction: what was taken for it, and how far off that is."""

    subject: SubjectTrack
    true_T4: np.ndarray  # box of what the truth shows of it: left, top, right, bottom in pixels; NaN: nothing
    clear_T: np.ndarray  # bool: the truth shows enough of it that whoever does not find it has missed it
    pixels_T2: np.ndarray  # a body length at its true distance, along x and y; NaN: it is not in front of the camera
    which_T: np.ndarray  # int: which of the frame's detections was taken for it; NOBODY: none
    box_T4: np.ndarray  # of that one, NaN where there is none
    score_T: np.ndarray  # how sure the detector is of it; 0 where there is none
    off_T2: np.ndarray  # its middle less the true one, to the right and down, in body lengths; NaN where there is none
    degrees_T: np.ndarray  # the angle between both, seen from the camera; NaN where there is none

    @property
    def found(self) -> np.ndarray:
        """(T,) bool: somebody was taken for it."""
        return self.which_T != NOBODY

    @property
    def centre(self) -> np.ndarray:
        """(T, 2) the middle of what was found, x and y in pixels; NaN where there is none."""
        return middle(self.box_T4)

    @property
    def distance(self) -> np.ndarray:
        """(T,) how far off it was found, in body lengths; NaN where there is none."""
        return np.asarray(np.linalg.norm(self.off_T2, axis=-1))

    def within(self, bodies: float) -> np.ndarray:
        """(T,) bool: it was found, no further off than so many body lengths."""
        return np.nan_to_num(self.distance, nan=np.inf) <= bodies


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundTracks:
    """All subjects of a clip, in the order of `Tracks.subjects`, and the detections that are nobody's."""

    subjects: tuple[FoundTrack, ...]
    nobodys: tuple[tuple[int, ...], ...]  # of each frame: which detections were taken for no subject, the surest first


def found_tracks(
    detections: Sequence[Sequence[Detection]],
    tracks: Tracks,
    cameras: ClipCameras,
    unlike: Sequence[np.ndarray] | None = None,
) -> FoundTracks:
    """Give the subjects of a clip the detections of its T target frames.

    `unlike` has (D, S) numbers for each frame, 0 for a detection that looks like the subject to 1 for one that does
    not at all: as much as one body length off, and looked at only in frames in which the truth shows several subjects.
    Raises ValueError when the lengths disagree.
    """
    frames = len(tracks.target_T)
    if not len(detections) == len(cameras.target_T44) == frames:
        raise ValueError(
            f"detections are of {len(detections)} frames, cameras of {len(cameras.target_T44)}, tracks of {frames}"
        )
    true_ST4 = np.array([of.box_A4[tracks.target_T] for of in tracks.subjects]).reshape(-1, frames, 4)
    pixels_ST2 = np.array([body_pixels(of, tracks, cameras) for of in tracks.subjects]).reshape(-1, frames, 2)
    which_ST = np.full(true_ST4.shape[:2], NOBODY)
    nobodys = []
    for t, seen in enumerate(detections):
        shown = np.flatnonzero(np.isfinite(true_ST4[:, t]).all(axis=-1) & np.isfinite(pixels_ST2[:, t]).all(axis=-1))
        cost_DS = _distance(seen, true_ST4[shown, t], pixels_ST2[shown, t])
        if unlike is not None and len(shown) > 1:
            cost_DS = cost_DS + unlike[t][:, shown]
        rows, columns = linear_sum_assignment(cost_DS)
        which_ST[shown[columns], t] = rows
        nobodys.append(tuple(sorted(set(range(len(seen))) - {*rows.tolist()})))
    subjects = tuple(
        _track(of, tracks, cameras, detections, which_T, pixels_T2)
        for of, which_T, pixels_T2 in zip(tracks.subjects, which_ST, pixels_ST2, strict=True)
    )
    return FoundTracks(subjects=subjects, nobodys=tuple(nobodys))


def middle(box_4: np.ndarray) -> np.ndarray:
    """x and y (..., 2) of the middle of boxes (..., 4)."""
    return np.asarray((box_4[..., :2] + box_4[..., 2:]) / 2)


def body_pixels(subject: SubjectTrack, tracks: Tracks, cameras: ClipCameras) -> np.ndarray:
    """(T, 2) pixels of the target frames, along x and y, that a body length of a subject has at its distance.

    NaN where it is not in front of the camera.
    """
    away_T3 = subject.position_A3[tracks.target_T] - cameras.target_T44[:, :3, 3]
    ahead_T = np.einsum("td,td->t", away_T3, cameras.target_T44[:, :3, 2])
    return np.asarray(cameras.intrinsics_4[:2] * subject.body_length / np.where(ahead_T > 0, ahead_T, np.nan)[:, None])


def _distance(seen: Sequence[Detection], true_S4: np.ndarray, pixels_S2: np.ndarray) -> np.ndarray:
    """(D, S) body lengths from the middle of every detection to that of every subject."""
    found_D4 = np.array([one.box_4 for one in seen], np.float64).reshape(-1, 4)
    return np.asarray(np.linalg.norm((middle(found_D4)[:, None] - middle(true_S4)[None]) / pixels_S2, axis=-1))


def _track(
    subject: SubjectTrack,
    tracks: Tracks,
    cameras: ClipCameras,
    detections: Sequence[Sequence[Detection]],
    which_T: np.ndarray,
    pixels_T2: np.ndarray,
) -> FoundTrack:
    true_T4 = subject.box_A4[tracks.target_T]
    box_T4, score_T = np.full(true_T4.shape, np.nan), np.zeros(len(true_T4))
    for t in map(int, np.flatnonzero(which_T != NOBODY)):
        taken = detections[t][which_T[t]]
        box_T4[t], score_T[t] = taken.box_4, taken.score
    large_T = (true_T4[:, 2] - true_T4[:, 0]) * (true_T4[:, 3] - true_T4[:, 1]) >= CLEAR_PIXELS  # NaN is not
    return FoundTrack(
        subject=subject, true_T4=true_T4, pixels_T2=pixels_T2, which_T=which_T, box_T4=box_T4, score_T=score_T,
        clear_T=large_T & (subject.visible_A[tracks.target_T] >= CLEAR_SHARE) & np.isfinite(pixels_T2).all(axis=-1),
        off_T2=(middle(box_T4) - middle(true_T4)) / pixels_T2,
        degrees_T=_angle(middle(box_T4), middle(true_T4), cameras.intrinsics_4),
    )  # fmt: skip


def _angle(one_T2: np.ndarray, other_T2: np.ndarray, intrinsics_4: np.ndarray) -> np.ndarray:
    """(T,) degrees between the rays through two image points."""
    rays = []
    for at in (one_T2, other_T2):
        ray = np.concatenate([(at - intrinsics_4[2:]) / intrinsics_4[:2], np.ones((len(at), 1))], axis=-1)
        rays.append(ray / np.linalg.norm(ray, axis=-1, keepdims=True))
    across = np.linalg.norm(np.cross(*rays), axis=-1)  # the arc cosine would round small angles away
    return np.asarray(np.degrees(np.arctan2(across, (rays[0] * rays[1]).sum(axis=-1))))
