"""Left-out inputs: the newest complete artifact below the working folder, or a refusal that says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sealing import edit

from hmcli.errors import DataError, UsageError
from hmcli.store.artifact import find_newest, verify
from hmcli.store.manifest import make_manifest, write_manifest


def artifact(place: Path, kind: str = "latents", second: int = 0, seed: int = 0) -> Path:
    place.mkdir(parents=True)
    made = make_manifest(kind, recipe={}, inputs={}, seed=seed)
    created = f"2026-01-02T03:04:{second:02}.000000+00:00"
    write_manifest(place, dataclasses.replace(made, created_at=created))
    return place


def test_the_newest_of_the_wanted_kinds_is_found(tmp_path):
    artifact(tmp_path / "a", second=1)
    newest = artifact(tmp_path / "deep" / "er" / "b", second=2)
    artifact(tmp_path / "c", kind="memory", second=3)
    assert find_newest(tmp_path, ["latents"]) == newest
    assert find_newest(tmp_path, ["latents", "memory"]) == tmp_path / "c"


def test_what_is_hidden_too_deep_or_inside_another_artifact_is_not_found(tmp_path):
    outer = artifact(tmp_path / "outer", kind="run", second=1)
    artifact(outer / "checkpoints" / "020", second=9)
    artifact(tmp_path / ".trash" / "x", second=9)
    artifact(tmp_path / "1" / "2" / "3" / "4" / "5", second=9)
    (tmp_path / "half" / "unfinished").mkdir(parents=True)
    (tmp_path / "half" / "unfinished" / "journal.json").write_text("{}")
    artifact(tmp_path / "half" / "inside", second=9)
    with pytest.raises(UsageError, match="no complete artifact of kind latents") as caught:
        find_newest(tmp_path, ["latents"])
    assert "half (unfinished)" in str(caught.value)
    assert find_newest(tmp_path, ["run"]) == outer
    assert find_newest(tmp_path / "1" / "2", ["latents"]).name == "5"


def test_a_tie_is_refused_with_both_named(tmp_path):
    artifact(tmp_path / "old", second=1)
    artifact(tmp_path / "one", second=5)
    artifact(tmp_path / "two", second=5)
    with pytest.raises(UsageError, match="equally new") as caught:
        find_newest(tmp_path, ["latents"])
    assert str(tmp_path / "one") in str(caught.value)
    assert str(tmp_path / "two") in str(caught.value)
    assert "old" not in caught.value.where["tied"].replace(str(tmp_path), "")


def test_only_what_is_accepted_counts(tmp_path):
    fitting = artifact(tmp_path / "a", second=1, seed=7)
    artifact(tmp_path / "b", second=2)
    assert find_newest(tmp_path, ["latents"], accept=lambda manifest: manifest.seed == 7) == fitting
    with pytest.raises(UsageError) as caught:
        find_newest(tmp_path, ["latents"], accept=lambda manifest: manifest.seed == 8)
    assert "does not fit" in str(caught.value)


def test_a_corrupt_artifact_is_passed_over_and_named(tmp_path):
    (artifact(tmp_path / "a") / "manifest.json").write_text("{")
    with pytest.raises(UsageError) as caught:
        find_newest(tmp_path, ["latents"])
    assert "a (the manifest cannot be read)" in str(caught.value)


def test_verify_needs_a_manifest_and_checks_its_fingerprint(tmp_path, notes):
    with pytest.raises(DataError, match="no artifact"):
        verify(tmp_path, notes)
    place = artifact(tmp_path / "a")
    assert verify(place, notes) == []
    edit(place / "manifest.json", lambda values: values.update(recipe={"seed": 8}))
    (problem,) = verify(place, notes)
    assert "fingerprint" in problem
