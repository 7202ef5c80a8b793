"""Tables and small files: whole or absent, and unreadable ones name the line."""

from __future__ import annotations

import json
import os

import pytest

from hmcli.errors import DataError
from hmcli.store import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    files.write_json(tmp_path / "x.json", {"é": [1, 2.5]})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", float("nan"))
    with pytest.raises(TypeError):
        files.write_bytes(tmp_path / "x.json", "text")  # type: ignore[arg-type]
    assert files.read_json(tmp_path / "x.json") == {"é": [1, 2.5]}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_tables_read_back_as_they_were_written(tmp_path):
    rows = [{"clip": "a,b", "caption": 'says "hi"\nand goes'}, {"clip": "é", "caption": ""}]
    files.write_csv(tmp_path / "t.csv", ["clip", "caption"], rows)
    files.write_json_lines(tmp_path / "t.jsonl", rows)
    assert files.read_csv(tmp_path / "t.csv") == rows
    assert files.read_json_lines(tmp_path / "t.jsonl") == rows


def test_line_separators_inside_a_value_do_not_end_its_line(tmp_path):
    rows = [{"caption": "one\u2028two\x85three"}]
    files.write_json_lines(tmp_path / "t.jsonl", rows)
    assert files.read_json_lines(tmp_path / "t.jsonl") == rows


def test_bad_lines_are_named(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError) as caught:
        files.read_json_lines(tmp_path / "t.jsonl")
    assert caught.value.where["line"] == 3
    (tmp_path / "t.csv").write_text("clip,caption\na,b\nc\n")
    with pytest.raises(DataError, match="1 cells, the header 2") as caught:
        files.read_csv(tmp_path / "t.csv")
    assert caught.value.where["line"] == 3
    (tmp_path / "u.csv").write_bytes(b"clip\n\xff\n")
    with pytest.raises(DataError, match="cannot be read"):
        files.read_csv(tmp_path / "u.csv")
    with pytest.raises(DataError, match="missing"):
        files.read_json(tmp_path / "nowhere.json")


def test_a_row_that_does_not_fit_its_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="columns"):
        files.write_csv(tmp_path / "t.csv", ["clip"], [{"clip": 1, "score": 2}])
    assert not (tmp_path / "t.csv").exists()


def test_safe_ids_keep_their_name_and_distinct_ids_have_distinct_names():
    assert files.file_name("clip 07_é-x.y") == "clip 07_é-x.y"
    ids = ["a/b", "a%2Fb", "a%252Fb", "a", ".a", "%2Ea", "a.", "a%2E", "y" * 300, "y" * 301, "é" * 200, "..", "."]
    names = [files.file_name(item) for item in ids]
    assert len(set(names)) == len(ids)
    assert all("/" not in name and len(name.encode()) <= 180 and name not in (".", "..") for name in names)
    assert json.dumps(files.file_name("a\nb")) == '"a%0Ab"'


def test_every_file_of_a_tree_is_brought_to_disk(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    for name in ("a", "b/c"):
        (tmp_path / name).write_bytes(b"x")
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), sync(handle)))
    files.sync_tree(tmp_path, ["a", "b/c"])
    files.sync_tree(tmp_path / "a", [""])
    assert synced == [(tmp_path / name).stat().st_ino for name in ("a", "b/c", "a")]
