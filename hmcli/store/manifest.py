"""The manifest of an artifact: what it is, what it was made from and by, and what is in it.

An artifact is a folder with `manifest.json`; the file is written last, by rename, so a folder without one is
unfinished. The fingerprint says what is in the artifact and how it was asked for, never when or by which commit: two
runs that did the same have the same fingerprint.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hmcli
from hmcli.errors import DataError
from hmcli.store.files import OutsideError, write_text
from hmcli.store.hashing import hash_bytes, hash_json
from hmcli.store.records import MANIFEST, OLD_MANIFEST, WORKING, LeadsOut, Malformed, check_fields

FORMAT = 3  # of a part of an artifact (`part`), which an earlier hm would take for the whole
WHOLE = 2  # of every other manifest: hm wrote them so before there were parts
SEALED = 2  # 1 had no seal: a manifest that was edited could not be told
_FINGERPRINTS = 1  # of what a fingerprint covers: formats 2 and 3 changed nothing in it
_SEAL = "seal"  # last field of the file: hash of the text before it
JOURNAL = f"{WORKING}/journal.json"  # says that the folder is an artifact being written, and of which kind
_BEFORE_SEAL = f',\n "{_SEAL}": '
_AGAIN = "make the artifact again (move the folder away first), or restore the file from a copy"
_PACKAGES = ("torch", "numpy", "zarr", "diffusers", "transformers", "av", "decord")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says. Every hash and fingerprint reads `sha256:<hex>`."""

    format: int = WHOLE
    kind: str  # dataset, latents, memory, codec, run, checkpoint, generation, evaluation
    fingerprint: str
    inputs: dict[str, str]  # name -> fingerprint
    recipe: dict[str, Any]  # the sections the stage read, after overrides and defaults
    made_by: dict[str, Any]  # hmcli, commit (None outside a checkout), dirty, python, versions of packages
    created_at: str  # ISO 8601, UTC, microseconds
    seed: int
    part: dict[str, Any] = field(default_factory=dict)  # of a part: which one of which whole (hmcli.store.parts)
    counts: dict[str, int] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)  # id -> key, hash, meta and where it lies; in order
    quarantined: list[dict[str, str]] = field(default_factory=list)  # item, reason
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> path, axes, shape, dtype, units, ...
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # path -> hash, bytes; what lies outside of items
    attributes: dict[str, Any] = field(default_factory=dict)  # whatever this kind of artifact needs to say


def plain(value: Any) -> Any:
    """The value as JSON would give it back (tuples become lists, keys text)."""
    return json.loads(json.dumps(value, allow_nan=False))


def compute_fingerprint(
    kind: str,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, str],
    items: Mapping[str, Mapping[str, Any]],
) -> str:
    """What an artifact is: kind, recipe sections, fingerprints of inputs, item hashes. No time, no commit."""
    hashes = {item: record["hash"] for item, record in items.items()}
    return hash_json([kind, _FINGERPRINTS, plain(recipe), dict(inputs), hashes])


def make_manifest(
    kind: str,
    *,
    recipe: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int,
    items: Mapping[str, dict[str, Any]] | None = None,
    **rest: Any,
) -> Manifest:
    """A manifest of this moment and this program; `rest` are further fields of Manifest."""
    items = dict(items or {})
    return Manifest(
        kind=kind,
        fingerprint=compute_fingerprint(kind, recipe, inputs, items),
        inputs=dict(inputs),
        recipe=plain(recipe),
        made_by=made_by(),
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        seed=seed,
        items=items,
        **rest,
    )


def is_artifact(path: Path | str) -> bool:
    """Is there a complete artifact (whole or damaged, but with a manifest)?"""
    return (Path(path) / MANIFEST).is_file()


def is_sealed(path: Path | str) -> bool:
    """Does a complete artifact's manifest tell when it was edited? Those of format 1 do not."""
    return not _begins(path, 1)


def is_part(path: Path | str) -> bool:
    """Is a complete artifact a part of another? Its first line says so."""
    return _begins(path, FORMAT)


def _begins(path: Path | str, number: int) -> bool:
    with (Path(path) / MANIFEST).open("rb") as file:
        head = file.read(64).replace(b" ", b"")
    return head.startswith((b'{\n"format":%d,' % number, b'{"format":%d,' % number))


def is_unfinished(path: Path | str) -> bool:
    """Is there an artifact whose writer has not come to its end?"""
    folder = Path(path)
    return not is_artifact(folder) and ((folder / JOURNAL).is_file() or (folder / OLD_MANIFEST).is_file())


