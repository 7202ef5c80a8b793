"""Outlines: who hides whom, with subjects as upright boxes: cheap enough to try many ways before anybody is posed.

`hidden/cover.py` looks at every part of those that may do, and the masks decide in the end.
Shape letters: L frames LOOKED_AT, N things; leading axes `...` are several ways of one subject.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.hidden.cover import NEAREST, Covers
from hmcli.world.space.blocks import Block
from hmcli.world.views.sight import Body, sight
from hmcli.world.views.trajectories import CameraTrack

_ASIDE = 1.5  # radians beside the view axis at most: further aside, nothing is in the picture


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A subject from the camera, (..., L): where its middle is in the picture (focal length 1, right is positive), its
    heading against the line of sight in radians, metres ahead; and the eye's height (L,)."""

    across: np.ndarray
    turn: np.ndarray
    ahead: np.ndarray
    eye: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A rectangle of the picture (focal length 1, down is positive), (..., L)."""

    left: np.ndarray
    right: np.ndarray
    upper: np.ndarray
    lower: np.ndarray

    def within(self, other: Outline) -> np.ndarray:
        sideways = (self.left > other.left) & (self.right < other.right)
        return np.asarray(sideways & (self.upper > other.upper) & (self.lower < other.lower))


def seen_from(camera: CameraTrack, body: Body) -> Seen:
    """How the camera sees a body in the frames of both."""
    seen = sight(camera, body)
    return Seen(
        across=-np.tan(np.clip(seen.beside, -_ASIDE, _ASIDE)), turn=body.heading - (seen.beside + camera.yaw),
        ahead=np.maximum(seen.ahead, NEAREST), eye=camera.eye[:, 2],
    )  # fmt: skip


def outline(block: Block, seen: Seen) -> Outline:
    """Where a block is in the picture."""
    half = (np.abs(np.cos(seen.turn)) * block.width + np.abs(np.sin(seen.turn)) * block.length) / seen.ahead
    return Outline(
        left=seen.across - half, right=seen.across + half, upper=(seen.eye - block.high) / seen.ahead,
        lower=(seen.eye - block.low) / seen.ahead,
    )  # fmt: skip


def with_one_more(things: Covers, screen: Outline, ahead_L: np.ndarray) -> Covers:
    """What covers, and as the last of them a rectangle of the picture so many metres ahead."""
    middle = np.stack([screen.left + screen.right, screen.upper + screen.lower], -1) / 2
    half = np.stack([screen.right - screen.left, screen.lower - screen.upper], -1) / 2
    return Covers(
        middle=np.concatenate([things.middle, middle[:, None]], 1),
        half=np.concatenate([things.half, half[:, None]], 1),
        far=np.concatenate([things.far, ahead_L[:, None]], 1),
        usable=np.concatenate([things.usable, ahead_L[:, None] > NEAREST], 1),
    )  # fmt: skip


def behind_any(body: Outline, nearest: np.ndarray, covers: Covers) -> np.ndarray:
    """(..., L) bool: is all of an outline, `nearest` metres ahead, behind one of those that cover?"""
    hidden = np.zeros(nearest.shape, bool)
    for number in np.flatnonzero(covers.usable.any(0)):
        middle, half = covers.middle[:, number], covers.half[:, number]
        (left, upper), (right, lower) = (middle - half).T, (middle + half).T
        before = covers.usable[:, number] & (covers.far[:, number] < nearest)
        hidden |= before & body.within(Outline(left=left, right=right, upper=upper, lower=lower))
    return hidden


def long_enough(hidden: np.ndarray, frames: int) -> np.ndarray:
    """(..., L) bool -> (...): so many frames on end?"""
    if hidden.shape[-1] < frames:
        return np.zeros(hidden.shape[:-1], bool)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(hidden, frames, axis=-1).all(-1).any(-1))
