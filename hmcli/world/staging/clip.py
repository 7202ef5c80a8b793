"""A clip as pure data: everything needed to draw and annotate it, from a seed and the clip's number.

Clip i does not depend on how many clips there are. Its place, light and subjects are drawn once; how they move and how
the camera does is drawn until the camera loses the first subject within the context and finds it again within the
target, nobody walks through anything, and the hidden motion can be predicted (hmcli/world/hidden/certify.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np

from hmcli.errors import UsageError
from hmcli.recipe.sections import WorldConfig
from hmcli.world.bodies import posed, settled
from hmcli.world.hidden.certify import FROZEN_BODIES, ORACLE_BODIES, Needs, Watched, certify, judged_frame
from hmcli.world.hidden.cover import LOOKED_AT, somebody_covered, things_that_cover
from hmcli.world.hidden.events import Hidden
from hmcli.world.scenes import Scene, scene_family
from hmcli.world.scenes.detail import flat_light, flat_scene
from hmcli.world.space.light import Light, light_from
from hmcli.world.space.obstacles import Footprints, blocked, clearance, footprints
from hmcli.world.space.shapes import Shapes, joined, nothing
from hmcli.world.staging.choices import Choices, choices
from hmcli.world.staging.company import Stage, Walker, company, not_too_near, set_out, somewhere_free
from hmcli.world.staging.crossing import crossing, crowd
from hmcli.world.staging.paths import Walk
from hmcli.world.staging.shooting import FOLLOWED, Lens, Moments, Taken, Task, moments, rolled_metres, shoot
from hmcli.world.staging.splits import COVERED_SECONDS, SplitName
from hmcli.world.subjects import Subject, subject_family
from hmcli.world.views.cameras import focal_length
from hmcli.world.views.sight import Body, sight
from hmcli.world.views.trajectories import STARTS, CameraTrack

TRIES = 800  # draws of one clip before a further seed is tried
FURTHER_SEEDS = 3  # tried before it is given up
_FURTHER = 1_000_003  # from one of them to the next
_PER_CAST = 50  # draws after which a clip is cast anew: not every subject suits every trajectory and length
_BRISKEST = 2.0  # times a subject's usual pace
_COMPANIES = 3  # companies tried for a crowd's first subject, until somebody is covered for long enough
_CAMERA_ROOM = 0.5  # metres between the camera and things
_VIEW = 3.0  # metres: what is nearer blocks the camera's view ...
_BLOCKED = 0.4  # ... of which it may fill this share, from left to right
_CLEAR = 0.2  # share of a subject between the picture's edges from which on it is clearly visible
_FEW_DRAWS = 6  # of what eyes saw, before anything is drawn
_STRATA = 10  # equal parts of a range that clips are dealt, so that a few clips cover all of it
_ABOUT = 0.12  # share by which a subject's height in the picture may miss its range
_FOLLOWED_IN_CONTEXT = 4.6  # metres that a follow shot is to cover within the context, where its subject can
_SALTS = {
    "scene": 11, "subject": 12, "trajectory": 13, "path": 14, "start": 15, "count": 16, "company": 17, "follow": 18,
    "height": 19, "place": 20, "eyes": 21, "where": 22,
    "look": 23,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A subject on its way through a clip; `number` is its value in instance masks."""

    number: int
    subject: Subject
    path: str
    walk: Walk
    phase: np.ndarray  # (T,) strides walked, with a random start
    lift: np.ndarray  # (T,) how high its feet are lifted, as a share

    @property
    def name(self) -> str:
        """Name of the subject within its clip."""
        return f"{self.subject.family}_{self.number}"

    @property
    def body(self) -> Body:
        """What sight needs to know of it."""
        track, who = self.walk.position[:, :2], self.subject
        return Body(track=track, heading=self.walk.heading, radius=who.radius, tall=who.tall)

    def shapes(self, frames: slice = slice(None)) -> Shapes:
        """Its shapes in these frames, (T, N)."""
        body = posed(self.subject.figure, self.phase[frames], self.number, lift=self.lift[frames])
        return body.placed(self.walk.position[frames], self.walk.heading[frames])