def read_manifest(path: Path | str, *, kinds: Collection[str] = ()) -> Manifest:
    """The manifest of a complete artifact, of one of `kinds` when given. Raises DataError saying what to do."""
    folder = Path(path)
    if not folder.is_dir():
        what = "it is a file, not an artifact's folder" if folder.exists() else "there is no such artifact"
        raise DataError(what, where={"artifact": folder}, fix="name the folder that a command of hm printed")
    if not is_artifact(folder):
        if is_unfinished(folder):
            fix = "run the command that was writing it again: it keeps what is done and finishes the rest"
            raise DataError("the artifact is unfinished", where={"artifact": folder}, fix=fix)
        fix = f"name a folder with a {MANIFEST}: the path that a command of hm printed"
        raise DataError("the folder is no artifact of hm", where={"artifact": folder}, fix=fix)
    manifest = load_manifest(folder / MANIFEST)
    if kinds and manifest.kind not in kinds:
        what = f"the artifact is of kind {manifest.kind!r}, needed is {' or '.join(repr(kind) for kind in kinds)}"
        raise DataError(what, where={"artifact": folder}, fix=f"`hm inspect {folder}` says what it is")
    return manifest


def load_manifest(file: Path) -> Manifest:
    """The manifest in a file. Raises DataError when it cannot be read; else as `parse_manifest`."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError("the manifest cannot be read", where={"manifest": file, "at": error}, fix=_AGAIN) from error
    return parse_manifest(text, file)


def parse_manifest(text: str, file: Path) -> Manifest:
    """A manifest from its text. Raises DataError when it is corrupt, from a newer hm, or names places outside."""
    where: dict[str, object] = {"manifest": file}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("the manifest cannot be read", where=where | {"at": error}, fix=_AGAIN) from error
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise DataError("the manifest does not say its format", where=where, fix=_AGAIN)
    if values["format"] > FORMAT:
        what = f"the artifact has format {values['format']}, this hm {hmcli.__version__} reads up to {FORMAT}"
        raise DataError(what, where=where, fix="install a newer hm, or make the artifact again with this one")
    if values["format"] >= SEALED:
        values.pop(_SEAL, None)
    known = {entry.name for entry in fields(Manifest)} - (set() if values["format"] == FORMAT else {"part"})
    if problems := [f"missing {name}" for name in sorted(known - set(values))] + [
        f"unknown {name}" for name in sorted(set(values) - known)
    ]:
        raise DataError(f"the manifest is damaged: {', '.join(problems)}", where=where, fix=_AGAIN)
    try:
        check_fields(values)
    except LeadsOut as error:
        raise OutsideError(f"the manifest is forged or damaged: {error}", where=where, fix=_AGAIN) from error
    except Malformed as error:
        raise DataError(f"the manifest is damaged: {error}", where=where, fix=_AGAIN) from error
    if values["format"] >= SEALED and text != sealed(text.rpartition(_BEFORE_SEAL)[0]):
        raise DataError("the manifest was edited or damaged: it is not as it was written", where=where, fix=_AGAIN)
    return Manifest(**values)


def write_manifest(folder: Path | str, manifest: Manifest) -> None:
    """Write `manifest.json` by rename: it is there and whole, or it is not there."""
    write_text(Path(folder) / MANIFEST, manifest_text(manifest))


def manifest_text(manifest: Manifest) -> str:
    """JSON with one line per field, and one line per item, array and file: readable, greppable, and diffs well.

    It is sealed, in the format of this program, whatever format it was read in. What is whole says nothing of parts.
    """
    said = dataclasses.replace(manifest, format=FORMAT if manifest.part else WHOLE)
    names = [f.name for f in fields(said) if f.name != "part" or said.part]
    text = "{\n" + ",\n".join(_field_lines(name, getattr(said, name)) for name in names)
    return sealed(text)


def sealed(text: str) -> str:
    """A manifest's text with the hash of all of it as its last field."""
    return f"{text}{_BEFORE_SEAL}{_json(hash_bytes(text.encode('utf-8', 'surrogatepass')))}\n}}\n"


def _field_lines(name: str, value: Any) -> str:
    if name in ("items", "arrays", "files", "quarantined") and value:
        pairs = value.items() if isinstance(value, dict) else ((None, entry) for entry in value)
        lines = [f"  {'' if key is None else _json(key) + ': '}{_json(entry)}" for key, entry in pairs]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        return f" {_json(name)}: {opening}\n" + ",\n".join(lines) + f"\n {closing}"
    return f" {_json(name)}: {_json(value)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


@functools.lru_cache(maxsize=1)
def _program() -> tuple[tuple[str, Any], ...]:
    commit, dirty = _commit()
    versions = {name: _version(name) for name in _PACKAGES}
    found = {name: number for name, number in versions.items() if number is not None}
    return (
        ("hmcli", hmcli.__version__),
        ("commit", commit),
        ("dirty", dirty),
        ("python", platform.python_version()),
        *found.items(),
    )


def made_by() -> dict[str, Any]:
    """Versions of hm, Python and the packages that change numbers; commit of hm's own checkout, if it runs from one."""
    return dict(_program())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> tuple[str | None, bool | None]:
    """Commit of hm's own checkout and whether it has uncommitted changes; (None, None) for an installed package.

    The checkout must be the package's own: a package installed into an environment inside some other project's
    checkout says nothing about hm.
    """
    root = Path(hmcli.__file__).resolve().parents[1]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root or (commit := _git(root, "rev-parse", "--short=12", "HEAD")) is None:
        return None, None
    return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *arguments: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=10, check=True, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
