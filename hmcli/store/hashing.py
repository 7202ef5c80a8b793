"""Content hashes: of bytes, JSON values, arrays and files; files are remembered by path, size and times of change.

A hash reads `sha256:<64 hex digits>`. Small files are always read again; large ones (videos, weights, shards) are
looked up in a small database in the user's cache folder. The cache is only ever a shortcut: where it cannot be read
or written, or its entry does not fit the file as it is now, the file is hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.errors import DataError
from hmcli.store.shortcuts import open_shortcuts

PREFIX = "sha256:"
_BLOCK = 1 << 20  # bytes read at once
_WORTH_REMEMBERING = 1 << 20  # bytes; hashing a smaller file costs less than looking it up
_SETTLED_NS = 20_000_000  # a file changed less than this ago could change again within one tick of its clock


def hash_bytes(data: bytes | memoryview) -> str:
    return PREFIX + hashlib.sha256(data).hexdigest()


def hash_json(value: Any) -> str:
    """Hash of plain JSON values; the order of keys, and tuple or list, make no difference. NaN is a ValueError."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hash_bytes(text.encode("utf-8"))


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of named arrays: names, dtypes, shapes and values, whatever file they are in."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        head = [name, array.dtype.newbyteorder("<").str, list(array.shape)]
        digest.update(json.dumps(head).encode("utf-8") + b"\n")
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return PREFIX + digest.hexdigest()


@dataclass(frozen=True)
class Content:
    """The bytes of a file, read once: what is hashed is what is then decoded, whatever becomes of the file."""

    path: Path
    data: bytes = field(repr=False)

    @cached_property
    def hash(self) -> str:
        return hash_bytes(self.data)


def read_content(path: Path) -> Content:
    """Read a file. Raises DataError when it cannot be read."""
    try:
        return Content(path, path.read_bytes())
    except OSError as error:
        raise DataError("a file cannot be read", where={"file": path, "at": error}) from error


class HashCache:
    """Hashes of files by path, size, inode and times of change, shared by all processes of a user."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_folder() / "hashes.sqlite"

    def get(self, path: Path, stat: os.stat_result) -> str | None:
        """The remembered hash of `path` as `stat` describes it, or None."""
        try:
            with closing(self._open()) as database:
                row = database.execute("SELECT identity, hash FROM files WHERE path = ?", (str(path),)).fetchone()
        except (sqlite3.Error, OSError):
            return None
        return row[1] if row is not None and row[0] == identity(stat) else None

    def put(self, path: Path, stat: os.stat_result, value: str) -> None:
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < _SETTLED_NS:
            return
        try:
            with closing(self._open()) as database, database:
                database.execute("REPLACE INTO files VALUES (?, ?, ?)", (str(path), identity(stat), value))
        except (sqlite3.Error, OSError):
            return  # busy, read-only or full: the next run hashes the file again

    def drop(self, path: Path) -> None:
        try:
            with closing(self._open()) as database, database:
                database.execute("DELETE FROM files WHERE path = ?", (str(path),))
        except (sqlite3.Error, OSError):
            return

    def _open(self) -> sqlite3.Connection:
        return open_shortcuts(self.file, "files (path TEXT PRIMARY KEY, identity TEXT, hash TEXT)")


def identity(stat: os.stat_result) -> str:
    """What changes when a file is written, replaced or touched."""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/hmcli`, or `~/.cache/hmcli`; of a user without a name or home a place where nothing is kept."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "hmcli"
    try:
        return Path.home() / ".cache" / "hmcli"
    except RuntimeError:
        return Path(os.devnull) / "hmcli"


def hash_file(path: Path | str, *, cache: HashCache | None = None) -> str:
    """Hash of a file's bytes, looked up in `cache` (when given) for large files that have not changed."""
    place = Path(path).resolve()
    before = place.stat()
    if cache is None or before.st_size < _WORTH_REMEMBERING:
        return _hash_now(place)
    if (known := cache.get(place, before)) is not None:
        return known
    value = _hash_now(place)
    after = place.stat()
    if identity(after) == identity(before):
        cache.put(place, after, value)
    return value


def remember(path: Path, value: str, cache: HashCache) -> None:
    """Tell the cache the hash of a file that was hashed under another name."""
    place = path.resolve()
    if (stat := place.stat()).st_size >= _WORTH_REMEMBERING:
        cache.put(place, stat, value)


def forget(path: Path, cache: HashCache) -> None:
    """Have a file hashed anew when it is asked for next."""
    cache.drop(path.resolve())


def hash_tree(place: Path, *, cache: HashCache | None = None) -> dict[str, dict[str, Any]]:
    """Hash and size of every file below a folder, by path from it with forward slashes; of a file alone, under ""."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.is_file())
    return {
        "" if file == place else file.relative_to(place).as_posix(): {
            "hash": hash_file(file, cache=cache),
            "bytes": file.stat().st_size,
        }
        for file in files
    }


def _hash_now(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return PREFIX + digest.hexdigest()
