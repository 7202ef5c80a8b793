"""Annotations of a rendered clip as plain JSON values: the released files and ours.

Released files keep the release's conventions (Unreal axes, centimetres, one entry per frame under "0", "1", ...);
`subjects.json` is ours, in metres and radians of the project's world. `hmcli.world.files.schema` reads them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hmcli.world.hidden.certify import GUESSES, Certificate
from hmcli.world.hidden.events import Visibility, find_events
from hmcli.world.staging.clip import ClipDescription
from hmcli.world.staging.verdict import Certificates
from hmcli.world.views.cameras import unreal_from_world, unreal_point_from_world

_PREFIXES = ("cond", "tgt")


def parts(clip: ClipDescription) -> dict[str, slice]:
    """Frames of the context and of the target, by the prefix of the released file names."""
    return {"cond": slice(0, clip.context_frames), "tgt": slice(clip.context_frames, clip.frames)}


def camera(clip: ClipDescription) -> dict[str, Any]:
    """camera.json: row-major camera-to-world, centimetres, columns forward, right, up."""
    poses = unreal_from_world(clip.world_from_camera)
    return {f"{prefix}_cam": _by_frame(poses[frames]) for prefix, frames in parts(clip).items()}


def character(clip: ClipDescription) -> dict[str, Any]:
    """character.json: place of every subject's feet, Unreal centimetres."""
    found: dict[str, Any] = {f"{prefix}_character": {} for prefix in _PREFIXES}
    for actor in clip.actors:
        points = unreal_point_from_world(actor.walk.position)
        for prefix, frames in parts(clip).items():
            found[f"{prefix}_character"][actor.name] = _by_frame(points[frames])
    return found


def check(clip: ClipDescription, seen: Sequence[Visibility]) -> dict[str, Any]:
    """check.json: a row per exit (inFrame false) and per entry (true)."""
    found: dict[str, Any] = {f"{prefix}_check": {} for prefix in _PREFIXES}
    for actor, of in zip(clip.actors, seen, strict=True):
        rows: dict[str, list[dict[str, Any]]] = {"context": [], "target": []}
        for event in find_events(of, clip.context_frames):
            rows[event.part].append({"frame": event.frame, "inFrame": event.kind == "entry"})
        for prefix, part in zip(_PREFIXES, rows, strict=True):
            found[f"{prefix}_check"][actor.name] = {actor.subject.family: rows[part]}
    return found


def intrinsics(clip: ClipDescription, size: tuple[int, int]) -> dict[str, Any]:
    """intrinsics.json: pixels of the videos as written."""
    fx, fy, cx, cy = clip.intrinsics(size).tolist()
    return {"fx": fx, "fy": fy, "cx": cx, "cy": cy, "width": size[1], "height": size[0]}


def events(clip: ClipDescription, seen: Sequence[Visibility]) -> list[dict[str, Any]]:
    """events.json: every exit and entry in order of time."""
    found = [event for of in seen for event in find_events(of, clip.context_frames)]
    found.sort(key=lambda event: (event.part != "context", event.frame, event.subject))
    return [asdict(event) for event in found]


