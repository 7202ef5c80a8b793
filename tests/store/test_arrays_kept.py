"""Arrays kept for other runs: found again by their key, and never anything but what was put there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hmcli.store.arrays_kept import ArrayStore

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "arrays.sqlite"


def kept(file: Path, **arrays: np.ndarray) -> None:
    store = ArrayStore(file)
    for key, array in arrays.items():
        store.put(key, array)
    store.flush()


def test_what_was_flushed_is_found_by_its_key_and_by_no_other(file: Path):
    store = ArrayStore(file)
    assert store.get("one") is None
    store.put("one", ARRAY)
    assert ArrayStore(file).get("one") is None
    store.flush()
    found = ArrayStore(file).get("one")
    assert found is not None
    assert (found.dtype, found.shape, found.tobytes()) == (ARRAY.dtype, ARRAY.shape, ARRAY.tobytes())
    assert ArrayStore(file).get("two") is None
    kept(file, one=ARRAY + 1)
    np.testing.assert_array_equal(ArrayStore(file).get("one"), ARRAY + 1)


def test_other_bytes_than_were_put_there_are_not_found(file: Path):
    kept(file, one=ARRAY, two=ARRAY)
    with closing(sqlite3.connect(file)) as database, database:
        (data,) = database.execute("SELECT data FROM arrays WHERE key = 'one'").fetchone()
        database.execute("UPDATE arrays SET data = ? WHERE key = 'one'", (data[:-1] + b"\7",))
    assert ArrayStore(file).get("one") is None
    assert ArrayStore(file).get("two") is not None


def test_a_file_that_is_no_database_is_started_anew(file: Path):
    file.parent.mkdir()
    file.write_bytes(b"no database at all" * 1000)
    assert ArrayStore(file).get("one") is None
    kept(file, one=ARRAY)
    assert ArrayStore(file).get("one") is not None


def test_where_nothing_can_be_kept_nothing_is_found_and_nothing_fails(tmp_path: Path):
    (tmp_path / "file").write_text("a file, and no folder")
    kept(tmp_path / "file" / "arrays.sqlite", one=ARRAY)
    assert ArrayStore(tmp_path / "file" / "arrays.sqlite").get("one") is None


def test_the_oldest_go_where_there_is_too_much(file: Path):
    big = np.zeros((64, 1024), np.float32)  # 256 KiB
    for number in range(12):
        store = ArrayStore(file, limit=2 << 20)
        store.put(str(number), big + number)
        store.flush()
    there = [number for number in range(12) if ArrayStore(file).get(str(number)) is not None]
    assert there == list(range(there[0], 12))
    assert 4 <= len(there) <= 8
    assert file.stat().st_size < 3 << 20