@dataclass(frozen=True, kw_only=True)
class ClipDescription:
    """One continuous shot: context frames, then target frames."""

    id: str
    seed: int
    index: int
    draw: int  # how many draws of this clip were rejected before this one
    split: SplitName
    scene: Scene
    light: Light
    actors: tuple[Actor, ...]
    trajectory: str
    start: str  # where the camera films from, a name of trajectories.STARTS
    follows: bool  # does a dolly carry the camera along with the first subject?
    world_from_camera: np.ndarray  # (T, 4, 4) float64, metres, camera axes right, down, forward
    field_of_view: float  # degrees, horizontal
    aspect: float  # of the pictures: height / width
    fps: int
    needs: Needs
    target_frames: int
    texture_seed: int

    @property
    def further_seeds(self) -> int:
        """How many seeds beyond the clip's own were tried."""
        return self.draw // TRIES

    @property
    def context_frames(self) -> int:
        return self.needs.context_frames

    @property
    def frames(self) -> int:
        return self.context_frames + self.target_frames

    @property
    def half_angle(self) -> float:
        """Radians: half the horizontal field of view."""
        return float(np.deg2rad(self.field_of_view)) / 2

    @property
    def camera(self) -> CameraTrack:
        """The camera's places and directions."""
        pose = self.world_from_camera
        return CameraTrack(eye=pose[:, :3, 3], yaw=np.arctan2(pose[:, 1, 2], pose[:, 0, 2]))

    def inside(self, actor: Actor) -> np.ndarray:
        """(T,) about which share of a subject's body lies between the edges of the picture."""
        seen, tall = sight(self.camera, actor.body), actor.subject.tall
        high = self.aspect * float(np.tan(self.half_angle))
        return seen.inside(self.half_angle, high, tall, self.world_from_camera[:, 2, 3])

    def focal(self, width: int) -> float:
        """Focal length in pixels of pictures `width` pixels wide."""
        return focal_length(np.deg2rad(self.field_of_view), width)

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """(4,) fx, fy, cx, cy in pixels for pictures of (height, width)."""
        focal = self.focal(size[1])
        return np.array([focal, focal, size[1] / 2, size[0] / 2])

    def moving_shapes(self) -> Shapes:
        """The shapes of all subjects, (T, N)."""
        return joined([actor.shapes() for actor in self.actors]) if self.actors else nothing(self.frames)

    def feet(self) -> np.ndarray:
        """(T, subjects, 3): x, y on the ground and radius of the subject's contact shade, metres."""
        tracks = []
        for actor in self.actors:
            radius = np.full((self.frames, 1), 0.30 * min(actor.subject.tall, 1.8))
            tracks.append(np.concatenate([actor.walk.position[:, :2], radius], 1))
        return np.stack(tracks, 1) if tracks else np.zeros((self.frames, 0, 3))


def clip_id(seed: int, index: int) -> str:
    """The clip's name: stable whatever the number of clips."""
    return f"s{seed}-{index:05d}"


# --- drawing ---------------------------------------------------------------------------------------------------------


def _dealt(names: tuple[str, ...], seed: int, index: int, what: str) -> str:
    """The name for clip `index`: dealt like a shuffled pack, so that every len(names) clips have all of them."""
    pack, place = divmod(index, len(names))
    return names[_shuffled(len(names), seed, pack, what)[place]]


@lru_cache(maxsize=64)
def _shuffled(count: int, seed: int, pack: int, what: str) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, pack, _SALTS[what]]).permutation(count).tolist())


@dataclass(frozen=True, kw_only=True)
class Cast:
    """What many draws of one clip share."""

    scene: Scene
    things: Footprints
    light: Light
    subjects: tuple[Subject, ...]
    trajectory: str
    follows: bool
    height: float  # of the picture's height that the first subject fills
    phases: tuple[float, ...]
    texture_seed: int


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a draw found: where the first subject walks, and how the camera moves from which start."""

    first: Walker
    camera: CameraTrack
    moments: Moments  # of the first subject
    start: str


def describe_clip(world: WorldConfig, seed: int, index: int, first_draw: int = 0) -> ClipDescription:
    """The first acceptable draw of clip `index`, from `first_draw` on.

    An unlucky clip is drawn on with a further seed after every TRIES draws. Raises UsageError after FURTHER_SEEDS of
    them, and at once when all draws of the first failed for one reason.
    """
    may = choices(world)
    cast = _cast(may, _seed_of(seed, first_draw), index, first_draw // _PER_CAST)
    reasons: dict[str, int] = {}
    for draw in range(first_draw, (1 + FURTHER_SEEDS) * TRIES):
        own = _seed_of(seed, draw)
        if draw == TRIES and len(reasons) == 1 and first_draw == 0:
            break
        if draw % _PER_CAST == 0 and draw > first_draw:
            cast = _cast(may, own, index, draw // _PER_CAST)
        drawn = _draw(may, cast, own, index, draw)
        found = _peopled(may, cast, drawn, own, index, draw) if isinstance(drawn, Scenario) else drawn
        if isinstance(found, ClipDescription):
            return replace(found, id=clip_id(seed, index), seed=seed)
        reasons[found] = reasons.get(found, 0) + 1
    most = max(reasons, key=lambda reason: reasons[reason], default="every draw was used up")
    raise UsageError(
        f"no exit and re-entry found in {sum(reasons.values())} draws of a clip: mostly, {most}",
        where={"clip": clip_id(seed, index), "recipe": "world"},
        fix=f"turn the camera further (world.camera.degrees={world.camera.degrees:g}, horizontal field of view"
        f" {world.field_of_view:g}) or use more context and target frames",
    )


def _seed_of(seed: int, draw: int) -> int:
    """The seed that a draw is made with: the clip's own, or after every TRIES draws a further one."""
    return seed + draw // TRIES * _FURTHER


