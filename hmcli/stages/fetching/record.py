"""What was fetched: a record beside the snapshot in the hub's cache, one file a commit, which later fetches hold to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.errors import DataError
from hmcli.hub import Repository
from hmcli.stages.fetching.remote import RemoteFile
from hmcli.store.files import is_plain_path, read_json, write_json

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """A commit of a repository, its licence, and every file that was asked for: name -> bytes and hash."""

    repository: str
    kind: str
    commit: str
    licence: str
    asked: tuple[str, ...]  # patterns under which files were asked for, one text a fetch
    files: dict[str, RemoteFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())


def read_record(repo: Repository, commit: str) -> Record | None:
    """The record of a commit, None where there is none. Raises DataError for one that cannot be read."""
    file = repo.record(commit)
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        return _record(content, commit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "the record of what was fetched cannot be read", where={"file": file, "because": repr(error)},
            fix="delete it: the next fetch checks every file and writes it anew",
        ) from error  # fmt: skip


def _record(content: Any, commit: str) -> Record:
    files = {
        name: RemoteFile(name=name, size=int(about["bytes"]), hash=str(about["hash"]))
        for name, about in content["files"].items()
    }
    if content["format"] != _FORMAT or content["commit"] != commit or not all(map(is_plain_path, files)):
        raise ValueError("another format or commit")
    return Record(
        repository=content["repository"],
        kind=content["kind"],
        commit=commit,
        licence=content["licence"],
        asked=tuple(map(str, content["asked"])),
        files=files,
    )


def write_record(repo: Repository, record: Record) -> Path:
    """Write it, by rename."""
    file = repo.record(record.commit)
    file.parent.mkdir(parents=True, exist_ok=True)
    about = dataclasses.asdict(record) | {
        "format": _FORMAT,
        "files": {name: {"bytes": part.size, "hash": part.hash} for name, part in sorted(record.files.items())},
    }
    write_json(file, about)
    return file
