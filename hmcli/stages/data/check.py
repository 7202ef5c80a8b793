"""`hm dataset check`: what of a data set is missing, contradictory or unreadable, and what it does not say itself.

Every frame is decoded. Everything a clip claims is held against everything else it holds: cameras, intrinsics and
depth against the motion of pixels (hmcli.stages.data.explaining), subjects against masks, depth and cameras
(hmcli.stages.data.claims), exits and entries in masks, check.json and events.json against each other. What could not
be checked is said. The field of view is measured from pixel motion against poses (hmcli.world.views.field_of_view).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hmcli.contracts import Description, Quarantined, Reporter
from hmcli.errors import DataError
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.data import claims
from hmcli.stages.data.explaining import explain
from hmcli.stages.data.findings import Findings, data_of, frame_name, lines_of, trouble
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset, read_cameras, read_lens, read_role, read_rows
from hmcli.stages.data.presence import find_events, read_masks, read_presence
from hmcli.store.video import read_video
from hmcli.world.files import schema
from hmcli.world.files.layout import RENDERED_INDEX
from hmcli.world.files.tables import RenderedRow
from hmcli.world.views import framing
from hmcli.world.views.cameras import Cameras, field_of_view
from hmcli.world.views.field_of_view import measure, summary

_JUMP = 8.0  # times the median step between frames ...
_JUMP_METRES, _JUMP_RADIANS = 0.5, np.deg2rad(8.0)  # ... and at least this much: the camera jumps
_ANGLE_OFF = 0.08  # share by which written and measured field of view may differ


def run(path: Path, *, poses: PosesConfig, reporter: Reporter) -> Description:
    """Check every clip; see `hm dataset check --help`. Raises DataError when the folder is no data set."""
    dataset = open_dataset(path, poses, needs_captions=False)
    found = [Findings(clip=item.item, unreadable=item.reason) for item in dataset.quarantined]
    rows = _rows(dataset, found)
    with reporter.progress("checking", len(dataset.clips), "clip") as advance:
        for source in dataset.clips:
            found.append(check_clip(source, rows.get(source.id)))
            advance(1)
    angle = summary([one.field_of_view.degrees for one in found if one.field_of_view is not None])
    return Description(
        text="\n".join(lines_of(dataset, found, angle)),
        data=data_of(dataset, found, angle),
        quarantined=tuple(Quarantined(item=one.clip, reason=trouble(one)) for one in found if trouble(one)),
    )


def _rows(dataset: Dataset, found: list[Findings]) -> dict[str, RenderedRow]:
    """What the table of a rendered data set says, by clip; a table that cannot be read is a finding."""
    if dataset.layout != "rendered":
        return {}
    try:
        rows = read_rows(dataset.path)
    except DataError as error:
        found.append(Findings(clip=RENDERED_INDEX, unreadable=str(error)))
        return {}
    for clip in dataset.clips:
        if clip.id not in rows:
            found.append(Findings(clip=RENDERED_INDEX, problems=[f"it says nothing of {clip.id}"]))
    return rows


def check_clip(source: ClipSource, row: RenderedRow | None = None) -> Findings:
    """Decode everything of one clip and hold its parts against each other."""
    found = Findings(clip=source.id, missing=[note for note in source.notes if note.startswith("not in")])
    try:
        videos = {part: read_video(source.read(part)) for part in ("context", "target") if part in source.files}
        cameras = read_cameras(source)
        labels = read_masks(source, videos)
        seen = read_presence(source, videos)
        written = _written_events(source)
        lens = _lens(source)
    except DataError as error:
        found.unreadable = str(error)
        return found
    if not source.caption.strip():
        found.missing.append("no caption")
    find_events(found, videos, labels, seen, written)
    track = _track(cameras, "target" in videos)
    if track is None:
        found.unchecked.append("cameras: they are ready rows, and cannot be held against frames")
    else:
        _check_steps(found, track, len(videos["context"]))
        _check_angle(found, videos, track, labels, lens)
    _check_claims(found, source, videos, labels, track, lens, row)
    if "intrinsics" not in source.files:
        found.unchecked.append("intrinsics: none are written")
    return found


def _track(cameras: Cameras, both: bool) -> np.ndarray | None:
    """(T, 4, 4) poses over both parts; of the context alone where the target has no video or no cameras."""
    if cameras.context is None or not both or cameras.target is None:
        return cameras.context
    return np.concatenate([cameras.context, cameras.target])


# --- reading ---------------------------------------------------------------------------------------------------------


def _written_events(source: ClipSource) -> tuple[schema.Event, ...] | None:
    return schema.parse_events(read_role(source, "events")) if "events" in source.files else None


def _lens(source: ClipSource) -> np.ndarray | None:
    """Written fx, fy, cx, cy in pixels of the video."""
    if "intrinsics" not in source.files:
        return None
    return read_lens(source)


# --- holding things against each other -------------------------------------------------------------------------------


def _check_steps(found: Findings, poses: np.ndarray, context: int) -> None:
    """A camera that jumps between two frames, also from context to target."""
    moved = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    cosine = (np.einsum("tji,tji->t", poses[:-1, :3, :3], poses[1:, :3, :3]) - 1) / 2
    turned = np.arccos(np.clip(cosine, -1, 1))
    for steps, least, unit in ((moved, _JUMP_METRES, "m"), (np.rad2deg(turned), np.rad2deg(_JUMP_RADIANS), "degrees")):
        usual = float(np.median(steps)) if len(steps) else 0.0
        for frame in np.flatnonzero(steps > max(_JUMP * usual, least)):
            size = f"{steps[frame]:.2f} {unit} (usually {usual:.2f})"
            found.problems.append(f"the camera jumps by {size} before {frame_name(int(frame) + 1, context)}")


def _check_claims(
    found: Findings, source: ClipSource, videos: Mapping[str, np.ndarray], labels: tuple[np.ndarray, bool] | None,
    track: np.ndarray | None, lens: np.ndarray | None, row: RenderedRow | None,
) -> None:  # fmt: skip
    """Depth, masks, subjects and cameras against each other and the pixels."""
    video = np.concatenate(list(videos.values()))
    if "target" not in videos:
        found.unchecked.append("depth and subjects: they are of both videos, and there is no target video")
        _check_motion(found, video, len(video), track, lens, labels, None)
        return
    size = (video.shape[1], video.shape[2])
    depth, wrong = claims.depth_of(source, video.shape[:3])
    states, damaged = claims.states_of(source)
    found.problems += [*wrong, *damaged]
    instances = labels[0] if labels is not None and labels[1] else None
    if instances is not None:
        found.problems += claims.about_masks(source, instances, _white(found, source, videos))
        if states is not None:
            found.problems += claims.about_states(source, states, instances, _tracks(found, source))
    if states is not None and track is not None and lens is not None:
        found.problems += claims.about_places(states, track, lens, size)
    if states is not None and track is not None and instances is not None and depth is not None:
        found.problems += claims.about_depth(states, instances, track, depth)
    if row is not None:
        found.problems += claims.about_row(row, source, states)
    _check_motion(found, video, len(videos["context"]), track, lens, labels, depth)
    found.unchecked += _nothing_to_compare(source, labels, depth, states, bool(wrong or damaged))


def _check_motion(
    found: Findings, video: np.ndarray, context: int, track: np.ndarray | None, lens: np.ndarray | None,
    labels: tuple[np.ndarray, bool] | None, depth: np.ndarray | None,
) -> None:  # fmt: skip
    """Cameras, intrinsics and depth against the motion of pixels."""
    if track is None:
        return
    frames = slice(0, len(track))
    said = explain(
        video[frames], track, context, lens=lens, masks=None if labels is None else labels[0][frames],
        depth=None if depth is None else depth[frames],
    )  # fmt: skip
    found.problems += said.problems
    found.unchecked += said.unchecked
    found.cameras_explain, found.depth_explains = said.cameras, said.depth


def _white(found: Findings, source: ClipSource, videos: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Foreground masks (T, H, W) beside instance masks."""
    if not all(f"{part}_mask" in source.files for part in videos):
        return None
    try:
        return np.concatenate([framing.white_mask(read_video(source.read(f"{part}_mask"))) for part in videos])
    except (DataError, ValueError) as error:
        found.problems.append(f"the foreground masks cannot be read: {str(error).splitlines()[0]}")
        return None


