"""A clip as pure data: everything needed to draw and annotate it, from a seed and the clip's number.

Clip i does not depend on how many clips there are. Draws whose camera does not lose the subject within the context
and find it again within the target are rejected, and the next draw of the same clip is tried.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from hmcli.errors import UsageError
from hmcli.recipe import WorldConfig
from hmcli.registry import normal
from hmcli.world.bodies import posed
from hmcli.world.light import Light, light_from
from hmcli.world.paths import PATHS, Walk, walk
from hmcli.world.scenes import CLEAR, SCENES, Scene
from hmcli.world.shapes import Shapes, corners, joined
from hmcli.world.subjects import SUBJECTS, Subject
from hmcli.world.trajectories import TRAJECTORIES, CameraTrack, Setting, timing

TRIES = 200  # draws of one clip before it is given up
_EARLY = 0.15  # share of the context in which the subject must be wholly in the picture
_TOO_LARGE = 0.85  # share of the picture's height: a subject that fills more is too near
_SALTS = {"scene": 11, "subject": 12, "trajectory": 13, "path": 14}


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A subject on its way through a clip; `number` is its value in instance masks."""

    number: int
    subject: Subject
    path: str
    walk: Walk
    phase: np.ndarray  # (T,) strides walked, with a random start

    @property
    def name(self) -> str:
        """Name of the subject within its clip."""
        return f"{self.subject.family}_{self.number}"

    def shapes(self) -> Shapes:
        body = posed(self.subject.figure, self.phase, self.number)
        return body.placed(self.walk.position, self.walk.heading)


@dataclass(frozen=True, kw_only=True)
class ClipDescription:
    """One continuous shot: context frames, then target frames."""

    id: str
    seed: int
    index: int
    draw: int  # how many draws of this clip were rejected before this one
    scene: Scene
    light: Light
    actors: tuple[Actor, ...]
    trajectory: str
    world_from_camera: np.ndarray  # (T, 4, 4) float64, metres, camera axes right, down, forward
    field_of_view: float  # degrees, horizontal
    fps: int
    context_frames: int
    target_frames: int
    texture_seed: int

    @property
    def frames(self) -> int:
        return self.context_frames + self.target_frames

    def focal(self, width: int) -> float:
        """Focal length in pixels of pictures `width` pixels wide."""
        return width / 2 / float(np.tan(np.deg2rad(self.field_of_view) / 2))

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """(4,) fx, fy, cx, cy in pixels for pictures of (height, width)."""
        focal = self.focal(size[1])
        return np.array([focal, focal, size[1] / 2, size[0] / 2])

    def moving_shapes(self) -> Shapes:
        """The shapes of all subjects, (T, N)."""
        return joined([actor.shapes() for actor in self.actors])

    def feet(self) -> np.ndarray:
        """(T, subjects, 3): x, y on the ground and radius of the subject's contact shade, metres."""
        tracks = []
        for actor in self.actors:
            radius = np.full((self.frames, 1), 0.30 * min(actor.subject.tall, 1.8))
            tracks.append(np.concatenate([actor.walk.position[:, :2], radius], 1))
        return np.stack(tracks, 1)


def clip_id(seed: int, index: int) -> str:
    """The clip's name: stable whatever the number of clips."""
    return f"s{seed}-{index:05d}"


def describe_clip(world: WorldConfig, seed: int, index: int, first_draw: int = 0) -> ClipDescription:
    """The first acceptable draw of clip `index`, from `first_draw` on. Raises UsageError after too many tries."""
    _check(world)
    reasons: dict[str, int] = {}
    for draw in range(first_draw, TRIES):
        clip = _draw(world, seed, index, draw)
        if not (reason := _refused(clip, world.size)):
            return clip
        reasons[reason] = reasons.get(reason, 0) + 1
    most = max(reasons, key=lambda reason: reasons[reason], default="every draw was used up")
    raise UsageError(
        f"no exit and re-entry found in {TRIES} draws of a clip: mostly, {most}",
        where={"clip": clip_id(seed, index), "recipe": "world"},
        fix=f"turn the camera further (world.camera.degrees={world.camera.degrees:g}, horizontal field of view"
        f" {world.field_of_view:g}) or use more context and target frames",
    )  # fmt: skip


def _check(world: WorldConfig) -> None:
    """What the recipe's types cannot say."""
    if not 5 <= world.field_of_view <= 120:
        raise UsageError(
            f"world.field_of_view={world.field_of_view:g}: the horizontal field of view must be 5 to 120 degrees"
        )
    if not 0 < world.camera.degrees <= 180:
        raise UsageError(f"world.camera.degrees={world.camera.degrees:g}: turn the camera by more than 0, up to 180")


def _names(key: str, asked: tuple[str, ...], known: Collection[str]) -> tuple[str, ...]:
    """The names to draw from: those asked for (all when none is), `-` and `_` alike."""
    by_name = {normal(name): name for name in known}
    if unknown := [name for name in asked if normal(name) not in by_name]:
        listed = ", ".join(sorted(known))
        raise UsageError(f"{key}: unknown name {unknown[0]!r}", where={"recipe": key}, fix=f"known: {listed}")
    return tuple(by_name[normal(name)] for name in asked) or tuple(known)


