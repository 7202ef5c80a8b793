"""Small databases in the user's cache folder, of what would only be computed again without them."""

from __future__ import annotations

import sqlite3
from pathlib import Path


def open_shortcuts(file: Path, table: str) -> sqlite3.Connection:
    """The database in `file`, with a `table` such as `files (path TEXT PRIMARY KEY, hash TEXT)`.

    Raises sqlite3.Error where it is busy or read-only, or was no database any more: that file is gone then.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(file, timeout=1.0)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    except sqlite3.OperationalError:  # busy or read-only
        database.close()
        raise
    except sqlite3.DatabaseError:  # it holds nothing but shortcuts: the next one starts over
        database.close()
        file.unlink(missing_ok=True)
        raise
    return database
