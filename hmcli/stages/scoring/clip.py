"""What is scored of a clip, and with what: inputs of metrics, keys of their values, and the values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hmcli.errors import DataError
from hmcli.metrics.contract import (
    BACKBONE,
    BOXES,
    CAMERAS,
    CONTEXT,
    CONTEXT_MASKS,
    DEPTH,
    DETECTIONS,
    FLOW,
    LPIPS,
    MASKS,
    OTHER_SAMPLES,
    PREDICTION,
    REFERENCE,
    REGIONS,
    TRACKS,
    TRUE_DETECTIONS,
    UNSURE,
    ClipCameras,
    ClipDepth,
    Detection,
    Metric,
    NothingToJudge,
    Stretch,
    SubjectBoxes,
    SubjectTrack,
    Tracks,
)
from hmcli.metrics.reentry import clip_tracks
from hmcli.metrics.tracks import FoundTracks
from hmcli.recipe.sections import DataConfig
from hmcli.stages.data import pieces
from hmcli.stages.data.opening import ClipSource, at, own_file
from hmcli.stages.data.subjects import subject_tracks, target_boxes
from hmcli.stages.sampling.layout import Row
from hmcli.stages.scoring.features import Features
from hmcli.stages.scoring.layout import FORMAT, NetworkKey, ReferenceKey, StretchRow, ValuesKey
from hmcli.stages.scoring.plan import Column, Plan
from hmcli.stages.scoring.videos import ClipVideos
from hmcli.stages.shared.typed import key_of
from hmcli.store.arrays_kept import ArrayStore
from hmcli.store.files import read_json
from hmcli.store.hashing import HashCache, hash_file, read_content
from hmcli.world.files.layout import DEPTH as DEPTH_FILE
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import SubjectState, parse_states

T = TypeVar("T")
MEAN = "mean picture"
OF_COLUMN = (PREDICTION, BACKBONE, LPIPS, DETECTIONS, OTHER_SAMPLES, FLOW, REGIONS)  # not of the clip alone


class Clip:
    """One clip's inputs, each decoded or computed once, and only when a metric asks for it."""

    def __init__(self, plan: Plan, clip: str, cache: HashCache) -> None:
        self.id, self._plan, self._cache = clip, plan, cache
        self._ready: dict[str, Any] = {}  # or why it cannot be had
        self._returned: dict[Any, Any] = {}  # by function: metrics that read one result differently share it
        self.features = Features(plan, ArrayStore())
        self._videos = ClipVideos(plan.generated, clip, cache)

    def key(self, column: Column) -> str:
        """The content key of a column's values. Raises DataError when an input is missing."""
        plan, metric, backbone, detector = self._plan, column.metric, None, None
        first, *others = self._videos.hashes()
        if column.backbone:
            used = plan.backbones[column.backbone]
            backbone = NetworkKey(name=used.name, about=used.about)
        if column.detector and (finder := plan.detector) is not None:
            detector = NetworkKey(name=finder.name, about=finder.about)
        return key_of(
            ValuesKey(
                format=FORMAT, metric=metric.name, definition=metric.definition, unit=metric.unit,
                versions=dict(plan.versions), video=first, samples=tuple(others) or None,
                mean_of=column.mean_of or None, backbone=backbone, detector=detector,
                reference=self._reference_key(metric) if reads_reference(metric) else None,
            )
        )  # fmt: skip

    def _reference_key(self, metric: Metric) -> ReferenceKey:
        """What of the reference's clip a metric reads: no other file changes its values."""
        source, data = self._source(), self._plan.generated.data
        roles = {role for name in metric.needs for role in INPUTS[name].roles(source, data)}
        if data.fps is not None:  # times of the videos say which frames of everything are taken
            roles |= {"context", "target"}
        files = {role: source.hashes[role] for role in sorted(roles) if role in source.files}
        files |= {name: hash_file(self._annotation(name), cache=self._cache) for name in annotations_of(metric)}
        infos = [info for info in (source.context_info, source.target_info) if info is not None]
        return ReferenceKey(
            files=files, shapes=tuple((info.frames, info.height, info.width) for info in infos),
            fps=source.context_info.fps, data=data,
        )  # fmt: skip

    def values(self, column: Column) -> Found:
        """The values of a column as its file holds them.

        Raises DataError when the clip cannot be judged, NothingToJudge when nothing in any of its samples is to be.
        """
        if column.mean_of:
            return self._judged(column, self._once(MEAN, self._videos.mean))
        every, nothing = [], NothingToJudge("there is no sample")
        for row in self._videos.rows[: 1 if OTHER_SAMPLES in column.metric.needs else None]:
            try:
                every.append(self._judged(column, self._sample(row)))
            except NothingToJudge as error:
                nothing = error
        if not every:
            raise nothing
        return every[0] if len(every) == 1 else mean_found(every)

    def seen(self) -> tuple[FoundTracks, list[list[Detection]]]:
        """Who was taken for whom in the first sample, of which detections. Raises DataError where it cannot be told."""
        video = self._sample(self._videos.rows[0])
        found = self.detections(video)
        try:
            return clip_tracks(video, self.reference(), found, self.tracks(), self.cameras()), found
        except ValueError as error:
            raise DataError(str(error)) from error

    def _judged(self, column: Column, prediction: np.ndarray) -> Found:
        metric = column.metric
        try:
            inputs = {name: INPUTS[name].read(self) for name in metric.needs if name not in OF_COLUMN}
            if LPIPS in metric.needs:
                inputs[LPIPS] = self._plan.backbones[column.backbone]
            elif REGIONS in metric.needs:
                inputs[REGIONS] = self.features.regions(column.backbone)
            elif column.backbone:
                inputs[BACKBONE] = self.features.backbone(column.backbone)
            if DETECTIONS in metric.needs:
                inputs[DETECTIONS] = self.detections(prediction)
            if OTHER_SAMPLES in metric.needs:
                others = [self._sample(row) for row in self._videos.rows[1:]]
                inputs[OTHER_SAMPLES] = [(video, self.detections(video)) for video in others]
            if FLOW in metric.needs:
                inputs[FLOW] = self.features.flow()
            given = {PREDICTION: prediction, **inputs}
            first = metric.shares or metric.needs
            computed = metric.shared or metric.function
            one = (computed, first, column.backbone, column.detector, id(prediction))
            if one not in self._returned:
                self._returned[one] = self._computed(metric, computed, {name: given[name] for name in first})
            found = self._returned[one]
            if metric.shared is not None:
                found = metric.function(found, **{name: given[name] for name in metric.needs if name not in first})
        except ValueError as error:
            raise DataError(str(error)) from error
        return self._told(as_found(metric, found))

    def _computed(self, metric: Metric, computed: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        """What a metric makes of these inputs; found again where they are of the reference alone."""
        if metric.shared is None or not given.keys() <= OF_FILES:
            return computed(**given)
        return self.features.of_reference(metric, self._reference_key(metric), lambda: computed(**given))

    def _told(self, found: Found) -> Found:
        """With what is known of the stretches besides."""
        if found.stretches is None:
            return found
        subjects = {of.name: of for of in self.tracks().subjects}
        height = self._plan.generated.data.size[0]
        rows = (
            replace(row, family=subjects[row.subject].family, height=_height(row, subjects[row.subject], height))
            for row in found.stretches
        )
        return replace(found, stretches=tuple(rows))

    def _sample(self, row: Row) -> np.ndarray:
        found: np.ndarray = self._once(f"{PREDICTION} {row.sample}", lambda: self._videos.read(row))
        return found

    # --- what metrics may need ---------------------------------------------------------------------------------------

    def reference(self) -> np.ndarray:
        """(T, H, W, 3) uint8 at the prediction's size and length."""
        return self._of_reference(REFERENCE, pieces.target_video)

    def detections(self, frames: np.ndarray) -> list[list[Detection]]:
        """What the run's detector sees in a prediction; kept, for other metrics."""
        return self._once_of(frames, DETECTIONS, self.features.seen)

    def true_detections(self) -> list[list[Detection]]:
        """What the run's detector sees in the reference."""
        found: list[list[Detection]] = self._once(TRUE_DETECTIONS, lambda: self.features.seen(self.reference()))
        return found

    def unsure(self) -> Callable[[np.ndarray], list[list[Detection]]]:
        """What the run's detector sees in a video and takes for nobody; nothing, where it is always sure."""
        looks: Callable[[np.ndarray], list[list[Detection]]] | None = getattr(self._plan.detector, UNSURE, None)
        return looks or (lambda frames: [[] for _ in frames])

    def _once_of(self, frames: np.ndarray, name: str, make: Callable[[np.ndarray], T]) -> T:
        """What is made of frames; kept where they are one of this clip's videos."""
        known = next((kind for kind, ready in self._ready.items() if ready is frames), None)
        if known is None:
            return make(frames)
        found: T = self._once(f"{name} of {known}", lambda: make(frames))
        return found

    def boxes(self) -> SubjectBoxes:
        """Where the reference's subjects are, in the reference's pixels and frames."""
        return self._of_reference(BOXES, lambda source, data: target_boxes(source, self._states(), data))

    def tracks(self) -> Tracks:
        return self._of_reference(TRACKS, lambda source, data: subject_tracks(source, self._states(), data))

    def context(self) -> np.ndarray:
        """(N, H, W, 3) uint8."""
        return self._of_reference(CONTEXT, pieces.context_video)

    def masks(self) -> np.ndarray:
        """(T, H, W) uint8 numbers of the subjects."""
        return self._of_reference(MASKS, pieces.target_masks)

    def context_masks(self) -> np.ndarray:
        """(N, H, W) uint8 numbers of the subjects."""
        return self._of_reference(CONTEXT_MASKS, pieces.context_masks)

    def cameras(self) -> ClipCameras:
        return self._of_reference(CAMERAS, pieces.clip_cameras)

    def depth(self) -> ClipDepth:
        file = self._annotation(DEPTH_FILE)
        return self._of_reference(DEPTH, lambda source, data: pieces.clip_depth(source, read_content(file), data))

    def _of_reference(self, name: str, read: Callable[[ClipSource, DataConfig], T]) -> T:
        found: T = self._once(name, lambda: read(self._source(), self._plan.generated.data))
        return found

    def _states(self) -> tuple[SubjectState, ...]:
        file = self._annotation(STATES)
        with at(file=file):
            return parse_states(read_json(file))

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        if name not in self._ready:
            try:
                self._ready[name] = read()
            except DataError as error:
                self._ready[name] = error
        if isinstance(found := self._ready[name], DataError):
            raise found
        return found

    def _source(self) -> ClipSource:
        dataset = self._plan.reference
        assert dataset is not None
        if (source := self._plan.sources.get(self.id)) is not None:
            return source
        reasons = {item.item: item.reason for item in dataset.quarantined}
        if self.id in reasons:
            raise DataError(f"its reference cannot be used: {reasons[self.id]}")
        raise DataError("the reference has no clip of this id", where={"reference": dataset.path})

    def _annotation(self, name: str) -> Path:
        """A file beside the videos of the reference's clip. Raises DataError for one that it lacks."""
        source = self._source()
        if (file := own_file(source, name)) is None:
            raise DataError(f"its reference has no {name}", where={"folder": source.files["context"].parent})
        return file


Roles = Callable[[ClipSource, DataConfig], tuple[str, ...]]


def _no_roles(source: ClipSource, data: DataConfig) -> tuple[str, ...]:
    return ()


def _target_role(source: ClipSource, data: DataConfig) -> tuple[str, ...]:
    return ("target" if data.split is None else "context",)


def _mask_roles(source: ClipSource, data: DataConfig) -> tuple[str, ...]:
    """The first of these that the clip has, as hmcli.stages.data.loading takes it."""
    return _first_mask(source, "target" if data.split is None else "context")


def _context_mask_roles(source: ClipSource, data: DataConfig) -> tuple[str, ...]:
    return _first_mask(source, "context")


def _first_mask(source: ClipSource, part: str) -> tuple[str, ...]:
    known = (f"{part}_instances", f"{part}_mask", "joint_mask")
    return tuple(role for role in known if role in source.files)[:1]


@dataclass(frozen=True, kw_only=True)
class Input:
    """Something that a metric may need: how a clip offers it, and what it is read from."""

    read: Callable[[Clip], Any]
    of_reference: bool = False  # it is of the reference's clip
    roles: Roles = _no_roles  # the files of that clip, by role
    files: tuple[str, ...] = ()  # annotations of that clip, which not every data set has


INPUTS: Mapping[str, Input] = {
    PREDICTION: Input(read=lambda clip: None),  # of a sample (Clip.values)
    REFERENCE: Input(read=Clip.reference, of_reference=True, roles=_target_role),
    CONTEXT: Input(read=Clip.context, of_reference=True, roles=lambda source, data: ("context",)),
    BACKBONE: Input(read=lambda clip: None),  # of a column (Clip.values)
    LPIPS: Input(read=lambda clip: None),  # likewise
    DETECTIONS: Input(read=lambda clip: None),  # likewise
    OTHER_SAMPLES: Input(read=lambda clip: None),  # likewise
    FLOW: Input(read=lambda clip: None),  # likewise
    REGIONS: Input(read=lambda clip: None),  # likewise
    UNSURE: Input(read=Clip.unsure),
    TRUE_DETECTIONS: Input(read=Clip.true_detections, of_reference=True, roles=_target_role),
    BOXES: Input(read=Clip.boxes, of_reference=True, files=(STATES,)),
    TRACKS: Input(read=Clip.tracks, of_reference=True, files=(STATES,)),
    MASKS: Input(read=Clip.masks, of_reference=True, roles=_mask_roles),
    CONTEXT_MASKS: Input(read=Clip.context_masks, of_reference=True, roles=_context_mask_roles),
    CAMERAS: Input(read=Clip.cameras, of_reference=True, roles=lambda source, data: ("cameras", "intrinsics")),
    DEPTH: Input(read=Clip.depth, of_reference=True, files=(DEPTH_FILE,)),
}


OF_FILES = {name for name, one in INPUTS.items() if one.of_reference} - {TRUE_DETECTIONS}  # of the reference alone


def reads_reference(metric: Metric) -> bool:
    return any(INPUTS[name].of_reference for name in metric.needs)


def annotations_of(metric: Metric) -> tuple[str, ...]:
    """The files of a reference's clip that it reads besides the videos."""
    return tuple(dict.fromkeys(file for name in metric.needs for file in INPUTS[name].files))


def lacking(metric_input: str, source: ClipSource, data: DataConfig) -> str:
    """What a clip of the reference lacks for an input, in words; empty where it has it."""
    offered = INPUTS[metric_input]
    if absent := [file for file in offered.files if own_file(source, file) is None]:
        return " and ".join(absent)
    if metric_input == MASKS and not _mask_roles(source, data):
        return "masks of its target"
    if metric_input == CONTEXT_MASKS and not _context_mask_roles(source, data):
        return "masks of its context"
    if metric_input == CAMERAS and "intrinsics" not in source.files:
        return "intrinsics"
    return ""


def item_name(clip: str, column: Column) -> str:
    return f"{clip}.{column.name}"


# --- what a metric returned ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Found:
    """Values in order, masked where nothing is judged, and the stretches they are of (a metric of stretches)."""

    values: np.ma.MaskedArray
    stretches: tuple[StretchRow, ...] | None = None


def as_found(metric: Metric, returned: Any) -> Found:
    """What a metric returned for a clip. Raises DataError for what is no value, or not what the metric promised."""
    stretches = None
    if metric.per == "stretch":
        if not returned:
            raise DataError(f"{metric.name} returned no stretch, and does not say that there is none to judge")
        stretches = tuple(map(_row, returned))
        returned = list(returned.values())
    values = np.ma.atleast_1d(np.ma.asarray(returned, np.float64))
    if metric.per == "clip" and values.shape != (wanted := (max(1, len(metric.parts)),)):
        raise DataError(f"{metric.name} returned numbers of shape {values.shape} for a clip, it promised {wanted}")
    if (wrong := np.isnan(values.filled(0))).any():
        raise DataError(f"{metric.name} is not a number in {metric.per} {int(wrong.argmax())}")
    if np.ma.is_masked(values) and not (metric.partial and metric.per == "frame"):
        raise DataError(f"{metric.name} has no value in a {metric.per}, and does not say that there may be none")
    return Found(values=values, stretches=stretches)


def mean_found(samples: Sequence[Found]) -> Found:
    """The mean of what several samples of a clip have: of each frame, stretch or part, over those that have it."""
    if samples[0].stretches is None:
        if any(len(one.values) != len(samples[0].values) for one in samples):
            raise DataError("samples of the clip are judged in different frames")
        return Found(values=np.ma.mean(np.ma.stack([one.values for one in samples]), axis=0))
    of: dict[StretchRow, list[float]] = {}
    for one in samples:
        for stretch, value in zip(one.stretches or (), one.values.tolist(), strict=True):
            of.setdefault(stretch, []).append(value)
    return Found(values=np.ma.asarray([np.mean(values) for values in of.values()]), stretches=tuple(of))


def _height(row: StretchRow, subject: SubjectTrack, of: int) -> float | None:
    """The largest share of a picture `of` so many rows, that a subject has between a stretch and the end; or None."""
    rows_A = np.diff(subject.box_A4[row.last + 1 :, [1, 3]])[:, 0]
    return round(float(np.nanmax(rows_A)) / of, 4) if np.isfinite(rows_A).any() else None


def _row(stretch: Stretch) -> StretchRow:
    return StretchRow(
        subject=stretch.name, first=stretch.first, last=stretch.last, reason=stretch.reason, absent=stretch.absent,
        hidden_seconds=stretch.hidden_seconds,
    )  # fmt: skip
