"""Hashes of content, and a cache that is only ever a shortcut."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from hmcli.store.hashing import (
    _SETTLED_NS,
    HashCache,
    hash_arrays,
    hash_bytes,
    hash_file,
    hash_json,
    hash_tree,
    read_content,
)  # fmt: skip

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
BIG = 3 << 20  # bytes: large enough to be remembered


def settled(file, data: bytes):
    """Write a file and wait until a later change must show in its times."""
    file.write_bytes(data)
    time.sleep(0.05)
    return file


def test_hashes_are_sha256():
    assert hash_bytes(b"") == EMPTY


def test_json_hashes_ignore_key_order_and_refuse_nan():
    assert hash_json({"a": [1, 2.5], "b": "é"}) == hash_json({"b": "é", "a": (1, 2.5)})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        hash_json(float("nan"))


def test_array_hashes_see_name_dtype_shape_and_value_but_not_memory_order():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = hash_arrays({"x": values})
    assert hash_arrays({"x": np.asfortranarray(values)}) == same
    assert hash_arrays({"x": values.astype(">f4")}) == same
    others = [{"y": values}, {"x": values.reshape(3, 2)}, {"x": values.view(np.int32)}, {"x": values + 1}]
    assert len({same, *map(hash_arrays, others)}) == 5


def test_a_file_is_hashed_again_after_any_change(tmp_path):
    cache, file = HashCache(tmp_path / "c.sqlite"), settled(tmp_path / "f", b"a" * BIG)
    first = hash_file(file, cache=cache)
    assert hash_file(file, cache=cache) == first == hash_bytes(b"a" * BIG)
    before = file.stat()
    settled(file, b"b" * BIG)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same modification time
    assert hash_file(file, cache=cache) == hash_bytes(b"b" * BIG)


def test_the_cache_answers_for_a_large_unchanged_file(tmp_path):
    cache, file = HashCache(tmp_path / "c.sqlite"), settled(tmp_path / "f", b"a" * BIG)
    hash_file(file, cache=cache)
    assert cache.get(file, file.stat()) == hash_bytes(b"a" * BIG)


def test_a_file_that_was_only_just_written_is_not_remembered(tmp_path):
    cache, file = HashCache(tmp_path / "c.sqlite"), tmp_path / "f"
    file.write_bytes(b"a")
    soon = time.time() + 100  # stands for "within one tick of the file system's clock"
    os.utime(file, (soon, soon))
    cache.put(file, file.stat(), "sha256:wrong")
    assert cache.get(file, file.stat()) is None


@pytest.mark.parametrize(("waited", "known"), [(_SETTLED_NS - 1, None), (_SETTLED_NS, "sha256:right")])
def test_a_file_is_remembered_from_a_tick_after_its_last_change_on(tmp_path, monkeypatch, waited, known):
    cache, file = HashCache(tmp_path / "c.sqlite"), tmp_path / "f"
    file.write_bytes(b"a")
    monkeypatch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns + waited)
    cache.put(file, file.stat(), "sha256:right")
    assert cache.get(file, file.stat()) == known


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\x00" + b"\xff" * 500])
def test_a_broken_cache_costs_only_time(tmp_path, content):
    place = tmp_path / "c.sqlite"
    place.write_bytes(content)
    file = settled(tmp_path / "f", b"a" * BIG)
    for _ in range(3):
        assert hash_file(file, cache=HashCache(place)) == hash_bytes(b"a" * BIG)
    assert HashCache(place).get(file, file.stat()) == hash_bytes(b"a" * BIG)  # made anew, it remembers again


def test_a_content_in_an_error_shows_its_path_and_not_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"secret")
    content = read_content(tmp_path / "f")
    assert "secret" not in repr(content)
    assert str(tmp_path / "f") in repr(content)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    file = settled(tmp_path / "f", b"a" * BIG)
    assert hash_file(file, cache=HashCache(blocked / "c.sqlite")) == hash_bytes(b"a" * BIG)


def test_many_processes_share_one_cache(tmp_path, start):
    code = """
    from pathlib import Path
    from hmcli.store.hashing import _SETTLED_NS, HashCache, hash_file
    cache = HashCache(Path(sys.argv[1]))
    for file in sorted(Path(sys.argv[2]).glob("*.bin")) * 3:
        say(hash_file(file, cache=cache))
    """
    for index in range(4):
        settled(tmp_path / f"{index}.bin", bytes([index]) * BIG)
    processes = [start(code, tmp_path / "c.sqlite", tmp_path) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert answers == [[hash_bytes(bytes([index]) * BIG) for index in range(4)] * 3] * 3


def test_a_tree_lists_every_file_with_its_size(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").write_bytes(b"")
    assert hash_tree(tmp_path / "a") == {"b/c.txt": {"hash": EMPTY, "bytes": 0}}
    assert hash_tree(tmp_path / "a" / "b" / "c.txt") == {"": {"hash": EMPTY, "bytes": 0}}
