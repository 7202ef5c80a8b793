"""Items that lie in other complete artifacts, taken as they are: files are copied, and whole shards of stacked arrays.

Every byte is held against the manifest of the artifact it comes from. Rows that do not fill the same shard there and
here are read and written anew: equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.store.files import inside, write_bytes
from hmcli.store.listed import listed
from hmcli.store.records import Record

if TYPE_CHECKING:
    from hmcli.store.arrays import StackReader


@dataclass(frozen=True)
class Place:
    """A row of a stacked array."""

    array: StackReader
    row: int

    def read(self) -> np.ndarray:
        """The row as it is stored: bfloat16 as bits."""
        return self.array[self.row]


class AdoptedRows:
    """Items whose arrays are rows in other complete artifacts, for one writer."""

    def __init__(self) -> None:
        self._items: dict[str, tuple[Path, Record]] = {}
        self._arrays: dict[tuple[Path, str], StackReader] = {}  # one for all rows: it hashes each shard once

    def add(self, item: str, source: Path, record: Record) -> None:
        """`record` is what the manifest of `source` says of the item."""
        self._items[item] = source, record

    def __contains__(self, item: str) -> bool:
        return item in self._items

    def place(self, item: str, name: str) -> Place:
        """Where one array of an item lies."""
        from hmcli.store.arrays import StackReader

        source, record = self._items[item]
        path, row = record["rows"][name]
        if (source, path) not in self._arrays:
            self._arrays[source, path] = StackReader(inside(source, path), bits=True, undefined=True)
        return Place(self._arrays[source, path], row)


def copy_item(source: Path, record: Record, made: Path) -> None:
    """Write an item that has files of its own to `made`. Raises DataError for a file that is not as it was written."""
    files = listed(source)
    for name in record["files"]:
        content = files.read(f"{record['path']}/{name}" if name else record["path"])
        place = made / name if name else made
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.data)


def join_stack(
    root: Path, group: str, name: str, places: Sequence[Place], *, rows_per_shard: int, **form: Any
) -> dict[str, Any]:
    """`write_stack` of rows that are stored already; `form` as there. Returns the array's entry for the manifest."""
    from hmcli.store.arrays import StackReader, begin_stack

    array, entry = begin_stack(root, group, name, rows_per_shard=rows_per_shard, **form)
    joined = StackReader(root / group / name)
    for start in range(0, len(places), rows_per_shard):
        block = places[start : start + rows_per_shard]
        if _fill_a_shard(block, joined):
            file = joined.shard_file(start)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, block[0].array.shard_bytes(block[0].row))
        else:
            array[start : start + len(block)] = np.stack([place.read() for place in block])
    return entry


def _fill_a_shard(block: Sequence[Place], joined: StackReader) -> bool:
    """Are these all rows of one shard, in its order, and is that shard as long, and packed, as those here?"""
    array, first, rows_per_shard = block[0].array, block[0].row, joined.rows_per_shard
    if array.array.metadata.to_dict()["codecs"] != joined.array.metadata.to_dict()["codecs"]:
        return False
    follow = all(place.array is array and place.row == first + number for number, place in enumerate(block))
    if not follow or array.rows_per_shard != rows_per_shard or first % rows_per_shard or 0 in array.shape:
        return False
    return len(block) == min(rows_per_shard, len(array) - first)
