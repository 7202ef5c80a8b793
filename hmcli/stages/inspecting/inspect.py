"""`hm inspect`: what an artifact is, what made it, and whether it is whole."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import Description, Reporter
from hmcli.errors import DataError
from hmcli.store.arrays import BFLOAT16
from hmcli.store.artifact import verify as find_damage
from hmcli.store.manifest import SEALED, Manifest, read_manifest
from hmcli.store.parts import part_of

_SHOWN_ITEMS = 8


def run(path: Path, *, verify: bool, reporter: Reporter) -> Description:
    """Describe a complete artifact. Raises DataError for an unfinished one and, with `verify`, for a damaged one."""
    manifest = read_manifest(path)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if verify and (damage := find_damage(path, reporter)):
        raise DataError(
            f"{len(damage)} things are not as they were written",
            where={"artifact": path, **{f"({i})": problem for i, problem in enumerate(damage, 1)}},
            fix="run the command that made it again: it keeps what is whole and redoes the rest",
        )
    data = {"path": str(path.absolute()), "bytes": size, "verified": verify, **asdict(manifest)}
    return Description(text="\n".join(_lines(path, manifest, size, verify)), data=data)


def _lines(path: Path, manifest: Manifest, size: int, verified: bool) -> list[str]:
    made = manifest.made_by
    commit = f", commit {made['commit']}{' (changed)' if made.get('dirty') else ''}" if made.get("commit") else ""
    whole = "every file is as it was written" if verified else "complete (--verify hashes every file)"
    rows: list[tuple[str, Any]] = [
        ("kind", f"{manifest.kind}, format {manifest.format}{'' if manifest.format >= SEALED else ' (not sealed)'}"),
        ("made", f"{manifest.created_at} by hm {made['hmcli']}{commit}, seed {manifest.seed}"),
        ("size", f"{size / 1e6:.1f} MB"),
        ("whole", whole),
        *([] if (part := part_of(manifest)) is None else [("part", part)]),
        ("fingerprint", manifest.fingerprint),
        *((f"input {name}", fingerprint) for name, fingerprint in manifest.inputs.items()),
        *((f"{name}", count) for name, count in manifest.counts.items()),
        *((f"array {name}", _array(entry, manifest)) for name, entry in manifest.arrays.items()),
        ("items", _few(list(manifest.items))),
        *((f"left out {row['item']}", row["reason"].splitlines()[0]) for row in manifest.quarantined),
    ]
    width = max(len(label) for label, _ in rows)
    return [str(path.absolute()), *(f"  {label:<{width}}  {value}" for label, value in rows)]


def _array(entry: dict[str, Any], manifest: Manifest) -> str:
    axes = " x ".join(f"{axis} {side}" for axis, side in zip(entry["axes"], entry["shape"], strict=True))
    said = f"{entry['dtype']}, {axes}; {entry['units']}"
    packed = sum(of["bytes"] for name, of in manifest.files.items() if name.startswith(f"{entry['path']}/"))
    if packed:
        plain = math.prod(entry["shape"]) * (2 if entry["dtype"] == BFLOAT16 else np.dtype(entry["dtype"]).itemsize)
        said += f"; {_size(packed)} of {_size(plain)} ({entry.get('compressor', 'zstd')})"
    if "rounding_error" in entry:
        said += f"; {entry['keep_bits']} mantissa bits, rounding error {entry['rounding_error']:g} (root mean square)"
    return said


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN_ITEMS} more" if len(names) > _SHOWN_ITEMS else ""
    return f"{len(names)}: " + ", ".join(names[:_SHOWN_ITEMS]) + rest
