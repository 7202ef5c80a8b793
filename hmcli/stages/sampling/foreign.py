"""Other systems' videos: a plain folder of video files, or of folders of pictures, named by clip id.

It is read as it is, as a generation that no stage of hm wrote. What each file must be, the true clips say: which ids
there are, how many frames, which size. A clip without a video that fits is left out with its reason, and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import DataConfig, EvalConfig, PosesConfig
from hmcli.stages.data.opening import ClipSource, Dataset
from hmcli.stages.sampling.generations import Generated
from hmcli.stages.sampling.layout import KIND, Foreign, Row
from hmcli.store.files import file_name
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.manifest import is_artifact, is_unfinished, make_manifest
from hmcli.store.video import probe_video, read_video
from hmcli.world.views.framing import resize_frames

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
PICTURES = (".png", ".jpg", ".jpeg")
_SOME = 5  # names in a sentence
_LAST_NUMBER = re.compile(r"(\d+)(?=\D*$)")


def is_plain_folder(path: Path) -> bool:
    """Is it a folder that no command of hm wrote?"""
    return path.is_dir() and not is_artifact(path) and not is_unfinished(path)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A video of the folder: its place, what it holds, and its hash."""

    name: str
    frames: int
    size: tuple[int, int]
    fps: float | None  # pictures say none
    hash: str


def open_foreign(folder: Path, truth: Dataset | None, settings: EvalConfig, poses: PosesConfig) -> Generated:
    """The folder as a generation. Raises DataError for a folder without videos, or with none of the true clips."""
    if settings.videos == "joined" and truth is None:
        raise UsageError(
            "eval.videos=joined needs the true clips: they say where the context ends", fix="--reference DATA"
        )
    there = _places(folder)
    clips = {source.id: source for source in truth.clips} if truth is not None else dict.fromkeys(there)
    if truth is not None and not any(_name_of(clip, there) for clip in clips):
        where = {"folder": folder, "videos": _some(there), "clips": _some(clips)}
        raise DataError("no video is named by the id of a true clip", where=where, fix="name files <clip id>.mp4")
    cache, rows, items = HashCache(), {}, {}
    missing = (
        {} if truth is None else {of.item: f"the true clip cannot be used: {of.reason}" for of in truth.quarantined}
    )
    size = _size_of(truth, folder, there)
    how = Foreign(videos=settings.videos, resize=settings.resize, size=size)
    for clip, source in clips.items():
        try:
            found = _look(folder, _only(clip, there), cache)
            rows[clip] = _row(clip, found, source, how)
            items[clip] = {"path": found.name, "hash": found.hash}
        except DataError as error:
            missing[clip] = str(error)
    extra = [] if truth is None else [name for name in there if name not in {_name_of(clip, there) for clip in clips}]
    manifest = make_manifest(
        KIND, recipe={"folder": {"videos": how.videos, "resize": how.resize}}, inputs={}, seed=0, items=items,
        quarantined=[{"item": clip, "reason": reason} for clip, reason in missing.items()],
    )  # fmt: skip
    data = replace(DataConfig(), size=size, fit="stretch", frames="refuse", split=None)
    return Generated(
        path=folder, manifest=manifest, rows=rows, samples={clip: (row,) for clip, row in rows.items()}, data=data,
        poses=poses, source="", source_fingerprint="", model_free=None, foreign=replace(how, extra=tuple(extra)),
    )  # fmt: skip


# --- what is there ---------------------------------------------------------------------------------------------------


def _places(folder: Path) -> dict[str, list[str]]:
    """Names of videos and of folders, by their stem."""
    found: dict[str, list[str]] = {}
    for place in sorted(folder.iterdir()):
        if place.name.startswith("."):
            continue
        if place.is_dir():
            found.setdefault(place.name, []).append(place.name)
        elif place.suffix.lower() in VIDEOS:
            found.setdefault(place.stem, []).append(place.name)
    if not found:
        kinds = f"{', '.join(VIDEOS)}, or folders of {', '.join(PICTURES)}"
        raise DataError("the folder holds no videos", where={"folder": folder}, fix=f"<clip id>{kinds}")
    return found


def _name_of(clip: str, there: Mapping[str, Sequence[str]]) -> str:
    """The stem under which a clip's video lies; empty: none does."""
    return next((name for name in (clip, file_name(clip)) if name in there), "")


def _only(clip: str, there: Mapping[str, Sequence[str]]) -> str:
    names = there.get(_name_of(clip, there), ())
    if not names:
        raise DataError("the folder has no video of this clip")
    if len(names) > 1:
        raise DataError(f"the folder has several videos of this clip: {', '.join(names)}")
    return names[0]


def _look(folder: Path, name: str, cache: HashCache) -> _Found:
    place = folder / name
    if not place.is_dir():
        info, content = probe_video(place), hash_file(place, cache=cache)
        return _Found(name=name, frames=info.frames, size=(info.height, info.width), fps=info.fps, hash=content)
    pictures = _pictures(place)
    return _Found(
        name=name, frames=len(pictures), size=_picture(pictures[0]).shape[:2], fps=None,
        hash=hash_foreign(place, cache),
    )  # fmt: skip


