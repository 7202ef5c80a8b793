"""Clips as data: the same for the same seed, independent of how many there are, always with an exit and a re-entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hmcli.errors import UsageError
from hmcli.recipe import CameraPathConfig, WorldConfig
from hmcli.world.clip import clip_id, describe_clip, sight
from hmcli.world.scenes import SCENES, is_free
from hmcli.world.shapes import bounding_boxes
from hmcli.world.subjects import SUBJECTS
from hmcli.world.trajectories import TRAJECTORIES

WORLD = WorldConfig(context_frames=13, target_frames=17, size=(24, 40))


def test_a_clip_does_not_depend_on_the_number_of_clips():
    few, many = (describe_clip(replace(WORLD, clips=clips), 5, 2) for clips in (3, 64))
    assert few.id == many.id == clip_id(5, 2)
    np.testing.assert_array_equal(few.world_from_camera, many.world_from_camera)
    np.testing.assert_array_equal(few.scene.shapes.centre, many.scene.shapes.centre)
    np.testing.assert_array_equal(few.moving_shapes().axes, many.moving_shapes().axes)


def test_seeds_and_clips_differ():
    clips = [describe_clip(WORLD, seed, index) for seed, index in ((5, 2), (6, 2), (5, 3))]
    places = [clip.world_from_camera[0, :3, 3].tolist() for clip in clips]
    assert len({tuple(place) for place in places}) == 3


def test_names_are_dealt_evenly():
    clips = [describe_clip(WORLD, 9, index) for index in range(12)]
    for name in SCENES:
        assert sum(clip.scene.family == name for clip in clips) == 6
    for name in SUBJECTS:
        assert sum(clip.actors[0].subject.family == name for clip in clips) == 3
    for name in TRAJECTORIES:
        assert sum(clip.trajectory == name for clip in clips) == 4


@pytest.mark.parametrize("index", range(6))
def test_the_subject_is_seen_then_lost_then_found(index):
    clip = describe_clip(WORLD, 1, index)
    wholly, partly = sight(clip, clip.actors[0])
    assert wholly[0]
    assert not partly[12]
    assert not partly[13]
    assert wholly[13:].any()


def test_a_recipe_narrows_what_is_drawn_and_dashes_are_underscores():
    camera = CameraPathConfig(trajectory="pan-away-and-back", degrees=60)
    world = replace(WORLD, scenes=("meadow",), subjects=("deer",), camera=camera)
    for index in range(3):
        clip = describe_clip(world, 0, index)
        names = (clip.scene.family, clip.actors[0].subject.family, clip.trajectory)
        assert names == ("meadow", "deer", "pan_away_and_back")
        still = clip.world_from_camera[:, :3, 3]
        np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": ("moon",)}, r"world.scenes: unknown name 'moon'"),
        ({"subjects": ("dragon",)}, r"world.subjects: unknown name 'dragon'"),
        ({"camera": CameraPathConfig(trajectory="loop_the_loop")}, "unknown name 'loop_the_loop'"),
        ({"camera": CameraPathConfig(degrees=0)}, "world.camera.degrees=0"),
        ({"field_of_view": 0.0}, "world.field_of_view=0"),
        ({"camera": CameraPathConfig(degrees=4)}, "does not leave within the context"),
    ],
)
def test_what_cannot_be_drawn_is_said(change, message):
    with pytest.raises(UsageError, match=message):
        describe_clip(replace(WORLD, **change), 0, 0)


@pytest.mark.parametrize("size", [(480, 832), (64, 112), (128, 64), (24, 200)])
def test_subjects_fill_a_fair_part_of_any_picture(size):
    for index in range(4):
        clip = describe_clip(replace(WORLD, size=size), 2, index)
        actor = clip.actors[0]
        depth = (actor.walk.position[0] - clip.world_from_camera[0, :3, 3]) @ clip.world_from_camera[0, :3, 2]
        tall = actor.subject.tall * clip.focal(size[1]) / depth
        assert 0.15 * min(size) < tall < 0.9 * size[0]


@pytest.mark.parametrize("name", list(SCENES))
def test_things_stay_off_the_stage_and_out_of_the_air(name):
    scene = SCENES[name](np.random.default_rng(3))
    centre, half = bounding_boxes(scene.shapes)
    reach = np.abs(scene.shapes.axes[0]) @ half[0][..., None]
    low = centre[0, :, 2] - reach[:, 2, 0]
    assert low.min() < 0.05  # things stand on the ground
    for (x, y, _), size in zip(centre[0], half[0], strict=True):
        if size.max() < 2:  # houses, roads and hills are placed outside by construction
            assert is_free(x, y, -2.0)


def test_scenes_of_a_family_differ():
    first, again, other = (SCENES["street"](np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.shapes.centre, again.shapes.centre)
    assert first.ground == again.ground
    assert first.ground != other.ground
