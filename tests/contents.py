"""What is in an artifact, for tests that compare two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def content(artifact: Path) -> dict[str, Any]:
    """All bytes of an artifact, but for the times in it."""
    found: dict[str, Any] = {
        file.relative_to(artifact).as_posix(): file.read_bytes() for file in artifact.rglob("*") if file.is_file()
    }
    manifest = json.loads(found.pop("manifest.json"))
    del manifest["created_at"], manifest["seal"]
    for record in manifest["items"].values():
        for spent in ("seconds", "peak_bytes"):
            record.get("meta", {}).pop(spent, None)
    if (rows := found.pop("generations.jsonl", None)) is not None:
        del manifest["files"]["generations.jsonl"]
        found["rows"] = [json.loads(line) | {"seconds": 0, "peak_bytes": 0} for line in rows.splitlines()]
    return found | {"manifest": manifest, "order": list(manifest["items"])}
