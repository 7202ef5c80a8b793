"""For each item of a stage: is it kept? If not, make it and put it into the artifact, or leave it out with its reason.

    done = each(writer, units, maker, keep, label="encoding", processes=2)

The one loop of all stages that work clip by clip (hmcli/stages/shared/makers.py says who makes).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from hmcli.errors import NotFiniteError
from hmcli.stages.shared.makers import Made, Maker, Unit, make_all
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked

Keep = Callable[[Unit, Any, Path], None]  # unit, what its maker returned, where its files are -> items in the artifact


def each(
    writer: ArtifactWriter, units: Sequence[Unit], maker: Maker, keep: Keep, *, label: str, processes: int
) -> list[str]:
    """Make the items that the artifact does not hold yet; returns the ids of the units that are in it, in their order.

    `maker` gets those items of a unit that are missing, `keep` puts what it made into the artifact, here and one at a
    time. A unit that cannot be made (DataError), or is made of numbers that are not finite, is quarantined; what was
    made of it earlier may stay.
    """
    there: set[str] = set()
    numbers = count()

    def missing() -> Iterator[Unit]:
        for unit in units:
            if todo := {item: key for item, key in unit.items.items() if not writer.kept(item, key)}:
                yield replace(unit, items=todo)
            else:
                there.add(unit.id)
                advance(unit.clips)

    def place() -> Path:
        return writer.scratch / f".making-{next(numbers)}"  # no item's name starts so

    with (
        writer.reporter.progress(label, sum(unit.clips for unit in units), "clip") as advance,
        closing(make_all(maker, missing(), place, processes, writer.reporter)) as results,
    ):
        for made in results:
            error = made.error or _put(keep, made)
            if error is None or writer.quarantine(made.unit.id, str(error), list(made.unit.items)):
                there.add(made.unit.id)
            _remove(made.place)
            advance(made.unit.clips)
    return [unit.id for unit in units if unit.id in there]


def _put(keep: Keep, made: Made) -> NotFiniteError | None:
    try:
        keep(made.unit, made.value, made.place)
    except NotFiniteError as error:
        return error
    return None


def asked_for(units: Sequence[Unit], **more: Any) -> Asked:
    """What the units ask of an artifact; `more` are further fields."""
    return Asked(keys={item: key for unit in units for item, key in unit.items.items()}, **more)


def move_into(folder: Path, made: Path) -> None:
    """Take what a maker wrote into the folder of an item."""
    for entry in sorted(made.iterdir()):
        os.replace(entry, folder / entry.name)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
