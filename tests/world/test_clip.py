"""Clips as data: the same for the same seed, independent of how many there are, always with a certified event."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hmcli.errors import UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import CameraPathConfig, WorldConfig
from hmcli.world.hidden.certify import Certificate, Watched, certify
from hmcli.world.hidden.events import Hidden, stretches
from hmcli.world.scenes import SCENES
from hmcli.world.space.obstacles import clearance, footprints
from hmcli.world.space.shapes import BOX, Paint, ShapeList
from hmcli.world.staging import clip as clip_module
from hmcli.world.staging.choices import choices
from hmcli.world.staging.clip import ClipDescription, clip_id, describe_clip
from hmcli.world.staging.company import APART
from hmcli.world.staging.splits import SplitName, is_held_out
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.sight import Body, Sight, sight
from hmcli.world.views.trajectories import FASTEST_TURN, TRAJECTORIES, CameraTrack

WORLD = WorldConfig(context_frames=17, target_frames=21, fps=6, size=(24, 40))


@cache
def described(index: int, split: SplitName = "mixed", seed: int = 7) -> ClipDescription:
    """A clip that several tests look at."""
    return describe_clip(replace(WORLD, split=split), seed, index)


def watched(clip: ClipDescription, number: int = 1) -> Sight:
    """Where the camera sees a subject."""
    actor, pose = clip.actors[number - 1], clip.world_from_camera
    camera = CameraTrack(eye=pose[:, :3, 3], yaw=np.arctan2(pose[:, 1, 2], pose[:, 0, 2]))
    track, heading = actor.walk.position[:, :2], actor.walk.heading
    return sight(camera, Body(track=track, heading=heading, radius=actor.subject.radius, tall=actor.subject.tall))


def test_a_clip_does_not_depend_on_the_number_of_clips():
    few, many = (describe_clip(replace(WORLD, clips=clips), 5, 2) for clips in (3, 64))
    assert few.id == many.id == clip_id(5, 2)
    np.testing.assert_array_equal(few.world_from_camera, many.world_from_camera)
    np.testing.assert_array_equal(few.scene.shapes.centre, many.scene.shapes.centre)
    np.testing.assert_array_equal(few.moving_shapes().axes, many.moving_shapes().axes)


def test_seeds_and_clips_differ():
    clips = [described(index, seed=seed) for seed, index in ((7, 2), (6, 2), (7, 4))]
    places = [clip.world_from_camera[0, :3, 3].tolist() for clip in clips]
    assert len({tuple(place) for place in places}) == 3


def test_names_are_dealt_evenly():
    world = replace(WORLD, scenes=("snow", "beach", "temple"), subjects=("dog", "walker"), subjects_per_clip=(1, 2))
    clips = [describe_clip(world, 9, index) for index in range(12)]
    for name in world.scenes:
        assert sum(clip.scene.family == name for clip in clips) == 4
    for count in (1, 2):
        assert sum(len(clip.actors) == count for clip in clips) == 6
    assert len({clip.trajectory for clip in clips}) >= 10
    assert len({clip.start for clip in clips}) >= 3


def test_clips_share_places_and_their_light_whatever_the_seed():
    world = replace(WORLD, places=2, scenes=("beach",), subjects=("dog", "walker"))
    clips = [describe_clip(world, seed, index) for seed in (9, 10) for index in range(4)]
    places = {clip.scene.shapes.centre.tobytes() for clip in clips}
    assert len(places) == 2
    for place in places:
        here = [clip for clip in clips if clip.scene.shapes.centre.tobytes() == place]
        assert {clip.seed for clip in here} == {9, 10}
        assert len({repr(clip.light) for clip in here}) == len({clip.texture_seed for clip in here}) == 1
        assert len({clip.world_from_camera.tobytes() for clip in here}) == len(here)  # nothing else is shared
    more = describe_clip(replace(world, places=1), 9, 0)
    assert more.scene.shapes.centre.tobytes() in places  # the first of several is the only one of one
    assert describe_clip(replace(world, places=0), 9, 0).scene.shapes.centre.tobytes() not in places


def test_subjects_of_a_family_share_looks_whatever_the_seed():
    world = replace(WORLD, looks=2, subjects=("dog", "walker"), subjects_per_clip=(1, 1))
    actors = [describe_clip(world, seed, index).actors[0] for seed in (9, 10) for index in range(6)]
    for family in world.subjects:
        looks = {repr(actor.subject) for actor in actors if actor.subject.family == family}
        assert len(looks) == 2
        (one,) = {
            repr(actor.subject)
            for index in range(4)
            if (actor := describe_clip(replace(world, looks=1), 11, index).actors[0]).subject.family == family
        }
        assert one in looks  # the first of several is the only one of one
    assert len({actor.walk.position.tobytes() for actor in actors}) == len(actors)  # nothing else is shared
    own = describe_clip(replace(world, looks=0), 9, 0).actors[0].subject
    assert repr(own) not in {repr(actor.subject) for actor in actors}


def hidden_by_sight(clip: ClipDescription) -> Certificate:
    """What is certified of the first subject's last absence, by where the camera looks."""
    actor = clip.actors[0]
    partly = watched(clip).partly(clip.half_angle)
    first, last = stretches(~partly)[-1]
    inside = clip.inside(actor)
    of = Watched(
        track_T2=actor.walk.position[:, :2], seen_T=partly, clear_T=inside > 0.2, half_T=inside > 0.5,
        camera=clip.camera, half_angle=clip.half_angle, body_length=actor.subject.body_length, fps=clip.fps,
    )  # fmt: skip
    stretch = Hidden(subject="", first=first, last=last, reason="left the frame")
    return certify(stretch, of, clip.needs, np.random.default_rng(5))


