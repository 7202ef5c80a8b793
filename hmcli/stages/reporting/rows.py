"""The rows of a report: an evaluation each, or several of one recipe under different seeds.

Which evaluations are repeats of each other, only a person knows: an evaluation does not say how its model was trained.
Groups are named, never guessed; what plainly is no repeat (other clips, cards or settings, the same videos) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmcli.errors import UsageError
from hmcli.stages.reporting.cards import card_differences
from hmcli.stages.reporting.evaluations import ClipNumbers, Evaluated, open_evaluation, open_evaluations
from hmcli.stages.scoring.layout import Score

VERDICT = "verdict-"  # how metrics of verdicts (hmcli.metrics.verdicts) are called
_MOST = 0.5  # share of a stretch's samples from which on a verdict is that of the stretch


@dataclass(frozen=True, kw_only=True)
class Said:
    """The verdict on a stretch of a clip, after which a subject should be back; `last` is the clip's frame."""

    clip: str
    subject: str
    last: int
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """`members` are one evaluation, or one for each seed."""

    name: str
    members: tuple[Evaluated, ...]

    @property
    def model_free(self) -> str:
        return self.members[0].about.generation.model_free

    @property
    def scores(self) -> Mapping[str, Score]:
        """Those that all members have."""
        found = self.members[0].scores.metrics
        return {label: of for label, of in found.items() if all(label in one.scores.metrics for one in self.members)}

    @property
    def clips(self) -> list[str]:
        return self.members[0].clips

    @property
    def stretches(self) -> list[Mapping[str, str]]:
        """Of all members."""
        return [row for one in self.members for row in one.stretches]

    @property
    def verdicts(self) -> list[Said]:
        """Of the first member, whose videos are shown; of several backbones those of the first."""
        found: dict[tuple[str, str, str], Said] = {}
        for row in self.members[0].stretches:
            place = (row["clip"], row["subject"], row["last"])
            if row["metric"].startswith(VERDICT) and float(row["value"]) > _MOST:
                verdict = row["metric"].removeprefix(VERDICT).partition(" ")[0]
                found.setdefault(place, Said(clip=place[0], subject=place[1], last=int(place[2]), verdict=verdict))
        return list(found.values())

    def value(self, clip: str, label: str) -> tuple[float | None, str]:
        """The clip's value, of several seeds their mean, and what became of it."""
        rows = [one.rows.get((clip, label)) for one in self.members]
        values = [float(row["value"]) for row in rows if row and row["value"]]
        if len(values) == len(rows):
            return float(np.mean(values)), "ok"
        said = next((row["reason"] or row["status"] for row in rows if row and not row["value"]), "not scored")
        return None, said

    def values(self, label: str) -> Iterator[tuple[str, float]]:
        """(clip, value) of all members."""
        for one in self.members:
            for (clip, of), row in one.rows.items():
                if of == label and row["value"]:
                    yield clip, float(row["value"])

    def numbers(self, label: str) -> ClipNumbers | str:
        """The clips' numbers of a score; of several seeds over the clips that have one under each."""
        every = [one.numbers(label) for one in self.members]
        found = [one for one in every if not isinstance(one, str)]
        if len(found) < len(every):
            return next(one for one in every if isinstance(one, str))
        return found[0] if len(found) == 1 else _joined(found)

    def means(self, label: str) -> list[float]:
        """Of each member, as its scores.json says it; those without one are left out."""
        said = [one.scores.metrics[label].mean for one in self.members]
        return [float(mean) for mean in said if mean is not None]


def _joined(found: Sequence[ClipNumbers]) -> ClipNumbers | str:
    """The mean over seeds, of the same clips."""
    clips = tuple(clip for clip in found[0].clips if all(clip in one.clips for one in found[1:]))
    if not clips:
        return "no clip has a value under every seed"
    places = [np.array([one.clips.index(clip) for clip in clips]) for one in found]

    def statistic(picked: np.ndarray) -> np.ndarray:
        means = [one.statistic(place[picked]) for one, place in zip(found, places, strict=True)]
        mean: np.ndarray = np.mean(means, axis=0)
        return mean

    values = np.mean([one.values[place] for one, place in zip(found, places, strict=True)], axis=0)
    return ClipNumbers(clips=clips, values=values, statistic=statistic)


# --- naming them -----------------------------------------------------------------------------------------------------


def open_rows(paths: Sequence[Path], groups: Sequence[str]) -> list[Row]:
    """A row for each path, then one for each name among `groups` (NAME=EVALUATION), in order of first mention."""
    named: dict[str, list[Path]] = {}
    for text in groups:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--group is NAME=EVALUATION, got {text!r}", fix="--group ours=a.evaluation")
        named.setdefault(name, []).append(Path(path))
    if not (paths or named):
        raise UsageError("no evaluation is named", fix="hm report EVALUATION... (hm eval makes them)")
    rows = [Row(name=one.name, members=(one,)) for one in open_evaluations(paths)]
    for name, of in named.items():
        rows.append(_group(name, [open_evaluation(path, f"{name} [{place}]") for place, path in enumerate(of, 1)]))
    if len({row.name for row in rows}) < len(rows):
        raise UsageError("two rows have one name", where={"names": ", ".join(row.name for row in rows)})
    return rows


def _group(name: str, members: Sequence[Evaluated]) -> Row:
    """Raises UsageError for evaluations that are no repeats of each other."""
    first, where = members[0], {"group": name, "evaluations": ", ".join(str(one.path) for one in members)}
    for one in members[1:]:
        if set(one.clips) != set(first.clips):
            raise UsageError("evaluations of one group are over the same clips", where=where)
        sample, other = (of.about.generation.recipe.get("sample") for of in (first, one))
        if sample != other or one.about.generation.model_free != first.about.generation.model_free:
            raise UsageError("evaluations of one group are sampled in one way, but for the seed", where=where)
    generations = [one.manifest.inputs.get("generation") for one in members]
    if len(set(generations)) < len(generations):
        raise UsageError("the same generation is twice in a group: that is no other seed", where=where)
    if cards := card_differences(members):
        raise UsageError("evaluations of one group have one protocol card", where={**where, "but": cards[0].text})
    return Row(name=name, members=tuple(members))
