"""Archives: tar and zip files, also in parts, unpacked so that nothing leaves the folder or replaces what is there.

Parts of one archive (`x.tar.00`, `x.tar.partaa`, `x.tar.gz.001`, ...) are read as one stream in the order of their
names; nothing is joined on disk. An archive must have its end: two blocks of zeros and the check sums of its
compression. Members are written as hmcli.store.archive_target says.
"""

from __future__ import annotations

import contextlib
import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from hmcli.errors import DataError
from hmcli.store.archive_bytes import BLOCK, DAMAGED, Joined, plain
from hmcli.store.archive_target import Bounds, Target, printable

_NAME = r"(?:tgz|tbz2?|txz|tzst|zip|tar(?:\.(?:gz|bz2|xz|zst))?)"
_WHOLE = re.compile(rf".+\.{_NAME}", re.IGNORECASE)
_PART = re.compile(rf"(?P<stem>.+\.{_NAME})\.(?:part)?(?P<number>[0-9]+|[a-z]{{2,4}})", re.IGNORECASE)
_SPANNED = re.compile(r".+\.z[0-9]{2}", re.IGNORECASE)  # how zip itself cuts
_KINDS = ".tar, .tgz, .tar.gz, .tar.bz2, .tar.xz, .tar.zst, .zip"
_AGAIN = "fetch it (and all its parts) again and run the same command: what is whole is kept"
_LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_LONGEST_HEADER = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One archive and the parts it consists of, in order."""

    name: str
    parts: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What happened to one member: `written`, `kept` (there already, the same bytes), or why it was refused."""

    member: str  # as it can be shown
    state: str
    size: int


# --- finding ---------------------------------------------------------------------------------------------------------


def find_archives(paths: Sequence[Path]) -> list[Archive]:
    """Archives among files and in folders, parts put together. Raises DataError when a part is missing in between."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            names = re.compile(f"{_WHOLE.pattern}|{_PART.pattern}|{_SPANNED.pattern}", re.IGNORECASE)
            files += sorted(file for file in path.iterdir() if names.fullmatch(file.name) and file.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise DataError("there is no such archive", where={"file": path})
    groups: dict[tuple[str, bool], list[tuple[int, Path]]] = {}
    for file in dict.fromkeys(files):
        if _SPANNED.fullmatch(file.name) or _is_last(file):
            raise DataError(
                "zip has cut this archive in its own way, which is not read here", where={"file": file},
                fix=f"zip -s 0 {file.stem}.zip --out whole.zip",
            )  # fmt: skip
        match = _PART.fullmatch(file.name)
        if _WHOLE.fullmatch(file.name) and not (match and _goes_on(match, files)):
            groups.setdefault((str(file), True), []).append((0, file))
        elif match:
            groups.setdefault((str(file.parent / match["stem"]), False), []).append((_ordinal(match["number"]), file))
        else:
            raise DataError("not the name of an archive", where={"file": file},
                            fix=f"expected {_KINDS}, or parts of one such as x.tar.00 or x.tar.partaa")  # fmt: skip
    return [_archive(name, sorted(parts)) for (name, _), parts in groups.items()]


def _is_last(file: Path) -> bool:
    """Is it x.zip beside x.z01?"""
    return file.suffix.lower() == ".zip" and any(file.with_suffix(suffix).is_file() for suffix in (".z01", ".Z01"))


def _goes_on(match: re.Match[str], files: Sequence[Path]) -> bool:
    """`x.tar.gz` is a whole archive; after `x.tar.gy` it is part 181 of `x.tar`."""
    number = match["number"].lower()
    before = f"{number[:-1]}{chr(ord(number[-1]) - 1)}"
    return any(file.name.lower() == f"{match['stem']}.{before}".lower() for file in files)


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


# --- unpacking -------------------------------------------------------------------------------------------------------


def unpack(archive: Archive, folder: Path, bounds: Bounds | None = None) -> Iterator[Unpacked]:
    """Unpack into `folder`, member by member. Raises DataError when the archive is damaged or has no end.

    Refused, by name, and skipped: what hmcli.store.archive_target refuses, links and devices. Owners, modes and times
    are not taken over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        joined = stack.enter_context(Joined(archive.parts))
        target = Target(folder, joined.size, bounds or Bounds())
        stream = stack.enter_context(io.BufferedReader(joined, BLOCK))
        try:
            zipped = stream.peek(4)[:4] in (b"PK\x03\x04", b"PK\x05\x06")
            yield from _from_zip(stream, target) if zipped else _from_tar(stream, target)
        except (tarfile.TarError, zipfile.BadZipFile, OSError, *DAMAGED) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            where = {"archive": archive.name, "because": error}
            raise DataError("the archive is damaged, ends early, or is none", where=where, fix=_AGAIN) from error


def _from_tar(stream: io.BufferedReader[Any], target: Target) -> Iterator[Unpacked]:
    with tarfile.open(fileobj=plain(stream), mode="r|", tarinfo=_Header, encoding="utf-8") as tar:
        while (member := tar.next()) is not None:
            cast(Any, tar).members.clear()  # or they pile up
            end = cast(Any, tar).offset
            if member.size < 0 or end > target.most * target.bounds.passed_over:
                raise ValueError(f"with {printable(member.name)} it would unpack to {end} bytes")
            if not member.isdir():
                opened = partial(tar.extractfile, member)
                yield _unpacked(target, member.name, member.size, _no_file(member), opened)
        rest, following = cast(IO[bytes], tar.fileobj), 0
        while data := rest.read(BLOCK):  # to the end of the compressed stream, where its check sum is
            following += len(data.strip(b"\0"))
        if following:
            what = "data follow the end of the archive: it was joined of several, and only the first is unpacked"
            yield Unpacked(member="(after the end)", state=what, size=following)


def _no_file(member: tarfile.TarInfo) -> str:
    return "" if member.isfile() else "it is a link or a device, not a file"


def _from_zip(stream: io.BufferedReader[Any], target: Target) -> Iterator[Unpacked]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                opened = partial(archive.open, info)
                yield _unpacked(target, info.orig_filename, info.file_size, _no_plain_file(info), opened)


def _no_plain_file(info: zipfile.ZipInfo) -> str:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is a link or a device, not a file"
    if info.flag_bits & 1:
        return "it is encrypted"
    return "" if info.compress_type in (0, 8, 12, 14) else f"its compression (method {info.compress_type}) is not read"


def _unpacked(target: Target, name: str, size: int, reason: str, content: Any) -> Unpacked:
    """Put one member into its place, unless there is a reason not to."""
    reason = reason or target.refusal(name, size)
    if not reason:
        with content() as source:
            reason = target.put(name, size, source)
    return Unpacked(member=printable(name), state=reason, size=size)


class _Header(tarfile.TarInfo):
    """A header of a tar file. tarfile takes a damaged one, and the file's end, for the archive's end: these raise."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            second = cast(IO[bytes], tarfile_.fileobj).read(tarfile.BLOCKSIZE)
            if len(second) != tarfile.BLOCKSIZE or second.strip(b"\0"):
                raise tarfile.ReadError("it does not end with two blocks of zeros") from None
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"where a file or the end should be is neither: {error}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _LONG_HEADERS and header.size > _LONGEST_HEADER):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header
