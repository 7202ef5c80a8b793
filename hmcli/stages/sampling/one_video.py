"""One video, a prompt and a way of the camera as a folder of one clip, which is encoded and generated like any other.

What a video does not say is assumed aloud: a camera that stands still while it films, and its field of view. The folder
has the plain form of docs/conventions.md: the context as the model takes it, cameras of context and target, the lens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import TIME_STRIDE, Reporter
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import DataConfig, PosesConfig, Recipe
from hmcli.stages.data.importing import checked_caption, checked_name
from hmcli.stages.data.timing import said, taken
from hmcli.stages.models.folders import check_memory_fits, find_model
from hmcli.stages.sampling.job import policy_of
from hmcli.store.files import read_json, write_json, write_json_lines
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.lock import ArtifactLock, writing_output
from hmcli.store.video import VideoInfo, check_video, read_video, write_video
from hmcli.world.files.layout import METADATA_LINES, plain_row
from hmcli.world.files.schema import intrinsics_json
from hmcli.world.views.cameras import focal_length, pair_file, parse_cameras
from hmcli.world.views.framing import frame_count, resize_frames, resize_intrinsics
from hmcli.world.views.presets import fastest_turn, parse_preset, preset_poses
from hmcli.world.views.trajectories import FASTEST_TURN

LONGEST = 77  # frames of context, as HM-World has them: the last ones of a longer video
DEGREES = 37.0  # horizontal field of view where nobody says it: HM-World's
MADE = "made-from.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be generated after a video."""

    prompt: str = ""
    cameras: str = ""  # a preset (hmcli.world.views.presets), or a camera file
    frames: int = 0  # of the target; 0: as many as the camera file has, or the context
    degrees: float = 0.0  # horizontal field of view of the video; 0: nobody says


def refuse_without_video(asked: Asked, source: Path) -> None:
    """Raise UsageError for options that only a video knows: clips bring prompt and cameras of their own."""
    if not source.exists():
        raise UsageError("there is no such file", where={"source": source})
    names = {"prompt": "--prompt", "cameras": "--cameras", "frames": "--frames", "degrees": "--fov"}
    if given := [option for key, option in names.items() if getattr(asked, key)]:
        raise UsageError(
            f"{', '.join(given)}: only a video file takes that, its clips have captions and cameras of their own",
            where={"source": source}, fix="leave it out, or name a video file"
            + (f"; targets of clips are cut by --set sample.frames={asked.frames}" if asked.frames else ""),
        )  # fmt: skip


def with_length(recipe: Recipe, video: Path, asked: Asked, reporter: Reporter) -> Recipe:
    """As many frames are kept as are asked for, though a codec makes 4k+1; a target longer than the context is made in
    chunks of the context's length. Both unless the recipe says otherwise."""
    if asked.frames != _four_k_plus_one(asked.frames) and not recipe.sample.frames:
        recipe = replace(recipe, sample=replace(recipe.sample, frames=asked.frames))
    context = frame_count(min(len(taken(check_video(video), recipe.data.fps)), LONGEST), "trim")
    if asked.frames <= context or recipe.sample.chunk:
        return recipe
    reporter.note(f"{asked.frames} frames are made {context} at a time (sample.chunk)")
    return replace(recipe, sample=replace(recipe.sample, chunk=context))


