"""Manifests, journals and commits that came from somebody else: nothing outside of the artifact is deleted or read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealing import edit, sealed_json
from store.small_stages import LatentsStage, Notes, latents, write_clips

from hmcli.errors import DataError, UsageError
from hmcli.store.artifact import ArtifactWriter, verify
from hmcli.store.files import OutsideError, inside
from hmcli.store.lock import ArtifactLock
from hmcli.store.manifest import read_manifest
from hmcli.store.records import UNFINISHED

TEXTS = {"x": "one", "y": "two"}
CHANGED = {"x": "ONE", "z": "three"}  # one stale, one gone, one new: everything the writer may delete, it would
COMMIT = "unfinished/commit.json"
ENTRY = {"hash": "sha256:00", "bytes": 13}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts as they were before somebody forged them: complete, interrupted in a change, and while it ended."""
    folder = tmp_path_factory.mktemp("bases")
    write_clips(folder / "complete", Notes(), TEXTS)
    interrupted(folder / "interrupted")
    committed(folder / "committed")
    return folder


@pytest.fixture
def take(bases: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of one of the bases."""

    def copy(name: str) -> Path:
        return shutil.copytree(bases / name, tmp_path / "d")

    return copy


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "precious.txt").write_text("years of work")
    (folder / "zarr.json").write_text("{}")
    (folder / "temporary").mkdir()
    (folder / "temporary" / "draft.txt").write_text("mine too")
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every file, folder and link below a folder, with what it holds."""
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_text("latin-1") if p.is_file() else ""
        for p in folder.rglob("*")
    }


def refused(out: Path, notes: Any, victim: Path, bad: str) -> None:
    """The next run of the stage ends with code 3 and the bad path, and nothing is changed anywhere."""
    before, kept = tree(victim), tree(out)
    with pytest.raises(DataError) as caught:
        write_clips(out, notes, CHANGED, prune=True)
    assert caught.value.exit_code == 3
    assert bad in str(caught.value)
    assert tree(victim) == before
    assert tree(out) == kept


# --- paths that a text names -----------------------------------------------------------------------------------------

LEADS_OUT = ["../victim", "clips/../../victim", "/etc", "..", ".", "", "clips//x", "./clips/x", "a\0b"]
OWN = ["quarantine", "unfinished", "manifest.json", "manifest.old.json", "unfinished/items"]


