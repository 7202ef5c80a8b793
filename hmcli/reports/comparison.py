"""The table of a report: evaluations by row, scores by column, with intervals and differences to the first row.

What stands in it is computed elsewhere (hmcli.stages.reporting.comparing); here it becomes markdown, CSV and LaTeX.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from hmcli.reports.tables import NO_VALUE, markdown_table, score_text

ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
COST = "cost"  # the head over what rows took
MINUS = "\N{MINUS SIGN}"
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row minus the first one, over the clips that both have; `low` and `high` enclose 95 % of the draws of clips."""

    mean: float
    low: float | None
    high: float | None
    clips: int

    @property
    def told_apart(self) -> bool:
        """Is 0 outside of the interval, by more than rounding?"""
        return self.low is not None and self.high is not None and (self.low > _ROUNDING or self.high < -_ROUNDING)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score of one row. `mean` is what scores.json says; None where no clip could be judged."""

    mean: float | None
    low: float | None
    high: float | None
    clips: int
    failed: int
    not_judged: int
    difference: Difference | None = None
    why_not: str = ""  # there is no interval
    spread: float | None = None  # of several seeds: standard deviation of their means


@dataclass(frozen=True, kw_only=True)
class Column:
    """A score; a label carries everything that makes it comparable."""

    label: str
    unit: str
    better: str
    several_ways: bool = False  # its definition, backbone or average differs between rows
    group: str = ""  # the head over it and its neighbours of one group; its label says it too
    short: str = ""  # its label under that head

    @property
    def title(self) -> str:
        return self._titled(self.label)

    @property
    def head(self) -> str:
        """Its title where its group is said above it."""
        return self._titled(self.short or self.label)

    def _titled(self, label: str) -> str:
        unit = f" [{self.unit}]" if self.unit else ""
        return f"{label}{unit}{ARROWS[self.better]}{' *' if self.several_ways else ''}"


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """An evaluation; `cells` has one for each column, None where it lacks the score."""

    name: str
    model_free: str  # which row without a model; empty: a model made it
    cells: tuple[Cell | None, ...]
    seeds: int = 1  # evaluations that it is the mean of

    @property
    def note(self) -> str:
        """What must be said with its name."""
        model = f"no model: {self.model_free}" if self.model_free else ""
        return ", ".join(filter(None, [model, f"{self.seeds} seeds" if self.seeds > 1 else ""]))

    @property
    def title(self) -> str:
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What rows took: a number of each, None where it is not recorded. It depends on the machine, unlike scores."""

    name: str
    unit: str
    values: tuple[float | None, ...]
    notes: tuple[str, ...]  # of each row: on what it was measured

    @property
    def title(self) -> str:
        return f"{self.name} [{self.unit}]"

    def text(self, row: int) -> str:
        """Three figures."""
        value = self.values[row]
        return NO_VALUE if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


@dataclass(frozen=True, kw_only=True)
class CardDifference:
    """A choice that changes numbers, made in several ways: what each says, and which rows say so."""

    place: str
    said: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def text(self) -> str:
        return f"{self.place}: " + "; ".join(f"{', '.join(rows)}: {value}" for value, rows in self.said)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole table, and what must be said above it."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    cards: tuple[CardDifference, ...]
    notes: tuple[str, ...]
    costs: tuple[Cost, ...] = ()


def groups(table: Comparison) -> list[tuple[str, int]]:
    """Heads over neighbouring columns and how many each spans; none where no column is in a group."""
    every = [*(column.group for column in table.columns), *(COST for _ in table.costs)]
    found = [(name, len(list(of))) for name, of in groupby(every)]
    return found if any(name for name, _ in found) else []


def digits(column: Column) -> int:
    """Decimals of its scores: as everywhere in hm."""
    return 3 if column.unit == "dB" else 4


def number_text(value: float | None, column: Column, *, signed: bool = False) -> str:
    """A score or a difference as people read it."""
    if value is None:
        return NO_VALUE
    text = score_text(abs(value) if signed else value, column.unit).removesuffix(f" {column.unit}")
    return f"{'+' if value >= 0 else MINUS}{text}" if signed else text


