"""Where the items of an artifact lie while it is being written: put in place, looked at, set aside.

`ArtifactWriter` (hmcli/store/artifact.py) decides which items are made, kept and dropped; here is what happens to their
bytes. Records say what of an item lies where; hmcli/store/journal.py says what is in a record.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hmcli.errors import DataError
from hmcli.store.files import file_name, inside, sync_folder, sync_tree, write_bytes
from hmcli.store.finite import require_finite
from hmcli.store.hashing import HashCache, forget, hash_arrays, hash_bytes, hash_json, hash_tree
from hmcli.store.joining import AdoptedRows, copy_item
from hmcli.store.journal import Journal, flat_name
from hmcli.store.manifest import Manifest, load_manifest, manifest_text, plain
from hmcli.store.records import MANIFEST, RESERVED, Record, listed_files
from hmcli.store.whole import Wholeness


class Shelf:
    """The items of one artifact, whose lock the caller holds. Whatever is put or taken away is in the journal first."""

    def __init__(
        self, path: Path, kind: str, *, seed: int, under: str, warn: Callable[[str], None], cache: HashCache
    ) -> None:
        self.path = path
        self.under = under
        self.journal = Journal(path, kind, seed, warn)
        self.complete: Manifest | None = None  # of an artifact nothing was changed in yet
        self.old: Manifest | None = None  # of an artifact that is or was complete: says where stacked rows lie
        self.records: dict[str, Record] = {}
        self.made: set[str] = set()  # items finished in this run
        self.adopted = AdoptedRows()
        self.whole = Wholeness(path, self.journal.parts, cache)
        self._required: set[str] = set()  # kept items whose bytes were hashed in this run
        self._copied: set[Path] = set()  # damaged shards that are in quarantine already
        self._cache = cache
        self._warn = warn

    # -- beginning and end --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Find what is there; see `Journal.open`."""
        self.complete = self.old = self.journal.open()
        if self.complete is not None:
            self.records = dict(self.complete.items)
        else:
            self.records, self.old = self.journal.resume()
        self.whole.files = self.old.files if self.old else {}

    def close(self) -> None:
        """Leave nothing behind in a complete artifact; in an unfinished one everything."""
        if self.complete is not None:
            self.journal.clean()

    def begin(self) -> None:
        """Mark the artifact unfinished: from here on nothing reads it as complete until `commit`."""
        self.journal.begin()
        self.complete = None

    def commit(self, manifest: Manifest, dropped: Sequence[str]) -> None:
        """Complete the artifact; the items `dropped` go."""
        paths = [self.records[item]["path"] for item in dropped if "path" in self.records[item]]
        self.journal.commit(manifest_text(manifest), paths)
        self.complete = self.old = manifest
        self.records = dict(manifest.items)
        self.whole.files = manifest.files
        self.whole.forget()
        self.journal.remember(self.path, manifest.files, self._cache)

    # -- putting items ------------------------------------------------------------------------------------------------

    def put_arrays(
        self,
        item: str,
        key: str,
        arrays: Mapping[str, np.ndarray],
        meta: Mapping[str, Any] | None = None,
        *,
        undefined: Collection[str] = (),
        bfloat16: Collection[str] = (),
    ) -> None:
        """Finish an item that is rows of stacked arrays: kept as a part file until `stack` and `finish`.

        bfloat16 has to come as its uint16 bits (`arrays.bfloat16_bits`) and be named so here and to `stack`. Raises
        NotFiniteError for NaN or infinity; the arrays named by `undefined` may hold NaN.
        """
        from safetensors.numpy import save

        solid = {name: np.array(values, order="C", copy=None) for name, values in arrays.items()}
        require_finite(solid, where={"item": item}, undefined=undefined, bfloat16=bfloat16)
        self.begin()
        data = save(solid)
        file = self.journal.part_file(item, key)
        write_bytes(file, data)
        record: Record = {
            "key": key,
            "hash": hash_arrays(solid),
            "arrays": {name: [str(values.dtype), list(values.shape)] for name, values in solid.items()},
            "part": {"name": file.name, "hash": hash_bytes(data), "bytes": len(data)},
            "meta": plain(dict(meta or {})),
        }
        before = self.records.get(item)
        self._done(item, record, self.under)
        if before is not None and "part" in before and before["part"]["name"] != file.name:
            inside(self.journal.parts, before["part"]["name"]).unlink(missing_ok=True)

    def adopt(self, item: str, record: Record, source: Path) -> None:
        """Finish an item as it lies in another complete artifact; rows of arrays stay there until they are stacked.

        Raises DataError when files are not those that were written.
        """
        if "path" in record:
            place = PurePosixPath(record["path"])
            under = record.get("under", "")
            with self.place_for(item, record["key"], str(place.parent), place.name, record["meta"], under) as made:
                copy_item(source, record, made)
            return
        self.begin()
        self.adopted.add(item, source, record)
        self.records[item] = dict(record)
        self.made.add(item)

    @contextmanager
    def place_for(
        self, item: str, key: str, parent: str, name: str, meta: Mapping[str, Any] | None, under: str | None = None
    ) -> Iterator[Path]:
        """A temporary place that becomes `<artifact>/<parent>/<name>` when the block succeeds; else it is gone."""
        path = Path(parent, name).as_posix()
        if Path(path).parts[0] in RESERVED or ".." in Path(path).parts or Path(path).is_absolute():
            raise DataError(f"an item cannot be named {item!r}", where={"artifact": self.path}, fix="rename the item")
        if self.complete is None:
            self.begin()
        self.journal.temporary.mkdir(parents=True, exist_ok=True)  # what is complete stays so until the item is made
        made = self.journal.temporary / name
        self.journal.throw_away(made)
        try:
            yield made
            self._place(item, key, made, path, meta, self.under if under is None else under)
        finally:
            self.journal.throw_away(made)

    def _place(self, item: str, key: str, made: Path, path: str, meta: Mapping[str, Any] | None, under: str) -> None:
        """Hash, record, put in place: what was there before stays until this is whole and known of."""
        files = hash_tree(made)
        if not files:
            raise ValueError(f"item {item}: nothing was written into {made}")
        sync_tree(made, files)
        self.begin()
        place, before = inside(self.path, path), self.records.get(item, {})
        record: Record = {"key": key, "hash": _item_hash(made, files), "path": path, "files": files}
        record |= {"meta": plain(dict(meta or {})), "ready": f"{secrets.token_hex(8)}.{made.name}"}  # never met before
        if "path" in before:
            record["before"] = {"path": before["path"], "files": before["files"]}
        os.replace(made, self.journal.ready / record["ready"])
        sync_folder(self.journal.ready)
        self._done(item, record, under)
        self.journal.settle(item, record)
        self.journal.remember(place, files, self._cache)

    def _done(self, item: str, record: Record, under: str) -> None:
        if under:
            record["under"] = under
        self.journal.record(item, record)
        self.records[item] = record
        self.made.add(item)

    # -- taking items -------------------------------------------------------------------------------------------------

    def get_array(self, item: str, name: str) -> np.ndarray:
        """One array of a finished item, as it was put: from its part, or from the complete artifact's rows.

        Raises DataError when it cannot be read, or is not what was written.
        """
        self._require(item)
        record = self.records[item]
        if item in self.adopted:
            return self.adopted.place(item, name).read()
        if "part" not in record:
            return self.whole.row(record, name)
        from safetensors import SafetensorError, safe_open

        file = inside(self.journal.parts, record["part"]["name"])
        try:
            with safe_open(str(file), framework="numpy") as part:
                return np.asarray(part.get_tensor(name))
        except (OSError, SafetensorError) as error:
            raise DataError("a part is damaged", where={"item": item, "part": file, "at": error}) from error

    def place(self, item: str) -> Path:
        """Where a finished item lies, for reading it again. Raises DataError unless its bytes are those written."""
        self._require(item)
        return inside(self.path, self.records[item]["path"])

    def _require(self, item: str) -> None:
        """`kept` may have looked hashes up; before something is made of an item its bytes are hashed, once."""
        record = self.records[item]
        if item in self.made or item in self._required:
            return
        if (damage := self.whole.now.damage(record)) is not None:
            for name in [*(name for name, _, _ in listed_files({item: record}, {})), *self._array_files()]:
                forget(self.path / name, self._cache)
            raise DataError(
                f"item {item}: {damage}", where={"artifact": self.path},
                fix="run the same command again: it is set aside and made again",
            )  # fmt: skip
        self._required.add(item)

    # -- what is damaged, or goes -------------------------------------------------------------------------------------

    def still_whole(self, item: str) -> bool:
        """Are an item's bytes those that were written? A damaged item is set aside, with its reason."""
        if item in self.made or (damage := self.whole.damage(self.records[item])) is None:
            return True
        self._set_aside(item, damage)
        return False

    def _set_aside(self, item: str, reason: str) -> None:
        """Move what is left of a damaged item out of the way; of a shard keep a copy, other rows in it are good."""
        self.begin()
        record = self.records[item]
        text = f"item {item}: {reason}; it is made again"
        place = inside(self.path, record["path"]) if "path" in record else None
        if "part" in record:
            place = inside(self.journal.parts, record["part"]["name"])
        if place is not None and place.exists():
            self.journal.set_aside(place, text)
        else:
            copies = []
            for shard in sorted(set(self.whole.bad_shards(record)) - self._copied):
                self._copied.add(shard)
                name = flat_name(shard.relative_to(self.path).as_posix())
                copies.append(self.journal.set_aside(shard, text, copy=True, name=name, say=False))
            self._warn(f"{text}: copied to {', '.join(map(str, copies))}" if copies else text)
        self.journal.forget(item)
        del self.records[item]

    def put_aside(self, item: str) -> None:
        """Move an item to quarantine that is still asked for, but can neither be made now nor stay as it is."""
        from safetensors.numpy import save

        self.begin()
        record = self.records[item]
        reason = f"item {item} cannot be made now, and what was made of it before had other settings"
        if "path" in record:
            self.journal.set_aside(inside(self.path, record["path"]), reason, name=flat_name(record["path"]))
        elif "arrays" in record:
            with suppress(DataError):  # its bytes are damaged as well
                arrays = {name: self.get_array(item, name) for name in record["arrays"]}
                self.journal.keep_copy(f"{file_name(item)}.safetensors", save(arrays), reason)
        self.journal.forget(item)
        del self.records[item]

    def discard(self, item: str) -> None:
        """Delete a finished item (an old checkpoint)."""
        self.begin()
        record = self.records.pop(item)
        self.journal.forget(item)
        if "path" in record:
            written = {name: entry for name, entry, _ in listed_files({item: record}, {})}
            self.journal.discard(inside(self.path, record["path"]), written)
        self.made.discard(item)

    def lose_damaged(self, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Set aside those of the files that are not as they were written; returns their names, missing ones too."""
        found = {name: self.whole.changed(inside(self.path, name), {"": entry}) for name, entry in files.items()}
        damaged = {name: damage for name, damage in found.items() if damage is not None}
        for name, damage in damaged.items():
            self._lose(name, damage)
        return list(damaged)

    def _lose(self, name: str, damage: str) -> None:
        """Set a damaged file outside of the items aside, and say so; of stacked arrays a copy, their rows are read."""
        self.begin()
        place, stacked = inside(self.path, name), any("rows" in record for record in self.records.values())
        if not place.is_file():
            self._warn(f"{name} is missing: it was there when the artifact was finished")
        elif place not in self._copied:
            copy = stacked and name in self._array_files()
            self._copied.add(place)
            self.journal.set_aside(place, f"{name}: {damage}", copy=copy, name=flat_name(name))

    def _array_files(self) -> set[str]:
        from hmcli.store.arrays import ROOT

        return {name for name in (self.old.files if self.old else {}) if Path(name).parts[0] == ROOT}


def _item_hash(made: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of an item's files; an artifact among them (a checkpoint) counts by what it is: its fingerprint alone."""
    inside = {Path(name).parent for name in files if Path(name).name == MANIFEST}
    hashes = {name: entry["hash"] for name, entry in files.items() if not inside & set(Path(name).parents)}
    for folder in inside:
        if not inside & set(folder.parents):
            name = (folder / MANIFEST).as_posix()
            hashes[name] = load_manifest(made / name).fingerprint
    return hash_json(hashes)
