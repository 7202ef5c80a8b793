"""Names from other packages: found through their entry points, never in the place of ours, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmcli import registry
from hmcli.errors import MissingPartError, UsageError

POINTS = """
[hmcli.metric]
one_two = foreign_of_tests:thing
psnr = foreign_of_tests:thing
absent-module = foreign_of_tests.nowhere:thing
absent-thing = foreign_of_tests:nothing
no-attribute = foreign_of_tests
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "foreign_of_tests-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-of-tests\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    (tmp_path / "foreign_of_tests.py").write_text("thing = 'theirs'\n")
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


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"did you mean 'psnr'\?.*ssim"):
        registry.find("metric", "psn")
