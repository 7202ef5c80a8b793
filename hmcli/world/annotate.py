"""Annotations of a rendered clip as plain JSON values: the released files and ours.

Released files keep the release's conventions (Unreal axes, centimetres, one entry per frame under "0", "1", ...);
`subjects.json` is ours, in metres and radians of the project's world. `hmcli.world.schema` reads them back.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from hmcli.world.cameras import unreal_from_world, unreal_point_from_world
from hmcli.world.clip import Actor, ClipDescription
from hmcli.world.events import Visibility, find_events, hidden_stretches

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


def check(clip: ClipDescription, seen: list[Visibility]) -> dict[str, Any]:
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


def events(clip: ClipDescription, seen: list[Visibility]) -> list[dict[str, Any]]:
    """events.json: every exit and entry in order of time."""
    found = [event for of in seen for event in find_events(of, clip.context_frames)]
    found.sort(key=lambda event: (event.part != "context", event.frame, event.subject))
    return [asdict(event) for event in found]


def subjects(clip: ClipDescription, seen: list[Visibility], instances_THW: np.ndarray) -> dict[str, Any]:
    """subjects.json: each subject's state per frame over context and target together, and when it is hidden.

    `position` is the middle of the feet, metres; `heading` radians from +x towards +y; `phase` strides walked;
    `box` x0, y0, x1, y1 in pixels of its visible part (x1, y1 exclusive), null while hidden; `visible` the share of its
    pixels inside the picture that nothing covers.
    """
    return {
        actor.name: {
            "number": actor.number,
            "family": actor.subject.family,
            "height": actor.subject.tall,
            "path": actor.path,
            "speed": actor.subject.speed,
            "position": actor.walk.position.tolist(),
            "heading": actor.walk.heading.tolist(),
            "phase": actor.phase.tolist(),
            "box": boxes(instances_THW == actor.number),
            "visible": np.round(of.share(), 4).tolist(),
            "hidden": [
                {"first": stretch.first, "last": stretch.last, "reason": stretch.reason}
                for stretch in hidden_stretches(of)
            ],
        }
        for actor, of in zip(clip.actors, seen, strict=True)
    }


def boxes(mask_THW: np.ndarray) -> list[list[int] | None]:
    """Smallest box around each frame's mask, None where it is empty."""
    found: list[list[int] | None] = []
    for mask in mask_THW:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        whole = len(rows) > 0
        found.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1] if whole else None)
    return found


def index_row(clip: ClipDescription, seen: list[Visibility], text: str) -> dict[str, Any]:
    """The clip's line of clips.jsonl."""
    return {
        "id": clip.id,
        "seed": clip.seed,
        "index": clip.index,
        "draw": clip.draw,
        "scene": clip.scene.family,
        "subjects": [actor.subject.family for actor in clip.actors],
        "paths": [actor.path for actor in clip.actors],
        "trajectory": clip.trajectory,
        "fps": clip.fps,
        "context_frames": clip.context_frames,
        "target_frames": clip.target_frames,
        "hidden": {of.subject: [[gone.first, gone.last] for gone in hidden_stretches(of)] for of in seen},
        "caption": text,
    }


def caption(clip: ClipDescription) -> str:
    """One sentence about what the context shows: subjects, how they walk, where, in what light."""
    who = [f"{actor.subject.words} {_manner(clip, actor)}" for actor in clip.actors]
    text = f"{' and '.join(who)} on {clip.scene.words} {clip.light.words}."
    return text[0].upper() + text[1:]


def _manner(clip: ClipDescription, actor: Actor) -> str:
    """How the subject walks, as seen in the first frames of the context (the camera has hardly moved then)."""
    first = max(2, clip.context_frames // 4)
    step = actor.walk.position[first - 1] - actor.walk.position[0]
    aside, _, ahead = clip.world_from_camera[0, :3, :3].T @ (step / max(float(np.linalg.norm(step)), 1e-9))
    if abs(ahead) > 0.85:
        way = "walks away" if ahead > 0 else "walks closer"
    else:
        way = "walks to the right" if aside > 0 else "walks to the left"
    return {"loop": f"{way} in a tight circle", "arc": f"{way} in a bend"}.get(actor.path, way)


def _by_frame(values: np.ndarray) -> dict[str, Any]:
    return {str(frame): value.tolist() for frame, value in enumerate(values)}
