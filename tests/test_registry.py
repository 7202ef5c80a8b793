"""Names from other packages: found through their entry points, never in the place of ours, and mistakes are named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hmcli import registry
from hmcli.errors import MissingPartError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.world.staging.choices import choices
from hmcli.world.staging.clip import describe_clip

POINTS = """
[hmcli.metric]
one_two = foreign_of_tests:thing
psnr = foreign_of_tests:thing
absent-module = foreign_of_tests.nowhere:thing
absent-thing = foreign_of_tests:nothing
no-attribute = foreign_of_tests

[hmcli.subject]
grey-walker = foreign_of_tests:grey_walker

[hmcli.scene]
grey-street = foreign_of_tests:STREET

[hmcli.move]
slow-pan = foreign_of_tests:SLOW
"""
MODULE = """
from dataclasses import replace
from hmcli.world.scenes.towns import STREET
from hmcli.world.subjects.people import walker
from hmcli.world.views.moves import Move

thing = 'theirs'
STREET = replace(STREET, name="grey_street")
SLOW = Move(pan=(0.9, 1.0))

def grey_walker(shades):
    return walker(shades)._replace(words="a grey walker")
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "foreign_of_tests-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-of-tests\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    (tmp_path / "foreign_of_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("foreign")
def test_a_foreign_name_is_found_in_both_spellings_and_cannot_shadow_ours():
    assert registry.find("metric", "one-two") == registry.find("metric", "one_two") == "theirs"
    assert registry.find("metric", "psnr") != "theirs"


@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("name", ["absent-module", "absent-thing", "no-attribute"])
def test_an_entry_point_that_leads_nowhere_is_named(name: str):
    with pytest.raises(MissingPartError, match="of another package cannot be loaded") as caught:
        registry.find("metric", name)
    assert "foreign_of_tests" in str(caught.value)


@pytest.mark.usefixtures("foreign")
def test_a_recipe_may_name_scenes_subjects_and_moves_of_other_packages_and_gets_them_only_then():
    named = ["world.scenes=[grey-street]", "world.subjects=[grey-walker]", "world.subjects_per_clip=[1,1]"]
    world = load_recipe("mini/hydra", [*named, "world.camera.trajectory=slow-pan-left", "world.hold_out=all"]).world
    clip = describe_clip(world, seed=3, index=0)
    assert (clip.scene.family, clip.trajectory) == ("grey_street", "slow_pan_left")
    assert [actor.subject.words for actor in clip.actors] == ["a grey walker"]
    may = choices(load_recipe().world)
    assert not {"grey_street", "grey_walker", "slow_pan_left"} & {*may.scenes, *may.subjects, *may.trajectories}


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"did you mean 'psnr'\?.*ssim"):
        registry.find("metric", "psn")


@pytest.mark.parametrize("name", registry.BUILT_IN["metric"])
def test_a_metric_says_what_its_values_may_be(name: str):
    least, most = registry.find("metric", name).range
    assert -math.inf < least < most
