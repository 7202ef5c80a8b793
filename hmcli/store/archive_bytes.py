"""The bytes of an archive: its parts read as one file, and what compression there is undone, to its very end.

What a file is its first bytes say, not its name. Every kind of compression here ends with a mark or a check sum; a
stream without it raises EOFError (or what its library raises) where it is read to the end.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

from hmcli.errors import DataError, MissingPartError

BLOCK = 1 << 20  # bytes copied at once
_ZSTD_BLOCK = 1 << 10  # compressed bytes undone at once: four of them can stand for 128 KiB
DAMAGED = (EOFError, ValueError, IndexError, OverflowError, zlib.error, lzma.LZMAError)  # and OSError without a number


class Joined(io.RawIOBase):
    """Files read one after the other as one file; it can be searched too, as zip files need."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._parts = list(parts)
        self._sizes = []
        for part in parts:
            with _opened(part) as file:
                self._sizes.append(file.seek(0, io.SEEK_END))
        self.size = sum(self._sizes)
        self._at = 0
        self._open: tuple[int, io.FileIO] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if place < 0:
            raise ValueError(f"{place} lies before the start")
        self._at = place
        return place

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        start = 0
        for number, size in enumerate(self._sizes):
            if self._at < start + size:
                file = self._part(number)
                file.seek(self._at - start)
                count = file.readinto(buffer) or 0
                self._at += count
                return count
            start += size
        return 0

    def _part(self, number: int) -> io.FileIO:
        if self._open is None or self._open[0] != number:
            self._shut()
            self._open = (number, _opened(self._parts[number]))
        return self._open[1]

    def _shut(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self._shut()
        super().close()


def _opened(part: Path) -> io.FileIO:
    try:
        return io.FileIO(part)
    except OSError as error:
        raise DataError("an archive cannot be read", where={"file": part, "at": error}) from error


def plain(stream: io.BufferedReader[Any]) -> IO[bytes]:
    """The stream with its compression undone: gzip, xz, bzip2, zstd or none, by its first bytes."""
    first = stream.peek(6)[:6]
    if first.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if first.startswith(b"\xfd7zXZ\x00"):
        return cast(IO[bytes], lzma.LZMAFile(stream))
    if first.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(stream))
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(IO[bytes], io.BufferedReader(_Zstd(stream), BLOCK))
    return cast(IO[bytes], stream)


class _Zstd(io.RawIOBase):
    """Frames of zstd, one after the other. Raises EOFError where the last is not whole."""

    def __init__(self, stream: io.BufferedReader[Any]) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise MissingPartError("zstd archives need the package zstandard", fix="pip install zstandard") from error
        self._stream, self._zstandard = stream, zstandard
        self._frame: Any = None
        self._compressed = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            if not self._compressed and not (more := self._stream.read(_ZSTD_BLOCK)):
                if self._frame is not None:
                    raise EOFError("the compressed stream ends before its end mark")
                return 0
            self._undo(self._compressed or more)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _undo(self, data: bytes) -> None:
        """One step further; what belongs to the next frame waits."""
        self._frame = self._frame or self._zstandard.ZstdDecompressor().decompressobj()
        try:
            self._ready = self._frame.decompress(data)
        except self._zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        self._compressed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
