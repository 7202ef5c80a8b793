"""Tables of scores: for the terminal (rich) and for documents (markdown), from the `scores.json` of an evaluation.

`scores` is that file's content: {"metrics": {label: {"mean", "unit", "better", "n", "failed", "not_judged", ...}}}; the
means of several evaluations are put side by side, so a label carries everything that makes it comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADER = ("metric", "mean", "clips", "frames", "failed", "not judged")
NO_VALUE = "-"  # nothing could be scored


def score_text(value: float | str | None, unit: str = "") -> str:
    """A score as people read it: 3 decimals for dB, 4 for similarities; no score is a dash, an infinite one `inf`."""
    if value is None:
        return NO_VALUE
    text = f"{float(value):.{3 if unit == 'dB' else 4}f}"
    return f"{text} {unit}" if unit else text


def score_rows(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per metric under HEADER; a clip that failed, or had nothing to judge, is counted."""
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    return [
        (
            f"{label}{arrows[entry['better']]}",
            score_text(entry["mean"], entry["unit"]),
            str(entry["n"]),
            str(entry["frames"]),
            str(entry["failed"]),
            str(entry["not_judged"]),
        )
        for label, entry in scores["metrics"].items()
    ]


def score_table(scores: Mapping[str, Any], title: str = "") -> Any:
    """A rich Table of one evaluation."""
    from rich.table import Table

    table = Table(title=title or None)
    for index, name in enumerate(HEADER):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in score_rows(scores):
        table.add_row(*row)
    return table


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; pipes and line breaks inside cells are escaped. Raises ValueError for a row of other length."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {list(row)}")
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines) + "\n"


def scores_markdown(scores: Mapping[str, Any]) -> str:
    """One evaluation as a markdown table."""
    return markdown_table(HEADER, score_rows(scores))


def comparison_markdown(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Means of several evaluations side by side: one row per name, one column per metric label in order of appearance.

    A label that an evaluation does not have is a dash; so is one in which no clip could be scored. A mean that leaves
    clips out says how many, failed ones and those with nothing to judge.
    """
    labels = list(dict.fromkeys(label for scores in evaluations.values() for label in scores["metrics"]))
    rows = [
        [name, *(_mean_cell(scores["metrics"][label]) if label in scores["metrics"] else NO_VALUE for label in labels)]
        for name, scores in evaluations.items()
    ]
    return markdown_table(["", *labels], rows)


def _mean_cell(entry: Mapping[str, Any]) -> str:
    text = score_text(entry["mean"], entry["unit"])
    out = [f"{entry[key]} {name}" for key, name in (("failed", "failed"), ("not_judged", "not judged")) if entry[key]]
    return f"{text} ({', '.join(out)})" if out else text


def _cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split("\n"))