def _cast(may: Choices, seed: int, index: int, number: int) -> Cast:
    """The `number`-th cast of a clip: names are dealt evenly over the clips, a later cast moves on to the next ones."""
    rng = np.random.default_rng([seed, index, 0, number])
    there = _place_rng(may, seed, index) or rng
    scene = scene_family(_dealt(may.scenes, seed, index, "scene"))(there, occluders=may.split.crowd)
    light = light_from(there, scene.moods)
    if may.world.detail == "low":
        scene, light = flat_scene(scene), flat_light(light)
    count = int(_dealt(tuple(map(str, may.counts)), seed, index, "count"))
    follows = _part("follow", seed, index) < may.world.camera.follow
    low, high = may.world.subject_height
    height = low + (high - low) * (_part("height", seed, index) + rng.uniform(0, 1 / _STRATA))
    first = _first_subject(may, seed, index + number, follows=follows, height=height)
    others = [name for name in may.subjects if name != first] or [first]  # two of a family are hard to tell apart
    names = [first, *map(str, rng.choice(others, count - 1, replace=len(others) < count - 1))]
    return Cast(
        scene=scene, things=footprints(scene.shapes), light=light,
        subjects=tuple(subject_family(name)(_look_rng(may, name, seed, index + number) or rng) for name in names),
        trajectory=_dealt(may.trajectories, seed, index + number, "trajectory"), follows=follows, height=height,
        phases=tuple(rng.uniform(0, 1, count).tolist()), texture_seed=int(there.integers(2**31)),
    )  # fmt: skip


def _place_rng(may: Choices, seed: int, index: int) -> np.random.Generator | None:
    """What a place that clips share is drawn with: its number among those of the recipe, and no clip's seed."""
    if not may.world.places:
        return None
    number = int(_dealt(tuple(map(str, range(may.world.places))), seed, index, "where"))
    return np.random.default_rng([_SALTS["where"], number])


def _look_rng(may: Choices, family: str, seed: int, index: int) -> np.random.Generator | None:
    """What a look that subjects of a family share is drawn with, likewise."""
    if not may.world.looks:
        return None
    number = int(_dealt(tuple(map(str, range(may.world.looks))), seed, index, "look"))
    return np.random.default_rng([_SALTS["look"], number, *family.encode()])


def _part(what: str, seed: int, index: int) -> float:
    """Where in a range from 0 to 1 clip `index` begins: dealt evenly over every _STRATA clips."""
    return int(_dealt(tuple(map(str, range(_STRATA))), seed, index, what)) / _STRATA


def _first_subject(may: Choices, seed: int, index: int, *, follows: bool, height: float) -> str:
    """The next family that can fill so much of the picture and walk as far as a follow shot goes; else the next one."""
    names = [_dealt(may.subjects, seed, index + further, "subject") for further in range(len(may.subjects))]
    for name in names:
        usual = _usual(name)
        far_enough = usual.speed * _BRISKEST * may.frames / may.world.fps >= 1.2 * FOLLOWED[0]
        if may.lens.tallest(usual) >= height and (far_enough or not follows):
            return name
    return names[0]


@cache
def _usual(name: str) -> Subject:
    """Some member of a family, to tell what its members can do."""
    return subject_family(name)(np.random.default_rng(0))