@pytest.mark.parametrize("index", range(0, 16, 2))
def test_the_first_subject_is_seen_then_lost_then_found_and_can_be_foretold(index):
    told = hidden_by_sight(described(index))
    assert told.visible_frames >= 12
    assert told.shown_frames >= 6
    assert told.hidden_frames >= 9  # 1.5 s
    assert 12 <= told.first < 17 <= told.last < 37
    assert told.metres["frozen"] > told.body_length


def test_other_eyes_foretell_most_subjects_too():
    """The finished pictures decide: a clip is drawn again where twenty draws of what eyes saw say no."""
    told = [hidden_by_sight(described(index)) for index in range(0, 16, 2)]
    assert sum(one.certified for one in told) >= 5


@pytest.mark.parametrize("index", range(4))
def test_an_absent_subject_stays_away_while_the_camera_looks_where_it_was(index):
    clip = describe_clip(replace(WORLD, split="absent", subjects_per_clip=(1, 1)), 1, index)
    partly = watched(clip).partly(clip.half_angle)
    gone = int(np.flatnonzero(partly)[-1]) + 1
    assert 12 <= gone < 17
    actor = clip.actors[0]
    stays = replace(actor, walk=replace(actor.walk, position=np.repeat(actor.walk.position[gone - 1 : gone], 38, 0)))
    assert watched(replace(clip, actors=(stays,))).partly(clip.half_angle)[-3:].all()
    told = hidden_by_sight(clip)
    assert told.last == 37
    assert not told.certified


def test_follow_shots_and_heights_are_dealt_as_asked():
    world = replace(WORLD, subjects=("walker", "hiker"), subjects_per_clip=(1, 1), subject_height=(0.4, 0.9))
    clips = [describe_clip(world, 11, index) for index in range(10)]
    assert sum(clip.follows for clip in clips) == 4
    shares = []
    for clip in clips:
        seen, metres = watched(clip), np.diff(clip.world_from_camera[:, :2, 3], axis=0)
        filmed = seen.partly(clip.half_angle) & (np.arange(clip.frames) < clip.context_frames)
        half_height = clip.aspect * np.tan(clip.half_angle)
        shares.append(clip.actors[0].subject.tall / (2 * half_height * np.median(seen.ahead[filmed])))
        if clip.follows:
            assert 4 <= np.linalg.norm(metres, axis=1).sum() <= 12
    assert 0.35 <= min(shares) < 0.55
    assert 0.75 < max(shares) <= 1.01


def test_half_a_second_after_re_entry_a_subject_may_be_anywhere_in_the_picture():
    world = replace(WORLD, scenes=("snow",), subjects_per_clip=(1, 1), split="easy")
    places = []
    for index in range(20):
        clip = describe_clip(world, 12, index)
        seen = watched(clip)
        back = stretches(~seen.partly(clip.half_angle))[-1][1] + 1
        places.append(seen.beside[back + 3] / clip.half_angle)
    fifths = np.histogram(places, 5, (-1, 1))[0]
    assert fifths.min() >= 2
    assert fifths.max() <= 7