def check_length(video: Path, asked: Asked, recipe: Recipe, model: Path) -> None:
    """Raise DataError for a video that is too short for what the model remembers, before anything of it is encoded."""
    folder, context = find_model(model), len(taken(check_video(video), recipe.data.fps))
    frames = frame_count(min(context, LONGEST), "trim")
    latents = [1 + (length - 1) // TIME_STRIDE for length in (frames, recipe.sample.chunk or asked.frames or frames)]
    config = folder.config() | {"policy": policy_of(folder, recipe)}
    check_memory_fits(config, video.name, context=latents[0], target=latents[1], size=None)


def as_folder(video: Path, asked: Asked, data: DataConfig, poses: PosesConfig, out: Path, reporter: Reporter) -> Path:
    """Make the folder `out` of one clip, unless it holds the same one; says what is assumed.

    Raises UsageError for a preset that is not understood, DataError for a video or cameras that cannot be used.
    """
    if not asked.cameras:
        raise UsageError(
            "a video needs --cameras: where its camera goes next", fix="for example --cameras pan-right-return:40deg"
        )
    name, caption, info = checked_name(video.stem), checked_caption(asked.prompt), check_video(video)
    frames_N, fps = taken(info, data.fps), data.fps or info.fps
    for note in said("the video", info, data.fps):
        reporter.note(note)
    context = frame_count(min(len(frames_N), LONGEST), "trim")
    before, after = _cameras(asked, info, frames_N[-context:], poses)
    _say(
        asked,
        replace(info, frames=len(frames_N), fps=fps),
        context,
        after,
        np.concatenate([before[-1:], after]),
        reporter,
    )
    height, width = info.height, info.width
    focal = focal_length(float(np.deg2rad(asked.degrees or DEGREES)), width)
    lens = np.array([focal, focal, width / 2, height / 2])
    key = hash_json(
        [_FORMAT, hash_file(video, cache=HashCache()), context, asdict(data), caption, lens.tolist(), before.tolist(),
         after.tolist()]
    )  # fmt: skip
    with ArtifactLock(out), writing_output(out):
        if _has(out, key):
            return out
        _refuse_foreign(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / MADE).unlink(missing_ok=True)
        start = int(frames_N[-context])
        frames = resize_frames(read_video(video, start=start)[frames_N[-context:] - start], data.size, data.fit)
        row = plain_row(
            id=name, video=f"{name}.mp4", caption=caption, cameras=f"{name}.camera.json",
            intrinsics=f"{name}.intrinsics.json",
        )  # fmt: skip
        write_video(out / f"{name}.mp4", frames, fps=fps)
        write_json(out / f"{name}.camera.json", pair_file({"context": before, "target": after}))
        framed = resize_intrinsics(lens, (height, width), data.size, data.fit)
        write_json(out / f"{name}.intrinsics.json", intrinsics_json(framed, data.size))
        write_json_lines(out / METADATA_LINES, [row])
        write_json(out / MADE, {"key": key, "video": str(video.absolute())})
    return out


def _cameras(
    asked: Asked, info: VideoInfo, frames_N: np.ndarray, poses: PosesConfig
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(N, 4, 4) and (T, 4, 4) world_from_camera, metres, of these context frames and of a target of 4k+1 frames."""
    file = Path(asked.cameras)
    if not _is_file(asked.cameras):
        if file.suffix == ".json":
            raise DataError("there is no such camera file", where={"--cameras": file})
        frames = _four_k_plus_one(asked.frames or len(frames_N))
        way = preset_poses(parse_preset(asked.cameras), frames)
        return np.repeat(way[:1], len(frames_N), axis=0), way[1:]
    try:
        found = parse_cameras(read_json(file), frames=info.frames, repair=poses.repair)
        if found.target_rows is not None:
            raise DataError(
                "the camera file has rows of one latent frame each, relative to an anchor: poses of frames are needed",
                fix="give poses of every frame (tgt_cam, 4x4 matrices), from which rows are made",
            )
        if found.target is None:
            raise DataError(
                "the camera file has no poses of a target", fix="add tgt_cam: where the camera goes after the video"
            )
        if found.context is not None and len(found.context) != info.frames:
            raise DataError(
                f"{len(found.context)} context cameras for {info.frames} video frames",
                fix="give one for every frame of the video, or none: the camera is then taken to stand still",
            )
        wanted = asked.frames or frame_count(len(found.target), "trim")
        if wanted > len(found.target):
            raise DataError(
                f"--frames {wanted}: the camera file has {len(found.target)} target cameras",
                fix=f"ask for {len(found.target)} or fewer, or add cameras",
            )
    except DataError as error:
        error.where = {"--cameras": file, **error.where}
        raise
    before = np.repeat(found.target[:1], info.frames, axis=0) if found.context is None else found.context
    after = found.target[: _four_k_plus_one(wanted)]
    rest = _four_k_plus_one(wanted) - len(after)  # of frames that are cut off: the last camera stands for theirs
    return before[frames_N], np.concatenate([after, np.repeat(after[-1:], rest, axis=0)])


def _is_file(cameras: str) -> bool:
    """A preset may be longer than any path, or no path at all."""
    try:
        return Path(cameras).is_file()
    except (OSError, ValueError):
        return False


def _four_k_plus_one(frames: int) -> int:
    return -(-(frames - 1) // TIME_STRIDE) * TIME_STRIDE + 1


def _say(
    asked: Asked, info: VideoInfo, context: int, after: np.ndarray, way: np.ndarray, reporter: Reporter
) -> None:  # fmt: skip
    """What is assumed, and what differs from what was asked for."""
    for note in info.notes:
        reporter.note(f"the video: {note}")
    if context < info.frames:
        reporter.note(f"the last {context} of the video's {info.frames} frames are its context")
    if asked.frames and len(after) != asked.frames:
        reporter.note(f"{len(after)} frames are made for {asked.frames}: a codec makes 4k+1 of them")
    if not _is_file(asked.cameras):
        reporter.note("assumed: the camera stands still while it films the video (else give its poses in a file)")
    if not asked.degrees:
        reporter.note(f"assumed: the video's horizontal field of view is {DEGREES:g} degrees, as HM-World's (--fov)")
    fastest = fastest_turn(way, info.fps)
    if fastest > (usual := float(np.rad2deg(FASTEST_TURN))) + 0.5:
        reporter.warn(
            f"the camera turns at up to {fastest:.0f} degrees per second, {usual:.0f} is the most that training clips "
            "have: ask for more frames, or fewer degrees"
        )


def _has(out: Path, key: str) -> bool:
    """Does the folder hold this clip, whole?"""
    if not (out / MADE).is_file():
        return False
    made: Any = read_json(out / MADE)
    return isinstance(made, dict) and made.get("key") == key and (out / METADATA_LINES).is_file()


def _refuse_foreign(out: Path) -> None:
    """Raise UsageError for a folder that this module did not make: nothing of it is overwritten."""
    if out.exists() and any(out.iterdir()) and not (out / MADE).is_file():
        raise UsageError(f"{out} holds something else", fix="name another place with --out")
