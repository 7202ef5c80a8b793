"""What a run of mutants says: numbers by room, and those that no test noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mutants.trying import KILLED, SURVIVED, TIMED_OUT, UNREACHED, Result

_COLUMNS = (KILLED, SURVIVED, TIMED_OUT, UNREACHED)


def table(results: Sequence[Result]) -> str:
    rooms = list(dict.fromkeys(one.room for one in results))
    counts = Counter((one.room, one.outcome) for one in results)
    rows = [["room", "made", *_COLUMNS]]
    for room in rooms:
        numbers = [counts[room, outcome] for outcome in _COLUMNS]
        rows.append([room, str(sum(numbers)), *map(str, numbers)])
    total = [sum(counts[room, outcome] for room in rooms) for outcome in _COLUMNS]
    rows.append(["all", str(sum(total)), *map(str, total)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def unnoticed(results: Sequence[Result]) -> str:
    """file:line, the change, and which tests there were."""
    left = [one for one in results if one.outcome != KILLED]
    left.sort(key=lambda one: (_COLUMNS.index(one.outcome), one.file, one.line))
    return "\n".join(
        f"{one.outcome}: {one.file}:{one.line}: {_short(one.old)} -> {_short(one.new)} ({one.ran} tests)"
        for one in left
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:90]
