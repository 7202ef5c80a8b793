"""Evaluations become one table: means, intervals over clips, differences to the first, and what keeps them apart.

All intervals draw the clips again with replacement, 2000 times, under one seed; a difference draws the clips that both
rows have, the same ones for both (paired).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hmcli.metrics.intervals import bootstrap_of, interval
from hmcli.reports.comparison import CardDifference, Cell, Column, Comparison, Difference, TableRow
from hmcli.stages.reporting.evaluations import ClipNumbers, Evaluated
from hmcli.stages.scoring.layout import Score

SEED = 0
LEAST = 2  # clips that an interval needs
# What the card says of the videos themselves: rows differ in it because they are different rows.
_OF_THE_ROW = frozenset({"generation", "model", "shows", "reads", "made"})


def compare(evaluations: Sequence[Evaluated]) -> Comparison:
    """The table of a report, in the order the evaluations were named."""
    scores: dict[str, Score] = {}
    for one in evaluations:
        for label, score in one.scores.metrics.items():
            scores.setdefault(label, score)
    cards = card_differences(evaluations)
    columns = tuple(
        Column(label=label, unit=of.unit, better=of.better, several_ways=_several_ways(label, cards))
        for label, of in scores.items()
    )
    numbers = [{label: one.numbers(label) for label in one.scores.metrics} for one in evaluations]
    rows = tuple(
        TableRow(
            name=one.name, model_free=one.about.generation.model_free,
            cells=tuple(_cell(one, label, numbers, index) for label in scores),
        )
        for index, one in enumerate(evaluations)
    )  # fmt: skip
    return Comparison(columns=columns, rows=rows, cards=cards, notes=tuple(_clip_notes(evaluations)))


def _cell(
    one: Evaluated, label: str, numbers: Sequence[Mapping[str, ClipNumbers | str]], index: int
) -> Cell | None:  # fmt: skip
    if (score := one.scores.metrics.get(label)) is None:
        return None
    found = numbers[index][label]
    low, high, why_not = _interval(found)
    first = numbers[0].get(label, "")
    gap = None if index == 0 or isinstance(found, str) or isinstance(first, str) else difference(found, first)
    return Cell(
        mean=None if score.mean is None else float(score.mean), low=low, high=high, clips=score.n,
        failed=score.failed, not_judged=score.not_judged, difference=gap, why_not=why_not,
    )  # fmt: skip


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


def _clip_notes(evaluations: Sequence[Evaluated]) -> list[str]:
    """Rows over other clips than the first one."""
    first, notes = evaluations[0], []
    for one in evaluations[1:]:
        more, less = set(one.clips) - set(first.clips), set(first.clips) - set(one.clips)
        said = [f"{len(of)} {what}" for of, what in ((more, "more"), (less, "less")) if of]
        if said:
            notes.append(
                f"{one.name} is over other clips than {first.name} ({', '.join(said)}): its means do not compare "
                "with those of the first row, its differences do"
            )
    return notes


# --- protocol cards --------------------------------------------------------------------------------------------------


def card_differences(evaluations: Sequence[Evaluated]) -> tuple[CardDifference, ...]:
    """Every choice of the protocol cards that was made in several ways by those that made it."""
    said: dict[str, dict[str, list[str]]] = {}
    for one in evaluations:
        for place, value in _choices(one).items():
            said.setdefault(place, {}).setdefault(value, []).append(one.name)
    return tuple(
        CardDifference(place=place, said=tuple((value, tuple(rows)) for value, rows in ways.items()))
        for place, ways in said.items()
        if len(ways) > 1
    )


def _choices(one: Evaluated) -> dict[str, str]:
    """Place on the card -> what it says, under names that are alike on all cards."""
    found = {}
    for section, lines in one.about.protocol.items():
        title = f"Backbone {lines['name']}" if section == "Backbone" and "name" in lines else section
        for name, value in lines.items():
            if section == "Prediction" and name in _OF_THE_ROW:
                continue
            key = "eval.average" if name.startswith("eval.average: ") else name
            found[f"{title}, {key}"] = name if key == "eval.average" else value
    if not one.about.generation.model_free:
        found.setdefault("Prediction, samples of a clip", "1")
    return found


def _several_ways(label: str, cards: Sequence[CardDifference]) -> bool:
    """Does a difference of cards concern this score?"""
    for card in cards:
        section, _, name = card.place.partition(", ")
        if section == "Metrics":
            if name == label:
                return True
        elif not section.startswith("Backbone ") or f"({section.removeprefix('Backbone ')}" in label:
            return True
    return False
