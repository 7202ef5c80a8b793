"""What a manifest or a journal says of items, files and arrays, held against its form before anything acts on it.

These texts may come from anybody. Here their types are checked, and their paths as text: relative, plain, none of the
store's own names. Where a path leads through links is checked when it is used (`hmcli.store.files.inside`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from hmcli.store.files import is_plain_path

Record = dict[str, Any]  # of one item; hmcli/store/journal.py says what is in it
Listed = dict[str, dict[str, Any]]  # path -> hash, bytes

MANIFEST = "manifest.json"
OLD_MANIFEST = "manifest.old.json"  # the manifest of a complete artifact while it is being changed
WORKING = "unfinished"  # folder with the journal and the parts; gone once the manifest is written
QUARANTINE = "quarantine"
UNFINISHED = frozenset({"part", "ready", "before"})  # of a record in the journal, never in a manifest
RESERVED = frozenset({MANIFEST, OLD_MANIFEST, WORKING, QUARANTINE})


class Malformed(ValueError):
    """A value does not have the form that hm writes; the text says which and how."""


class LeadsOut(Malformed):
    """A path that would leave the artifact, or is one of the store's own."""


def listed_files(items: Mapping[str, Record], files: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any, str]]:
    """(path in the artifact, hash and bytes, item it belongs to or "") of every file that is spoken of."""
    for name, entry in files.items():
        yield name, entry, ""
    for item, record in items.items():
        for name, entry in record.get("files", {}).items():
            yield f"{record['path']}/{name}" if name else record["path"], entry, item


# --- form ------------------------------------------------------------------------------------------------------------


def check_fields(values: Mapping[str, Any]) -> None:
    """Raise Malformed unless the fields of a manifest, all of which are there, have their form."""
    for name in ("kind", "fingerprint", "created_at"):
        _require(isinstance(values[name], str), name, "is no text")
    _require(_is_integer(values["seed"]), "seed", "is no whole number")
    for name in ("recipe", "made_by", "attributes"):
        _require(isinstance(values[name], dict), name, "is no mapping")
    _require(isinstance(values["made_by"].get("hmcli"), str), "made_by", "names no version of hm")
    _each(values["inputs"], "inputs", lambda value, at: _require(isinstance(value, str), at, "is no text"))
    _each(values["counts"], "counts", lambda value, at: _require(_is_integer(value), at, "is no whole number"))
    _each(values["items"], "items", _check_item)
    _each(values["arrays"], "arrays", _check_array)
    check_listed(values["files"], "files", top=True)
    _require(isinstance(values["quarantined"], list), "quarantined", "is no list")
    if "part" in values:
        _check_part(values["part"])
    for row in values["quarantined"]:
        texts = isinstance(row, dict) and all(isinstance(value, str) for value in row.values())
        _require(texts and set(row) == {"item", "reason"}, "quarantined", "has an entry that is no item with a reason")


def check_record(record: Any, at: str) -> None:
    """Raise Malformed unless the record of an item, in a journal or in a manifest, has its form."""
    _require(isinstance(record, dict), at, "is no mapping")
    _require(isinstance(record.get("hash"), str), f"{at}: hash", "is no text")
    for name in ("key", "under"):
        _require(isinstance(record.get(name, ""), str), f"{at}: {name}", "is no text")
    _require(isinstance(record.get("meta", {}), dict), f"{at}: meta", "is no mapping")
    _require(("path" in record) == ("files" in record), at, "has path or files without the other")
    if "path" in record:
        check_path(record["path"], f"{at}: path", top=True)
        _require(bool(record["files"]), f"{at}: files", "is empty")
        check_listed(record["files"], f"{at}: files")
    _each(record.get("arrays", {}), f"{at}: arrays", _check_form)
    _each(record.get("rows", {}), f"{at}: rows", _check_row)
    if "part" in record:
        check_listed({"": record["part"]}, f"{at}: part")
        _check_name(record["part"].get("name"), f"{at}: part")
    if "ready" in record:
        _check_name(record["ready"], f"{at}: ready")
    if "before" in record:
        check_record({**_mapping(record["before"], f"{at}: before"), "hash": ""}, f"{at}: before")


