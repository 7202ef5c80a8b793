"""What will be scored: the clips, the scores that are asked for, and what they are computed with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hmcli.errors import RecipeError
from hmcli.metrics.contract import (
    BACKBONE,
    DETECTIONS,
    LPIPS,
    OTHER_SAMPLES,
    REFERENCE,
    REGIONS,
    Backbone,
    Detector,
    Metric,
)
from hmcli.metrics.identity import identity_note, measured_auc
from hmcli.metrics.places import PLACES
from hmcli.recipe.sections import EvalConfig
from hmcli.registry import find, normal
from hmcli.stages.data.opening import ClipSource, Dataset
from hmcli.stages.sampling.generations import Generated


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be computed from what. `reference` is None when nothing asked for needs one.

    Backbones and the detector are loaded when they are asked for, and by every process anew.
    """

    generated: Generated
    clips: tuple[str, ...]  # those to score, of the generation's
    reference: Dataset | None
    columns: tuple[Column, ...]
    settings: EvalConfig
    device: str
    versions: Mapping[str, str]
    fresh: bool = False  # features are made anew, also where they are kept

    @cached_property
    def sources(self) -> dict[str, ClipSource]:
        """The reference's clips by id."""
        return {} if self.reference is None else {clip.id: clip for clip in self.reference.clips}

    @property
    def items(self) -> tuple[Column, ...]:
        """Of every clip: its scores, and who was seen where, if a score is made from that."""
        detector = next((of.detector for of in self.columns if {*PLACES.needs} <= {*of.metric.needs}), "")
        return (*self.columns, *([Column(metric=PLACES, detector=detector)] if detector else []))

    @cached_property
    def backbones(self) -> dict[str, Backbone]:
        """Those that a column needs, by name; LPIPS's network is one of them."""
        used = {column.backbone: column.metric for column in self.columns if column.backbone}
        return {name: self._load(name, metric) for name, metric in used.items()}

    @cached_property
    def detector(self) -> Detector | None:
        """What finds the subjects of predictions; None where no column asks for them."""
        if not any(column.detector for column in self.columns):
            return None
        found: Detector = find("detector", self.settings.detector)(self.settings.detector_path, self.device)
        return found

    def _load(self, name: str, metric: Metric) -> Any:
        if LPIPS in metric.needs:
            from hmcli.metrics.lpips import load_lpips

            return load_lpips(name, self.settings.lpips_path, self.device)
        if REGIONS in metric.needs:
            from hmcli.metrics.backbones.regions import clip_regions

            return clip_regions(self.settings.dsc_path, self.device)
        return find("backbone", name)(paths_of(self.settings)[name], self.device)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Each once."""
        return tuple({column.metric.name: column.metric for column in self.columns}.values())

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def about(self) -> list[Any]:
        """What the values of all clips depend on alike, but for the generation itself."""
        backbones = {name: backbone.about for name, backbone in self.backbones.items()}
        detector = [] if self.detector is None else [self.detector.about]
        return [dict(self.versions), dataclasses.asdict(self.generated.data), backbones, *detector]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One score of an evaluation: a metric, with its backbone where it looks at features, and with the detector where
    it looks at subjects of the prediction.

    Of clips with several samples it is the mean over them; where `mean_of` says how many there are, what is judged is
    the mean picture of all instead.
    """

    metric: Metric
    backbone: str = ""
    detector: str = ""
    identity: str = ""  # how well the backbone knows a subject again at this size, where that was measured
    mean_of: int = 0

    @property
    def label(self) -> str:
        label = self.metric.label(self.backbone, self.identity, self.detector)
        return f"{label} [mean picture of {self.mean_of}]" if self.mean_of else label

    @property
    def name(self) -> str:
        """What an item of the evaluation is called after."""
        name = ".".join(filter(None, (self.metric.name, self.backbone, self.detector)))
        return f"{name}.mean-{self.mean_of}" if self.mean_of else name


def columns_of(
    metrics: Iterable[Metric], settings: EvalConfig, size: tuple[int, int], samples: int = 1
) -> tuple[Column, ...]:
    """One for each metric; for one of features as many as it is computed with backbones, at frames of `size`.

    With several samples a metric that compares with the reference has a second one, of their mean picture.
    """
    found = [replace(column, identity=_identity(column, size)) for column in _by_backbone(metrics, settings)]
    if samples == 1:
        return tuple(found)
    single = [column for column in found if OTHER_SAMPLES not in column.metric.needs]
    means = [replace(column, mean_of=samples) for column in single if REFERENCE in column.metric.needs]
    return (*found, *means)


def _identity(column: Column, size: tuple[int, int]) -> str:
    """What stands in the name of a score of features; a perceptual distance does not ask who somebody is."""
    if BACKBONE not in column.metric.needs or measured_auc(column.backbone, size) is None:
        return ""
    return identity_note(column.backbone, size)


def _by_backbone(metrics: Iterable[Metric], settings: EvalConfig) -> list[Column]:
    found: list[Column] = []
    for metric in metrics:
        detector = normal(settings.detector) if DETECTIONS in metric.needs else ""
        if BACKBONE not in metric.needs:
            backbone = settings.lpips if LPIPS in metric.needs else metric.published if REGIONS in metric.needs else ""
            found.append(Column(metric=metric, backbone=backbone, detector=detector))
            continue
        named = tuple(dict.fromkeys(settings.backbone))
        chosen = (metric.published,) if metric.published in named else named
        found += [Column(metric=metric, backbone=name, detector=detector) for name in chosen]
    return found


def paths_of(settings: EvalConfig) -> dict[str, str]:
    """Where each backbone's weights are; empty: nowhere. Raises RecipeError where names and paths do not pair."""
    names, paths = settings.backbone, settings.backbone_path or ("",) * len(settings.backbone)
    if len(names) != len(paths):
        raise RecipeError(
            f"eval.backbone names {len(names)} backbones, eval.backbone_path {len(paths)} folders",
            fix="give one for each, in the same order, and '' for one that needs none",
        )
    return dict(zip(names, paths, strict=True))
