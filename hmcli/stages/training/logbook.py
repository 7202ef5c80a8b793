"""The logs of a training: steps, how fast they were, what held-out clips showed, and the trackers told of all that.

When a run goes on from step n, everything after n is cut off, and written again as it is made again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from hmcli.recipe.sections import Recipe
from hmcli.stages.models.layout import LOG, PACE, PICTURES, VALIDATION, PaceStep, picture_of
from hmcli.stages.shared.typed import to_json
from hmcli.stages.training.pace import Pace
from hmcli.stages.training.runs import log_until
from hmcli.stages.training.trackers import Shown, Told, Trackers, showing
from hmcli.store.files import whole_json_lines


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
        self.trackers.tell(Told(log=LOG, step=row.step, at=pace.at, values={**values, "pace": timed}))
        return pace

    def validation(self, row: Row, picture: Path) -> None:
        """Held-out clips were looked at."""
        values = to_json(row)
        self._write(VALIDATION, values)
        self.trackers.tell(_validated(values, time.time(), picture))

    def validated(self, step: int) -> bool:
        """Were they, after so many steps?"""
        return any(row["step"] == step for row in whole_json_lines(self.folder / VALIDATION))

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
    ever = {name: last_step(folder / name) if first else 0 for name in (LOG, VALIDATION)}
    shown = Shown(folder=folder, key=key, recipe=recipe, note=note)
    _clear(folder / PICTURES, first)
    with ExitStack() as stack:
        files = {name: stack.enter_context(log_until(folder / name, first)) for name in (LOG, PACE, VALIDATION)}
        trackers = stack.enter_context(showing(recipe.train.trackers, shown, _before(folder), ever))
        yield Logbook(folder=folder, pace=pace, trackers=trackers, files=files)


def _clear(pictures: Path, first: int) -> None:
    """No picture is of a step that comes later, and nothing is left of a look that was cut short."""
    for place in pictures.iterdir() if pictures.is_dir() else ():
        if place.is_dir():
            shutil.rmtree(place)
        elif not first or int(place.stem) > first:
            place.unlink()


def _before(folder: Path) -> list[Told]:
    """What the logs say of earlier steps, in their order."""
    pace, found = {row["step"]: row for row in whole_json_lines(folder / PACE)}, list[Told]()
    for row in whole_json_lines(folder / LOG):
        timed = pace.get(row["step"], {"at": time.time()})
        values = {name: value for name, value in timed.items() if name != "at"}
        found.append(Told(log=LOG, step=row["step"], at=timed["at"], values={**row, "pace": values}))
    at = {told.step: told.at for told in found}
    for row in whole_json_lines(folder / VALIDATION):
        when = at.get(row["step"], found[0].at if found else time.time())
        found.append(_validated(row, when, picture_of(folder, row["step"])))
    return sorted(found, key=lambda told: told.step)


def _validated(values: dict[str, Any], at: float, picture: Path) -> Told:
    shown = {"validation": {name: value for name, value in values.items() if name != "step"}}
    return Told(log=VALIDATION, step=values["step"], at=at, values=shown, picture=picture)


def last_step(log: Path) -> int:
    return max((row["step"] for row in whole_json_lines(log)), default=-1)
