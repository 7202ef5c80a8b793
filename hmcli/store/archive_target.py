"""Where members of an archive go: which names are taken, how much may be written, and files that are whole or absent.

A member whose name or size is odd is refused with a reason, and the others are unpacked. There is one temporary file,
of a name no member may have; the holder of the folder's lock writes it, and the next one removes what a kill left.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from hmcli.store.archive_bytes import BLOCK
from hmcli.store.lock import writing_output

TEMPORARY = ".hm-unpack.part"  # in the folder itself
WRITTEN, KEPT = "written", "kept"
_LONGEST_PART, _LONGEST = 255, 4000  # bytes of a name between two slashes, and of all of it
_ODD = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much an archive may unpack to: `floor` bytes and `ratio` times its own size; no file more than `file`."""

    ratio: int = 100
    floor: int = 16 << 20
    file: int = 64 << 30
    passed_over: int = 20  # times as much is read to pass over what is not unpacked, then the archive is given up

    def all_files(self, archive: int) -> int:
        """Bytes, from the archive's own."""
        return self.floor + self.ratio * archive


def printable(name: str) -> str:
    """A member's name as it can be shown: control characters and what is no UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


class Target:
    """The folder that one archive is unpacked into. `archive` is its size in bytes."""

    def __init__(self, folder: Path, archive: int, bounds: Bounds) -> None:
        self.root = folder.resolve()
        self.bounds, self.most = bounds, bounds.all_files(archive)
        self._taken = 0  # bytes
        self._names: dict[str, str] = {}  # of files and folders, as a file system that ignores case sees them -> as is
        self._files: set[str] = set()
        (self.root / TEMPORARY).unlink(missing_ok=True)

    def refusal(self, name: str, size: int) -> str:
        """Why a file of this name and size is not unpacked; empty when nothing is wrong with it."""
        return _odd_name(name) or self._too_large(size) or self._clash(_parts(name))

    def put(self, name: str, size: int, source: IO[bytes]) -> str:
        """Write a file, or find it there; returns `written`, `kept`, or why not. Raises EOFError when it is cut off."""
        place = self.root.joinpath(*_parts(name))
        self._taken += size
        try:
            if os.path.lexists(place):
                return KEPT if _same(place, size, source) else "there is something else of that name already"
            place.parent.mkdir(parents=True, exist_ok=True)
            self._write(place, size, source)
        except OSError as error:
            if error.errno in _ODD:
                return f"it cannot be written here: {error.strerror}"
            with writing_output(self.root):
                raise
        return WRITTEN

    def _clash(self, parts: tuple[str, ...]) -> str:
        """Another member's or another file's place; else the name is remembered as taken."""
        whole = "/".join(parts)
        steps = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        for step in steps:
            if (other := self._names.get(_folded(step), step)) != step:
                return f"its name differs from {printable(other)} only in how letters are written"
            if step in self._files:
                return f"{printable(step)} is a file of the archive already"
        if whole in self._names:
            return "there is a folder of that name"
        if odd := self._in_the_way(steps):
            return odd
        self._names |= {_folded(step): step for step in steps}
        self._files.add(whole)
        return ""

    def _in_the_way(self, steps: list[str]) -> str:
        """What lies on the disk where folders of the name belong, or a folder where the file does."""
        for step in steps[:-1]:
            folder = self.root / step
            if os.path.lexists(folder) and not folder.is_dir():
                return f"{printable(step)} is no folder"
            if not folder.resolve().is_relative_to(self.root):
                return "its path leaves the folder through a link"
        place = self.root / steps[-1]
        return "there is a folder of that name" if place.is_dir() and not place.is_symlink() else ""

    def _too_large(self, size: int) -> str:
        if size > self.bounds.file:
            return f"it has {size} bytes, a file may have {self.bounds.file}"
        if self._taken + size > self.most:
            return f"with its {size} bytes the archive would unpack to more than {self.most}, which its own size allows"
        return ""

    def _write(self, place: Path, size: int, source: IO[bytes]) -> None:
        temporary = self.root / TEMPORARY
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                left = size
                while left and (data := source.read(min(left, BLOCK))):
                    file.write(data)
                    left -= len(data)
            if left:
                raise EOFError(f"{place.name} is cut off")
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _odd_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
        return "its path leaves the folder"
    try:
        sizes = [len(part.encode("utf-8")) for part in path.parts]
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if not name.isprintable():
        return "its name has control characters"
    if max(sizes) > _LONGEST_PART or sum(sizes) + len(sizes) > _LONGEST:
        return f"its name is too long: {max(sizes)} bytes between two slashes, {len(name.encode())} in all"
    if _folded(path.parts[0]) == TEMPORARY:
        return "hm uses this name itself while it unpacks"
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _same(place: Path, size: int, source: IO[bytes]) -> bool:
    """Does the file there hold what the archive holds?"""
    if place.is_symlink() or not place.is_file() or place.stat().st_size != size:
        return False
    with place.open("rb") as file:
        while data := source.read(BLOCK):
            if file.read(len(data)) != data:
                return False
        return file.tell() == size