def _draw(may: Choices, cast: Cast, seed: int, index: int, draw: int) -> Scenario | str:
    """One draw of the clip, or why it is refused."""
    rng = np.random.default_rng([seed, index, draw + 1])
    lens, subject = may.lens, cast.subjects[0]
    # which path suits depends on the length of the clip, so a rejected draw moves on to the next path
    path = _dealt(may.split.paths, seed, index + draw, "path")
    way = set_out(subject, path, may.frames, may.world.fps, _brisk(subject, cast, may), rng)
    first = somewhere_free(way, cast.things, rng)
    if first is None:
        return "the subject's way is longer than the free ground"
    start = _dealt(tuple(STARTS), seed, index + draw, "start")
    task = Task(
        trajectory=cast.trajectory, start=start, stand=lens.stand(subject, cast.height, rng),
        turn=float(np.deg2rad(may.world.camera.degrees)), half_width=lens.half_angle, follows=cast.follows,
        absent=may.split.absent,
        place=1 - _part("place", seed, index) - rng.uniform(0, 1 / _STRATA),
        body=first.body, needs=may.needs, fps=may.world.fps,
    )  # fmt: skip
    when = moments(may.needs, may.frames, rng)
    taken = None if when is None else shoot(task, when, rng)
    if taken is None:
        return "the camera does not lose the subject in the context and find it again in the target"
    if refused := _in_the_way(cast, taken.camera, lens) or _misframed(first, taken, cast, may):
        return refused
    return Scenario(first=first, camera=taken.camera, moments=taken.moments, start=start)


def _brisk(subject: Subject, cast: Cast, may: Choices) -> float:
    """How much faster than usual a subject walks: a slow or long one, to get more than its own length further while
    hidden, and one that is followed, to take the camera with it."""
    hidden = (may.frames - may.needs.visible_frames) / may.world.fps * 0.6
    brisk = 1.3 * subject.body_length / (hidden * subject.speed)
    if cast.follows:
        brisk = max(brisk, _FOLLOWED_IN_CONTEXT * may.world.fps / (may.needs.context_frames * subject.speed))
    return float(np.clip(brisk, 1.0, _BRISKEST))


def _in_the_way(cast: Cast, camera: CameraTrack, lens: Lens) -> str:
    """Why things do not let the camera go and see, or nothing."""
    heights = camera.eye[:, 2]
    if clearance(camera.eye[:, :2], cast.things, heights.min(), heights.max()) < _CAMERA_ROOM:
        return "the camera comes too near to things"
    if blocked(camera.eye, camera.yaw, lens.half_angle, cast.things, _VIEW).max() > _BLOCKED:
        return "something stands in the camera's view"
    return ""


def _misframed(first: Walker, taken: Taken, cast: Cast, may: Choices) -> str:
    """Why the first subject is not filmed as it should be, or nothing."""
    camera, filmed = taken.camera, slice(taken.moments.arrive, taken.moments.leave)
    if not not_too_near(first, camera, may.lens):
        return "the subject comes too near to the camera"
    ahead = float(np.median(sight(camera, first.body).ahead[filmed]))
    share = first.subject.tall / (2 * may.lens.half_height * ahead)
    low = min(may.lens.height[0], may.lens.tallest(first.subject))
    if not (1 - _ABOUT) * low <= share <= (1 + _ABOUT) * may.lens.height[1]:
        return "the subject is too small or too large in the picture"
    if cast.follows and not FOLLOWED[0] <= rolled_metres(camera) <= FOLLOWED[1]:
        return "the camera follows the subject too short or too long a way"
    return ""


def _unforeseeable(found: Scenario, may: Choices, rng: np.random.Generator) -> str:
    """Why the first subject's hidden stretch is not worth certifying, or nothing. A few draws of what eyes saw do."""
    first, camera, when, lens, frames = found.first, found.camera, found.moments, may.lens, may.frames
    seen = sight(camera, first.body)
    partly = seen.partly(lens.half_angle)
    inside = seen.inside(lens.half_angle, lens.half_height, first.subject.tall, camera.eye[:, 2])
    watched = Watched(
        track_T2=first.body.track, seen_T=partly, clear_T=inside >= _CLEAR, half_T=inside >= 0.5, camera=camera,
        half_angle=lens.half_angle, body_length=first.subject.body_length, fps=may.world.fps,
    )  # fmt: skip
    last = (frames if may.split.absent else when.return_) - 1
    if not may.split.absent and _hardly_moves(first, when, may):
        return "where the subject comes back is where it left, or straight on"
    stretch = Hidden(subject="", first=when.leave, last=last, reason="left the frame")
    told = certify(stretch, watched, may.needs, rng, draws=_FEW_DRAWS)
    if may.split.absent:
        return "" if told.absent else "the subject may be where the camera looks for it again"
    if not told.certified:
        return "where the subject comes back cannot be foretold, or is where it left"
    return "" if told.turns or not may.split.turns else "the subject goes straight on while it is hidden"


