"""What is read from an artifact is what was written into it: every file is held against the manifest when first used.

A file is hashed once in a process, and again when it has changed since. No hash remembered from another process counts
here (those of `HashCache` decide only that nothing need be done). The manifest itself carries a hash of all it says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from hmcli.errors import DataError
from hmcli.store.files import inside
from hmcli.store.hashing import Content, hash_file, identity, read_content
from hmcli.store.manifest import Manifest, load_manifest
from hmcli.store.records import MANIFEST, listed_files
from hmcli.store.remote import Mirror, url_of

FIX = "`hm inspect {} --verify` lists the damage; the command that made it, run again, sets it aside and redoes it"


class Listed:
    """The files that one artifact's manifest lists."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self._entries = {name: entry for name, entry, _ in listed_files(manifest.items, manifest.files)}
        self._seen: dict[str, str] = {}  # name -> identity of the file that was found whole
        url = url_of(root)
        self._mirror = None if url is None else Mirror(root, url)

    def below(self, folder: str) -> list[str]:
        """Names of the files in a folder of the artifact."""
        return [name for name in self._entries if name.startswith(f"{folder}/")]

    def entry(self, name: str) -> dict[str, Any]:
        """Hash and bytes of a file. Raises DataError for one that the artifact does not have."""
        if name not in self._entries:
            raise self._damaged(name, "a file is not listed in the manifest")
        return dict(self._entries[name])

    def check(self, name: str) -> Path:
        """The place of a file, whose bytes are those that were written. Raises DataError when they are not."""
        if self._mirror is None:
            return self._checked(name)
        for again in (True, False):
            with self.held(name):
                try:
                    return self._checked(name)
                except DataError:
                    if not again:
                        raise
            self._mirror.drop(name)  # a copy that is not as it came: here is another
        raise AssertionError

    def held(self, name: str) -> AbstractContextManager[object]:
        """A file that is read more than once stays; of an artifact at a URL it comes first."""
        return nullcontext() if self._mirror is None else self._mirror.holding(name, self.entry(name))

    def _checked(self, name: str) -> Path:
        entry, file = self.entry(name), inside(self.root, name)
        with _BUSY.setdefault(file, Lock()):
            return self._hashed(file, name, entry)

    def _hashed(self, file: Path, name: str, entry: dict[str, Any]) -> Path:
        try:
            before = identity(file.stat())
            if self._seen.get(name) == before:
                return file
            found = hash_file(file)
            after = identity(file.stat())
        except OSError as error:
            raise self._damaged(name, "a file is missing or cannot be read", at=error) from error
        if found != entry["hash"] or after != before:
            raise self._damaged(name, "a file is not as it was written")
        self._seen[name] = before
        return file

    @contextmanager
    def unchanged(self, name: str) -> Iterator[Path]:
        """`check`, and again at the end: nothing else was there while the file was read."""
        with self.held(name):
            yield self.check(name)
            self.check(name)

    def read(self, name: str) -> Content:
        """The bytes of a file, which are those that were written. Raises DataError when they are not."""
        entry = self.entry(name)
        with self.held(name):
            content = read_content(inside(self.root, name))
        if content.hash != entry["hash"]:
            raise self._damaged(name, "a file is not as it was written")
        return content

    def _damaged(self, name: str, what: str, **where: object) -> DataError:
        url = {} if self._mirror is None else {"url": self._mirror.url}
        return DataError(what, where={"artifact": self.root, **url, "file": name, **where}, fix=FIX.format(self.root))


_BUSY: dict[Path, Lock] = {}  # of threads that want one file the first hashes it, the others wait
os.register_at_fork(after_in_child=_BUSY.clear)  # a thread that holds one is not there

_OPENED: dict[Path, tuple[str, Listed]] = {}  # by artifact, with the identity of its manifest


def listed(root: Path | str) -> Listed:
    """The files of a complete artifact; one object for all its readers, so that each file is hashed once."""
    place = Path(root).resolve()
    file = place / MANIFEST
    try:
        now = identity(file.stat())
    except OSError as error:
        raise DataError("the artifact has no manifest", where={"artifact": place, "at": error}) from error
    if place not in _OPENED or _OPENED[place][0] != now:
        _OPENED[place] = now, Listed(place, load_manifest(file))
    return _OPENED[place][1]
