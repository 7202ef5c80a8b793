"""Schema: what the annotation files of a clip hold, as dataclasses, and their JSON values: `parse_x`, `x_json`.

Pure; positions come out in metres in the project's world (docs/conventions.md).  The keys of
the released character.json are not published: `parse_subjects` reads ours, which has the form of camera.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from hmcli.errors import DataError
from hmcli.world.views.cameras import PREFIXES, PartName, by_frame, unreal_point_from_world, world_point_from_unreal

Reason = Literal["left the frame", "occluded"]
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive
_ADDED = ("absent", "shown_seconds", "error_degrees")  # fields of a hidden stretch that older renders lack
_LENS = ("fx", "fy", "cx", "cy", "width", "height")
_STATE_ARRAYS = ("position", "heading", "phase", "visible")  # of a subject, per frame
_STATE_BOXES = ("box", "amodal_box")


@dataclass(frozen=True, kw_only=True)
class Presence:
    """Whether one character is in the frame, from check.json: (frame within the part, in frame?) in order of frames.

    False during the context is an exit, True during the target a re-entry.
    """

    part: PartName
    actor: str
    character: str
    frames: tuple[tuple[int, bool], ...]


@dataclass(frozen=True, kw_only=True)
class SubjectTrack:
    """Where one subject is: (T, 3) metres in the world for each part, the middle of its feet on the ground."""

    name: str
    context: np.ndarray
    target: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Event:
    """A subject stops (`exit`) or starts (`entry`) being visible at a frame of a part, and why."""

    part: PartName
    subject: str
    kind: Literal["exit", "entry"]
    frame: int
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class HiddenStretch:
    """Frames `first` to `last` without a subject, over context and target together, and what predicting them takes.

    Errors are those of guesses (picture_centre, frozen, constant_velocity, oracle) half a second after re-entry; None
    where there is none to measure. Renders made before `absent` was measured lack the fields with a default.
    """

    first: int
    last: int
    reason: Reason
    certified: bool
    absent: bool | None = None  # it does not come back, and is surely not where the camera looks for it again
    visible_seconds: float
    shown_seconds: float | None = None  # for which half of its body was seen before
    hidden_seconds: float
    error_degrees: Mapping[str, float | None] | None = None  # seen from the camera
    error_metres: Mapping[str, float | None]
    error_bodies: Mapping[str, float | None]  # the same in body lengths
    law: str  # what the oracle took the motion for


@dataclass(frozen=True, kw_only=True)
class SubjectState:
    """One subject of a rendered clip over context and target together, T frames; metres and radians of our world."""

    name: str
    number: int  # its value in instance masks; bit `number` - 1 in amodal masks
    family: str
    kind: str
    height: float
    body_length: float
    radius: float
    path: str
    speed: float  # metres per second, the mean
    position: np.ndarray  # (T, 3) middle of the feet
    heading: np.ndarray  # (T,) from +x towards +y
    phase: np.ndarray  # (T,) strides walked
    box: tuple[Box | None, ...]  # of its visible part; None while it is hidden
    amodal_box: tuple[Box | None, ...]  # of all of it inside the picture, as if nothing stood in front
    visible: np.ndarray  # (T,) share of its pixels inside the picture that nothing covers
    hidden: tuple[HiddenStretch, ...]


def parse_intrinsics(
    content: Any, size: tuple[int, int], stretched_from: tuple[int, int] | None = None
) -> np.ndarray:  # fmt: skip
    """fx, fy, cx, cy in pixels of a video of `size` (height, width), from {"fx", "fy", "cx", "cy", "width", "height"}.

    `stretched_from` is the size of its frames before their pixels were made square: intrinsics of that size are
    stretched too. Raises DataError when a key is missing or unknown, or when it was written for another size.
    """
    numbers = _mapping(content, "intrinsics", _LENS)
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise DataError(f"{value!r} is no number", where={"key": key})
    written = (numbers["height"], numbers["width"])
    if written not in (size, stretched_from):
        video = f"{size[0]}x{size[1]}"
        if stretched_from is not None:
            video += f" with square pixels, stored as {stretched_from[0]}x{stretched_from[1]}"
        raise DataError(f"intrinsics of a {written[0]}x{written[1]} image, but the video is {video}")
    if numbers["fx"] <= 0 or numbers["fy"] <= 0:
        raise DataError("focal lengths must be positive", where={"key": "fx, fy"})
    along = np.array([size[1] / written[1], size[0] / written[0]])
    return np.array([numbers[key] for key in _LENS[:4]], dtype=np.float64) * np.tile(along, 2)


def intrinsics_json(intrinsics: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """intrinsics.json, from (4,) fx, fy, cx, cy in pixels of a video of `size` (height, width)."""
    return dict(zip(_LENS, [*intrinsics.tolist(), size[1], size[0]], strict=True))


def parse_check(content: Any) -> tuple[Presence, ...]:
    """check.json: {"cond_check": {actor: {character: [{"frame": int, "inFrame": bool}, ...]}}, "tgt_check": {...}}."""
    top = _mapping(content, "check.json")
    found: list[Presence] = []
    for part, prefix in PREFIXES.items():
        for actor, characters in _mapping(top.get(f"{prefix}_check", {}), f"{prefix}_check").items():
            for character, rows in _mapping(characters, f"{prefix}_check.{actor}").items():
                place = f"{prefix}_check.{actor}.{character}"
                frames = tuple(sorted(_check_row(row, place) for row in _list(rows, place)))
                found.append(Presence(part=part, actor=actor, character=character, frames=frames))
    return tuple(found)


def check_json(presences: Iterable[Presence]) -> dict[str, Any]:
    """check.json, as `parse_check` reads it."""
    found: dict[str, Any] = {f"{prefix}_check": {} for prefix in PREFIXES.values()}
    for one in presences:
        rows = [{"frame": frame, "inFrame": inside} for frame, inside in one.frames]
        found[f"{PREFIXES[one.part]}_check"].setdefault(one.actor, {})[one.character] = rows
    return found


def _check_row(row: Any, place: str) -> tuple[int, bool]:
    values = _mapping(row, place, ("frame", "inFrame"))
    return _frame(values["frame"], place), _flag(values["inFrame"], place)


def parse_subjects(content: Any) -> tuple[SubjectTrack, ...]:
    """Our character.json: {"cond_character": {subject: {"0": [x, y, z], ...}}, "tgt_character": {...}}, Unreal cm."""
    top = _mapping(content, "character.json", tuple(f"{prefix}_character" for prefix in PREFIXES.values()))
    parts = {part: _positions(top[f"{prefix}_character"], f"{prefix}_character") for part, prefix in PREFIXES.items()}
    if odd := set(parts["context"]) ^ set(parts["target"]):
        raise DataError(
            f"subject {sorted(odd)[0]!r} is in one of context and target only", where={"key": "character.json"}
        )
    return tuple(
        SubjectTrack(name=name, context=track, target=parts["target"][name]) for name, track in parts["context"].items()
    )


def subjects_json(tracks: Iterable[SubjectTrack]) -> dict[str, Any]:
    """character.json, as `parse_subjects` reads it."""
    found: dict[str, Any] = {f"{prefix}_character": {} for prefix in PREFIXES.values()}
    for track in tracks:
        for part, prefix in PREFIXES.items():
            places = track.context if part == "context" else track.target
            found[f"{prefix}_character"][track.name] = by_frame(unreal_point_from_world(places))
    return found


def _positions(content: Any, place: str) -> dict[str, np.ndarray]:
    """Subject -> (T, 3) metres."""
    tracks = {}
    for subject, frames in _mapping(content, place).items():
        rows = _mapping(frames, f"{place}.{subject}")
        if missing := [frame for frame in range(len(rows)) if str(frame) not in rows]:
            raise DataError(f"frame {missing[0]} is missing", where={"key": f"{place}.{subject}"})
        try:
            points = np.array([rows[str(frame)] for frame in range(len(rows))], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("positions must be [x, y, z]", where={"key": f"{place}.{subject}"}) from error
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise DataError("positions must be finite [x, y, z]", where={"key": f"{place}.{subject}"})
        tracks[subject] = world_point_from_unreal(points)
    return tracks


def parse_states(content: Any) -> tuple[SubjectState, ...]:
    """Our subjects.json, in order of the subjects' numbers."""
    keys = tuple(field.name for field in fields(SubjectState) if field.name != "name")
    states = []
    for name, value in _mapping(content, "subjects.json").items():
        place = f"subjects.json.{name}"
        row = dict(_mapping(value, place, keys))
        try:
            for key in _STATE_ARRAYS:
                row[key] = np.array(row[key], dtype=np.float64)
            for key in _STATE_BOXES:
                row[key] = tuple(
                    None if box is None else (*map(int, box),) for box in _list(row[key], f"{place}.{key}")
                )
        except (TypeError, ValueError) as error:
            raise DataError("a value per frame is no number", where={"key": place}) from error
        hidden = tuple(_hidden(one, f"{place}.hidden") for one in _list(row.pop("hidden"), f"{place}.hidden"))
        states.append(SubjectState(name=name, hidden=hidden, **row))
        lengths = {len(row[key]) for key in (*_STATE_ARRAYS, *_STATE_BOXES)}
        if len(lengths) != 1 or row["position"].shape[1:] != (3,):
            raise DataError("the subject has not one value per frame", where={"key": place})
    return tuple(sorted(states, key=lambda state: state.number))