def _hardly_moves(first: Walker, when: Moments, may: Choices) -> bool:
    """Is standing still, or in a split of turns going straight on, right enough? A cheap look before a careful one."""
    track, last = first.body.track, when.leave - 1
    at = int(judged_frame(np.array([when.return_]), may.world.fps, may.frames)[0])
    moved, straight = track[at] - track[last], (at - last) * (track[last] - track[last - 1])
    length = first.subject.body_length
    if np.linalg.norm(moved) <= FROZEN_BODIES * length:
        return True
    return may.split.turns and bool(np.linalg.norm(moved - straight) <= ORACLE_BODIES * length)


def _peopled(may: Choices, cast: Cast, found: Scenario, seed: int, index: int, draw: int) -> ClipDescription | str:
    """The scenario with all its subjects as a clip, or why it is refused."""
    stage = Stage(
        camera=found.camera, arrive=found.moments.arrive, leave=found.moments.leave, lens=may.lens, things=cast.things,
        fps=may.world.fps,
    )  # fmt: skip
    rng, eyes = (np.random.default_rng([seed, index, draw + 1, _SALTS[what]]) for what in ("company", "eyes"))
    if may.split.crowd:
        people = _crowded(may, cast, found, stage, rng, eyes)
    elif refused := _unforeseeable(found, may, eyes):
        return refused
    else:
        joined_by = company(cast.subjects[1:], may.split.paths, [found.first], stage, rng)
        people = "there is no room for another subject" if joined_by is None else joined_by
    if isinstance(people, str):
        return people
    return _described(may, cast, found, _actors(people, cast), seed, index, draw)


def _crowded(
    may: Choices, cast: Cast, found: Scenario, stage: Stage, rng: np.random.Generator, eyes: np.random.Generator
) -> list[Walker] | str:
    """The first of several companies in which somebody is covered for long enough, or why there is none."""
    poses = found.camera.world_from_camera()[LOOKED_AT]
    things, frames = things_that_cover(cast.scene.shapes, poses), math.ceil(COVERED_SECONDS * may.world.fps)
    at = crossing(found.first, stage, things, frames)
    companies = (crowd(cast.subjects[1:], may.split.paths, at, number, rng) for number in range(_COMPANIES))
    for number, people in enumerate(people for people in companies if people is not None):
        if number == 0 and (refused := _unforeseeable(found, may, eyes)):  # dearer than a company, so not before it
            return refused
        bodies = [actor.shapes(LOOKED_AT) for actor in _actors(people, cast)]
        if somebody_covered(bodies, things, poses, may.lens.half_width, frames):
            return people
    return "nobody is long enough behind anything"


def _actors(people: Sequence[Walker], cast: Cast) -> tuple[Actor, ...]:
    actors = []
    for number, (one, phase) in enumerate(zip(people, cast.phases, strict=True), 1):
        strides = one.walk.distance / one.subject.figure.stride_metres + phase
        lift = settled(one.walk.distance)
        actors.append(Actor(number=number, subject=one.subject, path=one.path, walk=one.walk, phase=strides, lift=lift))
    return tuple(actors)


def _described(
    may: Choices, cast: Cast, found: Scenario, actors: tuple[Actor, ...], seed: int, index: int, draw: int
) -> ClipDescription:
    world = may.world
    return ClipDescription(
        id=clip_id(seed, index), seed=seed, index=index, draw=draw, split=world.split, scene=cast.scene,
        light=cast.light, actors=actors, trajectory=cast.trajectory, start=found.start, follows=cast.follows,
        world_from_camera=found.camera.world_from_camera(), field_of_view=world.field_of_view,
        aspect=world.size[0] / world.size[1], fps=world.fps,
        needs=may.needs, target_frames=world.target_frames, texture_seed=cast.texture_seed,
    )  # fmt: skip
