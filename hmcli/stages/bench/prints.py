"""Prints: what identifies a clip on disk, and how it differs from a frozen one.

Hashed values are rounded first (`Tolerances.step`), so that the last bits, which differ between machines, do not
count. Pictures are compared through mean colours: every frame as a whole, some frames by parts; masks likewise, through
the shares that show each subject.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.errors import DataError
from hmcli.stages.bench import mask_prints
from hmcli.stages.bench.definition import Absence, Happening, Print, Tolerances
from hmcli.stages.data.opening import ClipSource, read_cameras, read_lens
from hmcli.store.files import read_json
from hmcli.store.hashing import hash_arrays, hash_json
from hmcli.store.video import read_video
from hmcli.world.files import schema
from hmcli.world.files.layout import EVENTS, STATES
from hmcli.world.staging.clip import ClipDescription

PARTS = 8  # of a thumbnail, along each side
THUMBNAIL_FRAMES = ("first of the context", "last of the context", "middle of the target", "last of the target")
_FILES = ("context", "target", "cameras")  # roles that every clip of a benchmark has


@dataclass(frozen=True, kw_only=True)
class ClipValues:
    """The arrays behind the hashes of a clip: T frames over context and target together."""

    poses: np.ndarray  # (T, 4, 4) world_from_camera, metres
    tracks: Mapping[str, np.ndarray]  # subject -> (T, 6) x, y, z in metres, cosine and sine of the heading, strides


def values_on_disk(source: ClipSource) -> ClipValues:
    """Poses and tracks as the clip's files have them. Raises DataError when one is missing or unreadable."""
    if missing := [role for role in _FILES if role not in source.files]:
        raise DataError(f"the clip has no {missing[0]}", where={"clip": source.id})
    cameras = read_cameras(source)
    if cameras.context is None or cameras.target is None:
        raise DataError("the clip has no poses of context and target", where={"clip": source.id})
    states = schema.parse_states(read_json(source.files["context"].parent / STATES))
    tracks = {state.name: _track(state.position, state.heading, state.phase) for state in states}
    return ClipValues(poses=np.concatenate([cameras.context, cameras.target]), tracks=tracks)


def values_described(clip: ClipDescription) -> ClipValues:
    """The same from the clip's description, without drawing it."""
    tracks = {one.name: _track(one.walk.position, one.walk.heading, one.phase) for one in clip.actors}
    return ClipValues(poses=clip.world_from_camera, tracks=tracks)


def _track(position: np.ndarray, heading: np.ndarray, phase: np.ndarray) -> np.ndarray:
    columns = [position, np.cos(heading)[:, None], np.sin(heading)[:, None], phase[:, None]]
    return np.concatenate(columns, axis=1)


def poses_hash(values: ClipValues, step: float) -> str:
    return hash_arrays({"poses": _on_grid(values.poses, step)})


def tracks_hash(values: ClipValues, step: float) -> str:
    return hash_arrays({name: _on_grid(track, step) for name, track in values.tracks.items()})


def _on_grid(values: np.ndarray, step: float) -> np.ndarray:
    return np.rint(values / step).astype(np.int64)


def print_of(source: ClipSource, values: ClipValues, step: float) -> Print:
    """The print of a clip on disk; decodes its videos."""
    folder = source.files["context"].parent
    states = schema.parse_states(read_json(folder / STATES))
    events = schema.parse_events(read_json(folder / EVENTS))
    context, target = read_video(source.files["context"]), read_video(source.files["target"])
    before = {"context": 0, "target": len(context)}
    return Print(
        caption=source.caption, poses=poses_hash(values, step), tracks=tracks_hash(values, step),
        events=hash_json([[one.part, one.subject, one.kind, one.frame, one.reason] for one in events]),
        absences=tuple(
            Absence(subject=one.name, first=gone.first, last=gone.last, reason=gone.reason, certified=gone.certified)
            for one in states
            for gone in one.hidden
        ),
        thumbnails=_text(thumbnails(context, target)),
        frame_means=_text(np.concatenate([_means(context), _means(target)])),
        lens=_lens(source),
        happenings=tuple(
            Happening(subject=one.subject, kind=one.kind, frame=before[one.part] + one.frame, reason=one.reason)
            for one in events
        ),
        **_masks(source, [state.number for state in states], len(context)),
    )  # fmt: skip


def _lens(source: ClipSource) -> tuple[float, ...]:
    """fx, fy and cx in widths of the picture, cy in heights: the same at every size; empty where the clip has none."""
    if "intrinsics" not in source.files:
        return ()
    width, height = source.context_info.width, source.context_info.height
    fx, fy, cx, cy = read_lens(source)
    return tuple(round(float(value), 6) for value in (fx / width, fy / width, cx / width, cy / height))