def subjects(
    clip: ClipDescription, seen: Sequence[Visibility], instances_THW: np.ndarray, amodal_STHW: np.ndarray,
    found: Certificates,
) -> dict[str, Any]:  # fmt: skip
    """subjects.json: each subject's state per frame over context and target together, and when it is hidden.

    `speed` is the mean pace, metres per second; `position` the middle of the feet, metres; `heading` radians from +x
    towards +y; `phase` strides walked; `box` x0, y0, x1, y1 in pixels of its visible part (x1, y1 exclusive), null
    while hidden; `amodal_box` the same of all of it inside the picture, as if nothing stood in front; `visible` the
    share of its pixels inside the picture that nothing covers; `hidden` its hidden stretches with what predicting them
    takes (docs/world.md).
    """
    return {
        actor.name: {
            "number": actor.number,
            "family": actor.subject.family,
            "kind": actor.subject.kind,
            "height": actor.subject.tall,
            "body_length": actor.subject.body_length,
            "radius": actor.subject.radius,
            "path": actor.path,
            "speed": float(actor.walk.distance[-1] / ((clip.frames - 1) / clip.fps)),
            "position": actor.walk.position.tolist(),
            "heading": actor.walk.heading.tolist(),
            "phase": actor.phase.tolist(),
            "box": boxes(instances_THW == actor.number),
            "amodal_box": boxes(amodal),
            "visible": np.round(of.share(), 4).tolist(),
            "hidden": [hidden_row(one, clip.fps) for one in found[actor.name]],
        }
        for actor, of, amodal in zip(clip.actors, seen, amodal_STHW, strict=True)
    }


def hidden_row(one: Certificate, fps: float) -> dict[str, Any]:
    """One hidden stretch: frames over context and target together, seconds, metres and body lengths.

    Errors are those of guesses (hmcli/world/hidden/certify.py) half a second after re-entry, null where the subject was
    seen too little before, or does not come back.
    """
    metres = one.metres or dict.fromkeys(GUESSES)
    degrees = one.degrees or dict.fromkeys(GUESSES)
    return {
        "first": one.first,
        "last": one.last,
        "reason": one.reason,
        "certified": one.certified,
        "absent": one.absent,
        "visible_seconds": _rounded(one.visible_frames / fps),
        "shown_seconds": _rounded(one.shown_frames / fps),
        "hidden_seconds": _rounded(one.hidden_frames / fps),
        "error_degrees": {name: _rounded(error) for name, error in degrees.items()},
        "error_metres": {name: _rounded(error) for name, error in metres.items()},
        "error_bodies": {
            name: None if error is None else _rounded(error / one.body_length) for name, error in metres.items()
        },
        "law": one.law,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def amodal_bits(amodal_STHW: np.ndarray) -> np.ndarray:
    """(S, T, H, W) bool, S at most 8 -> (T, H, W) uint8: bit k-1 is set where subject k is."""
    if len(amodal_STHW) > 8:
        raise ValueError(f"{len(amodal_STHW)} subjects do not fit into 8 bits")
    return np.packbits(amodal_STHW, axis=0, bitorder="little")[0]


def amodal_masks(bits_THW: np.ndarray, subjects: int) -> np.ndarray:
    """What `amodal_bits` packed: (T, H, W) uint8 -> (S, T, H, W) bool."""
    return np.unpackbits(bits_THW[None], axis=0, bitorder="little", count=subjects).astype(bool)


def boxes(mask_THW: np.ndarray) -> list[list[int] | None]:
    """Smallest box around each frame's mask, None where it is empty."""
    found: list[list[int] | None] = []
    for mask in mask_THW:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        whole = len(rows) > 0
        found.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if whole else None)
    return found


def index_row(clip: ClipDescription, found: Certificates, caption: str, plain: str) -> dict[str, Any]:
    """The clip's line of clips.jsonl."""
    return {
        "id": clip.id,
        "seed": clip.seed,
        "index": clip.index,
        "draw": clip.draw,
        "further_seeds": clip.further_seeds,
        "split": clip.split,
        "scene": clip.scene.family,
        "subjects": [actor.subject.family for actor in clip.actors],
        "paths": [actor.path for actor in clip.actors],
        "trajectory": clip.trajectory,
        "start": clip.start,
        "follows": clip.follows,
        "fps": clip.fps,
        "context_frames": clip.context_frames,
        "target_frames": clip.target_frames,
        "hidden": {name: [hidden_row(one, clip.fps) for one in several] for name, several in found.items()},
        "caption": caption,
        "caption_plain": plain,
    }


def _by_frame(values: np.ndarray) -> dict[str, Any]:
    return {str(frame): value.tolist() for frame, value in enumerate(values)}
