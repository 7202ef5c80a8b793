"""What is scored: a clip's videos, and the plan of metrics for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.errors import DataError
from hmcli.metrics.contract import BACKBONE, PREDICTION, REFERENCE, Backbone, Metric
from hmcli.recipe.sections import EvalConfig
from hmcli.registry import find
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import ClipSource, Dataset
from hmcli.stages.sampling.generations import Generated
from hmcli.stages.scoring.layout import FORMAT, BackboneKey, ReferenceKey, ValuesKey
from hmcli.stages.shared.typed import key_of
from hmcli.store.files import inside
from hmcli.store.hashing import HashCache, hash_file, read_content
from hmcli.store.video import read_video


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be computed from what. `reference` is None when nothing asked for needs one.

    The backbone is loaded when it is asked for, and by every process anew.
    """

    generated: Generated
    clips: tuple[str, ...]  # those to score, of the generation's
    reference: Dataset | None
    metrics: tuple[Metric, ...]
    settings: EvalConfig
    device: str
    versions: Mapping[str, str]

    @cached_property
    def backbone(self) -> Backbone | None:
        if not any(BACKBONE in metric.needs for metric in self.metrics):
            return None
        backbone: Backbone = find("backbone", self.settings.backbone)(self.settings.backbone_path, self.device)
        return backbone

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def about(self) -> list[Any]:
        """What the values of all clips depend on alike, but for the generation itself."""
        backbone = [] if self.backbone is None else [self.backbone.name, self.backbone.about]
        return [dict(self.versions), dataclasses.asdict(self.generated.data), backbone]

    def label(self, metric: Metric) -> str:
        return metric.label(self.backbone.name if self.backbone else "")


class Clip:
    """One clip's inputs, each decoded or computed once, and only when a metric asks for it."""

    def __init__(self, plan: Plan, clip: str, cache: HashCache) -> None:
        self.id, self._plan, self._cache = clip, plan, cache
        self._ready: dict[str, np.ndarray | DataError] = {}

    def key(self, metric: Metric) -> str:
        """The content key of a metric's values. Raises DataError when an input is missing."""
        plan, video, reference, backbone = self._plan, self._video_hash(), None, None
        if REFERENCE in metric.needs:
            reference = ReferenceKey(source=self._source().key, data=plan.generated.data)
        if BACKBONE in metric.needs and plan.backbone is not None:
            backbone = BackboneKey(name=plan.backbone.name, about=plan.backbone.about)
        return key_of(
            ValuesKey(
                format=FORMAT, metric=metric.name, definition=metric.definition, unit=metric.unit,
                versions=dict(plan.versions), video=video, reference=reference, backbone=backbone,
            )
        )  # fmt: skip

    def values(self, metric: Metric) -> np.ndarray:
        """Per-frame values. Raises DataError when the clip cannot be judged."""
        offered: dict[str, Callable[[], Any]] = {
            PREDICTION: lambda: self._once(PREDICTION, self._read_prediction),
            REFERENCE: lambda: self._once(REFERENCE, self._read_reference),
            BACKBONE: lambda: self._features,
        }
        try:
            values = metric(**{name: offered[name]() for name in metric.needs})
        except ValueError as error:
            raise DataError(str(error)) from error
        if np.isnan(values).any():
            raise DataError(f"{metric.name} is not a number in frame {int(np.isnan(values).argmax())}")
        return values

    def _features(self, frames: np.ndarray) -> np.ndarray:
        """The backbone on this clip's prediction, which several metrics ask for."""
        assert self._plan.backbone is not None
        backbone = self._plan.backbone
        if frames is not self._ready.get(PREDICTION):
            return backbone(frames)
        return self._once(BACKBONE, lambda: backbone(frames))

    def _once(self, name: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        if name not in self._ready:
            try:
                self._ready[name] = read()
            except DataError as error:
                self._ready[name] = error
        if isinstance(found := self._ready[name], DataError):
            raise found
        return found

    @property
    def _video(self) -> Path:
        generated = self._plan.generated
        if self.id not in generated.rows:
            reasons = {row["item"]: row["reason"] for row in generated.manifest.quarantined}
            raise DataError(f"it was not generated: {reasons[self.id]}")
        return inside(generated.path, generated.rows[self.id].video)

    def _video_hash(self) -> str:
        """Of the file as it is now; it must be the one that was generated."""
        video = self._video
        if not video.is_file():
            raise DataError("the generated video is missing", where={"file": video})
        return self._as_recorded(hash_file(video, cache=self._cache))

    def _as_recorded(self, found: str) -> str:
        """The hash of the generated video. Raises DataError unless it is that of the one that was written."""
        name = self._video.relative_to(self._plan.generated.path).as_posix()
        items = self._plan.generated.manifest.items.values()
        if found != next((record["files"][""]["hash"] for record in items if record.get("path") == name), found):
            what = "the generated video was changed or damaged after it was written"
            raise DataError(what, where={"file": self._video})
        return found

    def _read_prediction(self) -> np.ndarray:
        content = read_content(self._video)
        self._as_recorded(content.hash)
        frames = read_video(content)
        if len(frames) != (said := self._plan.generated.rows[self.id].frames):
            raise DataError(f"the generated video has {len(frames)} frames, generations.jsonl says {said}")
        return frames

    def _source(self) -> ClipSource:
        dataset = self._plan.reference
        assert dataset is not None
        for source in dataset.clips:
            if source.id == self.id:
                return source
        reasons = {item.item: item.reason for item in dataset.quarantined}
        if self.id in reasons:
            raise DataError(f"its reference cannot be used: {reasons[self.id]}")
        raise DataError("the reference has no clip of this id", where={"reference": dataset.path})

    def _read_reference(self) -> np.ndarray:
        target = load_clip(self._source(), self._plan.generated.data).target
        if target is None:
            raise DataError("its reference has no target video")
        return target


def item_name(clip: str, metric: Metric) -> str:
    return f"{clip}.{metric.name}"
