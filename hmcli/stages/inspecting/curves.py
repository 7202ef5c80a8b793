"""`hm inspect RUN --out curves.png`: what the log of a run, codec or segmenter says, as curves, while it trains too."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmcli.contracts import StageResult
from hmcli.errors import DataError, UsageError
from hmcli.reports.curves import Panel, draw_curves
from hmcli.stages.models.layout import LOG, PACE, VALIDATION
from hmcli.store.files import whole_json_lines, write_bytes

KIND = "curves"


def run(path: Path, *, out: Path) -> StageResult:
    """Draw every number of the logs over its steps into a PNG. Raises UsageError where `path` is no training."""
    from PIL import Image

    log = path / LOG
    if not log.is_file():
        raise UsageError(
            "curves are drawn of what was trained, and there is no log of steps", where={"artifact": path},
            fix="name a run, a trained codec or a segmenter; leave --out out to say what an artifact is",
        )  # fmt: skip
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} is no PNG", fix="give a name that ends with .png")
    panels = panels_of([row for name in (LOG, VALIDATION, PACE) for row in _rows(path / name)])
    if not panels:
        raise DataError("no step is logged yet", where={"log": log})
    file = io.BytesIO()
    Image.fromarray(draw_curves(panels)).save(file, "PNG")
    write_bytes(out, file.getvalue())
    return StageResult(path=out, kind=KIND, counts={"panels": len(panels)})


def _rows(log: Path) -> list[dict[str, Any]]:
    try:
        return whole_json_lines(log)
    except DataError as error:
        raise DataError("the log of steps cannot be read", where={"log": log}) from error


def panels_of(rows: list[dict[str, Any]]) -> list[Panel]:
    """A panel for each number that the logs hold; numbers of one kind (errors by level of noise) share one.

    Metrics of hm eval do not: their units differ. What two logs say of one step is drawn once.
    """
    found: dict[str, dict[str, dict[float, float]]] = {}
    for row in rows:
        for title, value in row.items():
            parts = value if isinstance(value, Mapping) else {"": value}
            for name, number in parts.items():
                known = isinstance(number, int | float) and math.isfinite(number)
                if title not in ("step", "at") and known:
                    panel, line = (name, "") if title == "metrics" else (title, name)
                    found.setdefault(panel, {}).setdefault(line, {})[float(row["step"])] = float(number)
    return [
        Panel(title=title.replace("_", " "), lines={name: sorted(line.items()) for name, line in lines.items()})
        for title, lines in found.items()
    ]
