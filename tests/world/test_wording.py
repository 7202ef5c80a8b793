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


def walking(clip: ClipDescription, heading: np.ndarray, pace: np.ndarray) -> ClipDescription:
    """The first subject alone, with this heading and pace (a share of a metre) in each frame."""
    actor = clip.actors[0]
    steps = pace[:, None] * np.stack([np.cos(heading), np.sin(heading), 0 * heading], -1)
    walk = replace(actor.walk, position=steps.cumsum(0), heading=heading, distance=pace.cumsum())
    return replace(clip, actors=(replace(actor, walk=walk),))


def told(clip: ClipDescription, heading: np.ndarray, pace: np.ndarray, visible: int) -> str:
    pixels = np.where(np.arange(clip.frames) < visible, 9, 0)
    shown = walking(clip, heading, pace)
    return plain_caption(shown, [Visibility(subject=shown.actors[0].name, seen=pixels, inside=pixels)])


def test_manners_come_from_the_visible_frames_alone(clip):
    frame, even = np.arange(clip.frames), np.full(clip.frames, 0.2)
    straight, bend = 0.0 * frame, 0.1 * frame
    assert "bend" not in told(clip, straight, even, 15)
    assert " in a bend" in told(clip, bend, even, 15)
    assert "bend" not in told(clip, bend, even, 4)  # it has hardly turned yet
    assert " in a circle" in told(clip, 0.4 * frame, even, 15)
    swing = 0.7 * np.sin(2 * np.pi * frame / 10)
    assert " in curves to both sides" in told(clip, swing, even, 15)
    stops = np.where(frame % 6 < 3, 0.2, 0.0)
    assert ", stopping again and again" in told(clip, straight, stops, 15)
    assert ", stopping once" in told(clip, straight, stops, 9)
    assert "stopping" not in told(clip, straight, stops, 4)
