"""Scores by what clips and stretches are like, as `slices.csv` of every evaluation has them, rows side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hmcli.reports.comparison import Comparison
from hmcli.reports.report_page import Slice, SliceCell, SliceClass
from hmcli.stages.reporting.evaluations import Evaluated
from hmcli.stages.reporting.rows import Row

FIRST = ("hidden seconds", "reason", "height")  # what is asked first; others as they come
Cells = Mapping[tuple[str, str, str], SliceCell]  # slice, class, label of the score


def slices_of(rows: Sequence[Row], table: Comparison) -> Iterator[Slice]:
    """One for each slice that any evaluation has, with the scores of the table that it has there."""
    found = [_of_row(row) for row in rows]
    places = list(dict.fromkeys(place for of in found for place in of))
    there = {slice_name: None for slice_name, _, _ in places}
    for name in sorted(there, key=lambda one: FIRST.index(one) if one in FIRST else len(FIRST)):
        labels = {label for of, _, label in places if of == name}
        columns = tuple(index for index, column in enumerate(table.columns) if column.label in labels)
        names = sorted({kind for of, kind, _ in places if of == name}, key=_in_order)
        if not columns:
            continue
        classes = tuple(
            SliceClass(
                name=kind,
                cells=tuple(
                    tuple(of.get((name, kind, table.columns[index].label)) for index in columns) for of in found
                ),
            )
            for kind in names
        )
        yield Slice(name=name, columns=columns, classes=classes)


def _of_row(row: Row) -> Cells:
    """Of several seeds the mean over them where each has a value; values and clips are those of a seed, at least."""
    every = [_of_one(one) for one in row.members]
    found: dict[tuple[str, str, str], SliceCell] = {}
    for place, first in every[0].items():
        cells = [of[place] for of in every if place in of]
        if len(cells) < len(every):
            continue
        known = [cell.value for cell in cells if cell.value is not None]
        found[place] = SliceCell(
            value=float(np.mean(known)) if len(known) == len(cells) else None,
            values=min((cell.values for cell in cells), default=first.values),
            clips=min(cell.clips for cell in cells),
        )
    return found


def _of_one(one: Evaluated) -> Cells:
    return {
        (row["slice"], row["class"], row["metric"]): SliceCell(
            value=float(row["value"]) if row["value"] else None, values=int(row["values"]), clips=int(row["clips"])
        )
        for row in one.slices
    }


def _in_order(kind: str) -> tuple[float, str]:
    """Classes of numbers by their lower edge, others by name."""
    try:
        return float(kind.split()[0].removesuffix("+")), kind
    except ValueError:
        return math.inf, kind