def test_a_camera_films_no_longer_than_asked_and_looks_aside_before():
    world = replace(WORLD, longest_seconds=2.5, context_frames=33, subjects_per_clip=(1, 1))
    clips = [describe_clip(world, 13, index) for index in range(6)]
    for clip in clips:
        seen = watched(clip).partly(clip.half_angle)
        assert 12 <= seen[:33].sum() <= 15
    late = [clip for clip in clips if not watched(clip).partly(clip.half_angle)[0]]
    assert late


def test_an_unlucky_clip_is_drawn_on_with_a_further_seed(monkeypatch):
    plain = described(2)
    monkeypatch.setattr(clip_module, "TRIES", 3)
    monkeypatch.setattr(clip_module, "_PER_CAST", 3)
    monkeypatch.setattr(clip_module, "FURTHER_SEEDS", 400)
    again = describe_clip(WORLD, 7, 2, first_draw=3)
    assert again.further_seeds == again.draw // 3 > 0
    assert (again.id, again.seed) == (plain.id, plain.seed)
    same = describe_clip(WORLD, 7, 2, first_draw=again.draw)
    np.testing.assert_array_equal(same.world_from_camera, again.world_from_camera)
    monkeypatch.setattr(clip_module, "FURTHER_SEEDS", 0)
    with pytest.raises(UsageError, match="no exit and re-entry found in"):
        describe_clip(replace(WORLD, camera=CameraPathConfig(trajectory="pan_left", degrees=4)), 1, 2)


def test_low_detail_flattens_textures_and_moves_nothing():
    full, low = described(0), describe_clip(replace(WORLD, detail="low"), 7, 0)
    np.testing.assert_array_equal(full.world_from_camera, low.world_from_camera)
    np.testing.assert_array_equal(full.scene.shapes.centre, low.scene.shapes.centre)
    for one, other in zip(full.scene.shapes.paints, low.scene.shapes.paints, strict=True):
        assert other.colour == one.colour
        contrast, before = (np.abs(np.subtract(p.second, p.colour)).sum() for p in (other, one))
        assert contrast == pytest.approx(before if one.glow else 0.3 * before)
    assert low.light.cloud == pytest.approx(0.3 * full.light.cloud)


@pytest.mark.parametrize(("name", "side"), [("nano/clips", "train"), ("nano/test", "test")])
def test_nano_has_two_scenes_and_six_subjects_on_each_side(name, side):
    world = load_recipe(name).world
    assert (len(world.scenes), len(world.subjects), world.hold_out) == (2, 6, side)
    assert choices(world).trajectories == ("pan_left", "pan_right")
    clip = describe_clip(world, 3, 0)
    seen = watched(clip).partly(clip.half_angle)[: world.context_frames]
    assert slots_shown(seen) <= 4


