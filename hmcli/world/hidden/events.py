"""Events: when does a subject leave the picture, when does it come back, and why?

A subject is visible in a frame when at least one pixel of its instance mask is. It is hidden because it left the frame
when none of it lies inside the picture, because it is occluded when something stands in front of all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.files.schema import Event, PartName, Reason

_CLEAR = 0.2  # share of a subject's usual pixels from which on it is clearly visible


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """A stretch of frames without the subject: `first` to `last`, counted over context and target together."""

    subject: str
    first: int
    last: int
    reason: Reason  # in its first frame


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Pixels of one subject per frame (T,): `seen`, and `inside` if nothing stood in front of it."""

    subject: str
    seen: np.ndarray
    inside: np.ndarray

    def share(self) -> np.ndarray:
        """(T,) share of the subject's pixels inside the picture that are seen; 0 when it is outside."""
        return self.seen / np.maximum(self.inside, 1)

    def clear(self) -> np.ndarray:
        """(T,) bool: is so much of it seen that one can tell what it is? A share of what is usually in the picture."""
        usual = np.median(self.inside[self.inside > 0]) if self.inside.any() else np.inf
        return np.asarray(self.seen >= _CLEAR * usual)


def visibility(subject: str, number: int, instances_THW: np.ndarray, amodal_THW: np.ndarray) -> Visibility:
    """Count pixels; `amodal_THW` is the subject's mask as if it were alone in the world."""
    seen = (instances_THW == number).sum((1, 2))
    return Visibility(subject=subject, seen=seen, inside=amodal_THW.sum((1, 2)))


def hidden_stretches(of: Visibility) -> list[Hidden]:
    """All stretches of frames in which the subject is not visible, in order of time."""
    return [
        Hidden(subject=of.subject, first=first, last=last, reason=_reason(of, first))
        for first, last in stretches(of.seen == 0)
    ]


def find_events(of: Visibility, context_frames: int) -> list[Event]:
    """Exits (first hidden frame) and entries (first visible frame again), frames counted within their part."""
    found = []
    for stretch in hidden_stretches(of):
        if stretch.first > 0:
            found.append(_event(of.subject, "exit", stretch.first, stretch.reason, context_frames))
        if stretch.last + 1 < len(of.seen):
            reason = _reason(of, stretch.last)
            found.append(_event(of.subject, "entry", stretch.last + 1, reason, context_frames))
    return found


def comes_back(of: Visibility, context_frames: int) -> bool:
    """Does the subject leave within the context and come back within the target?"""
    return any(
        0 < stretch.first < context_frames <= stretch.last < len(of.seen) - 1 for stretch in hidden_stretches(of)
    )


def covered_frames(of: Visibility) -> int:
    """The most frames on end in which something stands in front of all of a subject that had been visible."""
    return longest_run((of.seen == 0) & (of.inside > 0) & (of.seen.cumsum() > 0))


def stretches(flags_T: np.ndarray) -> list[tuple[int, int]]:
    """First and last frame of every stretch of set flags, in order of time."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags_T, [False]]))).tolist()
    return [(start, end - 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def longest_run(flags_T: np.ndarray) -> int:
    """How many flags on end are set, at most."""
    return max((last - first + 1 for first, last in stretches(flags_T)), default=0)


def _reason(of: Visibility, frame: int) -> Reason:
    return "occluded" if of.inside[frame] > 0 else "left the frame"


def _event(subject: str, kind: str, frame: int, reason: Reason, context_frames: int) -> Event:
    part: PartName = "context" if frame < context_frames else "target"
    within = frame - (context_frames if part == "target" else 0)
    return Event(part=part, subject=subject, kind="exit" if kind == "exit" else "entry", frame=within, reason=reason)
