"""What a rendered clip says of its subjects, held against its own masks, depth and cameras.

Boxes and hidden stretches must be those of the masks, to the pixel and the frame; bodies must be seen where their
positions are, at the depth they have. Each function returns problems in words. Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.errors import DataError
from hmcli.stages.data.annotations import read_depth
from hmcli.stages.data.opening import ClipSource, own_file
from hmcli.store.files import read_json
from hmcli.store.video import read_labels
from hmcli.world.files import schema
from hmcli.world.files.layout import DEPTH, STATES, video_file
from hmcli.world.files.tables import RenderedRow
from hmcli.world.hidden.events import stretches
from hmcli.world.staging.annotate import amodal_masks, boxes
from hmcli.world.views.cameras import PREFIXES

_BESIDE = 0.15, 3.0  # share of its box's sides, and pixels, by which a body's middle may lie outside of its box
_SAME_PLACE = 2e-3  # metres between what two files say
_MOSTLY = 0.8  # share of a subject's frames that must agree
_MASKS_DIFFER = 0.02, 8  # share of the picture, and pixels, by which a compressed mask may differ from a lossless one
_FEW = 5  # frames, or pixels, from which something can be said
_SURFACE = 1.0  # metres by which the surface that is seen may lie off the body's middle, beyond its own size


def depth_of(source: ClipSource, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    """(T, H, W) metres over both parts, and what is wrong with them; None where there is none that can be used."""
    if (file := own_file(source, DEPTH)) is None:
        return None, []
    try:
        depth = np.concatenate(read_depth(file))
    except (DataError, ValueError) as error:
        return None, [f"{DEPTH} cannot be read: {_first_line(error)}"]
    if depth.shape != shape or depth.dtype.kind != "f":
        return None, [f"{DEPTH} has {depth.dtype} {depth.shape}, the videos {shape}"]
    wrong_T = (np.isnan(depth) | (depth <= 0)).any((1, 2))
    if wrong_T.any():
        return None, [f"{DEPTH} is not a positive number in {int(wrong_T.sum())} frames, from {_first(wrong_T)} on"]
    return depth, []


def states_of(source: ClipSource) -> tuple[tuple[schema.SubjectState, ...] | None, list[str]]:
    """The subjects' states, and what is wrong with their file."""
    if (file := own_file(source, STATES)) is None:
        return None, []
    try:
        return schema.parse_states(read_json(file)), []
    except (DataError, TypeError, AttributeError, KeyError) as error:
        return None, [f"{STATES} cannot be read: {_first_line(error)}"]


def about_masks(source: ClipSource, instances: np.ndarray, white: np.ndarray | None) -> list[str]:
    """Foreground and amodal masks against the instance masks, all (T, H, W)."""
    problems = []
    if white is not None and white.shape == instances.shape:
        differ_T = ((white > 0) != (instances > 0)).sum((1, 2))
        wrong_T = differ_T > max(_MASKS_DIFFER[1], _MASKS_DIFFER[0] * instances[0].size)
        problems += _frames(wrong_T, "foreground and instance masks do not show the same subjects")
    bits, said = _amodal(source, instances.shape)
    if bits is not None and instances.max(initial=0) <= 8:
        inside = amodal_masks(bits, 8)
        wrong = [((instances == number + 1) & ~mask).any((1, 2)) for number, mask in enumerate(inside)]
        problems += _frames(np.any(wrong, axis=0), "amodal masks lack what the instance masks show")
    return [*problems, *said]


def _amodal(source: ClipSource, shape: tuple[int, ...]) -> tuple[np.ndarray | None, list[str]]:
    files = [own_file(source, video_file(part, "amodal")) for part in PREFIXES]
    there = [file for file in files if file is not None]
    if len(there) != len(files):
        return None, []
    try:
        bits = np.concatenate([read_labels(file) for file in there])
    except (DataError, ValueError) as error:
        return None, [f"the amodal masks cannot be read: {_first_line(error)}"]
    return (bits, []) if bits.shape == shape else (None, [f"the amodal masks have {bits.shape}, the videos {shape}"])


def about_states(
    source: ClipSource, states: Sequence[schema.SubjectState], instances: np.ndarray,
    tracks: Sequence[schema.SubjectTrack] | None,
) -> list[str]:  # fmt: skip
    """Subjects' states against the masks and character.json."""
    problems: list[str] = []
    numbers = {state.number for state in states}
    if strangers := sorted({int(number) for number in np.unique(instances) if number} - numbers):
        problems.append(f"the instance masks show subject {strangers[0]}, of whom {STATES} says nothing")
    bits, _ = _amodal(source, instances.shape)
    for state in states:
        if len(state.position) != len(instances):
            problems.append(f"{state.name}: {STATES} has {len(state.position)} frames, the videos {len(instances)}")
            continue
        mask = instances == state.number
        problems += _boxes_differ(state.name, "boxes", boxes(mask), state.box)
        if bits is not None and state.number <= 8:
            inside = (bits >> (state.number - 1)) & 1 == 1
            problems += _boxes_differ(state.name, "amodal boxes", boxes(inside), state.amodal_box)
        gone = set(stretches(~mask.any((1, 2))))
        if odd := [one for one in state.hidden if (one.first, one.last) not in gone]:
            frames = f"frames {odd[0].first} to {odd[0].last}"
            problems.append(f"{state.name}: {STATES} has it hidden in {frames}, the masks have not")
    return [*problems, *(_tracks_differ(states, tracks) if tracks is not None else [])]


