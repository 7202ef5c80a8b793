"""Is a finished item whole? Held against the hashes that were written down when it was made.

A stacked row is whole when its shard has the bytes that were written; where it has not, the rows that still give the
hash of their item are whole nevertheless, so one flipped byte costs one row.

Hashes that were looked up tell whether anything need be done; what is used again is looked at `now`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import DataError
from hmcli.store.files import inside
from hmcli.store.hashing import HashCache, hash_arrays, hash_file
from hmcli.store.records import Record

if TYPE_CHECKING:
    from hmcli.store.arrays import StackReader


class Wholeness:
    """Looks at the items of one artifact; `files` are those of its manifest, which name its shards."""

    def __init__(self, artifact: Path, parts: Path, cache: HashCache | None) -> None:
        self.artifact = artifact
        self.parts = parts
        self.cache = cache
        self.files: Mapping[str, Mapping[str, Any]] = {}
        self._readers: dict[str, StackReader] = {}
        self._shards: dict[Path, bool] = {}  # is it as the manifest says?
        self._now: Wholeness | None = None

    def damage(self, record: Record) -> str | None:
        """What is wrong with a finished item's bytes; None when it is whole."""
        if "path" in record:
            return self.changed(inside(self.artifact, record["path"]), record["files"])
        if "part" in record:
            return self.changed(inside(self.parts, record["part"]["name"]), {"": record["part"]})
        if all(self._shard_is_whole(path, row) for path, row in record.get("rows", {}).values()):
            return None
        try:
            arrays = {name: self.row(record, name) for name in record["arrays"]}
        except DataError as error:
            where = [f"{label} {error.where[label]}" for label in ("array", "row") if label in error.where]
            return f"{error.what} ({', '.join(where)})"
        return None if hash_arrays(arrays) == record["hash"] else "its stacked rows are not those written"

    def row(self, record: Record, name: str) -> np.ndarray:
        """One array of an item from the stack it is in; bfloat16 as bits. Raises DataError when it cannot be read."""
        path, row = record["rows"][name]
        return self._reader(path)[row]

    def bad_shards(self, record: Record) -> list[Path]:
        """Shards of an item that are there, but not as they were written."""
        places = [self._shard(path, row) for path, row in record.get("rows", {}).values()]
        return [
            shard for shard in places if shard is not None and shard.is_file() and not self._shards.get(shard, True)
        ]

    def forget(self) -> None:
        """The arrays were replaced: nothing that was seen of them holds any more."""
        self._readers.clear()
        self._shards.clear()
        self._now = None

    @property
    def now(self) -> Wholeness:
        """The same look, at the bytes themselves."""
        if self._now is None:
            self._now = Wholeness(self.artifact, self.parts, None)
            self._now.files = self.files
        return self._now

    def _reader(self, path: str) -> StackReader:
        from hmcli.store.arrays import StackReader

        reader = StackReader(inside(self.artifact, path), bits=True, undefined=True, trusting=True)
        return self._readers.setdefault(path, reader)

    def _shard(self, path: str, row: int) -> Path | None:
        try:
            return self._reader(path).shard_file(row)
        except DataError:
            return None

    def _shard_is_whole(self, path: str, row: int) -> bool:
        if (shard := self._shard(path, row)) is None:
            return False
        if shard not in self._shards:
            described = inside(self.artifact, f"{path}/zarr.json")  # says how the shard's bytes are to be read
            self._shards[shard] = self._as_listed(shard) and self._as_listed(described)
        return self._shards[shard]

    def _as_listed(self, file: Path) -> bool:
        name = file.relative_to(self.artifact).as_posix()
        return name in self.files and self.changed(inside(self.artifact, name), {"": self.files[name]}) is None

    def changed(self, place: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
        """How files below `place` (under "" itself) differ from what was written down; None when they do not."""
        for name, entry in files.items():
            file = inside(place, name) if name else place
            if not file.is_file():
                return f"{file.name} is missing"
            if (size := file.stat().st_size) != entry["bytes"]:
                return f"{file.name} has {size} bytes, {entry['bytes']} were written"
            if hash_file(file, cache=self.cache) != entry["hash"]:
                return f"{file.name} was changed or damaged after it was written"
        return None
