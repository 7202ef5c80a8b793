"""How a stage ends when items had to be left out: with what is done, or, when nothing is, with an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmcli.contracts import Quarantined, Reporter
from hmcli.errors import DataError
from hmcli.store.artifact import ArtifactWriter

_SHOWN = 5


def check_output(out: Path, kind: str, reporter: Reporter) -> None:
    """For a dry run: raise what would keep a stage from writing `out` (something else there, another writer)."""
    if out.exists():
        with ArtifactWriter(out, kind, recipe={}, inputs={}, seed=0, reporter=reporter):
            pass


def require_some(done: Sequence[str], left_out: Sequence[Quarantined], source: Path) -> None:
    """Raise DataError, with the first reasons, when not one item could be used; nothing is completed then."""
    if done:
        return
    reasons = {item.item: item.reason.splitlines()[0] for item in left_out[:_SHOWN]}
    raise DataError(f"none of the {len(left_out)} clips could be used", where={"input": source, **reasons})
