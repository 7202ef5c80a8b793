"""Sightings: when each subject of a clip is out of sight, read off masks or off check.json.

For clips whose maker wrote no events, or to hold what was written against the pictures. Frames count over context and
target together. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.world.files.schema import Presence, Reason
from hmcli.world.hidden.events import stretches

LEAST_SHARE = 1e-4  # of the picture: fewer mask pixels than this (and than 4) are noise of a compressed mask video
_EDGE = 0.02  # share of a side that counts as the picture's edge


@dataclass(frozen=True, kw_only=True)
class Absence:
    """A subject is out of sight from frame `first` to `last`, inclusive; `reason` None: the source cannot tell."""

    subject: str
    first: int
    last: int
    reason: Reason | None


def seen_in_masks(labels_THW: np.ndarray, *, exact: bool) -> dict[int, np.ndarray]:
    """Subject number -> (T,) is it seen? `exact` counts single pixels (lossless masks), else noise is ignored."""
    least = 1 if exact else max(4, round(LEAST_SHARE * labels_THW[0].size))
    numbers = [int(number) for number in np.unique(labels_THW) if number]
    return {number: (labels_THW == number).sum((1, 2)) >= least for number in numbers}


def seen_in_check(presences: Sequence[Presence], context: int, target: int) -> dict[str, np.ndarray]:
    """Character -> (T,) is it in the frame? check.json lists changes: what it says of a frame holds until the next.

    Before the first change it was the other way round: who is listed as coming in first had not been there.
    """
    changes: dict[str, list[tuple[int, bool]]] = {}
    for presence in presences:
        start, count = (0, context) if presence.part == "context" else (context, target)
        listed = [(start + frame, there) for frame, there in presence.frames if frame < count]
        changes.setdefault(presence.character, []).extend(listed)
    seen = {}
    for character, listed in changes.items():
        changed = sorted(listed)
        states = np.full(context + target, not (changed and changed[0][1]))
        for frame, there in changed:
            states[frame:] = there
        seen[character] = states
    return seen


def absences(subject: str, seen_T: np.ndarray, reasons: Mapping[int, Reason] | None = None) -> list[Absence]:
    """All stretches in which a subject is not seen; `reasons` says why by the stretch's first frame."""
    return [
        Absence(subject=subject, first=first, last=last, reason=(reasons or {}).get(first))
        for first, last in stretches(~seen_T)
    ]


def why_gone(labels_THW: np.ndarray, number: int, seen_T: np.ndarray) -> dict[int, Reason]:
    """First frame out of sight -> why: a subject last seen at the picture's edge left it, any other was occluded."""
    rows, columns = labels_THW.shape[1:]
    y, x = max(1, round(_EDGE * rows)), max(1, round(_EDGE * columns))
    reasons: dict[int, Reason] = {}
    for frame in np.flatnonzero(seen_T[:-1] & ~seen_T[1:]):
        last = labels_THW[frame] == number
        touches = last[:y].any() or last[-y:].any() or last[:, :x].any() or last[:, -x:].any()
        reasons[int(frame) + 1] = "left the frame" if touches else "occluded"
    return reasons


def exit_and_entry(found: Sequence[Absence], context: int, frames: int) -> list[Absence]:
    """Those that HM-World is about: gone within the context, back within the target."""
    return [gone for gone in found if 0 < gone.first < context <= gone.last < frames - 1]
