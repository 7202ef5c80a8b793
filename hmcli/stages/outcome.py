"""How a stage ends when items had to be left out: with what is done, or, when nothing is, with an error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmcli.contracts import Quarantined
from hmcli.errors import DataError

_SHOWN = 5


def require_some(done: Sequence[str], left_out: Sequence[Quarantined], source: Path) -> None:
    """Raise DataError, with the first reasons, when not one item could be used; nothing is completed then."""
    if done:
        return
    reasons = {item.item: item.reason.splitlines()[0] for item in left_out[:_SHOWN]}
    raise DataError(f"none of the {len(left_out)} clips could be used", where={"input": source, **reasons})