def slots_shown(seen: np.ndarray) -> int:
    """Slots of two latents with a frame in which the subject is seen."""
    latent = (np.flatnonzero(seen) + 3) // 4
    return len(set((latent // 2).tolist()))


@pytest.mark.parametrize(("split", "clips"), [("mixed", 6), ("crowd", 2)])
def test_nobody_walks_through_anybody_or_anything(split, clips):
    for index in range(clips):
        clip = describe_clip(replace(WORLD, split=split, subjects_per_clip=(3, 3)), 2, index)
        things = footprints(clip.scene.shapes)
        assert [actor.number for actor in clip.actors] == [1, 2, 3]
        for actor in clip.actors:
            track = actor.walk.position[:, :2]
            assert (actor.walk.position[:, 2] == 0).all()
            assert clearance(track, things, 0, actor.subject.tall) >= actor.subject.radius
            from_camera = np.linalg.norm(track - clip.world_from_camera[:, :2, 3], axis=1)
            assert from_camera.min() > actor.subject.radius + 0.5
            for other in clip.actors[: actor.number - 1]:
                away = np.linalg.norm(track - other.walk.position[:, :2], axis=1).min()
                assert away >= actor.subject.radius + other.subject.radius + APART - 1e-9
        assert clearance(clip.world_from_camera[:, :2, 3], things, 0.5, 2.0) > 0.2


@pytest.mark.parametrize(
    ("place", "looks", "refused"),
    [
        ((0, -1.4), "away", "the camera comes too near to things"),
        ((0, -1.6), "away", ""),
        ((0, -3.9), "at it", "something stands in the camera's view"),
        ((0, -4.1), "at it", ""),
    ],
)
def test_the_camera_keeps_half_a_metre_from_things_and_three_of_free_view(place, looks, refused):
    """A wall two metres thick, ten wide."""
    wall, may = ShapeList(), choices(WORLD)
    wall.add(BOX, (0, 0, 1.5), (5, 1, 1.5), Paint(colour=(0.5, 0.5, 0.5)))
    cast = replace(clip_module._cast(may, 7, 0, 0), things=footprints(wall.shapes()))
    yaw = np.full(3, np.pi / 2 if looks == "at it" else -np.pi / 2)
    eye = np.tile([*place, 1.5], (3, 1))
    assert clip_module._in_the_way(cast, CameraTrack(eye=eye, yaw=yaw), may.lens) == refused


def test_no_camera_turns_faster_than_the_real_ones_going_or_coming_back():
    for index in range(28):
        clip = described(index, "hard" if index % 2 else "mixed")
        forward = clip.world_from_camera[:, :2, 2]
        turns = np.diff(np.unwrap(np.arctan2(forward[:, 1], forward[:, 0])))
        assert np.abs(turns).max() * clip.fps <= FASTEST_TURN * 1.001


def test_gait_is_tied_to_the_distance_walked():
    clip = described(0)
    for actor in clip.actors:
        strides = np.diff(actor.phase) * actor.subject.figure.stride_metres
        np.testing.assert_allclose(strides, np.diff(actor.walk.distance), atol=1e-9)


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [((1.2, 0.6, 2.6), (12, 6, 26)), ((1.21, 0.61, 2.59), (13, 7, 25)), ((1.2, 0, 0), (12, 1, 29))],
)
def test_seconds_that_a_clip_needs_are_whole_frames_and_no_fewer(seconds, frames):
    visible, hidden, longest = seconds
    world = replace(
        WORLD, fps=10, context_frames=29, target_frames=29, visible_seconds=visible, hidden_seconds=hidden,
        longest_seconds=longest,
    )  # fmt: skip
    needs = choices(world).needs
    assert (needs.visible_frames, needs.hidden_frames, needs.longest_frames) == frames


def test_the_shade_under_a_subject_goes_with_its_feet_and_has_their_width():
    clip = described(0)
    for actor, (x, y, radius) in zip(clip.actors, clip.feet().transpose(1, 2, 0), strict=True):
        np.testing.assert_array_equal(np.stack([x, y], -1), actor.walk.position[:, :2])
        np.testing.assert_allclose(radius, 0.3 * min(actor.subject.tall, 1.8))


def test_no_two_subjects_are_of_one_family_while_there_are_others():
    three = replace(WORLD, subjects_per_clip=(3, 3), subjects=("dog", "walker", "king"))
    for index in range(6):
        assert len({actor.subject.family for actor in describe_clip(three, 8, index).actors}) == 3
    alone = describe_clip(replace(three, subjects=("king",)), 8, 0)
    assert [actor.name for actor in alone.actors] == ["king_1", "king_2", "king_3"]


def test_a_hard_clip_cannot_be_foretold_by_going_straight_on():
    for index in range(1, 16, 2):
        clip = described(index, "hard")
        assert clip.actors[0].path not in ("straight", "pace_change")
    assert describe_clip(replace(WORLD, split="easy"), 4, 0).actors[0].path == "straight"


def test_training_never_sees_families_that_are_held_out():
    for index in range(6):
        train, test = (describe_clip(replace(WORLD, hold_out=side), 6, index) for side in ("train", "test"))
        for clip, held in ((train, False), (test, True)):
            names = [clip.scene.family, *(actor.subject.family for actor in clip.actors)]
            assert [is_held_out(name) for name in names] == [held] * len(names)
    for families in (SCENES, SUBJECTS):
        assert 0.3 < sum(map(is_held_out, families)) / len(families) < 0.6


def test_what_is_held_out_stays_so_when_more_is():
    few = {name for name in (*SCENES, *SUBJECTS) if is_held_out(name, 0.25)}
    assert few >= {"street", "desert", "museum", "stadium", "jogger", "king", "horse", "rabbit"}
    assert few < {name for name in (*SCENES, *SUBJECTS) if is_held_out(name)}
    assert sum(map(is_held_out, SCENES)) >= 8
    assert sum(map(is_held_out, SUBJECTS)) >= 20


def test_training_never_sees_the_camera_moves_that_are_held_out():
    train, test = (choices(replace(WORLD, hold_out=side)).trajectories for side in ("train", "test"))
    assert set(train) | set(test) == set(TRAJECTORIES)
    assert not set(train) & set(test)
    assert len(test) == 8
    assert {f"{name.rpartition('_')[0]}_{side}" for name in test for side in ("left", "right")} == set(test)
    assert {"pan_left", "pan_right"} <= set(train)
    asked = CameraPathConfig(trajectory="sweep")
    assert choices(replace(WORLD, hold_out="test", camera=asked)).trajectories == ("sweep_left", "sweep_right")
    seen = replace(WORLD, hold_out="test", camera=CameraPathConfig(trajectory="pan"))
    assert choices(seen).trajectories == ("pan_left", "pan_right")  # fair to ask for
    with pytest.raises(UsageError, match="'sweep' is held out from training"):
        choices(replace(WORLD, hold_out="train", camera=asked))


def test_a_recipe_narrows_what_is_drawn_and_dashes_are_underscores():
    camera = CameraPathConfig(trajectory="pan-left", degrees=60, follow=0)
    world = replace(WORLD, scenes=("night-city",), subjects=("deer",), camera=camera, subjects_per_clip=(1, 1))
    for index in range(3):
        clip = describe_clip(world, 0, index)
        names = (clip.scene.family, clip.actors[0].subject.family, clip.trajectory)
        assert names == ("night_city", "deer", "pan_left")
        still = clip.world_from_camera[:, :3, 3]
        np.testing.assert_allclose(still, np.broadcast_to(still[0], still.shape))
    asked = replace(WORLD, paths=("turn-back", "arc"), subjects_per_clip=(1, 3))
    walked = {actor.path for index in range(4) for actor in describe_clip(asked, 0, index).actors}
    assert walked == {"turn_back", "arc"}
    assert choices(asked).split.paths == ("arc", "turn_back")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": ("moon",)}, r"world.scenes: unknown name 'moon'"),
        ({"subjects": ("dragon",)}, r"world.subjects: unknown name 'dragon'"),
        ({"camera": CameraPathConfig(trajectory="loop_the_loop")}, "unknown name 'loop_the_loop'"),
        ({"context_frames": 13}, r"world.context_frames to at least 17 and world.target_frames to at least 13"),
        ({"target_frames": 5}, r"world.context_frames to at least 17 and world.target_frames to at least 13"),
        ({"scenes": ("street", "beach"), "hold_out": "test"}, "'beach' is not a family for test"),
        ({"paths": ("moonwalk",)}, r"'moonwalk' is no path of split mixed"),
        ({"paths": ("straight",), "split": "hard"}, r"'straight' is no path of split hard"),
        ({"longest_seconds": 2.0}, "world.longest_seconds to 2.5 or more"),
    ],
)
def test_what_cannot_be_drawn_is_said(change, message):
    with pytest.raises(UsageError, match=message):
        describe_clip(replace(WORLD, **change), 0, 0)


