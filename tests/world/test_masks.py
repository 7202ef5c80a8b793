"""Masks drawn alone are those of the pictures, and clips are kept by them as by the masks of the pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import WorldConfig
from hmcli.stages.rendering import clips
from hmcli.stages.rendering.clips import Job, drawn_until_kept
from hmcli.world.hidden.events import Visibility, visibility
from hmcli.world.render import draw_clip, draw_masks
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.variants import without_subjects
from hmcli.world.staging.verdict import certificates, refusal, refusal_at_sight

WORLD = WorldConfig(context_frames=33, target_frames=33, visible_seconds=1.0, hidden_seconds=0.7)
SIZE = (28, 44)  # neither side holds whole tiles
CROWD = replace(WORLD, split="crowd", size=(32, 56))
NANO = replace(load_recipe("nano/clips").world, size=(32, 64))


def in_full(clip: ClipDescription, size: tuple[int, int]) -> list[Visibility]:
    """What the masks of the finished pictures say."""
    drawn = draw_clip(clip, size, antialias=False)
    return [
        visibility(actor.name, actor.number, drawn.instances, amodal)
        for actor, amodal in zip(clip.actors, drawn.amodal, strict=True)
    ]


@pytest.mark.parametrize(("split", "subjects"), [("easy", (1, 1)), ("mixed", (3, 3)), ("crowd", (2, 3))])
def test_masks_drawn_alone_are_those_of_the_pictures(split, subjects):
    clip = describe_clip(replace(WORLD, split=split, subjects_per_clip=subjects), 4, 1)
    drawn, masks = draw_clip(clip, SIZE), draw_masks(clip, SIZE)
    np.testing.assert_array_equal(masks.instances, drawn.instances)
    np.testing.assert_array_equal(masks.amodal, drawn.amodal)
    assert masks.instances.dtype == drawn.instances.dtype
    assert (masks.instances == 1).any()
    hidden = [amodal & (masks.instances != number) for number, amodal in enumerate(masks.amodal, 1)]
    assert split == "easy" or np.any(hidden)


def test_of_some_of_the_subjects_each_keeps_its_number():
    clip = describe_clip(replace(WORLD, split="mixed", subjects_per_clip=(3, 3)), 4, 2)
    last = replace(clip, actors=clip.actors[2:])
    np.testing.assert_array_equal(draw_masks(last, SIZE).instances, draw_clip(last, SIZE).instances)
    np.testing.assert_array_equal(draw_masks(last, SIZE).amodal, draw_masks(clip, SIZE).amodal[2:])


def test_where_nobody_is_masks_are_empty():
    clip = describe_clip(replace(WORLD, subjects_per_clip=(1, 1)), 4, 1)
    back = clip.world_from_camera.copy()
    back[:, :2, :3] *= -1  # the camera looks the other way
    for nobody, subjects in ((replace(clip, world_from_camera=back), 1), (without_subjects(clip), 0)):
        masks = draw_masks(nobody, SIZE)
        assert masks.instances.shape == (clip.frames, *SIZE)
        assert masks.amodal.shape == (subjects, clip.frames, *SIZE)
        assert not masks.instances.any()
        assert not masks.amodal.any()


@pytest.mark.parametrize(("world", "seed", "at_sight"), [(NANO, 2, False), (CROWD, 4, True)])
def test_the_clip_that_is_kept_is_the_first_whose_pictures_show_what_it_promises(world, seed, at_sight, monkeypatch):
    asked = []

    def described(world, seed, index, first_draw=0):
        asked.append(first_draw)
        return describe_clip(world, seed, index, first_draw)

    monkeypatch.setattr(clips, "describe_clip", described)
    job = Job(world=world, seed=seed, index=0, device="cpu", folder=Path(), chosen=None)
    (kept,) = drawn_until_kept([job])
    draw, draws, refused = 0, [0], []
    while True:
        clip = describe_clip(world, job.seed, 0, first_draw=draw)
        seen = in_full(clip, world.size)
        found = certificates(clip, seen)
        why = refusal(clip, seen, found)
        if not why:
            break
        assert refusal_at_sight(clip, seen) == (why if at_sight else "")
        draw = clip.draw + 1
        draws.append(draw)
        refused.append(why)
    assert kept.shown.clip.draw == clip.draw
    assert asked == draws
    assert kept.shown.refused == len(refused)
    assert kept.shown.found == found
    np.testing.assert_array_equal(kept.pictures.rgb, draw_clip(clip, world.size, antialias=world.antialias).rgb)
    for one, other in zip(kept.shown.seen, seen, strict=True):
        np.testing.assert_array_equal(one.seen, other.seen)
        np.testing.assert_array_equal(one.inside, other.inside)
    assert refused


def test_masks_alone_tell_that_nobody_in_a_crowd_is_hidden_long_enough_and_that_somebody_is_never_clear():
    clip = describe_clip(CROWD, 4, 0)
    for frames, refused in ((4, "no subject is long enough behind another one or behind a thing"), (5, "")):  # 0.3 s
        counts = np.full((3, clip.frames), 60)
        counts[1, 20 : 20 + frames] = 0
        seen = [
            Visibility(subject=actor.name, seen=of, inside=counts[0])
            for actor, of in zip(clip.actors, counts, strict=True)
        ]
        assert refusal_at_sight(clip, seen) == refused
        assert refusal_at_sight(replace(clip, split="mixed"), seen) == ""
    unseen = replace(seen[2], seen=np.zeros(clip.frames, int))
    assert refusal_at_sight(replace(clip, split="mixed"), [*seen[:2], unseen]) == "a subject is never clearly visible"
