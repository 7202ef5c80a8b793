"""True clips damaged by hand: one thing is wrong with a subject from when it is back, and everything else is true.

What verdicts and orders of metrics are tested on. Places, poses and bodies are wrong in the world, which the renderer
draws again; colours and shapes are wrong in the picture, on the place drawn without the subject.
Shape letters: T target frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hmcli.stages.bench.redrawing import EDGE, Redrawn
from hmcli.world.staging.clip import Actor, ClipDescription
from hmcli.world.staging.variants import at_moments, target_alone, with_instead
from hmcli.world.subjects import SUBJECTS, subject_family
from hmcli.world.views.warps import widened

ASIDE = 1.1  # body lengths to one side: a misplaced subject, and the second one of two
LATE = 1.3  # body lengths that a subject walks in the time by which it comes back too late
HELD = 4  # frames that a stuttering subject stays as it is, before it jumps
SHAKE = 0.12  # body lengths: the spread of a shaken subject's places
_BENT = 0.13  # of a subject's height, by which a distorted one's parts are elsewhere
_TINT = 0.6  # of a recoloured subject's colour, that is a paint


@dataclass(frozen=True, kw_only=True)
class Returning:
    """Whom a damage comes to. `back` is a target frame, `left` the clip's frame in which it was last seen before."""

    number: int  # its value in masks
    back: int
    left: int


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A target with the damage, and which pixels then show the subject (of two: the one that should not be)."""

    video: np.ndarray  # (T, H, W, 3)
    own_THW: np.ndarray  # bool


@dataclass(frozen=True)
class Scene:
    """A clip that is drawn again, the target's video on disk, and whom the damage comes to."""

    drawn: Redrawn
    video: np.ndarray
    whom: Returning
    rng: np.random.Generator

    @property
    def clip(self) -> ClipDescription:
        return self.drawn.clip

    @cached_property
    def moments(self) -> np.ndarray:
        """(T,) the clip's frame that each target frame shows."""
        return np.arange(self.clip.context_frames, self.clip.frames)

    @property
    def since(self) -> np.ndarray:
        """(T,) bool: frames in which the damage is."""
        return np.arange(self.clip.target_frames) >= self.whom.back

    @property
    def actor(self) -> Actor:
        return next(one for one in self.clip.actors if one.number == self.whom.number)

    def draw(self, clip: ClipDescription) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (T, H, W, 3) and masks (T, H, W) of a target."""
        from hmcli.world.render import draw_clip  # torch loads here

        found = draw_clip(clip, self.drawn.world.size, antialias=self.drawn.world.antialias)
        return found.rgb, found.instances

    def otherwise(self, *instead: Callable[[Actor], Actor]) -> Damaged:
        """The target with what these make of the subject in its place; none of them: without it."""
        spare = max(actor.number for actor in self.clip.actors) + 1
        names = (self.whom.number, *range(spare, spare + len(instead)))

        def others(actor: Actor) -> tuple[Actor, ...]:
            return tuple(replace(change(actor), number=name) for change, name in zip(instead, names, strict=False))

        pictures, labels = self.draw(with_instead(self.clip, self.whom.number, others))
        return self.put(pictures, labels == names[len(instead) - 1] if instead else np.zeros(labels.shape, bool))

    def put(self, pictures: np.ndarray, own_THW: np.ndarray) -> Damaged:
        """The video on disk, with these pictures where they differ from the truth drawn again."""
        changed = widened((pictures != self.drawn.target).any(-1), EDGE) & self.since[:, None, None]
        return Damaged(video=np.where(changed[..., None], pictures, self.video), own_THW=own_THW)

    # --- elsewhere, at other times ------------------------------------------------------------------------------------

    def at(self, moments_T: np.ndarray) -> Callable[[Actor], Actor]:
        """The subject as it was in other frames of the clip, from when it is back."""
        return lambda actor: at_moments(actor, np.where(self.since, moments_T, self.moments))

    def moved(self, metres_T3: np.ndarray) -> Callable[[Actor], Actor]:
        """The subject elsewhere, from when it is back."""

        def change(actor: Actor) -> Actor:
            actor = at_moments(actor, self.moments)
            place = actor.walk.position + np.where(self.since[:, None], metres_T3, 0)
            return replace(actor, walk=replace(actor.walk, position=place))

        return change

    def aside(self) -> np.ndarray:
        """(3,) metres to the left or right of the camera: not to where it left, and where more of the picture is."""
        frame = self.moments[self.whom.back :]
        right = self.clip.world_from_camera[frame[0], :3, 0] * (1, 1, 0)
        step = ASIDE * self.actor.subject.body_length * right / np.linalg.norm(right)
        true, left = self.actor.walk.position[frame], self.actor.walk.position[self.whom.left]
        cameras = self.clip.world_from_camera[frame]
        stood, body = sideways(np.broadcast_to(left, true.shape), cameras), self.actor.subject.body_length
        worth = {}
        for way in (-1, 1):
            across = sideways(true + way * step, cameras)
            apart = np.abs(across - stood) * np.linalg.norm(true - cameras[:, :3, 3], axis=-1)
            worth[way] = ((np.abs(across) < 0.9 * np.tan(self.clip.half_angle)) & (apart > 0.6 * body)).sum()
        return step * max(worth, key=lambda way: worth[way])


def sideways(point_T3: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """(T,) tangent of the angle to the right of the picture's middle; infinite behind the camera."""
    seen = np.einsum("tij,ti->tj", world_from_camera[:, :3, :3], point_T3 - world_from_camera[:, :3, 3])
    return np.where(seen[:, 2] > 0, seen[:, 0] / np.maximum(seen[:, 2], 1e-6), np.inf)


