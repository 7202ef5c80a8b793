"""Manifests as somebody who knows the format would forge them: with other values, and sealed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hmcli.store.hashing import hash_file
from hmcli.store.manifest import sealed


def sealed_json(values: dict[str, Any]) -> str:
    """The text of a manifest that says just this."""
    said = {name: value for name, value in values.items() if name != "seal"}
    return sealed(json.dumps(said)[:-1])


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a JSON file says; a manifest is sealed again."""
    values = json.loads(file.read_text())
    change(values)
    file.write_text(sealed_json(values) if "seal" in values else json.dumps(values))


def list_again(artifact: Path, name: str) -> None:
    """Have the manifest say that a file, which was changed, is as it was written."""
    file = artifact / name
    entry = {"hash": hash_file(file), "bytes": file.stat().st_size}
    edit(artifact / "manifest.json", lambda values: values["files"].update({name: entry}))


def unseal(file: Path) -> None:
    """Write a manifest as format 1 had it."""
    values = json.loads(file.read_text())
    del values["seal"]
    file.write_text(json.dumps(values | {"format": 1}))
