"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed.

Also the names items get on disk: an item's id is user data (`a/b`, `..`, a whole sentence), a file name is not. And the
one way from a path that a file named to a place on disk: `inside`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hmcli.errors import DataError

_LONGEST_NAME = 180  # bytes; file systems stop at 255, and temporary names add to it
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NEVER_IN_NAMES = set('<>:"/\\|?*%')


def file_name(item: str) -> str:
    """A safe file name for an item's id: the id itself where it is safe, percent-encoded (and cut) where it is not."""
    if not item:
        raise DataError("an item has an empty id", fix="give every item (clip, row of metadata) a name of its own")
    letters = [f"%{ord(c):02X}" if c in _NEVER_IN_NAMES or not c.isprintable() else c for c in item]
    if letters[0] == ".":
        letters[0] = "%2E"
    if letters[-1] in (".", " "):
        letters[-1] = f"%{ord(letters[-1]):02X}"
    name = "".join(letters)
    if len(name.encode("utf-8")) <= _LONGEST_NAME:
        return name
    short = name.encode("utf-8")[: _LONGEST_NAME - 40].decode("utf-8", errors="ignore")
    return f"{short}%~{hashlib.sha256(item.encode('utf-8')).hexdigest()[:32]}"


class OutsideError(DataError):
    """A file names a place outside of the folder it belongs to."""


def is_plain_path(name: object) -> bool:
    """Is it a relative path, written the plain way, that as text stays below the folder it starts from?"""
    if not isinstance(name, str) or not name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and bool(path.parts) and path.as_posix() == name


def inside(root: Path, name: object) -> Path:
    """The place of a path that a file named, below `root`: every such path comes through here before it is used.

    Raises OutsideError for a path that leads out of `root`, also where a link on the way does, and for what is no path.
    In the hub's cache a snapshot is made of links into the blobs of its repository: these are inside too.
    """
    if is_plain_path(name):
        place = root / str(name)
        real, home = Path(os.path.realpath(place)), Path(os.path.realpath(root))
        blobs = _blobs_of(home)
        if real.is_relative_to(home) or (blobs is not None and real.parent == blobs):
            return place
    raise OutsideError(
        "a path leads out of the folder it was named in", where={"folder": root, "path": str(name)},
        fix="do not use this folder unless you know who made it; what hm writes never looks like this",
    )  # fmt: skip


def _blobs_of(folder: Path) -> Path | None:
    """Where the bytes of a snapshot in the hub's cache lie (hmcli.hub); None for a folder that is in none."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and _COMMIT.fullmatch(place.name):
            return place.parent.parent / "blobs"
    return None


def check_inside(root: Path, names: Iterable[str]) -> None:
    """`inside` for many paths, before anything is done with the first of them: folders and links are looked at once."""
    names = set(names)
    folders = {parent for name in names for parent in PurePosixPath(name).parents} - {PurePosixPath(".")}
    links = [name for name in names if os.path.islink(os.path.join(root, name))]
    for name in sorted([*map(str, folders), *links]):
        inside(root, name)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(place: Path, files: Iterable[str]) -> None:
    """Bring files below a place (under "" itself) to disk before something says that they are there."""
    for name in files:
        handle = os.open(place / name if name else place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a temporary file beside `path`, then rename it to `path`; a failure leaves `path` as it was."""
    temporary = path.parent / f".tmp-{os.getpid()}-{threading.get_ident()}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    write_text(path, json_text(value))


def read_json(path: Path) -> Any:
    """JSON values of a file. Raises DataError when it is missing or no JSON."""
    try:
        return parse_json(path.read_bytes(), path)
    except FileNotFoundError as error:
        raise DataError("a file is missing", where={"file": path}) from error
    except OSError as error:
        raise DataError("the file cannot be read", where={"file": path, "at": error}) from error


def parse_json(data: bytes, path: Path) -> Any:
    """JSON values of the bytes of a file. Raises DataError when they are none."""
    try:
        return json.loads(data.decode("utf-8-sig"))  # Windows tools begin with a byte-order mark
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DataError("the file is not valid JSON", where={"file": path, "at": error}) from error


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """One mapping per line; blank lines are skipped. Raises DataError naming the line that is none."""
    try:
        return parse_json_lines(path.read_bytes(), path)
    except OSError as error:
        raise DataError("a table cannot be read", where={"file": path, "at": error}) from error


def whole_json_lines(path: Path) -> list[dict[str, Any]]:
    """`read_json_lines` of a log, which may be in writing: half a line at its end is not read; none without a file."""
    return parse_json_lines(path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b"", path)


def parse_json_lines(data: bytes, path: Path) -> list[dict[str, Any]]:
    """The same from the bytes of a file."""
    rows = []
    try:
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")  # a value may hold other line separators
    except UnicodeDecodeError as error:
        raise DataError("a table cannot be read", where={"file": path, "at": error}) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError("a line is not valid JSON", where={"file": path, "line": number, "at": error}) from error
        if not isinstance(row, dict):
            raise DataError("a line is not a JSON mapping", where={"file": path, "line": number})
        rows.append(row)
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table with a header; a row with a missing or unknown column is a ValueError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        if set(row) != set(columns):
            raise ValueError(f"a row has columns {sorted(row)}, the table has {sorted(columns)}")
        writer.writerow([row[column] for column in columns])
    write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows by column name. Raises DataError naming the line whose cells do not fit the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, None)
            if columns is None or len(set(columns)) != len(columns):
                raise DataError("a table needs a header with distinct names", where={"file": path})
            rows = []
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    what = f"a row has {len(cells)} cells, the header {len(columns)}"
                    raise DataError(what, where={"file": path, "line": reader.line_num})
                rows.append(dict(zip(columns, cells, strict=True)))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("a table cannot be read", where={"file": path, "at": error}) from error
