"""Company: more subjects beside the first one, who neither walk through each other nor through things. T frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmcli.world.space.obstacles import Footprints, clearance
from hmcli.world.staging.paths import PATHS, Gauge, Walk, walk
from hmcli.world.staging.shooting import Lens
from hmcli.world.subjects import Subject
from hmcli.world.views.sight import Body, sight
from hmcli.world.views.trajectories import CameraTrack

APART = 0.15  # metres between two bodies, and between a body and a thing, at least
TOO_LARGE = 0.95  # share of the picture's height: a subject that fills more is too near, unless more is asked for
_NEARER = 1.15  # times its share of the height that a subject may come to fill on its way
_CUT = 0.15  # share of a subject that may be below the picture's lower edge, beyond what is asked for
TOO_SMALL = 0.15  # share of the picture's height: a body whose longest extent is less is too far away
_NEAR_CAMERA = 1.0  # metres between a body and the camera, at least
_OFFSET = 1.4  # metres from the origin to the middle of the first subject's way, at most, along x and y
_PLACES = 6  # offsets tried
_TRIES = 40  # places tried for one more subject
_SEEN = 0.3  # share of the frames before the exit in which a companion is in the picture


@dataclass(frozen=True, kw_only=True)
class Walker:
    """A subject on its way."""

    subject: Subject
    path: str
    walk: Walk

    def moved(self, offset: np.ndarray) -> Walker:
        """The same way `offset` (2,) metres further along the ground."""
        return replace(self, walk=self.walk.moved(offset))

    def turned(self, angle: float) -> Walker:
        """The same way, turned about the world's origin by `angle` radians."""
        return replace(self, walk=self.walk.turned(angle))

    @property
    def body(self) -> Body:
        return Body(
            track=self.walk.position[:, :2], heading=self.walk.heading, radius=self.subject.radius,
            tall=self.subject.tall,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a companion has to find room: the first subject is filmed from frame `arrive` to before `leave`."""

    camera: CameraTrack
    arrive: int
    leave: int
    lens: Lens
    things: Footprints
    fps: float


def set_out(subject: Subject, path: str, frames: int, fps: float, brisk: float, rng: np.random.Generator) -> Walker:
    """Walk across the view rather than towards it, `brisk` times as fast as usual, its way's middle at the origin."""
    speed = subject.speed * brisk
    room = max(1.4, 1.1 * subject.body_length if subject.kind == "animal" else 0.0)
    course = PATHS[path](Gauge(speed=speed, room=room), rng)
    sideways = rng.choice([0.0, np.pi]) + rng.uniform(-0.8, 0.8)
    return Walker(subject=subject, path=path, walk=walk(course, frames, fps, speed, sideways))


def somewhere_free(walker: Walker, things: Footprints, rng: np.random.Generator) -> Walker | None:
    """The same way near the origin, where nothing stands on it; None when no such place was found."""
    for _ in range(_PLACES):
        moved = walker.moved(rng.uniform(-_OFFSET, _OFFSET, 2))
        if free_of_things(moved, things):
            return moved
    return None


def free_of_things(walker: Walker, things: Footprints) -> bool:
    room = clearance(walker.body.track, things, 0.0, walker.subject.tall)
    return room >= walker.subject.radius + APART


def apart(first: Walker, second: Walker) -> bool:
    """Do two subjects never touch?"""
    away = np.linalg.norm(first.body.track - second.body.track, axis=1)
    return bool(away.min() >= first.subject.radius + second.subject.radius + APART)


def not_too_near(walker: Walker, camera: CameraTrack, lens: Lens) -> bool:
    """The camera never walks into the subject, and sees most of it where it sees it."""
    body = walker.body
    away = np.linalg.norm(body.track - camera.eye[:, :2], axis=1)
    if away.min() < body.radius + _NEAR_CAMERA:
        return False
    seen = sight(camera, body)
    shown = seen.partly(lens.half_angle)
    edge = lens.half_height * np.maximum(seen.ahead[shown], 1e-6)  # metres from the view axis to the lower edge
    cut = camera.eye[shown, 2] - edge
    too_large = max(TOO_LARGE, _NEARER * lens.height[1])
    large = (body.tall / (2 * edge)).max(initial=0.0)
    return bool(large <= too_large and cut.max(initial=0.0) <= (lens.cut + _CUT) * body.tall)


def join(
    subject: Subject, paths: Sequence[str], others: Sequence[Walker], stage: Stage, rng: np.random.Generator
) -> Walker | None:
    """One more subject in the picture before the exit; None when no place was found."""
    camera, lens, filmed = stage.camera, stage.lens, stage.leave - stage.arrive
    for _ in range(_TRIES):
        path = str(rng.choice(list(paths)))
        walker = set_out(subject, path, len(camera.yaw), stage.fps, rng.uniform(0.9, 1.1), rng)
        frame = stage.arrive + int(rng.integers(filmed // 6, max(5 * filmed // 6, filmed // 6 + 1)))
        walker = walker.moved(_in_view(others, stage, frame, rng) - walker.body.track[frame])
        if not all(apart(walker, other) for other in others) or not not_too_near(walker, camera, lens):
            continue
        if noticed(walker, stage) and free_of_things(walker, stage.things):
            return walker
    return None


def company(
    others: Sequence[Subject], paths: Sequence[str], there: Sequence[Walker], stage: Stage, rng: np.random.Generator
) -> list[Walker] | None:
    """All who are there, and then the others on their ways; None when there is no room for one of them."""
    people = list(there)
    for subject in others:
        one = join(subject, paths, people, stage, rng)
        if one is None:
            return None
        people.append(one)
    return people


def noticed(walker: Walker, stage: Stage) -> bool:
    """Is a companion in the picture often enough before the exit, and large enough to be told at a glance?"""
    seen = sight(stage.camera, walker.body)
    filmed = slice(stage.arrive, stage.leave)
    shown = seen.partly(stage.lens.half_angle)[filmed]
    if shown.mean() < _SEEN:
        return False
    away = float(np.median(seen.ahead[filmed][shown]))
    return walker.subject.body_length >= TOO_SMALL * 2 * stage.lens.half_height * away


def _in_view(others: Sequence[Walker], stage: Stage, frame: int, rng: np.random.Generator) -> np.ndarray:
    """(2,) somewhere in the picture, about as far away as the first subject."""
    eye = stage.camera.eye[frame, :2]
    distance = float(np.linalg.norm(others[0].body.track[frame] - eye)) * rng.uniform(0.75, 1.4)
    angle = stage.camera.yaw[frame] + stage.lens.half_angle * rng.uniform(-0.9, 0.9)
    return np.asarray(eye + distance * np.array([np.cos(angle), np.sin(angle)]))
