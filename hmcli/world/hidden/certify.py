"""Certificates: is a hidden stretch worth predicting, and can it be predicted?

A stretch is certified when the subject was visible long enough, then hidden long enough, comes back within the
target, would be wrong by more than a body length if it had stopped where it left, and the oracle, which knows its
visible track only, is right to within half a body length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.hidden.events import Hidden
from hmcli.world.hidden.oracle import FEWEST, constant_velocity, forecast

FROZEN_BODIES = 1.0  # body lengths by which standing still must be wrong
SEEN_AGAIN = 3  # frames, at least, from re-entry to the end
ORACLE_BODIES = 0.5  # body lengths by which the oracle may be


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a certified stretch needs: frames seen before it, frames hidden, and where the target begins.

    `longest_frames` limits for how many frames a camera films a subject before it leaves it.
    """

    visible_frames: int
    longest_frames: int
    hidden_frames: int
    context_frames: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """One hidden stretch: `first` to `last` frame over context and target together, and how well it is foretold.

    Errors are metres on the ground at re-entry; None where the subject was seen too little or does not come back.
    """

    subject: str
    first: int
    last: int
    reason: str
    visible_frames: int  # in which it was clearly visible before
    hidden_frames: int
    body_length: float
    frozen_error: float | None
    constant_velocity_error: float | None
    oracle_error: float | None
    law: str  # what the oracle took the motion for
    certified: bool

    @property
    def turns(self) -> bool:
        """Is straight on at the last pace wrong by more than the oracle may be?"""
        return (self.constant_velocity_error or 0.0) > ORACLE_BODIES * self.body_length


def certify(
    stretch: Hidden, seen_T: np.ndarray, clear_T: np.ndarray, track_T2: np.ndarray, fps: float, body_length: float,
    needs: Needs,
) -> Certificate:  # fmt: skip
    """Measure one hidden stretch of a subject on its way `track_T2`, of which something was visible in frames `seen_T`
    (bool), and enough to tell what it is in frames `clear_T`."""
    before = np.flatnonzero(seen_T[: stretch.first])
    entry, hidden = stretch.last + 1, stretch.last + 1 - stretch.first
    frozen: float | None = None
    straight: float | None = None
    oracle: float | None = None
    law, foretold = "", False
    if len(before) >= FEWEST and entry < len(seen_T):
        seconds, track, at = before / fps, track_T2[before], np.array([entry / fps])
        told = forecast(seconds, track, at)
        guesses = (track[-1], constant_velocity(seconds, track, at)[0], told.position[0])
        frozen, straight, oracle = (float(np.linalg.norm(guess - track_T2[entry])) for guess in guesses)
        law, foretold = told.law, frozen > FROZEN_BODIES * body_length and oracle <= ORACLE_BODIES * body_length
    in_time = stretch.first < needs.context_frames <= stretch.last and entry + SEEN_AGAIN <= len(seen_T)
    clear = int(clear_T[: stretch.first].sum())
    long_enough = clear >= needs.visible_frames and hidden >= needs.hidden_frames
    return Certificate(
        subject=stretch.subject, first=stretch.first, last=stretch.last, reason=stretch.reason,
        visible_frames=clear, hidden_frames=hidden, body_length=body_length,
        frozen_error=frozen, constant_velocity_error=straight, oracle_error=oracle, law=law,
        certified=in_time and long_enough and foretold,
    )  # fmt: skip
