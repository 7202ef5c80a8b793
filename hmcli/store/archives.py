"""Archives: tar files, also cut into parts, unpacked so that nothing leaves the folder or replaces what is there.

Parts of one archive (`x.tar.00`, `x.tar.partaa`, `x.tar.gz.001`, ...) are read as one stream in the order of their
names; nothing is joined on disk. A file is written beside its place and renamed when it is whole.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hmcli.errors import DataError

_WHOLE = re.compile(r".+\.(tar|tgz|tar\.(gz|bz2|xz))", re.IGNORECASE)
_PART = re.compile(
    r"(?P<stem>.+\.(?:tgz|tar(?:\.(?:gz|bz2|xz))?))\.(?:part)?(?P<number>[0-9]+|[a-z]{2,4})", re.IGNORECASE
)
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One tar file and the parts it consists of, in order."""

    name: str
    parts: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What happened to one member: `written`, `kept` (there already, of the same size), or why it was refused."""

    member: str
    state: str
    size: int


def find_archives(paths: Sequence[Path]) -> list[Archive]:
    """Archives among files and in folders, parts put together. Raises DataError when a part is missing in between."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(f for f in path.iterdir() if _WHOLE.fullmatch(f.name) or _PART.fullmatch(f.name))
        elif path.is_file():
            files.append(path)
        else:
            raise DataError("there is no such archive", where={"file": path})
    groups: dict[str, list[tuple[int, Path]]] = {}
    for file in dict.fromkeys(files):
        if match := _PART.fullmatch(file.name):
            groups.setdefault(str(file.parent / match["stem"]), []).append((_ordinal(match["number"]), file))
        elif _WHOLE.fullmatch(file.name):
            groups.setdefault(str(file), []).append((0, file))
        else:
            raise DataError("not the name of a tar archive", where={"file": file}, fix="expected .tar, .tgz, .tar.gz, "
                            ".tar.bz2, .tar.xz, or parts of one such as x.tar.00 or x.tar.partaa")  # fmt: skip
    return [_archive(name, sorted(parts)) for name, parts in groups.items()]


def _ordinal(number: str) -> int:
    """007 -> 7; aa -> 0, ab -> 1, ba -> 26."""
    if number.isdecimal():
        return int(number)
    value = 0
    for letter in number.lower():
        value = 26 * value + ord(letter) - ord("a")
    return value


def _archive(name: str, parts: list[tuple[int, Path]]) -> Archive:
    """The archive, when its parts are numbered without a gap from 0 or 1 on."""
    first = parts[0][0]
    for place, (number, part) in enumerate(parts):
        if first > 1 or number != first + place:
            after = parts[place - 1][1].name if place else "the start"
            raise DataError(
                f"a part is missing after {after}: {part.name} is next",
                where={"archive": name, "parts": f"{len(parts)} found"},
                fix="fetch the missing part and run the same command again: what is unpacked stays",
            )
    return Archive(name=Path(name).name, parts=tuple(path for _, path in parts))


def unpack(archive: Archive, target: Path) -> Iterator[Unpacked]:
    """Unpack into `target`, member by member. Raises DataError when the archive ends early or is no tar file.

    Refused, by name, and skipped: paths that leave `target`, links, devices, and files that are there already with
    another size. Owners, modes and times are not taken over.
    """
    target.mkdir(parents=True, exist_ok=True)
    root = target.resolve()
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(io.BufferedReader(_Joined(archive.parts), _COPY_BYTES))
        try:
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|*"))
            for member in tar:
                if not member.isdir():
                    yield _member(tar, member, root)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                "the archive ends early, or is no tar file", where={"archive": archive.name, "because": error},
                fix="fetch it (and all its parts) again and run the same command: what is whole is kept",
            ) from error  # fmt: skip


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> Unpacked:
    def done(state: str) -> Unpacked:
        return Unpacked(member=member.name, state=state, size=member.size)

    if not member.isfile():
        return done("it is a link or a device, not a file")
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or not name.parts or "\\" in member.name or "\0" in member.name:
        return done("its path leaves the folder")
    place = root.joinpath(*name.parts)
    if not place.parent.resolve().is_relative_to(root):
        return done("its path leaves the folder through a link")
    if place.is_symlink() or place.exists():
        same = place.is_file() and not place.is_symlink() and place.stat().st_size == member.size
        return done("kept" if same else "there is something else of that name already")
    place.parent.mkdir(parents=True, exist_ok=True)
    whole = place.with_name(f".{place.name}.part")
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    with whole.open("wb") as file:
        while data := source.read(_COPY_BYTES):
            file.write(data)
    if whole.stat().st_size != member.size:
        whole.unlink()
        raise EOFError(f"{member.name} is cut off")
    os.replace(whole, place)
    return done("written")


class _Joined(io.RawIOBase):
    """Files read one after the other as one stream."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._rest = list(parts)
        self._file = self._rest.pop(0).open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            if (count := self._file.readinto(buffer)) or not self._rest:
                return count
            self._file.close()
            self._file = self._rest.pop(0).open("rb")

    def close(self) -> None:
        self._file.close()
        super().close()