def interval_text(low: float | None, high: float | None, column: Column, *, signed: bool = False) -> str:
    """`[low, high]`; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{number_text(low, column, signed=signed)}, {number_text(high, column, signed=signed)}]"


def cell_text(cell: Cell | None, column: Column) -> str:
    """A cell on one line."""
    if cell is None:
        return NO_VALUE
    spread = "" if cell.spread is None else f"± {number_text(cell.spread, column)}"
    parts = [number_text(cell.mean, column), spread, interval_text(cell.low, cell.high, column)]
    if (gap := cell.difference) is not None:
        parts += [
            f"Δ {number_text(gap.mean, column, signed=True)}",
            interval_text(gap.low, gap.high, column, signed=True),
        ]
    return " ".join(filter(None, [*parts, left_out_text(cell)]))


def left_out_text(cell: Cell) -> str:
    """How many clips are in no mean, and why."""
    out = [f"{count} {what}" for count, what in ((cell.failed, "failed"), (cell.not_judged, "not judged")) if count]
    return f"({', '.join(out)})" if out else ""


def caption_lines(table: Comparison) -> list[str]:
    """What stands above the table: how to read it, and what keeps its rows from being comparable."""
    first = table.rows[0].title
    lines = [
        "Mean [95 % bootstrap interval over clips]"
        + (f"; Δ: difference to {first} over the clips both have, drawn together." if len(table.rows) > 1 else ".")
    ]
    if any(row.seeds > 1 for row in table.rows):
        lines.append("±: standard deviation of the means of several seeds; their intervals draw clips, not seeds.")
    if table.cards:
        lines.append("The protocol cards differ: these numbers do not compare as they stand (* marks columns).")
        lines += [one.text for one in table.cards]
    if table.costs:
        lines.append("Cost: as generations record it, on the machine where each was made; of several seeds the first.")
    return [*lines, *table.notes]


def as_markdown(table: Comparison) -> str:
    rows = [
        [
            row.title,
            *(cell_text(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)),
            *(cost.text(number) for cost in table.costs),
        ]
        for number, row in enumerate(table.rows)
    ]
    head = ["", *(column.title for column in table.columns), *(cost.title for cost in table.costs)]
    above = "\n".join(f"* {_one_line(line)}" for line in caption_lines(table))
    return f"{above}\n\n{markdown_table(head, rows)}"


CSV_COLUMNS = (
    "row", "model_free", "metric", "unit", "better", "mean", "low", "high", "clips", "failed", "not_judged",
    "seeds", "spread", "difference", "difference_low", "difference_high", "difference_clips", "several_ways",
)  # fmt: skip


def as_csv(table: Comparison) -> str:
    """One line per row and score, or what it took; numbers in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for number, row in enumerate(table.rows):
        for cell, column in zip(row.cells, table.columns, strict=True):
            if cell is None:
                continue
            gap = cell.difference
            found = (gap.mean, gap.low, gap.high, gap.clips) if gap else (None,) * 4
            writer.writerow([
                row.name, row.model_free, column.label, column.unit, column.better, cell.mean, cell.low, cell.high,
                cell.clips, cell.failed, cell.not_judged, row.seeds, cell.spread, *found, column.several_ways,
            ])  # fmt: skip
        for cost in table.costs:
            if (value := cost.values[number]) is not None:
                rest = [""] * (len(CSV_COLUMNS) - 6)
                writer.writerow([row.name, row.model_free, cost.name, cost.unit, "lower", value, *rest])
    return text.getvalue()


def as_latex(table: Comparison) -> str:
    """A booktabs table; what stands above it is in its comments."""
    above = "".join(f"% {_one_line(line)}\n" for line in caption_lines(table))
    titles = [*(column.title for column in table.columns), *(cost.title for cost in table.costs)]
    head = " & ".join(["", *map(_latex, titles)])
    body = "".join(
        " & ".join([
            _latex(row.title),
            *(_latex_cell(*pair) for pair in zip(row.cells, table.columns, strict=True)),
            *(_latex(cost.text(number)) for cost in table.costs),
        ])
        + " \\\\\n"
        for number, row in enumerate(table.rows)
    )  # fmt: skip
    columns = "l" + "c" * len(titles)
    return (
        f"{above}\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _latex_cell(cell: Cell | None, column: Column) -> str:
    return _latex(cell_text(cell, column))


_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "Δ": "$\\Delta$",
    MINUS: "$-$", "±": "$\\pm$", "<": "\\textless{}", ">": "\\textgreater{}",
}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def best_rows(table: Comparison, column: int) -> set[int]:
    """Rows with the best mean of a column, as it is shown, among those that a model made."""
    places = digits(table.columns[column])
    means: Sequence[tuple[int, float]] = [
        (index, round(cell.mean, places))
        for index, row in enumerate(table.rows)
        if not row.model_free and (cell := row.cells[column]) is not None and cell.mean is not None
    ]
    if len(means) < 2 or table.columns[column].better == "neither":
        return set()
    choose = max if table.columns[column].better == "higher" else min
    best = choose(mean for _, mean in means)
    return {index for index, mean in means if mean == best}