@pytest.mark.parametrize("split", ["easy", "hard"])
def test_the_lengths_that_an_error_names_are_enough(split):
    short = replace(WorldConfig(context_frames=5, target_frames=5), split=split)
    with pytest.raises(UsageError) as refused:
        describe_clip(short, 0, 0)
    context, target = map(int, re.findall(r"at least ([0-9]+)", refused.value.fix))
    assert describe_clip(replace(short, context_frames=context, target_frames=target), 3, 0).frames == context + target


def test_a_camera_that_hardly_turns_never_loses_anybody(monkeypatch):
    monkeypatch.setattr(clip_module, "TRIES", 100)
    camera = CameraPathConfig(trajectory="pan_left", degrees=4)
    world = replace(WORLD, scenes=("snow",), subjects_per_clip=(1, 1), camera=camera)
    with pytest.raises(UsageError, match="the camera does not lose the subject"):
        describe_clip(world, 0, 0)


@pytest.mark.parametrize("size", [(480, 832), (64, 112), (128, 64), (48, 112)])
def test_subjects_fill_a_fair_part_of_any_picture(size):
    for index in range(4):
        clip = describe_clip(replace(WORLD, size=size, subjects_per_clip=(1, 1)), 2, index)
        actor = clip.actors[0]
        depth = (actor.walk.position[0] - clip.world_from_camera[0, :3, 3]) @ clip.world_from_camera[0, :3, 2]
        tall = actor.subject.tall * clip.focal(size[1]) / depth
        assert 0.08 * min(size) < tall < 0.9 * size[0]


def test_people_are_filmed_from_the_height_of_the_real_clips():
    heights = []
    for index in range(6):
        world = replace(WORLD, size=(480, 832), subjects=("walker",), subjects_per_clip=(1, 1))
        heights.append(describe_clip(world, 7, index).world_from_camera[0, 2, 3])
    assert 1.6 < np.mean(heights) < 2.4
