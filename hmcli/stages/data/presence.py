"""When subjects are in the picture: by masks, by check.json and by events.json, and where these disagree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hmcli.errors import DataError
from hmcli.stages.data.findings import Findings, frame_name
from hmcli.stages.data.opening import ClipSource, read_role
from hmcli.store.video import read_labels, read_video
from hmcli.world.files import schema
from hmcli.world.hidden.sightings import Absence, absences, exit_and_entry, seen_in_check, seen_in_masks, why_gone
from hmcli.world.views import framing

_MAY_DISAGREE = 2  # frames by which masks and check.json may differ around an exit or an entry


def read_masks(source: ClipSource, videos: Mapping[str, np.ndarray]) -> tuple[np.ndarray, bool] | None:
    """Subject numbers over context and target (T, H, W), and whether they are lossless; None without masks of both."""
    for kind in ("instances", "mask"):
        if all(f"{part}_{kind}" in source.files for part in videos):
            parts = []
            for part, video in videos.items():
                file = source.read(f"{part}_{kind}")
                labels = read_labels(file) if kind == "instances" else framing.white_mask(read_video(file))
                if labels.shape != video.shape[:3]:
                    raise DataError(
                        f"a mask of {labels.shape} frames, rows, columns for a video of {video.shape[:3]}",
                        where={"file": file.path},
                    )
                parts.append(labels.astype(np.uint8))
            return np.concatenate(parts), kind == "instances"
    if "joint_mask" in source.files:
        whole = framing.red_mask(read_video(source.read("joint_mask")))
        wanted = sum(len(video) for video in videos.values())
        if len(whole) != wanted:
            raise DataError(f"{len(whole)} mask frames for {wanted}", where={"file": source.files["joint_mask"]})
        return whole.astype(np.uint8), False
    return None


def read_presence(source: ClipSource, videos: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """By character, (T,) whether check.json has it in the frame; None without that file."""
    if "check" not in source.files:
        return None
    presences = schema.parse_check(read_role(source, "check"))
    return seen_in_check(presences, len(videos["context"]), len(videos.get("target", ())))


def find_events(
    found: Findings,
    videos: Mapping[str, np.ndarray],
    labels: tuple[np.ndarray, bool] | None,
    seen: dict[str, np.ndarray] | None,
    written: tuple[schema.Event, ...] | None,
) -> None:
    """Exits and entries from the best source there is, and where the sources disagree."""
    context, frames = len(videos["context"]), sum(len(video) for video in videos.values())
    if seen is not None and not seen:
        found.problems.append("check.json names no character")
    gone, found.events_from = _absences(labels, seen)
    found.events = exit_and_entry(gone, context, frames)
    if labels is None:
        return
    in_masks = list(seen_in_masks(labels[0], exact=labels[1]).values())
    if not in_masks:
        found.problems.append("the masks show no subject in any frame")
    elif seen:
        _compare_seen(found, np.any(in_masks, axis=0), np.any(list(seen.values()), axis=0), context)
    if written is not None:
        _compare_written(found, gone, written, context, frames)


def _absences(labels: tuple[np.ndarray, bool] | None, seen: dict[str, np.ndarray] | None) -> tuple[list[Absence], str]:
    """Every stretch in which a subject is out of sight, and where that is known from: masks, check.json, or nothing."""
    if labels is not None:
        numbers = seen_in_masks(labels[0], exact=labels[1])
        named = {f"subject {number}" if labels[1] else "subjects": number for number in numbers}
        return [
            one
            for name, number in named.items()
            for one in absences(name, numbers[number], why_gone(labels[0], number, numbers[number]))
        ], "masks"
    if seen is not None:
        return [one for name, seen_T in seen.items() for one in absences(name, seen_T)], "check.json"
    return [], ""


def out_of_sight(source: ClipSource, videos: Mapping[str, np.ndarray]) -> tuple[list[Absence], str]:
    """When each subject of a clip is out of sight, and the source of that: masks, check.json, or empty (unknown)."""
    return _absences(read_masks(source, videos), read_presence(source, videos))


def _compare_seen(found: Findings, masks_T: np.ndarray, check_T: np.ndarray, context: int) -> None:
    """Frames in which the masks show somebody and check.json nobody, or the other way round."""
    for text, wrong in (
        ("check.json has nobody in the frame, the masks show a subject", masks_T & ~check_T),
        ("check.json has somebody in the frame, the masks show nobody", ~masks_T & check_T),
    ):
        if (count := int(wrong.sum())) > _MAY_DISAGREE:
            found.problems.append(f"{text} in {count} frames, from {frame_name(int(np.argmax(wrong)), context)} on")


def _compare_written(
    found: Findings, gone: list[Absence], written: tuple[schema.Event, ...], context: int, frames: int
) -> None:
    """events.json must have the exits and entries of the masks, to the frame."""
    masks = {("exit", one.first) for one in gone if one.first > 0}
    masks |= {("entry", one.last + 1) for one in gone if one.last + 1 < frames}
    events = {(event.kind, event.frame + (context if event.part == "target" else 0)) for event in written}
    for kind, frame in sorted(masks ^ events, key=lambda event: event[1]):
        where = "the masks, not in events.json" if (kind, frame) in masks else "events.json, not in the masks"
        found.problems.append(f"an {kind} in {frame_name(frame, context)} is in {where}")
