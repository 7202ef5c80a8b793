"""Certificates: is a hidden stretch worth predicting, and can it be predicted?

A stretch is certified when the subject was visible long enough, half of it at least for a second, then hidden long
enough, comes back within the target, would be wrong by more than a body length if it had stopped where it left, and
the oracle, which saw its visible track with eyes of limited sharpness, is right to within half a body length in nine
of ten draws. A stretch without an end is certified absent when the camera looks again at the place where the subject
was last seen and the oracle is as sure that nobody is there.

Guesses are judged half a second after re-entry, when the subject is in the picture and no longer at its edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hmcli.world.files.schema import Reason
from hmcli.world.hidden.events import Hidden
from hmcli.world.hidden.eyes import seen_by_eyes, sharpness
from hmcli.world.hidden.oracle import FEWEST, Forecast, constant_velocity, forecast
from hmcli.world.views.trajectories import CameraTrack

FROZEN_BODIES = 1.0  # body lengths by which standing still must be wrong
SEEN_AGAIN = 3  # frames, at least, from re-entry to the end
ORACLE_BODIES = 0.5  # body lengths by which the oracle may be
SURE = 0.9  # share of the draws in which it may not be more
DRAWS = 20  # of what eyes saw
JUDGED_SECONDS = 0.5  # after re-entry
SHOWN_SECONDS = 1.0  # for which half of a subject is seen, at least (or for `visible_frames`, where that is less)
GUESSES = ("picture_centre", "frozen", "constant_velocity", "oracle")


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
class Watched:
    """One subject of a clip and the camera, T frames; flags say in which frames something of it is seen, enough to
    tell what it is, and half of its body."""

    track_T2: np.ndarray
    seen_T: np.ndarray
    clear_T: np.ndarray
    half_T: np.ndarray
    camera: CameraTrack
    half_angle: float  # radians, of the picture's width
    body_length: float
    fps: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """One hidden stretch: `first` to `last` frame over context and target together, and how well it is foretold.

    `metres` and `degrees` say by guess how far it is off, on the ground and seen from the camera; None where the
    subject was seen too little or does not come back. The oracle's is what nine of ten draws stay within.
    """

    subject: str
    first: int
    last: int
    reason: Reason
    visible_frames: int  # in which it was clearly visible before
    shown_frames: int  # in which half of its body was
    hidden_frames: int
    body_length: float
    metres: Mapping[str, float] | None
    degrees: Mapping[str, float] | None
    law: str  # what the oracle took the motion for, mostly
    certified: bool
    absent: bool  # certified to be elsewhere, where the camera looks again

    @property
    def turns(self) -> bool:
        """Is straight on at the last pace wrong by more than the oracle may be?"""
        return self.metres is not None and self.metres["constant_velocity"] > ORACLE_BODIES * self.body_length


def certify(stretch: Hidden, of: Watched, needs: Needs, rng: np.random.Generator, *, draws: int = DRAWS) -> Certificate:
    """Measure one hidden stretch of a subject; `rng` draws what eyes saw of it."""
    before = slice(0, stretch.first)
    clear, shown = int(of.clear_T[before].sum()), int(of.half_T[before].sum())
    entry, hidden = stretch.last + 1, stretch.last + 1 - stretch.first
    shown_needed = min(needs.visible_frames, round(SHOWN_SECONDS * of.fps))
    known = clear >= needs.visible_frames and shown >= shown_needed and hidden >= needs.hidden_frames
    metres = degrees = None
    law, foretold, absent = "", False, False
    if _frames_known(of, stretch).size >= FEWEST:
        if entry < len(of.seen_T):
            metres, degrees, law = _guessed(stretch, of, rng, draws)
            right = metres["oracle"] <= ORACLE_BODIES * of.body_length
            foretold = right and metres["frozen"] > FROZEN_BODIES * of.body_length
        elif known and stretch.first < needs.context_frames:
            law, absent = _surely_elsewhere(stretch, of, needs, rng, draws)
    in_time = stretch.first < needs.context_frames <= stretch.last and entry + SEEN_AGAIN <= len(of.seen_T)
    return Certificate(
        subject=stretch.subject, first=stretch.first, last=stretch.last, reason=stretch.reason,
        visible_frames=clear, shown_frames=shown, hidden_frames=hidden, body_length=of.body_length,
        metres=metres, degrees=degrees, law=law, certified=in_time and known and foretold, absent=absent,
    )  # fmt: skip


def judged_frame(entry_n: np.ndarray, fps: float, frames: int) -> np.ndarray:
    """(n,) the frame in which guesses about a subject are judged that comes back in frame `entry`."""
    return np.minimum(entry_n + round(JUDGED_SECONDS * fps), frames - 1)


def _frames_known(of: Watched, stretch: Hidden) -> np.ndarray:
    return np.flatnonzero(of.clear_T[: stretch.first])


def _foretold(stretch: Hidden, of: Watched, frames_M: np.ndarray, rng: np.random.Generator, draws: int) -> Forecast:
    """What the oracle says of later frames, once per draw of what eyes saw."""
    known = _frames_known(of, stretch)
    track, eye = of.track_T2[known], of.camera.eye[known]
    seems = seen_by_eyes(track, eye, draws, rng)
    return forecast(known, seems, sharpness(track, eye), frames_M, of.fps)


def _guessed(
    stretch: Hidden, of: Watched, rng: np.random.Generator, draws: int
) -> tuple[dict[str, float], dict[str, float], str]:
    """Metres and degrees by which each guess is off, and the law the oracle found in most draws."""
    seen = np.flatnonzero(of.seen_T[: stretch.first])
    later = judged_frame(np.array([stretch.last + 1]), of.fps, len(of.seen_T))
    told, at = _foretold(stretch, of, later, rng, draws), int(later[0])
    eye, yaw, true = of.camera.eye[at, :2], of.camera.yaw[at], of.track_T2[at]
    ahead = (true - eye) @ np.array([np.cos(yaw), np.sin(yaw)])
    guesses = {
        "picture_centre": (eye + ahead * np.array([np.cos(yaw), np.sin(yaw)]))[None],
        "frozen": of.track_T2[seen[-1]][None],
        "constant_velocity": constant_velocity(seen, of.track_T2[seen], later),
        "oracle": told.position[:, 0],
    }
    metres = {name: _within(np.linalg.norm(guess - true, axis=1)) for name, guess in guesses.items()}
    degrees = {name: _within(_degrees_between(guess - eye, true - eye)) for name, guess in guesses.items()}
    return metres, degrees, max(sorted(set(told.laws)), key=told.laws.count)


def _within(errors_D: np.ndarray) -> float:
    """What nine of ten draws stay within; the error itself where there is one."""
    return float(np.quantile(errors_D, SURE, method="higher"))


def _degrees_between(one_D2: np.ndarray, other_2: np.ndarray) -> np.ndarray:
    angle = np.arctan2(one_D2[:, 1], one_D2[:, 0]) - np.arctan2(other_2[1], other_2[0])
    return np.asarray(np.rad2deg(np.abs(np.angle(np.exp(1j * angle)))))


def _surely_elsewhere(
    stretch: Hidden, of: Watched, needs: Needs, rng: np.random.Generator, draws: int
) -> tuple[str, bool]:
    """The oracle's law, and: is it sure that a subject that does not come back is not where the camera looks again?"""
    last = of.track_T2[np.flatnonzero(of.seen_T[: stretch.first])[-1]]
    frames = np.arange(needs.context_frames, len(of.seen_T))
    eye, yaw = of.camera.eye[frames, :2], of.camera.yaw[frames]
    again = frames[_beside(last - eye, yaw) < of.half_angle]
    if len(again) < max(SEEN_AGAIN, round(JUDGED_SECONDS * of.fps)):
        return "", False
    told = _foretold(stretch, of, again, rng, draws)
    away = told.position - of.camera.eye[again, :2]
    half = np.arcsin(np.minimum(ORACLE_BODIES * of.body_length / np.linalg.norm(away, axis=2).clip(1e-6), 1.0))
    outside = (_beside(away, of.camera.yaw[again]) > of.half_angle + half).all(1)
    return max(sorted(set(told.laws)), key=told.laws.count), bool(outside.mean() >= SURE)


def _beside(away: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Radians (...) to either side of the view axis."""
    return np.asarray(np.abs(np.angle(np.exp(1j * (np.arctan2(away[..., 1], away[..., 0]) - yaw)))))