def vanished(scene: Scene) -> Damaged:
    return scene.otherwise()


def frozen(scene: Scene) -> Damaged:
    return scene.otherwise(scene.at(np.full(len(scene.moments), scene.whom.left)))


def delayed(scene: Scene) -> Damaged:
    """By the time in which it walks LATE body lengths, up to the middle of the frames it is back in."""
    frame = int(scene.moments[(scene.whom.back + len(scene.moments)) // 2])
    way = np.linalg.norm(scene.actor.walk.position[:frame] - scene.actor.walk.position[frame], axis=-1)
    far = np.flatnonzero(way >= LATE * scene.actor.subject.body_length)
    return scene.otherwise(scene.at(scene.moments - (frame - int(far[-1]) if len(far) else scene.whom.back)))


def stuttering(scene: Scene) -> Damaged:
    since = np.arange(len(scene.moments)) - scene.whom.back
    return scene.otherwise(scene.at(scene.moments - since % HELD))


def shaken(scene: Scene) -> Damaged:
    length = SHAKE * scene.actor.subject.body_length
    return scene.otherwise(scene.moved(length * scene.rng.standard_normal((len(scene.moments), 3))))


def misplaced(scene: Scene) -> Damaged:
    return scene.otherwise(scene.moved(scene.aside()[None]))


def duplicated(scene: Scene) -> Damaged:
    return scene.otherwise(scene.at(scene.moments), scene.moved(scene.aside()[None]))


# --- others, and otherwise -------------------------------------------------------------------------------------------


def swapped(scene: Scene) -> Damaged:
    """Another of the world's subjects in its place, of another kind where there is one."""
    own, names = scene.actor.subject, scene.drawn.world.subjects or tuple(sorted(SUBJECTS))
    others = [subject_family(name)(scene.rng) for name in scene.rng.permutation(names) if name != own.family]
    apart = {True: 0.0, False: 2.0}  # kinds count for more than sizes
    other = min(others, key=lambda of: apart[of.kind != own.kind] + abs(np.log(of.body_length / own.body_length)))
    here = scene.at(scene.moments)
    return scene.otherwise(lambda actor: replace(here(actor), subject=other))


def recoloured(scene: Scene) -> Damaged:
    """Channels in another order, under a paint."""
    pictures, labels = scene.draw(target_alone(scene.clip))
    own = labels == scene.whom.number
    paint = scene.rng.permutation([230, 40, 160])
    rolled = np.roll(pictures[own], 1, axis=-1)
    pictures = pictures.copy()
    pictures[own] = ((1 - _TINT) * rolled + _TINT * paint).astype(np.uint8)
    return scene.put(pictures, own)


def distorted(scene: Scene) -> Damaged:
    """Its picture bent: every part of it somewhere else, and each frame a little otherwise."""
    from scipy.ndimage import map_coordinates

    pictures, labels = scene.draw(target_alone(scene.clip))
    empty, _ = scene.draw(with_instead(scene.clip, scene.whom.number, lambda actor: ()))
    own, found = labels == scene.whom.number, empty.copy()
    waves = scene.rng.uniform(0, 2 * np.pi, (2, 2))
    grid = np.stack(np.meshgrid(*map(np.arange, labels.shape[1:]), indexing="ij")).astype(float)
    for t in np.flatnonzero(own.any(axis=(1, 2)) & scene.since):
        rows = np.flatnonzero(own[t].any(axis=1))
        height = rows[-1] - rows[0] + 1
        way = np.stack([
            np.sin(2 * np.pi * grid[1 - axis] / (0.7 * height) + waves[axis, 0] + 0.2 * t)
            + 0.6 * np.sin(2 * np.pi * grid[axis] / (0.5 * height) + waves[axis, 1])
            for axis in (0, 1)
        ])  # fmt: skip
        taken = grid + _BENT * height * way
        own[t] = map_coordinates(own[t].astype(float), taken, order=1) > 0.5
        bent = np.stack([map_coordinates(pictures[t, ..., c], taken, order=0, mode="nearest") for c in range(3)], -1)
        found[t][own[t]] = bent[own[t]]
    return scene.put(found, own)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A damage, and the verdict it must get (hmcli.metrics.verdicts)."""

    name: str
    verdict: str
    draw: Callable[[Scene], Damaged]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="vanished", verdict="vanished", draw=vanished),
        Kind(name="frozen", verdict="frozen", draw=frozen),
        Kind(name="distorted", verdict="distorted", draw=distorted),
        Kind(name="recoloured", verdict="distorted", draw=recoloured),
        Kind(name="swapped", verdict="distorted", draw=swapped),
        Kind(name="stuttering", verdict="stuttering", draw=stuttering),
        Kind(name="shaken", verdict="stuttering", draw=shaken),
        Kind(name="misplaced", verdict="misplaced", draw=misplaced),
        Kind(name="delayed", verdict="misplaced", draw=delayed),
        Kind(name="duplicated", verdict="duplicated", draw=duplicated),
    )
}


def damaged(drawn: Redrawn, video: np.ndarray, whom: Returning, kind: str, rng: np.random.Generator) -> Damaged:
    """The target of a clip with one damage. `video` (T, H, W, 3) is the true target as it is on disk."""
    return KINDS[kind].draw(Scene(drawn, video, whom, rng))
