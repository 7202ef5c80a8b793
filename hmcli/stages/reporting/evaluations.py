"""Evaluations as a report needs them: what was scored, and the numbers of every clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hmcli.errors import DataError, HMError
from hmcli.metrics.contract import Metric
from hmcli.registry import find
from hmcli.stages.scoring.layout import (
    FORMAT,
    FRAMES,
    KIND,
    PLACES,
    SCORES,
    SLICES,
    STRETCHES,
    TABLE,
    EvaluationAttributes,
    Places,
    Score,
    Scores,
    Values,
)
from hmcli.stages.shared.typed import from_json
from hmcli.store.files import parse_json, read_csv
from hmcli.store.listed import listed
from hmcli.store.manifest import Manifest, read_manifest

SUFFIX = f".{KIND}"
_SAME = 1e-6  # how far a mean that is formed again may be off, relative


@dataclass(frozen=True, kw_only=True)
class ClipNumbers:
    """A score by clip, and how that of several clips is formed: `statistic` maps (R, n) picks of clips to (R,)."""

    clips: tuple[str, ...]
    values: np.ndarray  # (n,) of the clips alone; NaN where only several together have one
    statistic: Callable[[np.ndarray], np.ndarray]

    @property
    def mean(self) -> float:
        """Of all clips."""
        return float(self.statistic(np.arange(len(self.clips))[None])[0])


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An evaluation artifact. `rows` are (clip, label) -> row of its table, `stretches` and `slices` rows of theirs."""

    path: Path
    name: str
    manifest: Manifest
    about: EvaluationAttributes
    scores: Scores
    rows: Mapping[tuple[str, str], Mapping[str, str]]
    stretches: tuple[Mapping[str, str], ...]
    slices: tuple[Mapping[str, str], ...]

    @property
    def clips(self) -> list[str]:
        """In the order of its table."""
        return list(dict.fromkeys(clip for clip, _ in self.rows))

    def numbers(self, label: str) -> ClipNumbers | str:
        """The clips' numbers of a score, or why its mean cannot be formed again from them."""
        score = self.scores.metrics[label]
        try:
            found = self._pooled(label, metric) if (metric := _known(score)).pooled else self._weighed(label)
        except DataError as error:
            return error.what
        if score.mean is None or not len(found.clips):
            return "no clip has a value"
        mean, said = found.mean, float(score.mean)
        same = mean == said or abs(mean - said) <= _SAME * max(1.0, abs(said))
        return found if same else "its mean does not follow from the clips' values"

    def _weighed(self, label: str) -> ClipNumbers:
        """A mean over clips: each alike, or by its values (eval.average: frames)."""
        rows = {clip: row for (clip, of), row in self.rows.items() if of == label and row["value"]}
        values = np.array([float(row["value"]) for row in rows.values()])
        frames = np.array([int(row["frames"]) for row in rows.values()], np.float64)
        weights = frames if self.scores.average == "frames" else np.ones(len(frames))
        return ClipNumbers(clips=tuple(rows), values=values, statistic=weighed_mean(values, weights))

    def _pooled(self, label: str, metric: Metric) -> ClipNumbers:
        """What a metric makes of the parts of several clips."""
        parts = {one.clip: one.judged for one in self._items() if one.metric == label and one.not_judged is None}
        table, pooled = np.array(list(parts.values()), np.float64), metric.pooled
        assert pooled is not None
        alone = np.array([pooled(table[[row]]) for row in range(len(table))])
        return ClipNumbers(
            clips=tuple(parts), values=alone,
            statistic=lambda picked: np.array([pooled(table[one]) for one in picked], np.float64),
        )  # fmt: skip

    @cached_property
    def places(self) -> Mapping[str, Places]:
        """Who was seen where, by clip; nothing where no score is made from that."""
        files = listed(self.path)
        names = [name for name in files.below(PLACES) if name.endswith(".json")]
        found = [
            from_json(Places, parse_json(files.read(name).data, self.path / name), "who was seen where", file=name)
            for name in names
        ]
        return {one.clip: one for one in found}

    def _items(self) -> Sequence[Values]:
        files = listed(self.path)
        names = [name for name in files.below(FRAMES) if name.endswith(".json")]
        return [
            from_json(Values, parse_json(files.read(name).data, self.path / name), "the values of a clip", file=name)
            for name in names
        ]


def weighed_mean(values: np.ndarray, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """(R, n) picks -> (R,) means of `values`, each weighing as `weights` says."""

    def statistic(picked: np.ndarray) -> np.ndarray:
        mean: np.ndarray = (values * weights)[picked].sum(1) / weights[picked].sum(1)
        return mean

    return statistic


def _known(score: Score) -> Metric:
    """The metric of a score. Raises DataError for one that is not installed here."""
    try:
        metric: Metric = find("metric", score.metric)
    except HMError as error:
        raise DataError(f"the metric {score.metric} is not known here") from error
    return metric


def open_evaluations(paths: Sequence[Path]) -> list[Evaluated]:
    """All of them, each under a name of its own. Raises DataError for what is no evaluation."""
    return [open_evaluation(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def open_evaluation(path: Path, name: str) -> Evaluated:
    """One of them, under this name."""
    manifest = read_manifest(path, kinds=(KIND,))
    about = from_json(EvaluationAttributes, manifest.attributes, "the description", evaluation=path)
    files = listed(path)
    scores = from_json(Scores, parse_json(files.read(SCORES).data, path / SCORES), SCORES, evaluation=path)
    if scores.format != FORMAT:
        what = f"the scores have format {scores.format}, this hm reads {FORMAT}"
        raise DataError(what, where={"file": path / SCORES}, fix="evaluate again with this version of hm")
    rows = {(row["clip"], row["metric"]): row for row in read_csv(files.check(TABLE))}
    stretches, slices = (
        tuple(read_csv(files.check(name))) if name in manifest.files else () for name in (STRETCHES, SLICES)
    )
    return Evaluated(
        path=path, name=name, manifest=manifest, about=about, scores=scores, rows=rows, stretches=stretches,
        slices=slices,
    )  # fmt: skip


def _names(paths: Sequence[Path]) -> list[str]:
    """What each is called: its folder's name, with as many folders above it as tell it from the others."""
    places = [path.absolute() for path in paths]
    for depth in range(1, max((len(place.parts) for place in places), default=1)):
        names = ["/".join(place.parts[-depth:]).removesuffix(SUFFIX) for place in places]
        if len(set(names)) == len(names):
            return names
    return [f"{place.name.removesuffix(SUFFIX)} ({number})" for number, place in enumerate(places, 1)]
