"""Crossing: a companion's way on which somebody of a crowd is hidden for a while.

In some frame the companion stands in line with the camera and a thing, or with the camera and the first subject, and
it goes so that it stays in line for a while, whatever the camera does. Many such places are tried at once, with
subjects as upright boxes. Shape letters: W ways, T frames, N things that cover, the last of them the first subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hmcli.world.hidden.cover import LOOKED_AT, Covers, frames_on_end
from hmcli.world.hidden.outlines import Outline, Seen, behind_any, long_enough, outline, seen_from, with_one_more
from hmcli.world.space.blocks import Block
from hmcli.world.staging.company import (
    APART,
    TOO_SMALL,
    Stage,
    Walker,
    company,
    free_of_things,
    not_too_near,
    noticed,
    set_out,
)
from hmcli.world.subjects import Subject
from hmcli.world.views.sight import Body
from hmcli.world.views.trajectories import CameraTrack

_WALKS = 2  # walks tried ...
_PLACES = 96  # ... each at so many places
_FURTHER = (1.0, 1.6)  # times the distance from which on a thing is large enough to hide somebody
_NEARER = (0.6, 1.0)  # times the distance from which on a companion is large enough to hide the first subject ...
_NEAREST = 0.3  # ... which must be this share of the first one's, at least
_IN_FRONT = 0.3  # share of the ways that go before the first subject, where its companion can hide it
_STRAY = 0.1  # radians by which a companion's heading may differ from the one that keeps it in line


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """What a companion finds: the first subject and the camera in the frames LOOKED_AT, what covers, and for how many
    of these frames on end somebody is to be hidden."""

    first: Walker
    stage: Stage
    camera: CameraTrack
    seen: Seen
    covers: Covers
    frames: int

    @cached_property
    def first_whole(self) -> Outline:
        return outline(self.first.subject.blocks.whole, self.seen)

    @cached_property
    def first_hidden(self) -> bool:
        """Is the first subject, as a box, hidden for long enough behind a thing?"""
        hidden = behind_any(self.first_whole, self.seen.ahead - self.first.subject.radius, self.covers)
        return bool(long_enough(hidden & self.in_picture(self.seen), self.frames))

    def in_picture(self, seen: Seen) -> np.ndarray:
        """(..., L) bool: is its middle between the edges of the picture?"""
        return np.asarray(np.abs(seen.across) < self.stage.lens.half_width)


@dataclass(frozen=True, kw_only=True)
class Ways:
    """Turns (W,), radians about the origin, and then offsets (W, 2), metres, of one walk."""

    turn: np.ndarray
    offset: np.ndarray

    def some(self, which: np.ndarray) -> Ways:
        return Ways(turn=self.turn[which], offset=self.offset[which])

    def bodies(self, walker: Walker) -> Body:
        """The walker on every way: tracks (W, T, 2), headings (W, T)."""
        body = walker.body
        track = _turned(body.track, self.turn[:, None]) + self.offset[:, None]
        return Body(track=track, heading=body.heading + self.turn[:, None], radius=body.radius, tall=body.tall)


@dataclass(frozen=True, kw_only=True)
class Spots:
    """In frame `frame` (W,) the companion is to stand `away` (W,) metres from the camera, in line with what stands at
    `target` (W, 2) and moves by `drift` (W, 2) metres until the next frame."""

    frame: np.ndarray
    away: np.ndarray
    target: np.ndarray
    drift: np.ndarray

    def some(self, which: np.ndarray) -> Spots:
        return Spots(frame=self.frame[which], away=self.away[which], target=self.target[which], drift=self.drift[which])


def crossing(first: Walker, stage: Stage, things: Covers, frames: int) -> Crossing:
    """`things` cover in the frames LOOKED_AT; somebody is to be hidden for `frames` of all frames."""
    camera = CameraTrack(eye=stage.camera.eye[LOOKED_AT], yaw=stage.camera.yaw[LOOKED_AT])
    seen = seen_from(camera, _looked_at(first.body))
    covers = with_one_more(things, outline(first.subject.blocks.core, seen), seen.ahead)
    return Crossing(first=first, stage=stage, camera=camera, seen=seen, covers=covers, frames=frames_on_end(frames))


def crowd(
    others: Sequence[Subject], paths: Sequence[str], at: Crossing, number: int, rng: np.random.Generator
) -> list[Walker] | None:
    """The first subject and all others where somebody is to be hidden, or None when there is no room.

    One of the others crosses, another one in each attempt (`number`), unless the first is hidden behind a thing anyway.
    """
    if at.first_hidden or not others:
        return company(others, paths, [at.first], at.stage, rng)
    crosses = number % len(others)
    one = cross(others[crosses], paths, at, rng)
    if one is None:
        return None
    people = company((*others[:crosses], *others[crosses + 1 :]), paths, [at.first, one], at.stage, rng)
    if people is not None:
        people.insert(1 + crosses, people.pop(1))
    return people


def cross(subject: Subject, paths: Sequence[str], at: Crossing, rng: np.random.Generator) -> Walker | None:
    """One more subject in the picture before the exit, who is hidden for long enough or hides the first one.

    None when no such way was found.
    """
    stage = at.stage
    for _ in range(_WALKS):
        path = str(rng.choice(list(paths)))
        walker = set_out(subject, path, len(stage.camera.yaw), stage.fps, rng.uniform(0.9, 1.1), rng)
        ways = _in_line(walker, _spots(subject, at, rng), stage.camera, rng)
        for number in np.flatnonzero(_promising(walker, ways, at)):
            one = walker.turned(float(ways.turn[number])).moved(ways.offset[number])
            framed = not_too_near(one, stage.camera, stage.lens) and noticed(one, stage)
            if framed and free_of_things(one, stage.things):
                return one
    return None


def _promising(walker: Walker, ways: Ways, at: Crossing) -> np.ndarray:
    """(W,) bool: do the two never touch, and is one of them, as a box, hidden for long enough?"""
    bodies, first, blocks = ways.bodies(walker), at.first.body, walker.subject.blocks
    good = np.linalg.norm(bodies.track - first.track, axis=2).min(1) >= bodies.radius + first.radius + APART
    if not good.any():
        return np.asarray(good)
    seen = seen_from(at.camera, _looked_at(ways.some(good).bodies(walker)))
    hidden = behind_any(outline(blocks.whole, seen), seen.ahead - bodies.radius, at.covers) & at.in_picture(seen)
    hides = at.first_whole.within(outline(blocks.core, seen)) & (seen.ahead < at.seen.ahead) & at.in_picture(at.seen)
    good[good] = long_enough(hidden, at.frames) | long_enough(hides, at.frames)
    return np.asarray(good)


def _spots(subject: Subject, at: Crossing, rng: np.random.Generator) -> Spots:
    """Frames and places in which something can hide the companion, or it the first subject."""
    stage, filmed = at.stage, at.stage.leave - at.stage.arrive
    frame = stage.arrive + rng.integers(filmed // 6, max(5 * filmed // 6, filmed // 6 + 1), _PLACES)
    spots, there = _behind(subject, frame, at, rng)
    track, eye = at.first.body.track, stage.camera.eye[frame]
    least = _share_in_front(subject.blocks.core, at.first.subject.blocks.whole, eye[:, 2])
    before = (least > _NEAREST) & (rng.random(_PLACES) < _IN_FRONT)
    away = np.linalg.norm(track[frame] - eye[:, :2], axis=1)
    room = subject.radius + at.first.subject.radius + 2 * APART
    nearer = np.minimum(away * least * rng.uniform(*_NEARER, _PLACES), away - room)
    spots = Spots(
        frame=frame, away=np.where(before, nearer, spots.away),
        target=np.where(before[:, None], track[frame], spots.target),
        drift=np.where(before[:, None], track[frame + 1] - track[frame], spots.drift),
    )  # fmt: skip
    return spots.some(there | before)


def _behind(subject: Subject, frame: np.ndarray, at: Crossing, rng: np.random.Generator) -> tuple[Spots, np.ndarray]:
    """Behind one of those that can hide it in each frame, and whether there is one (W,)."""
    fits, least = _can_hide(subject, frame, at)
    chosen = np.where(fits, rng.random(fits.shape), -1.0).argmax(1)
    ways, looked = np.arange(len(frame)), frame // LOOKED_AT.step
    most = _furthest(subject, at.stage)
    ahead = np.minimum(least[ways, chosen] * rng.uniform(*_FURTHER, len(frame)), most)
    beside = -np.arctan(at.covers.middle[looked, chosen, 0])
    eye, track = at.stage.camera.eye[frame, :2], at.first.body.track
    reach = at.covers.far[looked, chosen] / np.cos(beside)
    target = eye + reach[:, None] * _towards(at.stage.camera.yaw[frame] + beside)
    first = (chosen == fits.shape[1] - 1)[:, None]
    spots = Spots(
        frame=frame, away=ahead / np.cos(beside), target=np.where(first, track[frame], target),
        drift=np.where(first, track[frame + 1] - track[frame], 0.0),
    )  # fmt: skip
    return spots, np.asarray(fits.any(1))


def _can_hide(subject: Subject, frame: np.ndarray, at: Crossing) -> tuple[np.ndarray, np.ndarray]:
    """(W, N) what can hide the subject, seen from its slim side, in each frame, and from how many metres ahead on."""
    covers, whole, looked = at.covers, subject.blocks.whole, frame // LOOKED_AT.step
    eye = at.stage.camera.eye[frame, 2][:, None]
    (x, y), (wide, high) = (np.moveaxis(of[looked], 2, 0) for of in (covers.middle, covers.half))
    low = y + high  # feet must be above the lower end
    least = np.maximum(
        covers.far[looked] + subject.radius + APART, min(whole.width, whole.length) / np.maximum(wide, 1e-6)
    )
    least = np.maximum(least, eye / np.maximum(low, 1e-6))
    fits = covers.usable[looked] & (np.abs(x) < at.stage.lens.half_width) & (least < _furthest(subject, at.stage))
    return fits & ((eye - whole.high) / least > y - high), least


def _furthest(subject: Subject, stage: Stage) -> float:
    """Metres ahead from which on the subject is too small."""
    return subject.body_length / (2 * TOO_SMALL * stage.lens.half_height)


def _share_in_front(core: Block, whole: Block, eye: np.ndarray) -> np.ndarray:
    """(W,) at which share of somebody's distance, at most, another's core hides it all; 0: nowhere."""
    wide = max(core.width, core.length) / min(whole.width, whole.length)
    tall = (core.high > whole.high) | (core.high > eye)  # nearer by, it reaches higher only from a low eye
    return np.where(tall, np.minimum(np.minimum(wide, (eye - core.low) / eye), 1.0), 0.0)


def _in_line(walker: Walker, spots: Spots, camera: CameraTrack, rng: np.random.Generator) -> Ways:
    """Ways through these spots that stay in line: what is `share` times as far away as the target moves with
    (1 - share) x the camera + share x the target, across the line of sight."""
    frame, track = spots.frame, walker.body.track
    eye = camera.eye[frame, :2]
    away = spots.target - eye
    line = np.arctan2(away[:, 1], away[:, 0])
    share = (spots.away / np.linalg.norm(away, axis=1))[:, None]
    moves = (1 - share) * (camera.eye[frame + 1, :2] - eye) + share * spots.drift
    across = moves[:, 1] * np.cos(line) - moves[:, 0] * np.sin(line)
    step = np.linalg.norm(track[frame + 1] - track[frame], axis=1)
    aside = np.arcsin(np.clip(across / np.maximum(step, 1e-6), -1.0, 1.0))
    aside = np.where(rng.random(len(frame)) < 0.5, aside, np.pi - aside)  # away from the camera, or towards it
    turn = line + aside + _STRAY * rng.standard_normal(len(frame)) - walker.walk.heading[frame]
    place = eye + spots.away[:, None] * _towards(line)
    return Ways(turn=turn, offset=place - _turned(track[frame], turn))


def _looked_at(body: Body) -> Body:
    track, heading = body.track[..., LOOKED_AT, :], body.heading[..., LOOKED_AT]
    return Body(track=track, heading=heading, radius=body.radius, tall=body.tall)


def _turned(point: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Points (..., 2) turned about the origin by angles (...)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * point[..., 0] - sin * point[..., 1], sin * point[..., 0] + cos * point[..., 1]], -1)


def _towards(angle: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angle), np.sin(angle)], -1)
