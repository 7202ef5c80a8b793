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
from hmcli.metrics.contract import BACKBONE, BOXES, PREDICTION, REFERENCE, Backbone, Metric, SubjectBoxes
from hmcli.recipe.sections import EvalConfig
from hmcli.registry import find
from hmcli.stages.data.boxes import target_boxes
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import ClipSource, Dataset, at, own_file
from hmcli.stages.sampling.generations import Generated
from hmcli.stages.scoring.layout import FORMAT, BackboneKey, ReferenceKey, ValuesKey
from hmcli.stages.shared.typed import key_of
from hmcli.store.files import inside, read_json
from hmcli.store.hashing import HashCache, hash_file, read_content
from hmcli.store.video import read_video
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import parse_states


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
        self._ready: dict[str, Any] = {}  # or why it cannot be had

    def key(self, metric: Metric) -> str:
        """The content key of a metric's values. Raises DataError when an input is missing."""
        plan, video, reference, backbone = self._plan, self._video_hash(), None, None
        if reads_reference(metric):
            reference = ReferenceKey(source=self._source().key, data=plan.generated.data)
        if BACKBONE in metric.needs and plan.backbone is not None:
            backbone = BackboneKey(name=plan.backbone.name, about=plan.backbone.about)
        files = annotations_of(metric)
        return key_of(
            ValuesKey(
                format=FORMAT, metric=metric.name, definition=metric.definition, unit=metric.unit,
                versions=dict(plan.versions), video=video, reference=reference, backbone=backbone,
                annotations={name: hash_file(self._annotation(name), cache=self._cache) for name in files} or None,
            )
        )  # fmt: skip

    def values(self, metric: Metric) -> np.ma.MaskedArray:
        """Per-frame values, masked where a frame is not judged.

        Raises DataError when the clip cannot be judged, NothingToJudge when nothing in it is to be.
        """
        try:
            values = np.ma.asarray(metric(**{name: INPUTS[name].read(self) for name in metric.needs}))
        except ValueError as error:
            raise DataError(str(error)) from error
        if (wrong := np.isnan(values.filled(0))).any():
            raise DataError(f"{metric.name} is not a number in frame {int(wrong.argmax())}")
        if not metric.partial and np.ma.is_masked(values):
            raise DataError(f"{metric.name} has no value in a frame, and does not say that there may be none")
        return values

    # --- what metrics may need ---------------------------------------------------------------------------------------

    def prediction(self) -> np.ndarray:
        """(T, H, W, 3) uint8."""
        found: np.ndarray = self._once(PREDICTION, self._read_prediction)
        return found

    def reference(self) -> np.ndarray:
        """(T, H, W, 3) uint8 at the prediction's size and length."""
        found: np.ndarray = self._once(REFERENCE, self._read_reference)
        return found

    def backbone(self) -> Callable[[np.ndarray], np.ndarray]:
        return self._features

    def boxes(self) -> SubjectBoxes:
        """Where the reference's subjects are, in the reference's pixels and frames."""
        found: SubjectBoxes = self._once(BOXES, self._read_boxes)
        return found

    def _features(self, frames: np.ndarray) -> np.ndarray:
        """The backbone on this clip's prediction, which several metrics ask for."""
        assert self._plan.backbone is not None
        backbone = self._plan.backbone
        if frames is not self._ready.get(PREDICTION):
            return backbone(frames)
        found: np.ndarray = self._once(BACKBONE, lambda: backbone(frames))
        return found

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
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

    def _read_boxes(self) -> SubjectBoxes:
        source, file = self._source(), self._annotation(STATES)
        with at(file=file):
            return target_boxes(source, parse_states(read_json(file)), self._plan.generated.data)

    def _annotation(self, name: str) -> Path:
        """A file beside the videos of the reference's clip. Raises DataError for one that it lacks."""
        source = self._source()
        if (file := own_file(source, name)) is None:
            raise DataError(f"its reference has no {name}", where={"folder": source.files["context"].parent})
        return file


@dataclass(frozen=True, kw_only=True)
class Input:
    """Something that a metric may need: how a clip offers it, and what it is read from."""

    read: Callable[[Clip], Any]
    of_reference: bool = False  # it is of the reference's clip
    files: tuple[str, ...] = ()  # annotations of that clip, which not every data set has


INPUTS: Mapping[str, Input] = {
    PREDICTION: Input(read=Clip.prediction),
    REFERENCE: Input(read=Clip.reference, of_reference=True),
    BACKBONE: Input(read=Clip.backbone),
    BOXES: Input(read=Clip.boxes, of_reference=True, files=(STATES,)),
}


def reads_reference(metric: Metric) -> bool:
    return any(INPUTS[name].of_reference for name in metric.needs)


def annotations_of(metric: Metric) -> tuple[str, ...]:
    """The files of a reference's clip that it reads besides the videos."""
    return tuple(dict.fromkeys(file for name in metric.needs for file in INPUTS[name].files))


def item_name(clip: str, metric: Metric) -> str:
    return f"{clip}.{metric.name}"
