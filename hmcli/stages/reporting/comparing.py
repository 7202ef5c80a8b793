"""Evaluations become one table: means, intervals over clips, differences to the first, and what keeps them apart.

All intervals draw the clips again with replacement, 2000 times, under one seed; a difference draws the clips that both
rows have, the same ones for both (paired).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hmcli.metrics.intervals import bootstrap_of, interval
from hmcli.reports.comparison import Cell, Column, Comparison, Cost, Difference, TableRow
from hmcli.stages.reporting.cards import card_differences, concerned
from hmcli.stages.reporting.evaluations import ClipNumbers
from hmcli.stages.reporting.rows import VERDICT, Row
from hmcli.stages.scoring.layout import Score

SEED = 0
LEAST = 2  # clips that an interval needs


def compare(of: Sequence[Row]) -> Comparison:
    """The table of a report."""
    scores: dict[str, Score] = {}
    for row in of:
        for label, score in row.scores.items():
            scores.setdefault(label, score)
    cards = card_differences([one for row in of for one in row.members])
    columns = tuple(
        Column(
            label=label,
            unit=score.unit,
            better=score.better,
            several_ways=concerned(label, cards),
            **_grouped(label, score),
        )
        for label, score in scores.items()
    )
    numbers = [{label: row.numbers(label) for label in row.scores} for row in of]
    rows = tuple(
        TableRow(
            name=row.name, model_free=row.model_free, seeds=len(row.members),
            cells=tuple(_cell(row, label, found, numbers[0] if index else {}) for label in scores),
        )
        for index, (row, found) in enumerate(zip(of, numbers, strict=True))
    )  # fmt: skip
    return Comparison(columns=columns, rows=rows, cards=cards, notes=tuple(_clip_notes(of)), costs=tuple(_costs(of)))


def _costs(of: Sequence[Row]) -> Iterator[Cost]:
    """What the generations record, where any does."""
    made = [row.members[0].about.generation for row in of]
    notes = tuple(", ".join(one.devices or ()) for one in made)
    seconds = [one.seconds_per_clip for one in made]
    parameters = [None if one.network is None else one.network.parameters / 1e6 for one in made]
    peaks = [None if one.peak_bytes is None else one.peak_bytes / 2**30 for one in made]
    for name, unit, values in (
        ("parameters", "million", parameters), ("seconds a clip", "s", seconds), ("peak memory", "GiB", peaks),
    ):  # fmt: skip
        if any(value is not None for value in values):
            yield Cost(name=name, unit=unit, values=tuple(values), notes=notes)


def _grouped(label: str, score: Score) -> dict[str, str]:
    """Verdicts stand under one head, which says what judged them."""
    if not score.metric.startswith(VERDICT):
        return {}
    return {
        "group": f"verdicts{label.removeprefix(score.metric)}",
        "short": score.metric.removeprefix(VERDICT),
    }


Numbers = Mapping[str, ClipNumbers | str]


def _cell(row: Row, label: str, numbers: Numbers, compared: Numbers) -> Cell | None:
    """A score of a row; `compared` are the numbers of the first row, none for itself."""
    if label not in row.scores:
        return None
    found, first = numbers[label], compared.get(label, "")
    low, high, why_not = _interval(found)
    gap = None if isinstance(found, str) or isinstance(first, str) else difference(found, first)
    scores = [one.scores.metrics[label] for one in row.members]
    mean, clips = _mean(row, label, found)
    return Cell(
        mean=mean, low=low, high=high, clips=clips, failed=sum(score.failed for score in scores),
        not_judged=sum(score.not_judged for score in scores), difference=gap, why_not=why_not,
        spread=_spread(row.means(label)),
    )  # fmt: skip


def _mean(row: Row, label: str, found: ClipNumbers | str) -> tuple[float | None, int]:
    """What scores.json says, and over how many clips; of several seeds the mean over the clips that all have."""
    score = row.members[0].scores.metrics[label]
    if len(row.members) == 1:
        return None if score.mean is None else float(score.mean), score.n
    return (None, 0) if isinstance(found, str) else (found.mean, len(found.clips))


def _spread(means: Sequence[float]) -> float | None:
    """Standard deviation (n - 1) of the means of several seeds."""
    if len(means) < LEAST or not np.isfinite(means).all():
        return None
    return float(np.std(means, ddof=1))


def _interval(found: ClipNumbers | str) -> tuple[float | None, float | None, str]:
    """Both ends, or why there are none."""
    if isinstance(found, str):
        return None, None, found
    if len(found.clips) < LEAST:
        return None, None, "of one clip there is no interval"
    drawn = bootstrap_of(found.statistic, len(found.clips), SEED)
    if not len(drawn):
        return None, None, "drawn clips have no value"
    whole = interval(found.mean, drawn)
    return whole.low, whole.high, ""


def difference(one: ClipNumbers, first: ClipNumbers) -> Difference | None:
    """One minus the first over the clips both have; None where they share none, or it is not finite."""
    theirs = {clip: index for index, clip in enumerate(first.clips)}
    pairs = np.array([(index, theirs[clip]) for index, clip in enumerate(one.clips) if clip in theirs], int)
    if not len(pairs):
        return None
    mine, other = pairs.T

    def gap(picked: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # infinite minus infinite is no number, and is left out
            return one.statistic(mine[picked]) - first.statistic(other[picked])

    mean = float(gap(np.arange(len(pairs))[None])[0])
    if not np.isfinite(mean):
        return None
    drawn = bootstrap_of(gap, len(pairs), SEED) if len(pairs) >= LEAST else np.array([])
    if not len(drawn):
        return Difference(mean=mean, low=None, high=None, clips=len(pairs))
    whole = interval(mean, drawn)
    return Difference(mean=mean, low=whole.low, high=whole.high, clips=len(pairs))


def _clip_notes(rows: Sequence[Row]) -> list[str]:
    """Rows over other clips than the first one."""
    first, notes = rows[0], []
    for one in rows[1:]:
        more, less = set(one.clips) - set(first.clips), set(first.clips) - set(one.clips)
        said = [f"{len(of)} {what}" for of, what in ((more, "more"), (less, "less")) if of]
        if said:
            notes.append(
                f"{one.name} is over other clips than {first.name} ({', '.join(said)}): its means do not compare "
                "with those of the first row, its differences do"
            )
    return notes
