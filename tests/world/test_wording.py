"""Captions from the description: only what the context shows, and a variant without colours and names."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hmcli.recipe.sections import WorldConfig
from hmcli.world.hidden.events import Visibility
from hmcli.world.scenes import SCENES
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.wording import caption, plain_caption
from hmcli.world.subjects import SUBJECTS

WORLD = WorldConfig(context_frames=17, target_frames=21, fps=6, size=(24, 40), subjects_per_clip=(3, 3))
COLOURS = (
    "red orange yellow blue teal purple white pink navy grey gray brown black green gold golden cream ginger silver"
)


@pytest.fixture(scope="module")
def clip() -> ClipDescription:
    return describe_clip(replace(WORLD, subjects=("walker", "deer"), scenes=("meadow",)), 3, 1)


def seen(clip: ClipDescription, hidden: tuple[int, ...] = (), late: tuple[int, ...] = ()) -> list[Visibility]:
    found = []
    for actor in clip.actors:
        pixels = np.full(clip.frames, 0 if actor.number in hidden else 9)
        if actor.number in late:
            pixels[: clip.context_frames] = 0
        found.append(Visibility(subject=actor.name, seen=pixels, inside=pixels))
    return found


def test_only_subjects_that_are_visible_in_the_context_are_mentioned(clip):
    whole = caption(clip, seen(clip))
    assert whole.count("walks") == 3
    for hidden in ({"hidden": (2,)}, {"late": (2,)}):
        assert caption(clip, seen(clip, **hidden)).count("walks") == 2
    nobody = caption(clip, seen(clip, hidden=(1, 2, 3)))
    assert "walks" not in nobody
    assert "meadow" in nobody


def test_nothing_of_the_target_is_told(clip):
    told = caption(clip, seen(clip))
    position = clip.actors[0].walk.position.copy()
    position[clip.context_frames :] += [50.0, 0, 0]
    first = replace(clip.actors[0], walk=replace(clip.actors[0].walk, position=position))
    assert caption(replace(clip, actors=(first, *clip.actors[1:])), seen(clip)) == told


@pytest.mark.parametrize("family", list(SUBJECTS))
def test_plain_captions_have_no_colours_and_no_names(clip, family):
    subject = SUBJECTS[family](np.random.default_rng(1))
    actors = tuple(replace(actor, subject=subject) for actor in clip.actors)
    scene = SCENES[list(SCENES)[list(SUBJECTS).index(family) % len(SCENES)]](np.random.default_rng(2))
    other = replace(clip, actors=actors, scene=scene)
    plain = plain_caption(other, seen(other))
    words = set(re.findall(r"[a-z]+", plain.lower()))
    assert not words & set(COLOURS.split())
    assert not words & set(family.split("_"))
    assert not words & set(scene.family.split("_"))
    assert "another " in plain  # two of the same kind are told apart
    assert plain[0].isupper()
    assert plain.endswith(".")
