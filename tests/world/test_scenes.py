"""Scenes: seventeen families that tell apart, with things on the ground all around and a free stage in the middle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from world.views import descriptor, stand, views

from hmcli.world.render import draw_clip
from hmcli.world.scenes import CLEAR, SCENES, is_free
from hmcli.world.space.light import MOODS, light_from
from hmcli.world.space.shapes import Shapes, corners

DAYLIGHT = {"noon", "morning", "evening", "hazy"}


def drawn(name: str, seed: int = 3, *, occluders: bool = False):
    return SCENES[name](np.random.default_rng(seed), occluders=occluders)


def boxes(shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (N, 3) of the box along the world's axes around each shape."""
    eight = corners(shapes)[0]
    return eight.min(1), eight.max(1)


def test_there_are_seventeen_families():
    assert len(SCENES) == 17
    assert all(family.name == name for name, family in SCENES.items())


@pytest.mark.parametrize("name", list(SCENES))
def test_a_draw_follows_from_its_seed_and_draws_differ(name):
    first, again, other = drawn(name, 1), drawn(name, 1), drawn(name, 2)
    np.testing.assert_array_equal(first.shapes.centre, again.shapes.centre)
    assert first.ground == again.ground
    assert first.shapes.paints == again.shapes.paints
    assert first.shapes.centre.shape != other.shapes.centre.shape or not np.allclose(
        first.shapes.centre, other.shapes.centre
    )
    assert first.ground != other.ground
    assert set(first.shapes.paints) != set(other.shapes.paints)


@pytest.mark.parametrize("name", list(SCENES))
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_everything_stands_on_the_ground_or_on_something_that_does(name, seed):
    low, high = boxes(drawn(name, seed, occluders=True).shapes)
    held = low[:, 2] <= 0.02
    touching = ((low[:, None] <= high[None] + 0.05) & (high[:, None] >= low[None] - 0.05)).all(-1)
    for _ in range(len(low)):
        more = held | (touching & held).any(1)
        if (more == held).all():
            break
        held = more
    assert held.all(), f"{(~held).sum()} shapes float, the first at {low[~held][0]}"


@pytest.mark.parametrize("name", list(SCENES))
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_stage_is_free(name, seed):
    shapes = drawn(name, seed).shapes
    low, high = boxes(shapes)
    for corner, other in zip(low, high, strict=True):
        if corner[2] < 2.0:  # what hangs higher is in nobody's way
            for y in np.linspace(-14, 1, 16):
                nearest = np.clip((0.0, y), corner[:2], other[:2])
                assert np.hypot(nearest[0], nearest[1] - y) > CLEAR - 2.0, f"{name}: something at {nearest}"


@pytest.mark.parametrize("name", list(SCENES))
def test_there_is_something_in_every_direction(name):
    low, high = boxes(drawn(name).shapes)
    middle = (low + high)[:, :2] / 2 - (0.0, -8.6)
    small = (high - low)[:, :2].max(1) < 22  # not the ground floor of hills and halls
    eighth = np.floor(np.arctan2(middle[small, 1], middle[small, 0]) / (np.pi / 4)).astype(int) + 4
    assert (np.bincount(eighth, minlength=8)[:8] >= 1).all()
    assert 90 <= len(low) <= 300


@pytest.mark.parametrize("name", list(SCENES))
def test_occluders_are_slim_things_on_the_stage_that_change_nothing_else(name):
    for seed in range(4):
        without, scene = drawn(name, seed), drawn(name, seed, occluders=True)
        assert without.occluders == ()
        assert 1 <= len(scene.occluders) <= 3
        count = len(without.shapes.kind)
        np.testing.assert_array_equal(scene.shapes.centre[:, :count], without.shapes.centre)
        low, high = boxes(scene.shapes)
        for x, y, radius in scene.occluders:
            assert radius < 0.5
            assert not is_free(x, y)
            assert np.hypot(x, y) > 1.0
            there = (low[count:, :2] < (x, y)).all(1) & (high[count:, :2] > (x, y)).all(1)
            assert (high[count:, 2][there] > 1.6).any()  # taller than a person


def test_captions_have_words_without_names_for_every_place():
    for name, family in SCENES.items():
        assert f"{family.preposition} {family.words}".split()[0] in ("on", "in", "at", "among")
        assert family.plain in ("an outdoor place", "an indoor hall")
        assert (family.plain == "an indoor hall") == (name in ("museum", "warehouse"))


def test_light_keeps_to_the_moods_that_suit_a_place():
    rng = np.random.default_rng(0)
    for family in SCENES.values():
        assert set(family.moods) <= set(MOODS)
        assert {light_from(rng, family.moods).words for _ in range(6)} <= {MOODS[mood].words for mood in family.moods}
    assert {light_from(rng).words for _ in range(40)} == {MOODS[mood].words for mood in DAYLIGHT}


def test_no_sky_is_seen_indoors():
    for name in ("museum", "warehouse"):
        directions = tuple(np.arange(0.0, 360.0, 60.0))
        clip = stand(name, 0, directions[:6])
        assert np.isfinite(draw_clip(clip, (48, 56), antialias=False).depth).all()


def test_a_ceiling_without_shadow_lets_its_light_through():
    clip = stand("museum", 0)
    paints = tuple(replace(paint, shadow=True) for paint in clip.scene.shapes.paints)
    dark = replace(clip, scene=replace(clip.scene, shapes=replace(clip.scene.shapes, paints=paints)))
    assert draw_clip(clip, (24, 40)).rgb.mean() > draw_clip(dark, (24, 40)).rgb.mean() + 5


def test_lamps_and_lit_windows_shine_at_night():
    clip = stand("night_city", 0)
    without = tuple(replace(paint, glow=0.0) for paint in clip.scene.shapes.paints)
    off = replace(clip, scene=replace(clip.scene, shapes=replace(clip.scene.shapes, paints=without)))
    no_lamps = replace(clip, scene=replace(clip.scene, lamps=()))
    bright, unlit, lampless = (draw_clip(of, (24, 40), antialias=False).rgb.astype(int) for of in (clip, off, no_lamps))
    assert bright.max() > 200
    assert (bright - unlit).max() > 100
    assert (bright >= lampless - 1).all()
    assert (bright - lampless).mean() > 3


@pytest.mark.parametrize("name", ["night_city", "lunar", "beach", "museum"])
def test_stars_lamps_and_water_do_not_depend_on_the_chunk(name):
    clip = stand(name, 1)
    np.testing.assert_array_equal(draw_clip(clip, (24, 40), chunk_frames=1).rgb, draw_clip(clip, (24, 40)).rgb)


def share_identified(names: list[str], draws: int, size: tuple[int, int]) -> float:
    """How often the most similar other draw is of the same family."""
    looks = np.stack([descriptor(views(name, draw, size)) for name in names for draw in range(draws)])
    family = np.repeat(np.arange(len(names)), draws)
    apart = ((looks[:, None] - looks[None]) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    return float((family[apart.argmin(1)] == family).mean())


def test_a_few_families_tell_apart_in_small_pictures():
    names = ["street", "snow", "night_city", "desert", "lunar", "warehouse"]
    assert share_identified(names, draws=3, size=(32, 56)) >= 0.9


@pytest.mark.slow
def test_a_glance_identifies_each_of_the_seventeen_families():
    assert share_identified(list(SCENES), draws=12, size=(64, 112)) >= 0.95
