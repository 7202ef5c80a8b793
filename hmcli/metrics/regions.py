"""Which pixels of a target are judged: where subjects are, and the rest, before, while and after they are hidden.

A model without memory can get everything of a frame right but for what a subject looks like that left the picture and
returns, and where it is then. Boxes and stretches are those of the rendered world (docs/world.md, certified stretches),
so regions exist for clips with annotations only. What is measured in them: hmcli/metrics/inside.py.
Shape letters: T frames, S subjects, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hmcli.metrics.contract import BOXES, TRACKS, NothingToJudge, Stretch, SubjectBoxes, Tracks, check_pair

ROUNDING = 1e-6  # pixels: a box that reaches less far into a pixel does so by the rounding of its scaling
Shape = tuple[int, int, int]  # T, H, W of the compared videos


@dataclass(frozen=True, kw_only=True)
class Region:
    """Pixels of a target that metrics judge by themselves.

    `pixels` takes the shape of the videos and what `needs` names, returns (T, H, W) bool, and raises NothingToJudge
    where that would be empty, ValueError where boxes or tracks are of another number of frames. `words` end a
    definition after "over". `order` names the rows that what is measured there puts in order (Metric.order).
    """

    name: str  # ends the names of its metrics
    needs: tuple[str, ...]
    pixels: Callable[..., np.ndarray]
    words: str
    order: tuple[str, ...] = ()


# --- boxes -----------------------------------------------------------------------------------------------------------


def check_boxed(prediction: np.ndarray, reference: np.ndarray, boxes: SubjectBoxes) -> None:
    """Raise ValueError unless both are videos of one shape, and the boxes are of as many frames."""
    check_pair(prediction, reference)
    _check_frames("boxes", len(boxes.returned_TS), len(reference))


def _check_frames(name: str, frames: int, wanted: int) -> None:
    if frames != wanted:
        raise ValueError(f"the {name} are of {frames} frames, the reference has {wanted}")


def boxed_pixels(boxes: SubjectBoxes, whose_TS: np.ndarray, height: int, width: int) -> np.ndarray:
    """(T, H, W) bool: pixels that the box of one of these subjects covers, in part at least."""
    inside_THW = np.zeros((len(whose_TS), height, width), bool)
    shown_TS = whose_TS & np.isfinite(boxes.amodal_TS4).all(axis=-1)
    for frame, subject in np.argwhere(shown_TS):
        inside_THW[frame, *covered(boxes.amodal_TS4[frame, subject], height, width)] = True
    return inside_THW


def covered(box_4: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box (left, top, right, bottom) covers, in part at least."""
    left, top, right, bottom = box_4
    return _pixels(top, bottom, height), _pixels(left, right, width)


def _pixels(first: float, end: float, size: int) -> slice:
    """Pixels of a side that lie between two places, of those the picture has."""
    covered = np.clip([np.floor(first + ROUNDING), np.ceil(end - ROUNDING)], 0, size)
    return slice(int(covered[0]), int(covered[1]))


# --- phases ----------------------------------------------------------------------------------------------------------


def until(stretch: Stretch, tracks: Tracks) -> int:
    """The target frame before which the subject is still there."""
    later = [other.first for other in tracks.subjects[stretch.subject].stretches if other.first > stretch.last]
    return int(np.searchsorted(tracks.target_T, min(later))) if later else len(tracks.target_T)


def _returned(shape: Shape, boxes: SubjectBoxes) -> np.ndarray:
    _check_frames("boxes", len(boxes.returned_TS), shape[0])
    if not boxes.returned_TS.any():
        raise NothingToJudge("no subject comes back in the target after a certified stretch without it")
    inside_THW = boxed_pixels(boxes, boxes.returned_TS, *shape[1:])
    if not inside_THW.any():
        raise NothingToJudge("no subject that comes back is inside the compared frames")
    return inside_THW


def _visible(shape: Shape, boxes: SubjectBoxes, tracks: Tracks) -> np.ndarray:
    _check_frames("boxes", len(boxes.returned_TS), shape[0])
    before_TS = np.zeros(boxes.returned_TS.shape, bool)
    for number, subject in enumerate(tracks.subjects):
        if certified := [stretch.first for stretch in subject.stretches if stretch.certified]:
            there = np.ones(len(tracks.target_T), bool)
            for stretch in subject.stretches:
                there &= (tracks.target_T < stretch.first) | (tracks.target_T > stretch.last)
            before_TS[:, number] = there & (tracks.target_T < min(certified))
    inside_THW = boxed_pixels(boxes, before_TS, *shape[1:])
    if not inside_THW.any():
        raise NothingToJudge("the target shows no subject before a certified stretch without it")
    return inside_THW


def _hidden(shape: Shape, tracks: Tracks) -> np.ndarray:
    _check_frames("tracks", len(tracks.target_T), shape[0])
    hidden_T = np.zeros(shape[0], bool)
    for stretch in tracks.certified:
        hidden_T |= (tracks.target_T >= stretch.first) & (tracks.target_T <= stretch.last)
    if not hidden_T.any():
        raise NothingToJudge("no certified stretch reaches into the target")
    return np.broadcast_to(hidden_T[:, None, None], shape)


def _outside(shape: Shape, boxes: SubjectBoxes) -> np.ndarray:
    _check_frames("boxes", len(boxes.returned_TS), shape[0])
    outside_THW = ~boxed_pixels(boxes, np.ones(boxes.returned_TS.shape, bool), *shape[1:])
    if not outside_THW.any():
        raise NothingToJudge("subjects' boxes cover all frames")
    return outside_THW


def _outside_returned(shape: Shape, boxes: SubjectBoxes) -> np.ndarray:
    beside_THW = _outside(shape, boxes) & _returned(shape, boxes).any(axis=(1, 2), keepdims=True)
    if not beside_THW.any():
        raise NothingToJudge("subjects' boxes cover all frames in which one is back")
    return beside_THW


_NOT_JUDGED = "; frames without such a pixel are not judged, clips without such a frame neither"
_BACK = "a certified stretch without the subject has ended by this frame"

VISIBLE = Region(
    name="visible",
    needs=(BOXES, TRACKS),
    pixels=_visible,
    words="those pixels that the amodal box of a subject covers before its first certified stretch, outside its other "
    f"stretches{_NOT_JUDGED}",
)
HIDDEN = Region(
    name="hidden",
    needs=(TRACKS,),
    pixels=_hidden,
    words="all pixels of the frames in which a subject is hidden in a certified stretch; other frames are not judged",
    order=("truth", "another"),
)
RETURNED = Region(
    name="returned",
    needs=(BOXES,),
    pixels=_returned,
    words="those pixels that any amodal box of a returned subject covers (in part at least; boxes framed as the "
    f"reference is); returned: {_BACK}{_NOT_JUDGED}",
    order=("truth", "erased", "another"),
)
OUTSIDE = Region(
    name="outside",
    needs=(BOXES,),
    pixels=_outside,
    words=f"those pixels that no subject's amodal box covers, not even in part{_NOT_JUDGED}",
    order=("truth", "another"),
)
OUTSIDE_RETURNED = Region(
    name="outside-returned",
    needs=(BOXES,),
    pixels=_outside_returned,
    words="those pixels that no subject's amodal box covers, not even in part, of the frames in which one covers some "
    f"whose subject is back: {_BACK}{_NOT_JUDGED}",
    order=("truth", "another"),
)
REGIONS = (VISIBLE, HIDDEN, RETURNED, OUTSIDE, OUTSIDE_RETURNED)
