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
An item's bytes: hmcli/store/shelf.py. Layout and safety: hmcli/store/journal.py and docs/artifacts.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hmcli.contracts import Quarantined, Reporter
from hmcli.store.asked import Asked, Outlook, outlook, refuse_loss, some
from hmcli.store.files import file_name, sync_tree
from hmcli.store.hashing import HashCache, hash_tree
from hmcli.store.joining import join_stack
from hmcli.store.lock import ArtifactLock
from hmcli.store.manifest import Manifest, compute_fingerprint, make_manifest, plain
from hmcli.store.parts import Part
from hmcli.store.records import RESERVED, UNFINISHED, Record
from hmcli.store.shelf import Shelf
from hmcli.store.survey import find_newest, verify

__all__ = ["ArtifactWriter", "find_newest", "verify"]


class ArtifactWriter:
    """Context manager that holds an artifact's lock and writes, resumes or updates it.

    `recipe` are the sections of the recipe the stage reads, `inputs` the fingerprints of its inputs by name, `under` a
    hash of all that its items share, `part` what it is a part of. With `force` nothing that was there before counts as
    kept, with `prune` what is not asked for goes. Raises LockedError, UsageError (a folder that is no artifact of
    `kind`) and DataError (a damaged manifest) on entering.
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
        part: Part | None = None,
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
        self.part = {} if part is None else part.to_json()
        self._lock = ArtifactLock(self.path)
        self._shelf = Shelf(self.path, kind, seed=seed, under=under, warn=reporter.warn, cache=cache or HashCache())
        self._asked: Asked | None = None
        self._kept: set[str] = set()
        self._stale: set[str] = set()
        self._quarantined: dict[str, str] = {}
        self._stacked: dict[str, dict[str, Any]] = {}  # entries of `arrays`
        self._rows: dict[str, dict[str, tuple[str, int]]] = {}  # item -> array name -> where it will lie

    def __enter__(self) -> ArtifactWriter:
        self._lock.acquire()
        try:
            self._shelf.open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._shelf.close()
        finally:
            self._lock.release()

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def items(self) -> dict[str, Record]:
        """Records of all items finished earlier or in this run, whatever their key."""
        return dict(self._shelf.records)

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """Sorted, for they may come in any order."""
        return tuple(Quarantined(item=item, reason=reason) for item, reason in sorted(self._quarantined.items()))

    @property
    def counts(self) -> dict[str, int]:
        """Items so far: kept from earlier, new, stale (redone because what they depend on changed), quarantined."""
        redone = self._shelf.made & self._stale
        new = len(self._shelf.made) - len(redone)
        return {"kept": len(self._kept), "new": new, "stale": len(redone), "quarantined": len(self._quarantined)}

    @property
    def staged(self) -> Path:
        """Folder whose contents take their place in the artifact when it is finished, over what lies there."""
        self._shelf.begin()
        return self._shelf.journal.staged

    def emptied(self) -> Path:
        """`staged`, without what a run that was killed has left there."""
        for left in self.staged.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return self.staged

    @property
    def scratch(self) -> Path:
        """Folder for what other processes make before it goes into `item_folder`; the next writer empties it."""
        if self._shelf.complete is None:
            self._shelf.begin()
        self._shelf.journal.temporary.mkdir(parents=True, exist_ok=True)
        return self._shelf.journal.temporary

    def ask(self, asked: Asked) -> Outlook:
        """Say, before anything is made, which items the finished artifact is to hold; returns what that means.

        Raises UsageError, with the count, when finished items would go (fewer are asked for, or another seed), unless
        `prune`.
        """
        self._asked = asked
        found = outlook(self._shelf.records, asked, force=self.force)
        if not self.prune:
            made_with = self._shelf.old.seed if self._shelf.old is not None else self._shelf.journal.begun_with()
            refuse_loss(self.path, found, asked, (made_with, self.seed))
        return found

    def kept(self, item: str, key: str) -> bool:
        """Was the item finished under this content key, and is it whole? If so it counts as kept and is not redone.

        What is damaged goes to `quarantine/` with its reason and has to be made again.
        """
        record = self._shelf.records.get(item)
        if record is None or item in self._quarantined:
            return False
        if item in self._shelf.made or (item in self._kept and record["key"] == key):
            return bool(record["key"] == key)
        if self.force or record["key"] != key:
            self._stale.add(item)
            return False
        if not self._shelf.still_whole(item):
            return False
        self._kept.add(item)
        return True

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
        self._shelf.put_arrays(item, key, arrays, meta, undefined=undefined, bfloat16=bfloat16)
        self._made_now(item)

    def get_array(self, item: str, name: str) -> np.ndarray:
        """One array of a finished item, as it was put: from its part, or from the complete artifact's rows.

        Raises DataError when it cannot be read, or is not what was written.
        """
        return self._shelf.get_array(item, name)

    def place(self, item: str) -> Path:
        """Where a finished item lies, for reading it again. Raises DataError unless its bytes are those written."""
        return self._shelf.place(item)

    @contextmanager
    def item_folder(
        self, item: str, key: str, *, parent: str = "", meta: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """A temporary folder that becomes `<artifact>/<parent>/<item>` when the block succeeds; else it is gone.

        `meta` goes into the record as it is at the end of the block.
        """
        with self._shelf.place_for(item, key, parent, file_name(item), meta) as place:
            place.mkdir()
            yield place
        self._made_now(item)

    @contextmanager
    def item_file(
        self, item: str, key: str, *, suffix: str, parent: str = "", meta: Mapping[str, Any] | None = None
    ) -> Iterator[Path]:
        """The same for an item that is one file, `<artifact>/<parent>/<item><suffix>`."""
        with self._shelf.place_for(item, key, parent, file_name(item) + suffix, meta) as place:
            yield place
        self._made_now(item)

    def adopt(self, item: str, record: Record, source: Path) -> None:
        """Finish an item as it lies in another complete artifact: of the same key, bytes, and words about it.

        Rows of arrays stay there until `stack` copies them. Raises DataError when files are not those written.
        """
        self._shelf.adopt(item, record, source)
        self._made_now(item)

    def _made_now(self, item: str) -> None:
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

    def list_left_out(self, left_out: Iterable[Quarantined]) -> None:
        """List what others could not use, as they said it; what was made of it earlier is in the order, or is not."""
        self._quarantined |= {left.item: left.reason for left in left_out}

    def _may_stay(self, item: str) -> bool:
        record = self._shelf.records.get(item)
        if record is None or not self.under or record.get("under") != self.under:
            return False
        return self._shelf.still_whole(item)

    def discard(self, item: str) -> None:
        """Delete a finished item (an old checkpoint)."""
        self._shelf.discard(item)
        self._kept.discard(item)

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
        compressor: str = "zstd",
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Stack the array `name` of `items`, in their order, as `data.zarr/<group>/<name>` of the finished artifact.

        All must have one shape and dtype. `dtype` is needed for bfloat16 only. Every array put has to be stacked.
        """
        from hmcli.store.arrays import ROOT, write_stack

        if not items:
            raise ValueError(f"{name}: no items to stack")
        stored, shape = self._shelf.records[items[0]]["arrays"][name]
        form: dict[str, Any] = {
            "count": len(items), "shape": shape, "dtype": dtype or stored, "axes": axes, "units": units,
            "rows_per_shard": rows_per_shard, "compressor": compressor, "attributes": attributes,
        }  # fmt: skip
        adopted = self._shelf.adopted
        if all(item in adopted for item in items):
            places = [adopted.place(item, name) for item in items]
            entry = join_stack(self.staged / ROOT, group, name, places, **form)
        else:
            entry = write_stack(self.staged / ROOT, group, name, (self.get_array(item, name) for item in items), **form)
        self._stacked[f"{group}/{name}" if group else name] = entry
        for row, item in enumerate(items):
            self._rows.setdefault(item, {})[name] = (entry["path"], row)

    def unchanged(self, order: Sequence[str]) -> bool:
        """Is the artifact complete already, with just these items, recipe, inputs and quarantined items, and whole?

        A file outside of the items that is damaged goes to `quarantine/`; like a missing one it has to be made again.
        """
        old = self._shelf.complete
        if old is None or self._missing(order):
            return False
        items = {item: self._shelf.records[item] for item in order}
        same = (
            compute_fingerprint(self.kind, self.recipe, self.inputs, items) == old.fingerprint
            and list(order) == list(old.items)
            and old.seed == self.seed
            and old.part == self.part
            and {row["item"]: row["reason"] for row in old.quarantined} == self._quarantined
        )
        return same and not self._shelf.lose_damaged(old.files)

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
        if self._shelf.complete is not None and self.unchanged(order):
            return self._shelf.complete
        dropped = self._dropped(order)
        self._shelf.begin()
        manifest = make_manifest(
            self.kind,
            recipe=self.recipe,
            inputs=self.inputs,
            seed=self.seed,
            part=self.part,
            items={item: self._final_record(item) for item in order},
            counts=dict(counts or {}),
            quarantined=self._quarantine_rows(),
            arrays=self._all_arrays(arrays or {}),
            files=self._all_files(files),
            attributes=plain(dict(attributes or {})),
        )
        self._shelf.commit(manifest, dropped)
        return manifest

    def _dropped(self, order: Sequence[str]) -> list[str]:
        """Items that are deleted when the artifact is finished; those that only cannot be made are set aside here."""
        asked = self._asked or Asked(keys=dict.fromkeys(order, ""), unread=frozenset(self._quarantined))
        stay = set(order)
        rest = [item for item in self._shelf.records if item not in stay]
        if gone := [item for item in rest if item not in asked and not asked.helps(item)]:
            if not self.prune:
                found = Outlook(kept=tuple(order), replaced=(), new=(), unread=(), gone=tuple(gone))
                refuse_loss(self.path, found, asked, (self.seed, self.seed))
            self.reporter.note(f"{len(gone)} items are no longer asked for: dropped ({some(gone)})")
        for item in [item for item in rest if item in asked]:
            self._shelf.put_aside(item)
        return [item for item in rest if item not in asked]

    def _missing(self, order: Sequence[str]) -> list[str]:
        if len(set(order)) != len(order):
            raise ValueError("an item is in the order twice")
        return [item for item in order if item not in self._kept and item not in self._shelf.made]

    def _quarantine_rows(self) -> list[dict[str, str]]:
        return [{"item": left.item, "reason": left.reason} for left in self.quarantined]

    def _final_record(self, item: str) -> Record:
        record = {name: value for name, value in self._shelf.records[item].items() if name not in UNFINISHED}
        if "arrays" in record:
            rows = self._rows.get(item, {}) if self._replaces_arrays() else record.get("rows", {})
            if lost := [name for name in record["arrays"] if name not in rows]:
                raise ValueError(f"item {item}: arrays {', '.join(lost)} were put but never stacked")
            record["rows"] = {name: list(place) for name, place in rows.items()}
        return record

    def _all_arrays(self, given: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """New entries; the old ones too where their root is not replaced."""
        old = {} if self._replaces_arrays() or self._shelf.old is None else self._shelf.old.arrays
        return dict(plain({**old, **given, **self._stacked}))

    def _replaces_arrays(self) -> bool:
        from hmcli.store.arrays import ROOT

        return (self._shelf.journal.staged / ROOT).exists()

    def _all_files(self, in_place: Sequence[str]) -> dict[str, dict[str, Any]]:
        staged = hash_tree(self._shelf.journal.staged)
        sync_tree(self._shelf.journal.staged, staged)
        replaced = {Path(name).parts[0] for name in staged}
        taken = RESERVED | {record["path"] for record in self._shelf.records.values() if "path" in record}
        for name in staged:
            if taken & {name, *(parent.as_posix() for parent in Path(name).parents)}:
                raise ValueError(f"staged {name} would replace an item or a file of the store")
        old = self._shelf.old.files if self._shelf.old else {}
        still = {
            name: entry for name, entry in old.items() if Path(name).parts[0] not in replaced and name not in in_place
        }
        lost = self._shelf.lose_damaged(still)
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