def _masks(source: ClipSource, numbers: Sequence[int], frames: int) -> dict[str, str]:
    """Prints of the instance masks, `frames` of them the context's; empty where the clip has none, or no subjects."""
    masks_THW = mask_prints.instance_masks(source)
    if masks_THW is None or not numbers:
        return {}
    shown = mask_prints.of_each(masks_THW, numbers)
    return {
        "masks": _text(thumbnails(shown[:frames], shown[frames:])),
        "mask_shares": _text(mask_prints.shares_of_frames(masks_THW, numbers)),
    }


def thumbnails(context: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(4, PARTS, PARTS, channels) uint8: means over the parts of the frames of THUMBNAIL_FRAMES."""
    frames = np.stack([context[0], context[-1], target[len(target) // 2], target[-1]]).astype(np.float64)
    for axis in (1, 2):
        starts = np.arange(PARTS) * frames.shape[axis] // PARTS
        lengths = np.diff([*starts, frames.shape[axis]])
        shape = [-1 if i == axis else 1 for i in range(4)]
        frames = np.add.reduceat(frames, starts, axis=axis) / lengths.reshape(shape)
    return np.rint(frames).astype(np.uint8)


def _means(video: np.ndarray) -> np.ndarray:
    """(T, 3) uint8 mean colour of each frame."""
    return np.rint(video.mean((1, 2), dtype=np.float64)).astype(np.uint8)


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _levels(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape).astype(np.int64)


# --- comparing -------------------------------------------------------------------------------------------------------


def differences(found: Print, frozen: Print, allowed: Tolerances, *, same_size: bool) -> list[str]:
    """How a clip differs from the frozen one beyond what is allowed, poses and tracks left out; empty: it is the same.

    At another size a limb may show a moment earlier or not at all: then only certified stretches are held against
    each other.
    """
    said = [] if found.caption == frozen.caption else [f"the caption is {found.caption!r}"]
    if not same_size:
        said += _stretch_differences(found.absences, frozen.absences, allowed.other_event_frames)
    elif found.events != frozen.events:
        said += _visibility_differences(found, frozen, allowed.event_frames) or _event_differences(
            found.happenings, frozen.happenings, allowed.event_frames
        )
    part, whole = (
        (allowed.thumbnail_levels, allowed.frame_levels)
        if same_size
        else (allowed.other_thumbnail_levels, allowed.other_frame_levels)
    )
    said += _lens_differences(found.lens, frozen.lens, allowed.step)
    said += _mask_differences(found, frozen, allowed, same_size=same_size)
    return said + _picture_differences(found, frozen, part, whole)


def _lens_differences(found: Sequence[float], frozen: Sequence[float], step: float) -> list[str]:
    if not frozen:
        return []
    if not found:
        return ["it has no intrinsics"]
    return [
        f"{name} of the intrinsics is {value:.5f} of the picture's side, not {true:.5f}"
        for name, value, true in zip(("fx", "fy", "cx", "cy"), found, frozen, strict=True)
        if abs(value - true) > step
    ]


def _event_differences(found: Sequence[Happening], frozen: Sequence[Happening], frames: int) -> list[str]:
    """Events that are not among the frozen ones, or the reverse, but for `frames` by which they may move."""
    if not frozen:
        return []
    lost = [f"{_told(one)} is missing" for one in frozen if not any(_one_event(one, other, frames) for other in found)]
    return lost + [
        f"{_told(one)} is new" for one in found if not any(_one_event(one, other, frames) for other in frozen)
    ]


def _one_event(one: Happening, other: Happening, frames: int) -> bool:
    alike = (one.subject, one.kind, one.reason) == (other.subject, other.kind, other.reason)
    return alike and abs(one.frame - other.frame) <= frames


def _told(event: Happening) -> str:
    return f"the event {event.kind} ({event.reason}) of {event.subject} in frame {event.frame}"


def _mask_differences(found: Print, frozen: Print, allowed: Tolerances, *, same_size: bool) -> list[str]:
    """Frames, and parts of some, that show another share of a subject; at another size frames alone."""
    if not frozen.masks:
        return []
    if not found.masks:
        return ["it has no instance masks of context and target"]
    if (len(found.masks), len(found.mask_shares)) != (len(frozen.masks), len(frozen.mask_shares)):
        return ["its masks are of other frames, or of other subjects"]
    subjects = len(base64.b64decode(frozen.masks)) // (len(THUMBNAIL_FRAMES) * PARTS**2)
    whole = allowed.frame_levels if same_size else allowed.other_frame_levels
    shares, true = (_levels(of.mask_shares, (-1, subjects)) for of in (found, frozen))
    off = np.abs(shares - true).max(1)
    said = []
    if off.max() > whole:
        said.append(f"masks of {int((off > whole).sum())} frames show more or less of a subject, frame {off.argmax()} "
                    f"by {off.max()} levels (allowed {whole:g})")  # fmt: skip
    if same_size:
        shape, part = (len(THUMBNAIL_FRAMES), PARTS, PARTS, subjects), allowed.other_thumbnail_levels
        parts = np.abs(_levels(found.masks, shape) - _levels(frozen.masks, shape)).max((1, 2, 3))
        said += [
            f"the mask of the {name} frame is off by {off} levels in some part (allowed {part:g})"
            for name, off in zip(THUMBNAIL_FRAMES, parts.tolist(), strict=True)
            if off > part
        ]
    return said


def _visibility_differences(found: Print, frozen: Print, frames: int) -> list[str]:
    """Frames in which a subject is hidden and was not, or the reverse, but for `frames` on each side of a change."""
    said = []
    for name in dict.fromkeys(one.subject for one in (*frozen.absences, *found.absences)):
        flags, true = _hidden_in(found, name), _hidden_in(frozen, name)
        if len(flags) != len(true):
            continue  # the pictures say so
        changes = np.flatnonzero(np.diff(true)) + 0.5
        wrong = [frame for frame in np.flatnonzero(flags != true) if not (abs(changes - frame) < frames).any()]
        if wrong:
            now = "hidden" if flags[wrong[0]] else "visible"
            said.append(f"{name} is {now} in frame {wrong[0]} ({len(wrong)} frames are wrong)")
    return said


def _hidden_in(of: Print, subject: str) -> np.ndarray:
    """(T,) is the subject hidden?"""
    flags = np.zeros(_frames(of), bool)
    for gone in of.absences:
        if gone.subject == subject:
            flags[gone.first : gone.last + 1] = True
    return flags


def _stretch_differences(found: Sequence[Absence], frozen: Sequence[Absence], frames: int) -> list[str]:
    """Certified stretches that are not found within `frames`."""
    return [
        f"{one.subject} is not hidden ({one.reason}) from frame {one.first} to {one.last}"
        for one in frozen
        if one.certified and not any(_alike(one, other, frames) for other in found)
    ]


def _alike(one: Absence, other: Absence, frames: int) -> bool:
    near = max(abs(one.first - other.first), abs(one.last - other.last)) <= frames
    return near and one.subject == other.subject


def _picture_differences(found: Print, frozen: Print, part: float, whole: float) -> list[str]:
    if len(found.frame_means) != len(frozen.frame_means):
        return [f"it has {_frames(found)} frames, not {_frames(frozen)}"]
    shape = (len(THUMBNAIL_FRAMES), PARTS, PARTS, 3)
    parts = np.abs(_levels(found.thumbnails, shape) - _levels(frozen.thumbnails, shape)).max((1, 2, 3))
    means = np.abs(_levels(found.frame_means, (-1, 3)) - _levels(frozen.frame_means, (-1, 3))).max(1)
    said = [
        f"the {name} frame is off by {off} levels in some part (allowed {part:g})"
        for name, off in zip(THUMBNAIL_FRAMES, parts.tolist(), strict=True)
        if off > part
    ]
    if means.max() > whole:
        worst = int(means.argmax())
        said.append(f"{int((means > whole).sum())} frames have another colour, frame {worst} by {means[worst]} levels"
                    f" (allowed {whole:g})")  # fmt: skip
    return said


def _frames(of: Print) -> int:
    return len(base64.b64decode(of.frame_means)) // 3


def value_differences(found: ClipValues, true: ClipValues, step: float) -> list[str]:
    """Where poses and tracks are off, in words."""
    said = []
    if list(found.tracks) != list(true.tracks):
        return [f"its subjects are {', '.join(found.tracks)}, not {', '.join(true.tracks)}"]
    for name, one, other in [("the camera", found.poses, true.poses)] + [
        (name, track, true.tracks[name]) for name, track in found.tracks.items()
    ]:
        if len(one) != len(other):
            said.append(f"{name} has {len(one)} frames, not {len(other)}")
            continue
        off = np.abs(one - other).reshape(len(one), -1).max(1)
        if off.max() > step:
            said.append(
                f"{name} is off in {int((off > step).sum())} frames, by {off.max():.3g} in frame {off.argmax()}"
            )
    return said