def item_path(path: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["items"]["x"].update(path=path)


NAMED = [
    *[pytest.param(item_path(path), path, id=f"item at {path!r}") for path in (*LEADS_OUT, *OWN)],
    pytest.param(
        lambda values: values["items"]["x"].update(files={"../../victim/precious.txt": ENTRY}),
        "../../victim/precious.txt", id="file of an item",
    ),
    pytest.param(
        lambda values: values["files"].update({"../victim/precious.txt": ENTRY}), "../victim/precious.txt", id="file"
    ),
    pytest.param(
        lambda values: values["items"]["x"].update(arrays={"a": ["float32", [1]]}, rows={"a": ["../victim", 0]}),
        "../victim", id="row of an array",
    ),
    pytest.param(
        lambda values: values["arrays"].update(
            a={"path": "../victim", "axes": [], "shape": [], "dtype": "float32", "units": ""}
        ),
        "../victim", id="array",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "bad"), NAMED)
def test_a_manifest_that_names_a_place_outside_is_refused(take, notes, victim, change, bad):
    out = take("complete")
    edit(out / "manifest.json", change)
    refused(out, notes, victim, repr(bad))
    for read in (read_manifest, lambda path: verify(path, notes)):
        with pytest.raises(OutsideError):
            read(out)


@pytest.mark.parametrize(("change", "bad"), NAMED)
def test_the_manifest_of_an_interrupted_change_is_not_trusted_either(take, notes, victim, change, bad):
    out = take("interrupted")
    edit(out / "manifest.old.json", change)
    refused(out, notes, victim, repr(bad))


def interrupted(out: Path) -> None:
    """A complete artifact in which one item was made anew when the process ended."""
    write_clips(out, Notes(), TEXTS)
    with (
        ArtifactWriter(out, "dataset", recipe={}, inputs={}, seed=0, reporter=Notes()) as writer,
        writer.item_folder("x", "new", parent="clips") as folder,
    ):
        (folder / "caption.txt").write_text("new")


@pytest.mark.parametrize(("change", "bad"), NAMED)
def test_a_commit_with_a_forged_manifest_is_refused(take, notes, victim, change, bad):
    out = take("committed")
    values = json.loads(json.loads((out / COMMIT).read_text())["manifest"])
    change(values)
    edit(out / COMMIT, lambda commit: commit.update(manifest=sealed_json(values)))
    refused(out, notes, victim, repr(bad))


def committed(out: Path) -> None:
    """An artifact whose writer ended after it had written down how it ends."""
    interrupted(out)
    text = (out / "manifest.old.json").read_text()
    values = json.loads(text)
    record = json.loads((out / "unfinished" / "items" / "x.json").read_text())
    values["items"]["x"] = {name: value for name, value in record.items() if name not in ("item", *UNFINISHED)}
    del values["items"]["y"]
    (out / COMMIT).write_text(json.dumps({"manifest": sealed_json(values), "drop": ["clips/y"]}))


def test_a_commit_as_hm_writes_it_is_carried_out(take, notes):
    out = take("committed")
    with ArtifactWriter(out, "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        assert list(writer.items) == ["x"]
    assert not (out / "clips" / "y").exists()
    assert not (out / "quarantine").exists()


@pytest.mark.parametrize("path", [*LEADS_OUT, *OWN, "clips", "clips/x"])
def test_a_commit_that_drops_what_it_must_not_is_refused(take, notes, victim, path):
    out = take("committed")
    edit(out / COMMIT, lambda commit: commit.update(drop=[path]))
    refused(out, notes, victim, repr(path))


@pytest.mark.parametrize("commit", [[], {}, {"manifest": 3, "drop": []}, {"manifest": "{}", "drop": []}, 7, None])
def test_a_commit_that_is_none_is_refused(take, notes, victim, commit):
    out = take("committed")
    (out / COMMIT).write_text(json.dumps(commit))
    refused(out, notes, victim, "commit.json")


@pytest.mark.parametrize("path", [*LEADS_OUT, *OWN])
def test_a_record_in_a_journal_that_names_a_place_outside_is_refused(take, notes, victim, path):
    out = take("interrupted")
    edit(out / "unfinished" / "items" / "x.json", lambda record: record.update(path=path))
    refused(out, notes, victim, repr(path))


@pytest.mark.parametrize("name", ["../../victim/precious.txt", "/etc/hosts", "a/b", ".."])
def test_a_part_outside_of_the_parts_is_refused(stage, victim, name):
    with stage.writer() as writer:
        writer.put_arrays("a", "old", {"latents": latents(1.0), "valid": latents(1.0) > 0})
    edit(stage.out / "unfinished" / "items" / "a.json", lambda record: record["part"].update(name=name))
    before = tree(victim)
    with pytest.raises(OutsideError, match="journal"):
        stage.run({"a": 1.0})
    assert tree(victim) == before


# --- links -----------------------------------------------------------------------------------------------------------


def replace_by_link(place: Path, target: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(target, target_is_directory=target.is_dir())


@pytest.mark.parametrize("link", ["clips", "clips/x", "clips/y", "clips/y/caption.txt", "unfinished", "quarantine"])
@pytest.mark.parametrize("state", ["complete", "interrupted", "committed"])
def test_a_link_out_of_the_artifact_is_refused(take, notes, victim, link, state):
    out = take(state)
    (victim / "x").mkdir()
    (victim / "x" / "caption.txt").write_text("one")
    target = victim / "precious.txt" if link.endswith(".txt") else victim
    replace_by_link(out / link, target)
    refused(out, notes, victim, link)


@pytest.mark.parametrize(
    "link", ["unfinished/temporary", "unfinished/staged", "unfinished/parts", "unfinished/items", "unfinished/ready"]
)
def test_the_folders_of_the_journal_are_no_links(take, notes, victim, link):
    out = take("interrupted")
    replace_by_link(out / link, victim)
    refused(out, notes, victim, link)


def test_a_new_item_is_not_written_through_a_link(tmp_path, notes, victim):
    """No item lies in the linked folder yet, so only the new one would lead there."""
    with ArtifactWriter(tmp_path / "d", "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        writer.finish([])
    (tmp_path / "d" / "clips").symlink_to(victim)
    before = tree(victim)
    with pytest.raises(OutsideError, match="leads out") as caught:
        write_clips(tmp_path / "d", notes, TEXTS)
    assert "clips/x" in str(caught.value)
    assert tree(victim) == before


def test_arrays_are_not_replaced_behind_a_link(stage: LatentsStage, victim):
    stage.run({"a": 1.0})
    replace_by_link(stage.out / "data.zarr", victim)
    before = tree(victim)
    with pytest.raises(OutsideError, match="leads out"):
        stage.run({"a": 2.0})
    assert tree(victim) == before


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path, notes, victim):
    (tmp_path / "d.lock").symlink_to(victim / "precious.txt")
    before = tree(victim)
    with pytest.raises(DataError, match="lock of the artifact is a link"):
        write_clips(tmp_path / "d", notes, TEXTS)
    assert tree(victim) == before


def test_a_foreign_file_in_the_place_of_a_lock_is_refused_and_stays(tmp_path):
    (tmp_path / "d.lock").write_text("dependencies: 7\n")
    with pytest.raises(UsageError, match="no lock of hm"):
        ArtifactLock(tmp_path / "d").acquire()
    assert (tmp_path / "d.lock").read_text() == "dependencies: 7\n"


def test_an_artifact_may_be_a_link_itself(take, tmp_path, notes):
    (tmp_path / "here").symlink_to(take("complete"))
    assert write_clips(tmp_path / "here", notes, {**TEXTS, "z": "three"})[1] == ["z"]
    assert inside(tmp_path / "here", "clips/x") == tmp_path / "here" / "clips" / "x"


# --- what is deleted -------------------------------------------------------------------------------------------------


def test_only_listed_files_are_deleted_with_an_item(take, notes):
    """A stale and a dropped item: what somebody put or changed there is moved to quarantine."""
    out = take("complete")
    (out / "clips" / "x" / "mine.txt").write_text("mine")
    (out / "clips" / "y" / "caption.txt").write_text("longer than it was")
    write_clips(out, notes, CHANGED, prune=True)
    assert tree(out / "quarantine").keys() == {"clips-x-mine.txt", "clips-y-caption.txt", "reasons.jsonl"}
    assert (out / "quarantine" / "clips-x-mine.txt").read_text() == "mine"
    assert not (out / "clips" / "y").exists()


def test_a_manifest_cannot_have_a_folder_of_the_users_deleted(take, notes):
    """An item that claims a folder beside the items: its files are not those listed, so they are kept."""
    out = take("complete")
    (out / "thesis").mkdir()
    (out / "thesis" / "chapter.tex").write_text("years of work")
    edit(out / "manifest.json", lambda values: values["items"]["y"].update(path="thesis"))
    write_clips(out, notes, CHANGED, prune=True)
    assert (out / "quarantine" / "thesis-chapter.tex").read_text() == "years of work"


def test_foreign_files_among_arrays_that_are_replaced_are_kept(stage):
    stage.run({"a": 1.0, "b": 2.0})
    (stage.out / "data.zarr" / "notes.txt").write_text("mine")
    stage.run({"a": 1.0, "b": 3.0})
    assert (stage.out / "quarantine" / "data.zarr-notes.txt").read_text() == "mine"
    assert sorted(tree(stage.out / "quarantine")) == ["data.zarr-notes.txt", "reasons.jsonl"]


# --- malformed values ------------------------------------------------------------------------------------------------


def at(*keys: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        if value is ...:
            del values[keys[-1]]
        else:
            values[keys[-1]] = value

    return change


X = ("items", "x")
FILE = (*X, "files", "caption.txt")
ODD: list[tuple[tuple[str, ...], list[object]]] = [
    (("kind",), [3]),
    (("seed",), ["7", True, 0.5]),
    (("inputs",), [[], {"a": 3}]),
    (("counts",), [3, {"clips": "2"}]),
    (("recipe",), [[]]),
    (("attributes",), [""]),
    (("made_by",), [[], {}]),
    (("quarantined",), [{}, ["x"], [{"item": "x"}]]),
    (("items",), [[], 3]),
    (X, ["clips/x", None, []]),
    ((*X, "hash"), [..., 3, None]),
    ((*X, "key"), [3, []]),
    ((*X, "meta"), [3, []]),
    ((*X, "path"), [..., 3, ["clips/x"], None]),
    ((*X, "files"), [..., [], {}, "caption.txt"]),
    (FILE, ["", [], {}]),
    ((*FILE, "hash"), [..., 3]),
    ((*FILE, "bytes"), [..., -1, "3", 1.5, True]),
    ((*X, "arrays"), [[], {"a": 3}, {"a": ["float32"]}, {"a": ["float32", [-1]]}, {"a": ["float32", [1]]}]),
    ((*X, "rows"), [[], {"a": 3}, {"a": ["data.zarr/a"]}, {"a": ["data.zarr/a", -1]}]),
    ((*X, "part"), [{"name": "a"}]),
    (("files",), [[], {"a": 3}, {"a": {"hash": "x"}}]),
    (("arrays",), [[], {"a": 3}, {"a": {"path": "a"}}]),
]


@pytest.mark.parametrize(
    ("keys", "value"),
    [pytest.param(keys, value, id=f"{'.'.join(keys)} {value!r}") for keys, values in ODD for value in values],
)
def test_values_of_another_form_are_a_data_error(take, notes, victim, keys, value):
    out = take("complete")
    edit(out / "manifest.json", at(*keys, value=value))
    refused(out, notes, victim, keys[0])


RECORD = {"item": "x", "key": "new", "hash": ""}


@pytest.mark.parametrize(
    "record",
    [
        [], 3, {"item": "x"}, RECORD | {"key": 3}, RECORD | {"item": 3}, RECORD | {"item": ""}, RECORD | {"item": "y"},
        RECORD | {"path": "clips/x"}, RECORD | {"path": "clips/x", "files": []}, RECORD | {"part": {"name": "n"}},
        RECORD | {"path": "clips/x", "files": {"a": {"hash": "h", "bytes": -1}}},
    ],
)  # fmt: skip
def test_a_record_of_another_form_is_set_aside_and_its_item_made_again(take, notes, record):
    out = take("interrupted")
    (out / "unfinished" / "items" / "x.json").write_text(json.dumps(record))
    manifest, made = write_clips(out, notes, TEXTS)
    assert (list(manifest.items), made) == (["x", "y"], ["x"])
    assert (out / "quarantine" / "x.json").is_file()
    assert verify(out, notes) == []
