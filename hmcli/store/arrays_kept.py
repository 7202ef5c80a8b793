"""Arrays that were computed once, by the key of all they are made from: a shortcut for other runs of the same user.

One small database in the user's cache folder. Nothing is lost without it: where it cannot be read or written, is full,
or holds other bytes than were put there, the array is computed again.
"""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import numpy as np

from hmcli.store.hashing import cache_folder, hash_bytes
from hmcli.store.shortcuts import open_shortcuts

LIMIT = 2 << 30  # bytes: beyond, the oldest quarter goes


class ArrayStore:
    """Arrays by key, shared by all processes of a user; what is put in is written by `flush`, all at once."""

    def __init__(self, file: Path | None = None, *, limit: int = LIMIT) -> None:
        self.file = file or cache_folder() / "arrays.sqlite"
        self._limit = limit
        self._new: dict[str, np.ndarray] = {}
        self._database: sqlite3.Connection | None = None

    def get(self, key: str) -> np.ndarray | None:
        """The array of this key, or None."""
        if key in self._new:
            return self._new[key]
        try:
            row = self._open().execute("SELECT hash, data FROM arrays WHERE key = ?", (key,)).fetchone()
        except (sqlite3.Error, OSError):
            return None
        if row is None or hash_bytes(row[1]) != row[0]:
            return None
        found: np.ndarray = np.load(io.BytesIO(row[1]), allow_pickle=False)
        return found

    def put(self, key: str, array: np.ndarray) -> None:
        self._new[key] = array

    def flush(self) -> None:
        """Write what was put in, let the oldest go where there is too much, and close the database."""
        try:
            if self._new:
                with self._open() as database:
                    rows = [(key, *_packed(array)) for key, array in self._new.items()]
                    database.executemany("REPLACE INTO arrays VALUES (?, ?, ?)", rows)
                    if self._size() > self._limit:
                        some = "SELECT rowid FROM arrays ORDER BY rowid LIMIT (SELECT count(*) / 4 + 1 FROM arrays)"
                        database.execute(f"DELETE FROM arrays WHERE rowid IN ({some})")
        except (sqlite3.Error, OSError):
            pass  # busy, read-only or full: the next run computes them again
        self._new.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _size(self) -> int:
        """Bytes in use."""
        pages, free, of = (
            self._open().execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * of)

    def _open(self) -> sqlite3.Connection:
        if self._database is not None:
            return self._database
        self._database = open_shortcuts(self.file, "arrays (key TEXT PRIMARY KEY, hash TEXT, data BLOB)")
        return self._database


def _packed(array: np.ndarray) -> tuple[str, bytes]:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    data = file.getvalue()
    return hash_bytes(data), data
