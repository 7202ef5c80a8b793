"""Protocol cards side by side: which choices that change a number were made in several ways."""

from __future__ import annotations

from collections.abc import Sequence

from hmcli.reports.comparison import CardDifference
from hmcli.stages.reporting.evaluations import Evaluated

# What the card says of the videos themselves: rows differ in it because they are different rows.
_OF_THE_ROW = frozenset({"generation", "model", "shows", "reads", "made"})


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


def concerned(label: str, cards: Sequence[CardDifference]) -> bool:
    """Does a difference of cards concern this score?"""
    for card in cards:
        section, _, name = card.place.partition(", ")
        if section == "Metrics":
            if name == label:
                return True
        elif not section.startswith("Backbone ") or f"({section.removeprefix('Backbone ')}" in label:
            return True
    return False
