"""Looking at artifacts without writing: is one whole, and which is the newest below a folder?"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter
from hmcli.errors import DataError, NothingFoundError, UsageError
from hmcli.store.files import inside
from hmcli.store.hashing import hash_file
from hmcli.store.manifest import SEALED, Manifest, compute_fingerprint, is_artifact, is_unfinished, read_manifest
from hmcli.store.records import listed_files


def verify(path: Path | str, reporter: Reporter) -> list[str]:
    """Rehash every file the manifest speaks of; returns what is wrong, one line each, empty for a whole artifact.

    Raises DataError when there is no readable manifest to hold the files against, or it is not as it was written.
    """
    folder = Path(path).resolve()
    manifest = read_manifest(folder)
    if manifest.format < SEALED:
        reporter.note(f"the manifest has format {manifest.format}, of an earlier hm: edits of it would not be noticed")
    problems = []
    if compute_fingerprint(manifest.kind, manifest.recipe, manifest.inputs, manifest.items) != manifest.fingerprint:
        problems.append("manifest.json: recipe, inputs or item hashes do not give its fingerprint")
    expected = list(listed_files(manifest.items, manifest.files))
    with reporter.progress("verifying", len(expected), "file") as advance:
        for name, entry, owner in expected:
            if (problem := _problem(inside(folder, name), entry)) is not None:
                problems.append(f"{name}: {problem}" + (f" (item {owner})" if owner else ""))
            advance(1)
    return problems


def _problem(file: Path, entry: dict[str, Any]) -> str | None:
    try:
        size = file.stat().st_size
        if size != entry["bytes"]:
            return f"{size} bytes, {entry['bytes']} were written"
        return None if hash_file(file) == entry["hash"] else "its bytes are not those written"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable ({error})"


def find_newest(
    folder: Path | str, kinds: Collection[str], *, depth: int = 4, accept: Callable[[Manifest], bool] = lambda _: True
) -> Path:
    """The newest complete artifact of one of `kinds` below `folder` that `accept` takes; never one inside another.

    Parts of an artifact and hidden folders are skipped. Raises UsageError when there is none, or when two are equally
    new.
    """
    wanted = " or ".join(kinds)
    found: list[tuple[str, Path]] = []
    passed: list[str] = []
    for place in _artifacts(Path(folder), depth):
        if not is_artifact(place):
            passed.append(f"{place} (unfinished)")
            continue
        try:
            manifest = read_manifest(place)
        except DataError as error:
            passed.append(f"{place} ({error.what})")
            continue
        if manifest.kind in kinds and manifest.part:
            passed.append(f"{place} (part {manifest.part['index']} of {manifest.part['of']})")
        elif manifest.kind in kinds and accept(manifest):
            found.append((manifest.created_at, place.resolve()))
        elif manifest.kind in kinds:
            passed.append(f"{place} (does not fit)")
    if not found:
        where: dict[str, object] = {"searched": f"{Path(folder).resolve()}, {depth} folders deep"}
        if passed:
            where["passed over"] = "\n".join(passed[:5])
        raise NothingFoundError(
            f"there is no complete artifact of kind {wanted}", where=where, fix="name one as an argument"
        )
    newest = max(created for created, _ in found)
    tied = sorted({str(place) for created, place in found if created == newest})
    if len(tied) > 1:
        what = f"several artifacts of kind {wanted} are equally new"
        raise UsageError(what, where={"tied": "\n".join(tied)}, fix="name one of them as an argument")
    return Path(tied[0])


def _artifacts(folder: Path, depth: int) -> Iterator[Path]:
    """Artifacts below a folder, complete or not, without looking inside of them or following links."""
    if depth == 0 or is_artifact(folder) or is_unfinished(folder):
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        place = Path(entry.path)
        if is_artifact(place) or is_unfinished(place):
            yield place
        else:
            yield from _artifacts(place, depth - 1)