def _tracks(found: Findings, source: ClipSource) -> tuple[schema.SubjectTrack, ...] | None:
    """character.json of a clip that has states too; both are ours then."""
    if "character" not in source.files:
        return None
    try:
        return schema.parse_subjects(read_role(source, "character"))
    except DataError as error:
        found.problems.append(f"character.json cannot be read: {str(error).splitlines()[0]}")
        return None


def _nothing_to_compare(
    source: ClipSource, labels: tuple[np.ndarray, bool] | None, depth: np.ndarray | None,
    states: tuple[schema.SubjectState, ...] | None, damaged: bool,
) -> list[str]:  # fmt: skip
    """What a clip lacks for a check to be made."""
    said = []
    if labels is None:
        said.append("masks: there are none of the whole clip")
    elif states is None and "check" not in source.files:
        said.append("masks: there is neither check.json nor subjects.json to hold them against")
    if labels is None and "check" in source.files:
        said.append("check.json: there are no masks to hold it against")
    if states is None and "character" in source.files:
        said.append("character.json: its form is not published, or there is no subjects.json to hold it against")
    if depth is None and not damaged:
        said.append("depth: there is none")
    return said


def _check_angle(
    found: Findings,
    videos: Mapping[str, np.ndarray],
    track: np.ndarray,
    labels: tuple[np.ndarray, bool] | None,
    lens: np.ndarray | None,
) -> None:
    """Measure the field of view, and hold it against the written one."""
    video = np.concatenate(list(videos.values()))[: len(track)]
    masks = None if labels is None else labels[0][: len(video)]
    found.field_of_view = measure(video, track, masks=masks)
    if found.field_of_view is not None and lens is not None:
        written = float(np.rad2deg(field_of_view(lens[0], video.shape[2])))
        likely = float(np.clip(written, *found.field_of_view.quartiles))  # a wide spread (small pictures) says less
        if abs(found.field_of_view.degrees / written - 1) > _ANGLE_OFF < 2 * abs(likely / written - 1):
            measured = f"{found.field_of_view.degrees:.1f} degrees by the motion of its pixels"
            found.problems.append(
                f"intrinsics say a horizontal field of view of {written:.1f} degrees, it is {measured}"
            )