def _boxes_differ(
    name: str, what: str, masks: Sequence[schema.Box | None], said: Sequence[schema.Box | None]
) -> list[str]:
    return _frames(
        np.array([one != other for one, other in zip(masks, said, strict=True)]),
        f"{name}: {STATES} has other {what} than the masks",
    )


def _tracks_differ(states: Sequence[schema.SubjectState], tracks: Sequence[schema.SubjectTrack]) -> list[str]:
    places = {track.name: np.concatenate([track.context, track.target]) for track in tracks}
    if set(places) != {state.name for state in states}:
        return [f"character.json has the subjects {sorted(places)}, {STATES} {sorted(state.name for state in states)}"]
    problems = []
    for state in states:
        place = places[state.name]
        same = place.shape == state.position.shape and np.abs(place - state.position).max() < _SAME_PLACE
        problems += [] if same else [f"{state.name}: character.json has other places than {STATES}"]
    return problems


def about_places(
    states: Sequence[schema.SubjectState], poses: np.ndarray, lens: np.ndarray, size: tuple[int, int]
) -> list[str]:
    """Are bodies seen where their positions are? `lens` is fx, fy, cx, cy in pixels of a picture of `size`."""
    problems = []
    for state in states:
        seen = [frame for frame, box in enumerate(state.amodal_box) if box is not None and _whole(box, size)]
        if len(seen) < _FEW or len(state.position) != len(poses):
            continue
        middle = _in_camera(state, poses)[seen]
        ahead = middle[:, 2] > 0
        point = middle[:, :2] / np.where(ahead, middle[:, 2], 1)[:, None] * lens[:2] + lens[2:]
        box = np.array([state.amodal_box[frame] for frame in seen], dtype=np.float64)
        room = np.maximum(_BESIDE[0] * (box[:, 2:] - box[:, :2]), _BESIDE[1])
        inside = ahead & ((point >= box[:, :2] - room) & (point <= box[:, 2:] + room)).all(1)
        if inside.mean() < _MOSTLY:
            away = int((~inside).sum())
            what = "is not seen where cameras, intrinsics and its position put it"
            problems.append(f"{state.name} {what}, in {away} of {len(seen)} frames")
    return problems


def about_depth(
    states: Sequence[schema.SubjectState], instances: np.ndarray, poses: np.ndarray, depth: np.ndarray
) -> list[str]:
    """Do subjects have the depth at which they are? (T, H, W) masks and metres along the camera's axis."""
    problems = []
    for state in states:
        mask = instances == state.number
        seen = np.flatnonzero(mask.sum((1, 2)) >= _FEW)
        if len(seen) < _FEW or len(state.position) != len(poses):
            continue
        far = _in_camera(state, poses)[seen, 2]
        surface = np.array([np.median(depth[frame][mask[frame]].astype(np.float64)) for frame in seen])
        allowed = _SURFACE + max(state.body_length, state.radius, state.height / 2)
        right = np.abs(surface - far) <= allowed
        if right.mean() < _MOSTLY:
            problems.append(
                f"{state.name} has another depth than its position, in {int((~right).sum())} of {len(seen)} frames"
            )
    return problems


def _whole(box: schema.Box, size: tuple[int, int]) -> bool:
    """Does the picture's edge not cut it?"""
    return box[0] > 0 and box[1] > 0 and box[2] < size[1] and box[3] < size[0]


def _in_camera(state: schema.SubjectState, poses: np.ndarray) -> np.ndarray:
    """(T, 3) the middle of the body, right, down and forward of the camera."""
    middle = state.position + np.array([0, 0, state.height / 2])
    return np.einsum("tji,tj->ti", poses[:, :3, :3], middle - poses[:, :3, 3])


def about_row(row: RenderedRow, source: ClipSource, states: Sequence[schema.SubjectState] | None) -> list[str]:
    """A clip's line of clips.jsonl against its files."""
    said: list[tuple[str, object, object]] = [("fps", row.fps, source.context_info.fps)]
    said.append(("context_frames", row.context_frames, source.context_info.frames))
    if source.target_info is not None:
        said.append(("target_frames", row.target_frames, source.target_info.frames))
    if states is not None:
        said.append(("subjects", tuple(row.subjects), tuple(state.family for state in states)))
        spans = {state.name: [(one.first, one.last) for one in state.hidden] for state in states}
        said.append(("hidden", {name: [(o.first, o.last) for o in of] for name, of in row.hidden.items()}, spans))
    return [f"clips.jsonl says {name}={one!r}, the clip's files {other!r}" for name, one, other in said if one != other]


def _frames(wrong_T: np.ndarray, what: str) -> list[str]:
    return [f"{what}, in {int(wrong_T.sum())} frames, from frame {_first(wrong_T)} on"] if wrong_T.any() else []


def _first(wrong_T: np.ndarray) -> int:
    return int(np.argmax(wrong_T))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
