"""The journal of an unfinished artifact: which items are done, one small file each, whole or absent.

    <artifact>/unfinished/journal.json            kind and format: says that the folder is ours and may be resumed
    <artifact>/unfinished/items/<item>.json       the record of a finished item, written before the item is placed
    <artifact>/unfinished/parts/<item>.<key>.safetensors   its arrays, until they are stacked
    <artifact>/unfinished/ready/                  items that are whole, and recorded, on their way to their places
    <artifact>/unfinished/staged/                 what will lie at the top of the artifact once it is finished
    <artifact>/unfinished/commit.json             the finished manifest: from here on the end is only replayed
    <artifact>/unfinished/temporary/              everything else; emptied when the next writer comes
    <artifact>/quarantine/                        what was unreadable or not ours, with reasons.jsonl; never deleted
    <artifact>/manifest.old.json                  the manifest of a complete artifact that is being changed

Nothing read here is believed: paths must stay inside the artifact, and only files that a record lists are deleted.

A record: key, hash, meta, and either path + files (an item with a place of its own) or arrays + part (stacked at the
end; in a manifest `rows` in place of `part`: array name -> [path of the array, row]). Also `under`, a hash of all that
the item shares with others (recipe, weights); in the journal `ready`, its name there, and `before`, what it replaces.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmcli.errors import DataError, UsageError
from hmcli.store.files import (
    OutsideError,
    check_inside,
    file_name,
    inside,
    read_json,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
)
from hmcli.store.hashing import HashCache, hash_json, remember
from hmcli.store.lock import writing_output
from hmcli.store.manifest import FORMAT, JOURNAL, WHOLE, Manifest, load_manifest, parse_manifest
from hmcli.store.records import (
    MANIFEST,
    OLD_MANIFEST,
    QUARANTINE,
    WORKING,
    LeadsOut,
    Malformed,
    Record,
    check_path,
    check_record,
    listed_files,
)

_ELSEWHERE = "move the folder away, or choose another --out"


class Journal:
    """Reads and writes the working folder of one artifact; its caller holds the artifact's lock."""

    def __init__(self, artifact: Path, kind: str, seed: int, warn: Callable[[str], None]) -> None:
        self.artifact = artifact
        self.kind = kind
        self.seed = seed
        self.working = artifact / WORKING
        self.items = self.working / "items"
        self.parts = self.working / "parts"
        self.ready = self.working / "ready"
        self.staged = self.working / "staged"
        self.temporary = self.working / "temporary"
        self.commit_file = self.working / "commit.json"
        self._header = artifact / JOURNAL
        self._warn = warn
        self._begun = False

    # -- opening ----------------------------------------------------------------------------------------------------

    def open(self) -> Manifest | None:
        """Settle what an earlier writer left and return the manifest of a complete artifact, None otherwise.

        Raises UsageError for a folder that is not an artifact of this kind: nothing in it is touched.
        """
        self._refuse_links()
        self._refuse_foreign()
        if self.commit_file.is_file() and not (self.artifact / MANIFEST).exists():
            self.replay()
        if not (self.artifact / MANIFEST).is_file():
            return None
        manifest = load_manifest(self.artifact / MANIFEST)
        self._check_kind(manifest.kind)
        self._check_places(manifest.items, manifest)
        self.clean()
        return manifest

    def _refuse_links(self) -> None:
        """The store's own folders and files are never links: what is written or removed in them would be elsewhere."""
        own = (MANIFEST, OLD_MANIFEST, QUARANTINE, WORKING)
        places = [self.artifact / name for name in own]
        places += [self._header, self.commit_file, self.items, self.parts, self.ready, self.staged, self.temporary]
        if link := next((place for place in places if place.is_symlink()), None):
            where = {"artifact": self.artifact, "path": link.relative_to(self.artifact), "leads to": os.readlink(link)}
            raise DataError("a file or folder of the store's own is a link", where=where, fix=_ELSEWHERE)

    def _check_places(self, items: dict[str, Record], manifest: Manifest | None) -> None:
        """Raise DataError when anything that is spoken of lies outside of the artifact, behind a link."""
        names = {name for name, _, _ in listed_files(items, manifest.files if manifest else {})}
        names |= {f"{path}/zarr.json" for record in items.values() for path, _ in record.get("rows", {}).values()}
        check_inside(self.artifact, names)

    def _refuse_foreign(self) -> None:
        fix = "choose another --out, or move the folder away"
        if not self.artifact.exists():
            return
        if not self.artifact.is_dir():
            raise UsageError("the output is a file, not a folder", where={"out": self.artifact}, fix=fix)
        names = {entry.name for entry in self.artifact.iterdir()}
        if not names or MANIFEST in names:
            return
        if self._header.is_file():
            header = read_json(self._header)
            if not isinstance(header, dict) or not isinstance(header.get("format"), int):
                raise DataError("the journal does not say its format", where={"file": self._header}, fix=fix)
            if header["format"] > FORMAT:
                raise DataError("a newer hm was writing this artifact", where={"out": self.artifact}, fix=fix)
            self._check_kind(header.get("kind"))
        elif OLD_MANIFEST not in names and not self._barely_begun(names):
            what = "the output folder is not empty and is no artifact of hm"
            raise UsageError(what, where={"out": self.artifact, "holds": ", ".join(sorted(names)[:5])}, fix=fix)

    def _check_kind(self, kind: object) -> None:
        if kind != self.kind:
            what = f"the output is an artifact of kind {kind!r}, this command writes {self.kind!r}"
            raise UsageError(what, where={"out": self.artifact}, fix="choose another --out, or move the folder away")

    def _barely_begun(self, names: set[str]) -> bool:
        """Was a writer killed between making the folder and writing the journal's header?"""
        return names == {WORKING} and all(entry.name.startswith(".tmp-") for entry in self.working.iterdir())

    def begin(self) -> None:
        """Mark the artifact unfinished: from here on nothing reads it as complete until `commit`."""
        if self._begun:
            return
        with writing_output(self.artifact):
            self.working.mkdir(parents=True, exist_ok=True)
        if self.begun_with() != self.seed:  # first of all: without it the folder would not be known as ours
            header = {"format": WHOLE, "kind": self.kind, "seed": self.seed, "begun_at": _now()}
            write_json(self._header, header)
        for folder in (self.items, self.parts, self.ready, self.staged, self.temporary):
            folder.mkdir(exist_ok=True)
        if (self.artifact / MANIFEST).exists():
            os.replace(self.artifact / MANIFEST, self.artifact / OLD_MANIFEST)
            sync_folder(self.artifact)
        self._begun = True

    def begun_with(self) -> int | None:
        """The seed of an unfinished artifact; None where it does not say, or there is none."""
        return read_json(self._header).get("seed") if self._header.is_file() else None

    # -- records ----------------------------------------------------------------------------------------------------

    def resume(self) -> tuple[dict[str, Record], Manifest | None]:
        """`load`, with every finished item in its place, and nothing left of what was only half made."""
        records, old = self.load()
        for item, record in records.items():
            if "ready" in record:
                self.settle(item, record)
        for folder in (self.temporary, self.staged, self.ready):
            _remove(folder)
        return records, old

    def load(self) -> tuple[dict[str, Record], Manifest | None]:
        """Records of an unfinished artifact and, if it was complete once, its old manifest."""
        old = self._load_old()
        records = dict(old.items) if old else {}
        for file in sorted(self.items.glob("*.json")) if self.items.is_dir() else []:
            try:
                record = _checked(json.loads(file.read_text(encoding="utf-8")), file)
            except LeadsOut as error:
                where = {"journal": file, "at": error}
                raise OutsideError("the journal is forged or damaged", where=where, fix=_ELSEWHERE) from error
            except (OSError, ValueError, RecursionError) as error:
                self.set_aside(file, f"the record of item {file.stem} is unreadable ({error})")
                continue
            item = record.pop("item")
            records.pop(item, None)
            if not record.get("dropped"):
                records[item] = record
        self._check_places(records, old)
        return records, old

    def _load_old(self) -> Manifest | None:
        file = self.artifact / OLD_MANIFEST
        if not file.is_file():
            return None
        try:
            manifest = load_manifest(file)
        except OutsideError:
            raise
        except DataError as error:
            self.set_aside(file, error.what)
            return None
        self._check_kind(manifest.kind)
        return manifest

    def record(self, item: str, record: Record) -> None:
        write_json(self.items / f"{file_name(item)}.json", {"item": item, **record})

    def forget(self, item: str) -> None:
        self.record(item, {"key": "", "hash": "", "dropped": True})

    def part_file(self, item: str, key: str) -> Path:
        """Named after the key too: a new part never overwrites the one an older record speaks of."""
        return self.parts / f"{file_name(item)}.{hash_json(key)[-12:]}.safetensors"

    def settle(self, item: str, record: Record) -> None:
        """Put an item that is `ready`, and recorded, into its place; only now goes what it replaces.

        A process that ends in the middle is followed by one that does it again: it may be done already.
        """
        ready = inside(self.ready, record["ready"])
        if not os.path.lexists(ready):
            return
        place, before = inside(self.artifact, record["path"]), record.get("before", {})
        if "path" in before:
            written = {name: entry for name, entry, _ in listed_files({item: before}, {})}
            self.discard(inside(self.artifact, before["path"]), written)
        if os.path.lexists(place):
            self.set_aside(place, f"{record['path']} was in the place of item {item} and not recorded")
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(ready, place)
        sync_folder(place.parent)

    # -- moving things out of the way --------------------------------------------------------------------------------

    def set_aside(self, place: Path, reason: str, *, copy: bool = False, name: str = "", say: bool = True) -> Path:
        """Move (or copy) something into `quarantine/`, with its reason; nothing there is overwritten.

        It keeps its own name unless a better one is given. Returns where it lies now.
        """
        folder = self.artifact / QUARANTINE
        folder.mkdir(exist_ok=True)
        target, number = folder / (name or place.name), 1
        while os.path.lexists(target):
            number += 1
            target = folder / f"{name or place.name}.{number}"
        if copy:
            shutil.copy2(place, target)
        else:
            os.replace(place, target)
        with (folder / "reasons.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": target.name, "reason": reason, "at": _now()}, ensure_ascii=False) + "\n")
        if say:
            self._warn(f"{reason}: {'copied' if copy else 'moved'} to {target}")
        return target

    def keep_copy(self, name: str, data: bytes, reason: str) -> None:
        """Write something into `quarantine/` that had no file of its own."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        write_bytes(self.temporary / name, data)
        self.set_aside(self.temporary / name, reason)

    def discard(self, place: Path, written: Mapping[str, Mapping[str, Any]]) -> None:
        """Delete what hm wrote at `place`, in this artifact; other files there, and changed ones, go to quarantine.

        `written` says by path from the artifact what hm wrote, and how many bytes.
        """
        for file in _files_at(place):
            name = file.relative_to(self.artifact).as_posix()
            if name not in written or file.is_symlink() or file.stat().st_size != written[name]["bytes"]:
                self.set_aside(file, f"{name} is not as hm wrote it, and its place is needed", name=flat_name(name))
        self.throw_away(place)

    def throw_away(self, place: Path) -> None:
        """Delete something that this process made, or has just listed; at once gone from its place."""
        if not os.path.lexists(place):
            return
        self.temporary.mkdir(parents=True, exist_ok=True)
        number = 0
        while (target := self.temporary / f"old-{number}").exists():
            number += 1
        os.replace(place, target)
        _remove(target)

    # -- the end -----------------------------------------------------------------------------------------------------

    def commit(self, manifest_text: str, dropped: list[str]) -> None:
        """Make the artifact complete: `dropped` paths go, staged files take their places, the manifest comes last.

        First all of that is written down: a process killed in the middle is followed by one that replays it.
        """
        write_json(self.commit_file, {"manifest": manifest_text, "drop": dropped})
        self.replay()

    def replay(self) -> None:
        """Carry out `commit.json`; every step may have been done already.

        Raises DataError, with nothing done, when it is not what a writer of this artifact would have written.
        """
        manifest, text, drop = self._read_commit()
        self._check_kind(manifest.kind)
        self._check_places(manifest.items, manifest)
        records, old = self.load()
        files = {**manifest.files, **(old.files if old else {})}  # what lies there now: sizes of the old ones count
        written = {name: entry for name, entry, _ in listed_files({**manifest.items, **records}, files)}
        for path in drop:
            self.discard(inside(self.artifact, path), written)
        if self.staged.is_dir():
            self._install(self.staged, self.artifact, _places(manifest.items), written)
        write_text(self.working / MANIFEST, text)
        os.replace(self.working / MANIFEST, self.artifact / MANIFEST)
        sync_folder(self.artifact)
        self.clean()

    def _read_commit(self) -> tuple[Manifest, str, list[str]]:
        """The finished manifest, its text, and the places of items that are not in it and go."""
        commit = read_json(self.commit_file)
        where: dict[str, object] = {"file": self.commit_file}
        what = "the end of an interrupted run is damaged"
        if not isinstance(commit, dict) or not isinstance(commit.get("manifest"), str):
            raise DataError(what, where=where, fix=_ELSEWHERE)
        manifest = parse_manifest(commit["manifest"], self.commit_file)
        staying = {record["path"] for record in manifest.items.values() if "path" in record} | _places(manifest.items)
        try:
            if not isinstance(drop := commit.get("drop"), list):
                raise Malformed("drop is no list")
            for path in drop:
                check_path(path, "drop", top=True)
                if path in staying:
                    raise LeadsOut(f"drop names an item that stays: {path!r}")
        except Malformed as error:
            raise OutsideError(what, where=where | {"at": error}, fix=_ELSEWHERE) from error
        return manifest, commit["manifest"], drop

    def _install(self, source: Path, target: Path, holding: set[str], written: Mapping[str, Mapping[str, Any]]) -> None:
        """Move everything in `source` over what is in `target`; folders that hold items are merged, not replaced."""
        for entry in sorted(source.iterdir()):
            place = target / entry.name
            name = place.relative_to(self.artifact).as_posix()
            check_path(name, str(self.staged), top=True)
            if name in holding and inside(self.artifact, name).is_dir():
                self._install(entry, place, holding, written)
                continue
            self.discard(place, written)
            os.replace(entry, place)
        sync_folder(target)

    def clean(self) -> None:
        """Remove the working files of a complete artifact."""
        (self.artifact / OLD_MANIFEST).unlink(missing_ok=True)
        _remove(self.working)
        self._begun = False

    def remember(self, place: Path, files: dict[str, dict[str, Any]], cache: HashCache) -> None:
        for name, entry in files.items():
            remember(place / name if name else place, entry["hash"], cache)


def _places(items: dict[str, Record]) -> set[str]:
    """Every folder that has an item somewhere below it, as paths from the artifact."""
    return {
        parent.as_posix() for record in items.values() if "path" in record for parent in Path(record["path"]).parents
    } - {"."}


def _checked(record: Any, file: Path) -> Record:
    """The record, with its form as it should be. Raises Malformed, and DataError for a path that leads out."""
    check_record(record, f"item {file.stem}")
    item = record.get("item")
    if not isinstance(item, str) or not item or file_name(item) != file.stem:
        raise Malformed("it belongs to another item")
    if "key" not in record:
        raise Malformed("it has no key")
    return dict(record)


def flat_name(path: str) -> str:
    """A name in `quarantine/` that tells where in the artifact a file lay."""
    return path.replace("/", "-")


def _files_at(place: Path) -> list[Path]:
    """Every file and link at or below a place, listed now; links are not followed."""
    if place.is_symlink() or not place.is_dir():
        return [place] if os.path.lexists(place) else []
    found = []
    for folder, inner, names in os.walk(place):
        found += [Path(folder, name) for name in names]
        found += [Path(folder, name) for name in inner if Path(folder, name).is_symlink()]
    return sorted(found)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