def _draw(world: WorldConfig, seed: int, index: int, draw: int) -> ClipDescription:
    asked = () if world.camera.trajectory == "any" else (world.camera.trajectory,)
    trajectory = _dealt(_names("world.camera.trajectory", asked, TRAJECTORIES), seed, index, "trajectory")
    scene_name = _dealt(_names("world.scenes", world.scenes, SCENES), seed, index, "scene")
    subject_name = _dealt(_names("world.subjects", world.subjects, SUBJECTS), seed, index, "subject")
    # which path suits depends on the length of the clip, so a rejected draw moves on to the next path
    path = _dealt(tuple(PATHS), seed, index + draw, "path")
    rng = np.random.default_rng([seed, index, draw])
    scene, light, subject = SCENES[scene_name](rng), light_from(rng), SUBJECTS[subject_name](rng)
    actor = _actor(subject, path, world.context_frames + world.target_frames, world.fps, rng)
    camera = _camera(world, trajectory, actor, rng)
    return ClipDescription(
        id=clip_id(seed, index), seed=seed, index=index, draw=draw, scene=scene, light=light, actors=(actor,),
        trajectory=trajectory, world_from_camera=camera.world_from_camera(),
        field_of_view=world.field_of_view, fps=world.fps, context_frames=world.context_frames,
        target_frames=world.target_frames, texture_seed=int(rng.integers(2**31)),
    )  # fmt: skip


def _dealt(names: tuple[str, ...], seed: int, index: int, what: str) -> str:
    """The name for clip `index`: dealt like a shuffled pack, so that every len(names) clips have all of them."""
    pack, place = divmod(index, len(names))
    return names[np.random.default_rng([seed, pack, _SALTS[what]]).permutation(len(names))[place]]


def _actor(subject: Subject, path: str, frames: int, fps: int, rng: np.random.Generator) -> Actor:
    """Walk across the view rather than towards it, somewhere near the origin."""
    sideways = rng.choice([0.0, np.pi]) + rng.uniform(-0.8, 0.8)
    track = walk(PATHS[path], frames, fps, subject.speed, sideways, rng)
    phase = track.distance / subject.figure.stride_metres + rng.uniform(0, 1)
    return Actor(number=1, subject=subject, path=path, walk=track, phase=phase)


def _camera(world: WorldConfig, name: str, actor: Actor, rng: np.random.Generator) -> CameraTrack:
    """Stand where the subject fills about half the height of the picture, and can walk without coming too near."""
    half_width = np.deg2rad(world.field_of_view) / 2
    half_height = np.tan(half_width) * world.size[0] / world.size[1]  # at distance 1
    distance = actor.subject.tall / (2 * half_height * rng.uniform(0.46, 0.60))
    distance = max(distance, actor.subject.tall * 1.2 / np.tan(half_width))  # upright pictures: also fit their width
    distance = max(distance, 0.75 * float(np.ptp(actor.walk.position[:, 1])) + 0.4 * distance)
    side = rng.uniform(-0.35, 0.35)
    height = half_height * distance * rng.uniform(0.45, 0.75)
    eye = np.array([distance * np.sin(side), -distance * np.cos(side), height])
    aim = rng.uniform(-0.4, 0.4, 2) * half_width
    turn = np.deg2rad(world.camera.degrees) * rng.choice([-1.0, 1.0])
    setting = Setting(
        eye=eye, pivot=np.zeros(2), subject=actor.walk.position[:, :2], aim=(float(aim[0]), float(aim[1])), turn=turn
    )
    away, back = timing(world.context_frames, world.target_frames, rng)
    return TRAJECTORIES[name](away, back, setting, rng)


def sight(clip: ClipDescription, actor: Actor) -> tuple[np.ndarray, np.ndarray]:
    """Per frame (T,): is the subject wholly, and is it at all, between the left and right edges of the picture?"""
    eight = corners(actor.shapes()).reshape(clip.frames, -1, 3)
    pose = clip.world_from_camera
    in_camera = np.einsum("tki,tij->tkj", eight - pose[:, None, :3, 3], pose[:, :3, :3])
    x, depth = in_camera[..., 0], in_camera[..., 2]
    edge = np.tan(np.deg2rad(clip.field_of_view) / 2) * depth
    wholly = ((np.abs(x) < edge) & (depth > 0.5)).all(1)
    partly = ~((x > edge).all(1) | (x < -edge).all(1))
    return wholly, partly


def _refused(clip: ClipDescription, size: tuple[int, int]) -> str:
    """Why this draw has no exit and re-entry, or nothing."""
    context = clip.context_frames
    for actor in clip.actors:
        reach = np.linalg.norm(actor.walk.position[:, :2], axis=1).max()
        if reach > CLEAR - 1.0:
            return "the subject's way is longer than the free ground"
        wholly, partly = sight(clip, actor)
        if not wholly[: max(2, int(_EARLY * context))].all():
            return "the subject is not wholly in the first frames"
        if partly[max(context - 2, 0) : context + 1].any():
            return "the subject does not leave within the context"
        if not wholly[context:].any() or not partly[-1]:
            return "the subject does not come back within the target"
        if _height(clip, actor, size).max() > _TOO_LARGE:
            return "the subject comes too near"
    return ""


def _height(clip: ClipDescription, actor: Actor, size: tuple[int, int]) -> np.ndarray:
    """(T,) the subject's height as a share of that of the picture, by its distance."""
    away = np.linalg.norm(actor.walk.position - clip.world_from_camera[:, :3, 3], axis=1)
    return actor.subject.tall / away * clip.focal(size[1]) / size[0]
