"""Writing an artifact so that it can be killed at any instant and gone on with: items, journal, commit.

    with ArtifactWriter(out, "latents", recipe=sections, inputs={"clips": f}, seed=7, reporter=reporter) as writer:
        writer.ask(Asked(keys=keys))  # item -> hash_json([...]) of everything it depends on
        for clip in clips:
            if writer.kept(clip.id, key := keys[clip.id]):
                continue
            try:
                writer.put_arrays(clip.id, key, {"latents": ...})
            except DataError as error:
                writer.quarantine(clip.id, str(error))
        if not writer.unchanged(order):
            writer.stack("latents", order, axes=[...], units="...")
        manifest = writer.finish(order, counts={"clips": len(order)})

Only `finish` makes the artifact complete; leaving the block without it leaves a folder that the same command resumes.
What is written into `writer.staged` (a table, a picture, data.zarr) gets its place in the artifact at that moment.
Layout and safety: hmcli/store/journal.py and docs/artifacts.md.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hmcli.contracts import Quarantined, Reporter
from hmcli.errors import DataError
from hmcli.store.asked import Asked, Outlook, outlook, refuse_loss, some
from hmcli.store.files import file_name, inside, sync_folder, write_bytes
from hmcli.store.finite import require_finite
from hmcli.store.hashing import HashCache, forget, hash_arrays, hash_bytes, hash_json, hash_tree
from hmcli.store.journal import Journal, flat_name
from hmcli.store.lock import ArtifactLock
from hmcli.store.manifest import (
    Manifest,
    compute_fingerprint,
    load_manifest,
    make_manifest,
    manifest_text,
    plain,
)
from hmcli.store.records import MANIFEST, RESERVED, UNFINISHED, Record, listed_files
from hmcli.store.survey import find_newest, verify
from hmcli.store.whole import Wholeness

__all__ = ["ArtifactWriter", "find_newest", "verify"]


class ArtifactWriter:
    """Context manager that holds an artifact's lock and writes, resumes or updates it.

    `recipe` are the sections of the recipe the stage reads, `inputs` the fingerprints of its inputs by name, `under` a
    hash of all that its items share. With `force` nothing that was there before counts as kept, with `prune` what is
    not asked for goes. Raises LockedError, UsageError (a folder that is no artifact of `kind`) and DataError (a damaged
    manifest) on entering.
    """

    def __init__(
        self,
        path: Path | str,
        kind: str,
        *,
        recipe: Mapping[str, Any],
        inputs: Mapping[str, str],
        seed: int,
        reporter: Reporter,
        force: bool = False,
        prune: bool = False,
        under: str = "",
        cache: HashCache | None = None,
    ) -> None:
        self.path = Path(path).resolve()
        self.kind = kind
        self.recipe: dict[str, Any] = plain(dict(recipe))
        self.inputs = dict(inputs)
        self.seed = seed
        self.reporter = reporter
        self.force = force
        self.prune = prune
        self.under = under
        self._cache = cache or HashCache()
        self._lock = ArtifactLock(self.path)
        self._journal = Journal(self.path, kind, seed, reporter.warn)
        self._complete: Manifest | None = None  # of an artifact nothing was changed in yet
        self._old: Manifest | None = None  # of an artifact that is or was complete: says where stacked rows lie
        self._records: dict[str, Record] = {}
        self._asked: Asked | None = None
        self._kept: set[str] = set()
        self._made: set[str] = set()
        self._stale: set[str] = set()
        self._quarantined: dict[str, str] = {}
        self._stacked: dict[str, dict[str, Any]] = {}  # entries of `arrays`
        self._rows: dict[str, dict[str, tuple[str, int]]] = {}  # item -> array name -> where it will lie
        self._whole = Wholeness(self.path, self._journal.parts, self._cache)
        self._required: set[str] = set()  # kept items whose bytes were hashed in this run
        self._copied: set[Path] = set()  # damaged shards that are in quarantine already

    def __enter__(self) -> ArtifactWriter:
        self._lock.acquire()
        try:
            self._complete = self._old = self._journal.open()
            if self._complete is not None:
                self._records = dict(self._complete.items)
            else:
                self._records, self._old = self._journal.resume()
        except BaseException:
            self._lock.release()
            raise
        self._whole.files = self._old.files if self._old else {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._complete is not None:
                self._journal.clean()
        finally:
            self._lock.release()

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def items(self) -> dict[str, Record]:
        """Records of all items finished earlier or in this run, whatever their key."""
        return dict(self._records)

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Sorted, for they may come in any order."""
        return tuple(Quarantined(item=item, reason=reason) for item, reason in sorted(self._quarantined.items()))

    @property
    def counts(self) -> dict[str, int]:
        """Items so far: kept from earlier, new, stale (redone because what they depend on changed), quarantined."""
        redone = self._made & self._stale
        new = len(self._made) - len(redone)
        return {"kept": len(self._kept), "new": new, "stale": len(redone), "quarantined": len(self._quarantined)}

    @property
    def staged(self) -> Path:
        """Folder whose contents take their place in the artifact when it is finished, over what lies there."""
        self._begin()
        return self._journal.staged

    @property
    def scratch(self) -> Path:
        """Folder for what other processes make before it goes into `item_folder`; the next writer empties it."""
        if self._complete is None:
            self._begin()
        self._journal.temporary.mkdir(parents=True, exist_ok=True)
        return self._journal.temporary

    def ask(self, asked: Asked) -> Outlook:
        """Say, before anything is made, which items the finished artifact is to hold; returns what that means.

        Raises UsageError, with the count, when finished items would go (fewer are asked for, or another seed), unless
        `prune`.
        """
        self._asked = asked
        found = outlook(self._records, asked, force=self.force)
        if not self.prune:
            made_with = self._old.seed if self._old is not None else self._journal.begun_with()
            refuse_loss(self.path, found, asked, (made_with, self.seed))
        return found

    def kept(self, item: str, key: str) -> bool:
        """Was the item finished under this content key, and is it whole? If so it counts as kept and is not redone.

        What is damaged goes to `quarantine/` with its reason and has to be made again.
        """
        record = self._records.get(item)
        if record is None or item in self._quarantined:
            return False
        if item in self._made or (item in self._kept and record["key"] == key):
            return bool(record["key"] == key)
        if self.force or record["key"] != key:
            self._stale.add(item)
            return False
        if (damage := self._whole.damage(record)) is not None:
            self._set_aside(item, record, damage)
            return False
        self._kept.add(item)
        return True

    def _set_aside(self, item: str, record: Record, reason: str) -> None:
        """Move what is left of a damaged item out of the way; of a shard keep a copy, other rows in it are good."""
        self._begin()
        text = f"item {item}: {reason}; it is made again"
        place = inside(self.path, record["path"]) if "path" in record else None
        if "part" in record:
            place = inside(self._journal.parts, record["part"]["name"])
        if place is not None and place.exists():
            self._journal.set_aside(place, text)
        else:
            copies = []
            for shard in sorted(set(self._whole.bad_shards(record)) - self._copied):
                self._copied.add(shard)
                name = flat_name(shard.relative_to(self.path).as_posix())
                copies.append(self._journal.set_aside(shard, text, copy=True, name=name, say=False))
            self.reporter.warn(f"{text}: copied to {', '.join(map(str, copies))}" if copies else text)
        self._journal.forget(item)
        del self._records[item]

    def _lose(self, name: str, damage: str) -> None:
        """Set a damaged file outside of the items aside, and say so; of stacked arrays a copy, their rows are read."""
        self._begin()
        place, stacked = inside(self.path, name), any("rows" in record for record in self._records.values())
        if not place.is_file():
            self.reporter.warn(f"{name} is missing: it was there when the artifact was finished")
        elif place not in self._copied:
            copy = stacked and name in self._array_files()
            self._copied.add(place)
            self._journal.set_aside(place, f"{name}: {damage}", copy=copy, name=flat_name(name))

    def _array_files(self) -> set[str]:
        from hmcli.store.arrays import ROOT

        return {name for name in (self._old.files if self._old else {}) if Path(name).parts[0] == ROOT}

    # -- items -------------------------------------------------------------------------------------------------------

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
        self._begin()
        data = save(solid)
        file = self._journal.part_file(item, key)
        write_bytes(file, data)
        record: Record = {
            "key": key,
            "hash": hash_arrays(solid),
            "arrays": {name: [str(values.dtype), list(values.shape)] for name, values in solid.items()},
            "part": {"name": file.name, "hash": hash_bytes(data), "bytes": len(data)},
            "meta": plain(dict(meta or {})),
        }
        before = self._records.get(item)
        self._done(item, record)
        if before is not None and "part" in before and before["part"]["name"] != file.name:
            inside(self._journal.parts, before["part"]["name"]).unlink(missing_ok=True)

    def get_array(self, item: str, name: str) -> np.ndarray:
        """One array of a finished item, as it was put: from its part, or from the complete artifact's rows.

        Raises DataError when it cannot be read, or is not what was written.
        """
        self._require(item)
        record = self._records[item]
        if "part" not in record:
            return self._whole.row(record, name)
        from safetensors import SafetensorError, safe_open

        file = inside(self._journal.parts, record["part"]["name"])
        try:
            with safe_open(str(file), framework="numpy") as part:
                return np.asarray(part.get_tensor(name))
        except (OSError, SafetensorError) as error:
            raise DataError("a part is damaged", where={"item": item, "part": file, "at": error}) from error

    def place(self, item: str) -> Path:
        """Where a finished item lies, for reading it again. Raises DataError unless its bytes are those written."""
        self._require(item)
        return inside(self.path, self._records[item]["path"])

    def _require(self, item: str) -> None:
        """`kept` may have looked hashes up; before something is made of an item its bytes are hashed, once."""
        record = self._records[item]
        if item in self._made or item in self._required:
            return
        if (damage := self._whole.now.damage(record)) is not None:
            for name in [*(name for name, _, _ in listed_files({item: record}, {})), *self._array_files()]:
                forget(self.path / name, self._cache)
            raise DataError(
                f"item {item}: {damage}", where={"artifact": self.path},
                fix="run the same command again: it is set aside and made again",
            )  # fmt: skip
        self._required.add(item)

    @contextmanager
    def item_folder(
        self, item: str, key: str, *, parent: str = "", meta: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """A temporary folder that becomes `<artifact>/<parent>/<item>` when the block succeeds; else it is gone.

        `meta` goes into the record as it is at the end of the block.
        """
        with self._item(item, key, parent, file_name(item), meta) as place:
            place.mkdir()
            yield place

    @contextmanager
    def item_file(
        self, item: str, key: str, *, suffix: str, parent: str = "", meta: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """The same for an item that is one file, `<artifact>/<parent>/<item><suffix>`."""
        with self._item(item, key, parent, file_name(item) + suffix, meta) as place:
            yield place

    @contextmanager
    def _item(self, item: str, key: str, parent: str, name: str, meta: Mapping[str, Any] | None) -> Iterator[Path]:
        path = Path(parent, name).as_posix()
        if Path(path).parts[0] in RESERVED or ".." in Path(path).parts or Path(path).is_absolute():
            raise DataError(f"an item cannot be named {item!r}", where={"artifact": self.path}, fix="rename the item")
        if self._complete is None:
            self._begin()
        self._journal.temporary.mkdir(
            parents=True, exist_ok=True
        )  # a complete artifact stays so until the item is made
        made = self._journal.temporary / name
        self._journal.throw_away(made)
        try:
            yield made
            self._place(item, key, made, path, meta)
        finally:
            self._journal.throw_away(made)

    def _place(self, item: str, key: str, made: Path, path: str, meta: Mapping[str, Any] | None) -> None:
        """Hash, record, put in place: what was there before stays until this is whole and known of."""
        files = hash_tree(made)
        if not files:
            raise ValueError(f"item {item}: nothing was written into {made}")
        _sync_tree(made, files)
        self._begin()
        place, before = inside(self.path, path), self._records.get(item, {})
        record: Record = {"key": key, "hash": _item_hash(made, files), "path": path, "files": files}
        record |= {"meta": plain(dict(meta or {})), "ready": f"{secrets.token_hex(8)}.{made.name}"}  # never met before
        if "path" in before:
            record["before"] = {"path": before["path"], "files": before["files"]}
        os.replace(made, self._journal.ready / record["ready"])
        sync_folder(self._journal.ready)
        self._done(item, record)
        self._journal.settle(item, record)
        self._journal.remember(place, files, self._cache)

    def _done(self, item: str, record: Record) -> None:
        if self.under:
            record["under"] = self.under
        self._journal.record(item, record)
        self._records[item] = record
        self._made.add(item)
        self._kept.discard(item)
        self._quarantined.pop(item, None)

    def quarantine(self, name: str, reason: str, items: Sequence[str] = ()) -> bool:
        """List a source that cannot be used now, with its reason, and say so. The next run tries it again.

        What was made of it earlier (`items`) stays, and True is returned, when that was under the same settings and is
        whole; without it the source is left out.
        """
        self._quarantined[name] = reason
        stays = bool(items) and all(self._may_stay(item) for item in items)
        if stays:
            self._kept |= set(items)
        self.reporter.warn(f"{name} {'stays as it was' if stays else 'is left out'}: {reason}")
        return stays

    def _may_stay(self, item: str) -> bool:
        record = self._records.get(item)
        if record is None or not self.under or record.get("under") != self.under:
            return False
        if item not in self._made and (damage := self._whole.damage(record)) is not None:
            self._set_aside(item, record, damage)
            return False
        return True

    def discard(self, item: str) -> None:
        """Delete a finished item (an old checkpoint)."""
        self._begin()
        record = self._records.pop(item)
        self._journal.forget(item)
        if "path" in record:
            self._remove(item, record)
        self._made.discard(item)
        self._kept.discard(item)

    def _remove(self, item: str, record: Record) -> None:
        """Delete the files that a record lists."""
        written = {name: entry for name, entry, _ in listed_files({item: record}, {})}
        self._journal.discard(inside(self.path, record["path"]), written)

    # -- the end -----------------------------------------------------------------------------------------------------

    def stack(
        self,
        name: str,
        items: Sequence[str],
        *,
        axes: Sequence[str],
        units: str,
        group: str = "",
        dtype: str = "",
        rows_per_shard: int = 8,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Stack the array `name` of `items`, in their order, as `data.zarr/<group>/<name>` of the finished artifact.

        All must have one shape and dtype. `dtype` is needed for bfloat16 only. Every array put has to be stacked.
        """
        from hmcli.store.arrays import ROOT, write_stack

        if not items:
            raise ValueError(f"{name}: no items to stack")
        stored, shape = self._records[items[0]]["arrays"][name]
        entry = write_stack(
            self.staged / ROOT, group, name, (self.get_array(item, name) for item in items), count=len(items),
            shape=shape, dtype=dtype or stored, axes=axes, units=units, rows_per_shard=rows_per_shard,
            attributes=attributes,
        )  # fmt: skip
        self._stacked[f"{group}/{name}" if group else name] = entry
        for row, item in enumerate(items):
            self._rows.setdefault(item, {})[name] = (entry["path"], row)

    def unchanged(self, order: Sequence[str]) -> bool:
        """Is the artifact complete already, with just these items, recipe, inputs and quarantined items, and whole?

        A file outside of the items that is damaged goes to `quarantine/`; like a missing one it has to be made again.
        """
        old = self._complete
        if old is None or self._missing(order):
            return False
        items = {item: self._records[item] for item in order}
        same = (
            compute_fingerprint(self.kind, self.recipe, self.inputs, items) == old.fingerprint
            and list(order) == list(old.items)
            and old.seed == self.seed
            and {row["item"]: row["reason"] for row in old.quarantined} == self._quarantined
        )
        return same and not self._lose_damaged(old.files)

    def _lose_damaged(self, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Set aside those of the files that are not as they were written; returns their names, missing ones too."""
        found = {name: self._whole.changed(inside(self.path, name), {"": entry}) for name, entry in files.items()}
        damaged = {name: damage for name, damage in found.items() if damage is not None}
        for name, damage in damaged.items():
            self._lose(name, damage)
        return list(damaged)

    def finish(
        self,
        order: Sequence[str],
        *,
        counts: Mapping[str, int] | None = None,
        arrays: Mapping[str, dict[str, Any]] | None = None,
        attributes: Mapping[str, Any] | None = None,
        files: Sequence[str] = (),
    ) -> Manifest:
        """Complete the artifact with these items in this order; no other item stays in it, and that is said.

        What is not asked for any more goes, if `prune`; what is, but can neither be made nor stay, goes to quarantine.
        `arrays` are entries of arrays written to `staged` without `stack`; `files` are paths in the artifact that were
        written in place; one that was lost (see `unchanged`) and not written again is left out. An artifact that is
        complete and unchanged keeps its manifest, fingerprint and date.
        """
        if missing := self._missing(order):
            raise ValueError(f"{len(missing)} items are neither kept nor made in this run: {', '.join(missing[:5])}")
        self._say_counts()
        if self._complete is not None and self.unchanged(order):
            return self._complete
        dropped = self._dropped(order)
        self._begin()
        manifest = make_manifest(
            self.kind,
            recipe=self.recipe,
            inputs=self.inputs,
            seed=self.seed,
            items={item: self._final_record(item) for item in order},
            counts=dict(counts or {}),
            quarantined=self._quarantine_rows(),
            arrays=self._all_arrays(arrays or {}),
            files=self._all_files(files),
            attributes=plain(dict(attributes or {})),
        )
        paths = [self._records[item]["path"] for item in dropped if "path" in self._records[item]]
        self._journal.commit(manifest_text(manifest), paths)
        self._complete = self._old = manifest
        self._records = dict(manifest.items)
        self._whole.files = manifest.files
        self._whole.forget()
        self._journal.remember(self.path, manifest.files, self._cache)
        return manifest

    def _dropped(self, order: Sequence[str]) -> list[str]:
        """Items that are deleted when the artifact is finished; those that only cannot be made are set aside here."""
        asked = self._asked or Asked(keys=dict.fromkeys(order, ""), unread=frozenset(self._quarantined))
        rest = [item for item in self._records if item not in set(order)]
        if gone := [item for item in rest if item not in asked and not asked.helps(item)]:
            if not self.prune:
                found = Outlook(kept=tuple(order), replaced=(), new=(), unread=(), gone=tuple(gone))
                refuse_loss(self.path, found, asked, (self.seed, self.seed))
            self.reporter.note(f"{len(gone)} items are no longer asked for: dropped ({some(gone)})")
        for item in [item for item in rest if item in asked]:
            self._put_aside(item)
        return [item for item in rest if item not in asked]

    def _put_aside(self, item: str) -> None:
        """Move an item to quarantine that is still asked for, but can neither be made now nor stay as it is."""
        from safetensors.numpy import save

        self._begin()
        record = self._records[item]
        reason = f"item {item} cannot be made now, and what was made of it before had other settings"
        if "path" in record:
            self._journal.set_aside(inside(self.path, record["path"]), reason, name=flat_name(record["path"]))
        elif "arrays" in record:
            with suppress(DataError):  # its bytes are damaged as well
                arrays = {name: self.get_array(item, name) for name in record["arrays"]}
                self._journal.keep_copy(f"{file_name(item)}.safetensors", save(arrays), reason)
        self._journal.forget(item)
        del self._records[item]

    def _missing(self, order: Sequence[str]) -> list[str]:
        if len(set(order)) != len(order):
            raise ValueError("an item is in the order twice")
        return [item for item in order if item not in self._kept and item not in self._made]

    def _quarantine_rows(self) -> list[dict[str, str]]:
        return [{"item": left.item, "reason": left.reason} for left in self.quarantined]

    def _final_record(self, item: str) -> Record:
        record = {name: value for name, value in self._records[item].items() if name not in UNFINISHED}
        if "arrays" in record:
            rows = self._rows.get(item, {}) if self._replaces_arrays() else record.get("rows", {})
            if lost := [name for name in record["arrays"] if name not in rows]:
                raise ValueError(f"item {item}: arrays {', '.join(lost)} were put but never stacked")
            record["rows"] = {name: list(place) for name, place in rows.items()}
        return record

    def _all_arrays(self, given: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """New entries; the old ones too where their root is not replaced."""
        old = {} if self._replaces_arrays() or self._old is None else self._old.arrays
        return dict(plain({**old, **given, **self._stacked}))

    def _replaces_arrays(self) -> bool:
        from hmcli.store.arrays import ROOT

        return (self._journal.staged / ROOT).exists()

    def _all_files(self, in_place: Sequence[str]) -> dict[str, dict[str, Any]]:
        staged = hash_tree(self._journal.staged)
        _sync_tree(self._journal.staged, staged)
        replaced = {Path(name).parts[0] for name in staged}
        taken = RESERVED | {record["path"] for record in self._records.values() if "path" in record}
        for name in staged:
            if taken & {name, *(parent.as_posix() for parent in Path(name).parents)}:
                raise ValueError(f"staged {name} would replace an item or a file of the store")
        old = self._old.files if self._old else {}
        still = {
            name: entry for name, entry in old.items() if Path(name).parts[0] not in replaced and name not in in_place
        }
        lost = self._lose_damaged(still)
        still = {name: entry for name, entry in still.items() if name not in lost}
        written = {name: hash_tree(self.path / name)[""] for name in in_place if self._is_written(name)}
        return {**still, **written, **staged}

    def _is_written(self, name: str) -> bool:
        """Is a file that a stage writes in place still there? Items are worth more than a lost log."""
        if not (there := (self.path / name).is_file()):
            self.reporter.warn(f"{name} is not there any more: the finished artifact goes without it")
        return there

    def _say_counts(self) -> None:
        counts = self.counts
        if counts["kept"]:
            self.reporter.note(f"{counts['kept']} items kept")
        if counts["stale"]:
            self.reporter.note(f"{counts['stale']} items {'redone: --force' if self.force else 'stale: redone'}")

    def _begin(self) -> None:
        self._journal.begin()
        self._complete = None


def _item_hash(made: Path, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash of an item's files; an artifact among them (a checkpoint) counts by what it is: its fingerprint alone."""
    inside = {Path(name).parent for name in files if Path(name).name == MANIFEST}
    hashes = {name: entry["hash"] for name, entry in files.items() if not inside & set(Path(name).parents)}
    for folder in inside:
        if not inside & set(folder.parents):
            name = (folder / MANIFEST).as_posix()
            hashes[name] = load_manifest(made / name).fingerprint
    return hash_json(hashes)


def _sync_tree(place: Path, files: Mapping[str, Any]) -> None:
    """Bring files to disk before something says that they are there."""
    for name in files:
        handle = os.open(place / name if name else place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
