"""The journal of an unfinished artifact: which items are done, one small file each, whole or absent.

    <artifact>/unfinished/journal.json            kind and format: says that the folder is ours and may be resumed
    <artifact>/unfinished/items/<item>.json       the record of a finished item, written before the item is placed
    <artifact>/unfinished/parts/<item>.<key>.safetensors   its arrays, until they are stacked
    <artifact>/unfinished/staged/                 what will lie at the top of the artifact once it is finished
    <artifact>/unfinished/commit.json             the finished manifest: from here on the end is only replayed
    <artifact>/unfinished/temporary/              everything else; emptied when the next writer comes
    <artifact>/quarantine/                        what was unreadable or not ours, with reasons.jsonl; never deleted
    <artifact>/manifest.old.json                  the manifest of a complete artifact that is being changed

A record: key, hash, meta, and either path + files (an item with a place of its own) or arrays + part (stacked at the
end; in a manifest `rows` in place of `part`: array name -> [path of the array, row]).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hmcli.errors import DataError, UsageError
from hmcli.store.files import file_name, read_json, sync_folder, write_json, write_text
from hmcli.store.hashing import HashCache, hash_json, remember
from hmcli.store.lock import writing_output
from hmcli.store.manifest import FORMAT, JOURNAL, MANIFEST, OLD_MANIFEST, WORKING, Manifest, load_manifest
from hmcli.store.whole import Record

QUARANTINE = "quarantine"
RESERVED = {MANIFEST, OLD_MANIFEST, WORKING, QUARANTINE}


class Journal:
    """Reads and writes the working folder of one artifact; its caller holds the artifact's lock."""

    def __init__(self, artifact: Path, kind: str, warn: Callable[[str], None]) -> None:
        self.artifact = artifact
        self.kind = kind
        self.working = artifact / WORKING
        self.items = self.working / "items"
        self.parts = self.working / "parts"
        self.staged = self.working / "staged"
        self.temporary = self.working / "temporary"
        self.commit_file = self.working / "commit.json"
        self._header = artifact / JOURNAL
        self._warn = warn

    # -- opening ----------------------------------------------------------------------------------------------------

    def open(self) -> Manifest | None:
        """Settle what an earlier writer left and return the manifest of a complete artifact, None otherwise.

        Raises UsageError for a folder that is not an artifact of this kind: nothing in it is touched.
        """
        self._refuse_foreign()
        if self.commit_file.is_file() and not (self.artifact / MANIFEST).exists():
            self.replay()
        if not (self.artifact / MANIFEST).is_file():
            _remove(self.temporary)
            _remove(self.staged)
            return None
        manifest = load_manifest(self.artifact / MANIFEST)
        self._check_kind(manifest.kind)
        self.clean()
        return manifest

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
            if header.get("format", 0) > FORMAT:
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
        with writing_output(self.artifact):
            self.working.mkdir(parents=True, exist_ok=True)
        if not self._header.is_file():  # first of all: without it the folder would not be known as ours
            write_json(self._header, {"format": FORMAT, "kind": self.kind, "begun_at": _now()})
        for folder in (self.items, self.parts, self.staged, self.temporary):
            folder.mkdir(exist_ok=True)
        if (self.artifact / MANIFEST).exists():
            os.replace(self.artifact / MANIFEST, self.artifact / OLD_MANIFEST)
            sync_folder(self.artifact)

    # -- records ----------------------------------------------------------------------------------------------------

    def load(self) -> tuple[dict[str, Record], Manifest | None]:
        """Records of an unfinished artifact and, if it was complete once, its old manifest."""
        old = self._load_old()
        records = dict(old.items) if old else {}
        for file in sorted(self.items.glob("*.json")) if self.items.is_dir() else []:
            try:
                record = _checked(json.loads(file.read_text(encoding="utf-8")), file)
            except (OSError, ValueError, KeyError) as error:
                self.set_aside(file, f"the record of item {file.stem} is unreadable ({error})")
                continue
            item = record.pop("item")
            records.pop(item, None)
            if not record.get("dropped"):
                records[item] = record
        return records, old

    def _load_old(self) -> Manifest | None:
        file = self.artifact / OLD_MANIFEST
        if not file.is_file():
            return None
        try:
            manifest = load_manifest(file)
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

    # -- moving things out of the way --------------------------------------------------------------------------------

    def set_aside(self, place: Path, reason: str, *, copy: bool = False, name: str = "", say: bool = True) -> Path:
        """Move (or copy) something into `quarantine/`, with its reason; nothing there is overwritten.

        It keeps its own name unless a better one is given. Returns where it lies now.
        """
        folder = self.artifact / QUARANTINE
        folder.mkdir(exist_ok=True)
        target, number = folder / (name or place.name), 1
        while target.exists():
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

    def throw_away(self, place: Path) -> None:
        """Delete something of ours; at once gone from its place, whenever the process ends."""
        if not place.exists():
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
        holding = sorted(_places(json.loads(manifest_text)["items"]))
        write_json(self.commit_file, {"manifest": manifest_text, "drop": dropped, "holding": holding})
        self.replay()

    def replay(self) -> None:
        """Carry out `commit.json`; every step may have been done already."""
        commit = read_json(self.commit_file)
        for path in commit["drop"]:
            self.throw_away(self.artifact / path)
        if self.staged.is_dir():
            self._install(self.staged, self.artifact, set(commit["holding"]))
        write_text(self.working / MANIFEST, commit["manifest"])
        os.replace(self.working / MANIFEST, self.artifact / MANIFEST)
        sync_folder(self.artifact)
        self.clean()

    def _install(self, source: Path, target: Path, holding: set[str]) -> None:
        """Move everything in `source` over what is in `target`; folders that hold items are merged, not replaced."""
        for entry in sorted(source.iterdir()):
            place = target / entry.name
            if place.relative_to(self.artifact).as_posix() in holding and place.is_dir():
                self._install(entry, place, holding)
                continue
            self.throw_away(place)
            os.replace(entry, place)
        sync_folder(target)

    def clean(self) -> None:
        """Remove the working files of a complete artifact."""
        (self.artifact / OLD_MANIFEST).unlink(missing_ok=True)
        _remove(self.working)

    def remember(self, place: Path, files: dict[str, dict[str, Any]], cache: HashCache) -> None:
        for name, entry in files.items():
            remember(place / name if name else place, entry["hash"], cache)


def _places(items: dict[str, Record]) -> set[str]:
    """Every folder that has an item somewhere below it, as paths from the artifact."""
    return {
        parent.as_posix() for record in items.values() if "path" in record for parent in Path(record["path"]).parents
    } - {"."}


def _checked(record: Any, file: Path) -> Record:
    if not isinstance(record, dict) or file_name(record["item"]) != file.stem:
        raise ValueError("it belongs to another item")
    if not isinstance(record["key"], str) or not isinstance(record["hash"], str):
        raise ValueError("it has no key or hash")
    return record


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