def check_path(value: Any, at: str, *, top: bool = False) -> None:
    """Raise Malformed unless a value is a plain relative path; with `top` also for the store's own names."""
    _require(isinstance(value, str), at, f"is no path: {value!r}")
    if not is_plain_path(value):
        raise LeadsOut(f"{at} leads out of the artifact: {value!r}")
    if top and PurePosixPath(value).parts[0] in RESERVED:
        raise LeadsOut(f"{at} is a place of the store's own: {value!r}")


def check_listed(value: Any, at: str, *, top: bool = False) -> None:
    """Raise Malformed unless a value maps paths to hash and bytes; "" stands for an item that is a file."""

    def check(entry: Any, place: str) -> None:
        _require(isinstance(entry, dict), place, "is no mapping")
        _require(isinstance(entry.get("hash"), str), f"{place}: hash", "is no text")
        _require(_is_count(entry.get("bytes")), f"{place}: bytes", "is no number of bytes")

    _each(value, at, check)
    for name in value:
        if name or top or len(value) != 1:
            check_path(name, at, top=top)


def _check_part(part: Any) -> None:
    """index, of, clips and whole (hmcli.store.parts)."""
    _require(isinstance(part, dict) and set(part) == {"index", "of", "clips", "whole"}, "part", "is no part")
    _require(
        _is_count(part["index"]) and _is_count(part["of"]) and part["index"] < part["of"],
        "part",
        "is not one of as many",
    )
    texts = isinstance(part["clips"], list) and all(isinstance(clip, str) for clip in part["clips"])
    _require(texts and bool(part["clips"]), "part: clips", "are no ids")
    _require(isinstance(part["whole"], str), "part: whole", "is no text")


def _check_item(record: Any, at: str) -> None:
    """A record as a manifest has it: every array lies in a row, and nothing in a part."""
    check_record(record, at)
    _require(not record.keys() & UNFINISHED, at, "is not finished")
    _require(set(record.get("rows", {})) == set(record.get("arrays", {})), at, "has arrays that lie in no row")


def _check_form(value: Any, at: str) -> None:
    """dtype and shape."""
    pair = isinstance(value, list) and len(value) == 2
    _require(pair and isinstance(value[0], str) and _is_shape(value[1]), at, "is no dtype with a shape")


def _check_row(value: Any, at: str) -> None:
    """Path of a stacked array and the row in it."""
    _require(isinstance(value, list) and len(value) == 2, at, "is no path with a row")
    check_path(value[0], at, top=True)
    _require(_is_count(value[1]), at, "is no row")


def _check_name(name: Any, at: str) -> None:
    check_path(name, at)
    if "/" in name:
        raise LeadsOut(f"{at} is no file name: {name!r}")


def _mapping(value: Any, at: str) -> dict[str, Any]:
    _require(isinstance(value, dict), at, "is no mapping")
    return dict(value)


def _check_array(entry: Any, at: str) -> None:
    _require(isinstance(entry, dict), at, "is no mapping")
    check_path(entry.get("path"), f"{at}: path", top=True)
    axes, shape = entry.get("axes"), entry.get("shape")
    _require(isinstance(axes, list) and all(isinstance(axis, str) for axis in axes), f"{at}: axes", "are no names")
    _require(_is_shape(shape) and len(shape) == len(axes), f"{at}: shape", "does not fit the axes")
    for name in ("dtype", "units"):
        _require(isinstance(entry.get(name), str), f"{at}: {name}", "is no text")


def _each(values: Any, at: str, check: Callable[[Any, str], None]) -> None:
    _require(isinstance(values, dict), at, "is no mapping")
    for name, value in values.items():
        check(value, f"{at}: {name!r}")


def _require(good: bool, at: str, problem: str) -> None:
    if not good:
        raise Malformed(f"{at} {problem}")


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(side) for side in value)
