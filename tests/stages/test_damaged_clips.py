"""Clips damaged by hand: one thing is wrong with a subject from when it is back, and all else is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hmcli.recipe.sections import PosesConfig
from hmcli.stages.bench.damage import KINDS, Damaged, Returning, damaged
from hmcli.stages.bench.redrawing import origin_of
from hmcli.stages.bench.row_clip import RowClip, depth_hash
from hmcli.stages.data.opening import open_dataset
from hmcli.world.staging.variants import at_moments, with_instead
from hmcli.world.views.warps import widened


@pytest.fixture(scope="module")
def clip(clips: Path) -> RowClip:
    dataset = open_dataset(clips, PosesConfig())
    source = dataset.clips[0]
    return RowClip(source=source, depth_hash=depth_hash(source), origin=origin_of(dataset))


@pytest.fixture(scope="module")
def whom(clip: RowClip) -> Returning:
    """Whom the target shows longest without a break, up to its end."""
    shown = [(clip.target_labels == number).any((1, 2)) for number in clip.last_seen]
    since = [len(of) - int(np.argmin(of[::-1])) if not of.all() else 0 for of in shown]
    number = int(np.argmin([at if of[-1] else len(of) for at, of in zip(since, shown, strict=True)]))
    name = list(clip.last_seen)[number]
    return Returning(number=name, back=since[number] or 3, left=clip.last_seen[name])


@pytest.fixture(scope="module")
def every(clip: RowClip, whom: Returning) -> dict[str, Damaged]:
    assert clip.redrawn is not None, clip.why_not_redrawn
    return {kind: damaged(clip.redrawn, clip.target, whom, kind, np.random.default_rng(3)) for kind in KINDS}


def test_nothing_is_damaged_before_the_subject_is_back(every, clip, whom):
    for kind, found in every.items():
        assert found.video.shape == clip.target.shape, kind
        np.testing.assert_array_equal(found.video[: whom.back], clip.target[: whom.back], err_msg=kind)
        assert (found.video[whom.back :] != clip.target[whom.back :]).any(), kind


@pytest.mark.parametrize("kind", ["recoloured", "vanished"])
def test_what_is_wrong_in_its_place_is_wrong_nowhere_else(kind, every, clip, whom):
    near = widened(clip.target_labels == whom.number, 4)
    apart = np.abs(every[kind].video.astype(int) - clip.target)
    far = {"recoloured": 0, "vanished": 60}[kind]  # a shadow goes too
    assert apart[~near].max(initial=0) <= far
    assert apart[clip.target_labels == whom.number].mean() > 20


def test_a_frozen_subject_stands_as_it_was_when_it_left(every, clip, whom):
    assert clip.redrawn is not None
    left = np.full(len(clip.target), whom.left)
    still = clip.redrawn.otherwise(
        clip.target, lambda whole: with_instead(whole, whom.number, lambda actor: (at_moments(actor, left),))
    )
    np.testing.assert_array_equal(every["frozen"].video[whom.back :], still[whom.back :])
    assert not every["vanished"].own_THW.any()


def test_a_stuttering_subject_jumps_every_fourth_frame(every, clip, whom):
    apart = np.abs(every["stuttering"].video.astype(int) - clip.target).max((1, 2, 3))
    assert not apart[whom.back :: 4].any()
    assert apart[whom.back :].any()


def test_two_show_both_and_one_aside_is_elsewhere(every, clip, whom):
    own = clip.target_labels == whom.number
    misplaced, both = (every[kind].video.astype(int) for kind in ("misplaced", "duplicated"))
    true, core = clip.target, own & (np.arange(len(own)) >= whom.back)[:, None, None]
    assert np.abs(both - true)[core].mean() < np.abs(misplaced - true)[core].mean() / 3


def test_the_same_damage_is_drawn_for_the_same_seed(every, clip, whom):
    assert clip.redrawn is not None
    for seed in (3, 4):
        again = damaged(clip.redrawn, clip.target, whom, "shaken", np.random.default_rng(seed)).video
        assert np.array_equal(again, every["shaken"].video) == (seed == 3)
