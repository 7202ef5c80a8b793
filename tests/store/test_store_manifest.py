"""Manifests: whole or absent, readable, and a fingerprint of content alone."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hmcli.errors import DataError
from hmcli.store import manifest as m

ITEMS = {"a": {"key": "k1", "hash": "sha256:aa"}, "b": {"key": "k2", "hash": "sha256:bb"}}


def some_manifest(**changes: object) -> m.Manifest:
    values = {"recipe": {"codec": {"tile": (1, 2)}}, "inputs": {"clips": "sha256:77"}, "seed": 7, "items": ITEMS}
    return m.make_manifest("latents", **{**values, **changes})


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    written = some_manifest(counts={"clips": 2}, quarantined=[{"item": "é", "reason": "dark\nand short"}])
    m.write_manifest(tmp_path, written)
    assert m.read_manifest(tmp_path) == written
    assert m.read_manifest(tmp_path, kinds=["latents", "memory"]).recipe == {"codec": {"tile": [1, 2]}}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json"]


def test_every_item_has_a_line_of_its_own(tmp_path):
    m.write_manifest(tmp_path, some_manifest())
    assert '  "b": {"key": "k2", "hash": "sha256:bb"}' in (tmp_path / "manifest.json").read_text().splitlines()


def test_the_fingerprint_knows_content_only():
    first, second = some_manifest(), some_manifest(attributes={"speed": 3}, counts={"clips": 2})
    assert first.created_at != second.created_at
    assert first.fingerprint == second.fingerprint
    swapped = dict(reversed(ITEMS.items()))
    assert some_manifest(items=swapped).fingerprint == first.fingerprint
    assert some_manifest(recipe={"codec": {"tile": [1, 2]}}).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"recipe": {"codec": {"tile": (1, 3)}}},
        {"inputs": {"clips": "sha256:78"}},
        {"inputs": {"data": "sha256:77"}},
        {"items": {**ITEMS, "b": {"key": "k2", "hash": "sha256:bc"}}},
        {"items": {"a": ITEMS["a"]}},
    ],
)
def test_the_fingerprint_changes_with_recipe_inputs_and_items(change):
    assert some_manifest(**change).fingerprint != some_manifest().fingerprint


def test_the_fingerprint_changes_with_the_kind():
    assert m.compute_fingerprint("latents", {}, {}, {}) != m.compute_fingerprint("memory", {}, {}, {})


def test_time_has_microseconds_and_a_zone_and_the_program_its_version():
    written = some_manifest()
    assert written.created_at.endswith("+00:00")
    assert len(written.created_at) == len("2026-01-02T03:04:05.123456+00:00")
    assert {"hmcli", "commit", "dirty", "python", "numpy"} <= set(written.made_by)


def test_a_folder_without_manifest_is_refused_with_what_it_is(tmp_path):
    with pytest.raises(DataError, match="no artifact of hm"):
        m.read_manifest(tmp_path)
    with pytest.raises(DataError, match="no such artifact"):
        m.read_manifest(tmp_path / "nowhere")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "journal.json").write_text("{}")
    with pytest.raises(DataError, match="unfinished") as caught:
        m.read_manifest(tmp_path)
    assert "again" in caught.value.fix


@pytest.mark.parametrize("text", ["", "{", '{"format": 1, "kind"', "[]", "{}", "\xff"])
def test_a_corrupt_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError) as caught:
        m.read_manifest(tmp_path)
    assert caught.value.fix


def test_a_newer_format_is_refused_as_such(tmp_path):
    values = dataclasses.asdict(some_manifest()) | {"format": m.FORMAT + 1, "novelty": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"format {m.FORMAT + 1}") as caught:
        m.read_manifest(tmp_path)
    assert "newer hm" in caught.value.fix


def test_missing_and_unknown_fields_are_named(tmp_path):
    values = dataclasses.asdict(some_manifest())
    del values["seed"], values["part"]
    (tmp_path / "manifest.json").write_text(json.dumps(values | {"sead": 1}))
    with pytest.raises(DataError, match="missing seed, unknown sead"):
        m.read_manifest(tmp_path)


def test_another_kind_is_refused(tmp_path):
    m.write_manifest(tmp_path, some_manifest())
    with pytest.raises(DataError, match="'latents', needed is 'memory'"):
        m.read_manifest(tmp_path, kinds=["memory"])


def test_the_store_loads_neither_torch_nor_zarr_nor_video_libraries():
    modules = "manifest, hashing, lock, artifact, survey, files, arrays, video"
    code = (
        f"import sys; from hmcli.store import {modules}; print({{'torch', 'zarr', 'av', 'decord'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_package_inside_a_foreign_checkout_claims_no_commit(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    inner = tmp_path / "env" / "site-packages"
    inner.mkdir(parents=True)
    package = Path(m.hmcli.__file__).parent
    (inner / "hmcli").symlink_to(package)
    copy = inner / "copy"
    copy.mkdir()
    code = (
        "import sys, pathlib; import hmcli; from hmcli.store import manifest\n"
        "hmcli.__file__ = sys.argv[1]; print(manifest._commit())"
    )
    foreign = str(copy / "hmcli" / "__init__.py")
    done = subprocess.run([sys.executable, "-c", code, foreign], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(None, None)"
    own = str(tmp_path / "hmcli" / "__init__.py")
    done = subprocess.run([sys.executable, "-c", code, own], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith(", False)")