def _pictures(folder: Path) -> list[Path]:
    """Frames in the order of the last number in their names. Raises DataError where one is missing, or all are."""
    found = [place for place in folder.iterdir() if place.suffix.lower() in PICTURES and place.name[0] != "."]
    if not found:
        raise DataError(f"the folder holds no {', '.join(PICTURES)}", where={"folder": folder})
    numbers = {place: _LAST_NUMBER.search(place.stem) for place in found}
    if odd := [place.name for place, number in numbers.items() if number is None]:
        raise DataError(f"a frame has no number in its name: {odd[0]}", where={"folder": folder})
    order = {place: int(number[1]) for place, number in numbers.items() if number is not None}
    said = sorted(order.values())
    if said != list(range(said[0], said[0] + len(said))):
        gap = next(a for a, b in zip(said, [*said[1:], None], strict=True) if b != a + 1)
        raise DataError(f"after frame {gap} the next one is missing, or it is there twice", where={"folder": folder})
    return sorted(found, key=order.__getitem__)


def _picture(file: Path) -> np.ndarray:
    """(H, W, 3) uint8."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError("a frame cannot be read", where={"file": file, "at": error}) from error


# --- what it must be -------------------------------------------------------------------------------------------------


def _size_of(truth: Dataset | None, folder: Path, there: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """The size that is compared: of most true clips; without them of most videos."""
    if truth is not None:
        sizes = [(source.context_info.height, source.context_info.width) for source in truth.clips]
    else:
        sizes = []
        for names in there.values():
            try:
                sizes.append(_look(folder, names[0], HashCache()).size)
            except DataError:
                continue
    if not sizes:
        raise DataError("none of the videos can be read", where={"folder": folder})
    return Counter(sizes).most_common(1)[0][0]


def _row(clip: str, found: _Found, source: ClipSource | None, how: Foreign) -> Row:
    """The clip's row. Raises DataError where the video is not what the true clip asks for."""
    context, target = (0, found.frames) if source is None else _lengths(source)
    wanted = target if how.videos == "target" else context + target
    if found.frames != wanted:
        joined = f"{context} of the context and {target} of the target" if how.videos == "joined" else "of the target"
        raise DataError(f"the video has {found.frames} frames, the true clip {wanted} {joined}", fix=_other(found, how))
    if source is not None and (source.context_info.height, source.context_info.width) != how.size:
        raise DataError("the true clip has another size than most of the folder")
    if found.size != how.size and how.resize == "refuse" and source is not None:
        sizes = [f"{height}x{width}" for height, width in (found.size, how.size)]
        fix = "make it at that size, or --set eval.resize=stretch (or crop)"
        raise DataError(f"the video is {sizes[0]} (height x width), the true clip {sizes[1]}", fix=fix)
    height, width = found.size if source is None else how.size
    fps = found.fps or (source.context_info.fps if source is not None else 1.0)
    return Row(
        id=clip, video=found.name, caption="" if source is None else source.caption, seed=None, frames=target, fps=fps,
        height=height, width=width, context_frames=context, steps=None, guidance=None, shift=None, negative=None,
        dtype=None, memory=None, camera=[], seconds=0.0,
    )  # fmt: skip


def _lengths(source: ClipSource) -> tuple[int, int]:
    if source.target_info is None:
        raise DataError("the true clip has no target video")
    return source.context_info.frames, source.target_info.frames


def _other(found: _Found, how: Foreign) -> str:
    hint = "joined, where videos hold the context too" if how.videos == "target" else "target, where they do not"
    return f"hm neither cuts nor repeats frames; --set eval.videos={hint}"


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:_SOME]) + (" ..." if len(names) > _SOME else "")


# --- reading ---------------------------------------------------------------------------------------------------------


def hash_foreign(place: Path, cache: HashCache) -> str:
    """Of a file, or of all frames in a folder. Raises DataError when it is not there any more."""
    if place.is_dir():
        return hash_json(["frames", [[file.name, hash_file(file, cache=cache)] for file in _pictures(place)]])
    if not place.is_file():
        raise DataError("the video is missing", where={"file": place})
    return hash_file(place, cache=cache)


def read_foreign(place: Path, row: Row, how: Foreign) -> np.ndarray:
    """(T, H, W, 3) uint8: the target frames, at the compared size where that was asked for."""
    if place.is_dir():
        every = [_picture(file) for file in _pictures(place)]
        if len({frame.shape for frame in every}) > 1:
            raise DataError("its frames differ in size", where={"folder": place})
        frames = np.stack(every)
    else:
        frames = read_video(place)
    frames = frames[len(frames) - row.frames :]
    if how.resize != "refuse":
        frames = resize_frames(frames, (row.height, row.width), how.resize)
    return frames