def states_json(states: Iterable[SubjectState]) -> dict[str, Any]:
    """subjects.json, as `parse_states` reads it."""
    rows = {}
    for state in states:
        row = asdict(state)
        row |= {key: row[key].tolist() for key in _STATE_ARRAYS}
        rows[row.pop("name")] = row
    return rows


def _hidden(content: Any, place: str) -> HiddenStretch:
    keys = tuple(field.name for field in fields(HiddenStretch))
    older = isinstance(content, Mapping) and "absent" not in content
    return HiddenStretch(**_mapping(content, place, tuple(key for key in keys if not older or key not in _ADDED)))


def parse_events(content: Any) -> tuple[Event, ...]:
    """events.json: [{"part", "subject", "kind", "frame", "reason"}, ...], in order of time."""
    allowed = {
        "part": ("context", "target"),
        "kind": ("exit", "entry"),
        "reason": ("left the frame", "occluded"),
    }
    events = []
    for index, row in enumerate(_list(content, "events.json")):
        place = f"events.json[{index}]"
        values = _mapping(row, place, ("part", "subject", "kind", "frame", "reason"))
        for key, known in allowed.items():
            if values[key] not in known:
                raise DataError(f"{key} is {values[key]!r}, not {' or '.join(known)}", where={"key": place})
        events.append(Event(**{**values, "frame": _frame(values["frame"], place), "subject": str(values["subject"])}))
    return tuple(sorted(events, key=lambda event: (event.part != "context", event.frame)))


def events_json(events: Iterable[Event]) -> list[dict[str, Any]]:
    """events.json, as `parse_events` reads it."""
    return [asdict(event) for event in events]


def _mapping(value: Any, place: str, keys: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    """`value` as a JSON object, with exactly `keys` when given."""
    if not isinstance(value, Mapping):
        raise DataError("this must be a JSON object", where={"key": place})
    if keys is not None and set(value) != set(keys):
        raise DataError(f"the keys are {sorted(value)}, not {sorted(keys)}", where={"key": place})
    return value


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError("this must be a JSON list", where={"key": place})
    return value


def _frame(value: Any, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(f"frame is {value!r}, not a number from 0", where={"key": place})
    return value


def _flag(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"inFrame is {value!r}, not true or false", where={"key": place})
    return value
