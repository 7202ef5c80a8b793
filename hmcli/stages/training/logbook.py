"""The logs of a training: a line for each step, how fast it was, and the trackers that are told of both.

When a run goes on from step n, everything after n is cut off, and written again as it is made again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from hmcli.recipe.sections import Recipe
from hmcli.stages.models.layout import LOG, PACE, PaceStep
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.pace import Pace
from hmcli.stages.training.runs import log_until
from hmcli.stages.training.trackers import Shown, Told, Trackers, showing
from hmcli.store.files import parse_json_lines


class Row(Protocol):
    """A line of a log."""

    @property
    def step(self) -> int: ...


@dataclass(kw_only=True)
class Logbook:
    """Open logs."""

    folder: Path
    pace: Pace
    trackers: Trackers
    files: dict[str, IO[str]]

    def step(self, row: Row) -> PaceStep:
        """A step was taken; its line is at once on disk for whoever follows it."""
        pace, values = self.pace.taken(row.step), to_json(row)
        timed = to_json(pace)
        self._write(LOG, values)
        self._write(PACE, timed)
        del timed["at"]
        self.trackers.tell(Told(step=row.step, at=pace.at, values={**values, "pace": timed}))
        return pace

    def sync(self) -> None:
        """What was logged outlives the machine."""
        for file in self.files.values():
            os.fsync(file.fileno())

    def _write(self, name: str, values: dict[str, Any]) -> None:
        self.files[name].write(json.dumps(values) + "\n")
        self.files[name].flush()


@contextmanager
def open_logbook(
    folder: Path, recipe: Recipe, key: str, first: int, pace: Pace, note: Callable[[str], None]
) -> Iterator[Logbook]:
    """The logs of a run in `folder` that goes on from step `first`, under `key` (what makes it this run)."""
    ever = max((row["step"] for row in _rows(folder / LOG)), default=0) if first else 0
    shown = Shown(folder=folder, key=key, recipe=recipe, note=note)
    with ExitStack() as stack:
        files = {name: stack.enter_context(log_until(folder / name, first)) for name in (LOG, PACE)}
        trackers = stack.enter_context(showing(recipe.train.trackers, shown, _before(folder), ever))
        yield Logbook(folder=folder, pace=pace, trackers=trackers, files=files)


def _before(folder: Path) -> Iterator[Told]:
    """What the logs say of earlier steps."""
    pace = {row["step"]: row for row in _rows(folder / PACE)}
    for row in _rows(folder / LOG):
        timed = pace.get(row["step"], {"at": time.time()})
        values = {name: value for name, value in timed.items() if name != "at"}
        yield Told(step=row["step"], at=timed["at"], values={**row, "pace": values})


def _rows(log: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    whole = log.read_bytes().rpartition(b"\n")[0] if log.is_file() else b""
    return parse_json_lines(whole, log)
