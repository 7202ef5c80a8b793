"""Variants: a clip's target drawn alone, without its subjects, and with subjects that stand where they were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hmcli.recipe.sections import WorldConfig
from hmcli.world.render import RenderedClip, draw_clip, draw_clips
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.variants import standing, target_alone, without_subjects

SIZE = (32, 48)
WORLD = WorldConfig(context_frames=13, target_frames=17, fps=5, size=SIZE, subjects_per_clip=(2, 2))


@pytest.fixture(scope="module")
def clip() -> ClipDescription:
    return describe_clip(WORLD, 3, 0)


@pytest.fixture(scope="module")
def whole(clip: ClipDescription) -> RenderedClip:
    return draw_clip(clip, SIZE)


def test_the_target_alone_is_drawn_as_it_is_in_the_whole_clip(clip, whole):
    alone = draw_clip(target_alone(clip), SIZE)
    for name in ("rgb", "instances", "depth"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(whole, name)[13:])
    np.testing.assert_array_equal(alone.amodal, whole.amodal[:, 13:])


def test_without_subjects_there_is_nobody_and_all_else_is_as_it_was(clip, whole):
    empty = draw_clip(without_subjects(clip), SIZE)
    assert not empty.instances.any()
    assert empty.amodal.shape == (0, 30, *SIZE)
    body = whole.instances > 0
    np.testing.assert_array_equal(empty.depth[~body], whole.depth[~body])
    assert (empty.depth[body] >= whole.depth[body]).all()
    changed = (empty.rgb != whole.rgb).any(-1)
    assert changed[body].mean() > 0.9
    assert changed[~body].mean() < 0.1  # edges and shadows


def test_a_clip_without_subjects_is_drawn_beside_others_as_by_itself(clip, whole):
    empty = without_subjects(clip)
    one, other = draw_clips([clip, empty], SIZE)
    np.testing.assert_array_equal(one.rgb, whole.rgb)
    np.testing.assert_array_equal(other.rgb, draw_clip(empty, SIZE).rgb)


def test_who_stands_is_where_and_as_it_was(clip):
    first, second = clip.actors
    first = replace(first, lift=np.linspace(0, 1, 30))  # lifts its feet higher and higher
    clip = replace(clip, actors=(first, second))
    still = standing(clip, {first.number: 4})
    assert [actor.number for actor in still.actors] == [first.number]
    shapes, then = still.actors[0].shapes(), first.shapes(slice(4, 5))
    np.testing.assert_array_equal(shapes.centre, np.repeat(then.centre, 17, 0))
    np.testing.assert_array_equal(shapes.axes, np.repeat(then.axes, 17, 0))
    both = standing(clip, {second.number: 0, first.number: 12})
    assert [actor.number for actor in both.actors] == [first.number, second.number]
    np.testing.assert_array_equal(both.world_from_camera, clip.world_from_camera[13:])
