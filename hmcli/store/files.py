"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed.

Also the names items get on disk: an item's id is user data (`a/b`, `..`, a whole sentence), a file name is not.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmcli.errors import DataError

_LONGEST_NAME = 180  # bytes; file systems stop at 255, and temporary names add to it
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


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
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


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """JSON values of a file. Raises DataError when it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("a file is missing", where={"file": path}) from error
    except (ValueError, OSError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DataError("the file is not valid JSON", where={"file": path, "at": error}) from error


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """One mapping per line; blank lines are skipped. Raises DataError naming the line that is none."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a value may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("a table cannot be read", where={"file": path, "at": error}) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
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
