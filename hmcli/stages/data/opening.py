"""Data sets: a folder in any supported layout -> clips, and one clip -> arrays ready for a codec.

Here bytes (store) meet schema (world). `open_dataset` looks at every clip without decoding it and sets aside what
cannot be used; `load_clip` decodes one. Nothing is repaired unless the recipe says how (data.frames, poses.repair).
Shapes: T video frames, F latent frames, H rows, W columns.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import Quarantined
from hmcli.errors import DataError
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.data.timing import taken
from hmcli.stages.shared.typed import from_json
from hmcli.store.files import check_inside, parse_json, read_csv, read_json_lines
from hmcli.store.hashing import Content, HashCache, forget, hash_file, hash_json, read_content
from hmcli.store.manifest import Manifest, is_artifact, is_unfinished, read_manifest
from hmcli.store.video import VideoInfo, probe_video
from hmcli.world.files.captions import parse_captions, parse_numbered_captions
from hmcli.world.files.layout import (
    CAPTION_NAME,
    RENDERED_INDEX,
    SPLIT_RECORD,
    ClipFiles,
    Layout,
    find_metadata,
    read_layout,
)
from hmcli.world.files.schema import parse_intrinsics
from hmcli.world.files.tables import DATASET, RenderedRow
from hmcli.world.views.cameras import Cameras, parse_cameras


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """One usable clip on disk. `files` maps roles of hmcli.world.files.layout to paths, `key` is a hash of them all."""

    id: str
    caption: str
    files: Mapping[str, Path]
    static: bool  # the camera does not move, says the metadata; there is no camera file
    context_info: VideoInfo
    target_info: VideoInfo | None
    poses: PosesConfig
    key: str
    hashes: Mapping[str, str]  # of the files, by role, when the data set was opened
    notes: tuple[str, ...] = ()  # what is missing or left unread

    def read(self, role: str) -> Content:
        """A file's bytes, for decoding. Raises DataError unless they are those that `key` was made of.

        That hash may have been looked up (HashCache), or the file may be changing right now.
        """
        content = read_content(self.files[role])
        if content.hash != self.hashes[role]:
            forget(content.path, HashCache())
            raise DataError(
                "the file changed while it was being used", where={"file": content.path},
                fix="run the same command again when nothing writes the file any more",
            )  # fmt: skip
        return content


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The clips of a folder, in natural order of their ids."""

    path: Path
    layout: str  # released, rendered, examples, plain
    clips: tuple[ClipSource, ...]
    captions: Mapping[str, str]  # of all clips, usable or not
    quarantined: tuple[Quarantined, ...]
    fingerprint: str  # of the manifest while the folder is as `hm render` made it, else over all clips' keys
    notes: tuple[str, ...] = ()


# --- opening ---------------------------------------------------------------------------------------------------------


def open_dataset(path: Path, poses: PosesConfig, *, needs_captions: bool = True, fps: float | None = None) -> Dataset:
    """Find the clips of a folder. Raises DataError when it is no data set, or none of its clips can be used.

    A clip without a caption has an empty one, and that is noted. Captions of which nobody can say whose they are raise
    too, unless a command does not need them: then all are empty, and the caption file is set aside. With `fps`, clips
    that cannot be brought to that rate are none that can be used, and that rates differ is not worth a note.
    """
    path = Path(path)
    if not path.is_dir():
        what = "a data set is a folder, this is a file" if path.exists() else "there is no such folder"
        raise DataError(what, where={"data": path}, fix="name a folder of clips (docs/conventions.md, data sets)")
    with at(data=path):
        manifest = read_manifest(path, kinds=(DATASET,)) if is_artifact(path) or is_unfinished(path) else None
        names = _list_files(path)
        if manifest is None and RENDERED_INDEX in names and SPLIT_RECORD not in names:
            fix = "run the `hm render` that was writing it again: it keeps what is done"
            raise DataError(f"there is {RENDERED_INDEX} but no manifest: the data set is unfinished", fix=fix)
        metadata = find_metadata(names)
        reader = read_csv if metadata and metadata.endswith(".csv") else read_json_lines
        layout = read_layout(names, reader(path / metadata) if metadata else ())
        captions, refused = _captions(path, layout, needs_captions)
        if manifest is not None:  # links in a folder of one's own are followed, those of an artifact lead nowhere else
            check_inside(path, [name for clip in layout.clips for name in clip.files.values()])
    cache = HashCache()
    clips: list[ClipSource] = []
    quarantined: list[Quarantined] = list(refused)
    hashes: dict[str, str] = {}
    seen: dict[str, str] = {}
    for clip in layout.clips:
        files = {role: path / name for role, name in clip.files.items()}
        try:
            _check_caption(clip.id, captions[clip.id])
            found = _file_hashes(clip, files, cache)
            seen |= {clip.files[role]: value for role, value in found.items()}
            hashes[clip.id] = _clip_hash(clip, found, captions[clip.id])
            source = _clip_source(clip, files, captions[clip.id], hashes[clip.id], poses, found)
            clips.append(source if fps is None else _at_rate(source, fps))
        except DataError as error:
            quarantined.append(Quarantined(item=clip.id, reason=str(error)))
    if not clips:
        first = {f"clip {item.item}": item.reason for item in quarantined[:3]}
        raise DataError(f"none of the {len(layout.clips)} clips can be used", where={"data": path, **first})
    changes = _changes(manifest, layout, names, seen, captions) if manifest else ()
    return Dataset(
        path=path,
        layout=layout.name,
        clips=tuple(clips),
        captions=captions,
        quarantined=tuple(quarantined),
        fingerprint=manifest.fingerprint if manifest and not changes else hash_json(["clips", hashes]),
        notes=(*_folder_notes(layout, captions), *(_rates(clips) if fps is None else ()), *changes),
    )


def read_rows(dataset: Path) -> dict[str, RenderedRow]:
    """The table of a rendered data set, by clip. Raises DataError where there is none, or a line says too little."""
    file = dataset / RENDERED_INDEX
    rows = [from_json(RenderedRow, row, "a row", file=file) for row in read_json_lines(file)]
    return {row.id: row for row in rows}


def _unreadable(error: OSError) -> None:
    """Clips of a folder that cannot be listed would be missing without a word."""
    raise DataError("a folder cannot be read", where={"folder": error.filename, "at": error}) from error


def _list_files(root: Path) -> list[str]:
    """Relative POSIX names of all files below a folder, through links, hidden ones left out."""
    names: list[str] = []
    seen: set[str] = set()
    for folder, inner, files in os.walk(root, onerror=_unreadable, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            inner.clear()
            continue
        seen.add(real)
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _captions(path: Path, layout: Layout, needed: bool) -> tuple[dict[str, str], list[Quarantined]]:
    """The caption of every clip, usable or not, empty for one without; and the caption file if nobody can read it."""
    ids = [clip.id for clip in layout.clips]
    if layout.captions == "metadata":
        return {clip.id: clip.caption or "" for clip in layout.clips}, []
    if layout.captions == "absent":
        return dict.fromkeys(ids, ""), []
    try:
        return _read_captions(path, layout, ids), []
    except DataError as error:
        if needed:
            raise
        return dict.fromkeys(ids, ""), [Quarantined(item=CAPTION_NAME, reason=str(error))]


def _read_captions(path: Path, layout: Layout, ids: Sequence[str]) -> dict[str, str]:
    try:
        text = (path / CAPTION_NAME).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the captions cannot be read", where={"file": CAPTION_NAME, "at": error}) from error
    return parse_numbered_captions(text, ids) if layout.captions == "numbered" else parse_captions(text, ids)


def _folder_notes(layout: Layout, captions: Mapping[str, str]) -> tuple[str, ...]:
    notes = []
    lacking = [clip for clip, caption in captions.items() if not caption]
    if layout.captions == "absent":
        notes.append(f"there is no {CAPTION_NAME}: every caption is empty")
    elif lacking:
        notes.append(f"{len(lacking)} of {len(captions)} clips have no caption, and get an empty one: {_some(lacking)}")
    if layout.unused:
        notes.append(f"{len(layout.unused)} videos belong to no clip, the first is {layout.unused[0]}")
    if layout.ignored_columns:
        notes.append(f"columns without a meaning here: {', '.join(layout.ignored_columns)}")
    return tuple(notes)


def _file_hashes(clip: ClipFiles, files: Mapping[str, Path], cache: HashCache) -> dict[str, str]:
    """Hashes of the clip's files by role; one that is not there is left out."""
    try:
        return {role: hash_file(file, cache=cache) for role, file in files.items() if file.exists()}
    except OSError as error:
        raise DataError("a file cannot be read", where={"clip": clip.id, "at": error}) from error


def _check_caption(clip: str, caption: str) -> None:
    """Raise DataError for what no text holds, and UTF-8 lets through: a NUL."""
    if "\0" in caption:
        raise DataError(
            r"the caption holds '\x00', which is no letter", where={"clip": clip, "caption": ascii(caption[:80])},
            fix="write the caption again as UTF-8 text, or leave the clip out",
        )  # fmt: skip


def _clip_hash(clip: ClipFiles, hashes: Mapping[str, str], caption: str) -> str:
    """Hash of everything `load_clip` may read, so that a stage redoes a clip when, and only when, it changed."""
    return hash_json({"id": clip.id, "caption": caption, "static": clip.static, "files": hashes})


def _changes(
    manifest: Manifest,
    layout: Layout,
    names: Collection[str],
    seen: Mapping[str, str],
    captions: Mapping[str, str],
) -> tuple[str, ...]:
    """How a rendered folder differs from what its manifest says: notes about changed, new and missing clips.

    `names` are all files of the folder, `seen` the hashes of those that a stage may read.
    """
    there = set(names)
    records = {record["path"]: record for record in manifest.items.values() if "path" in record}
    edited, new = [], []
    for clip in layout.clips:
        if (record := records.pop(clip.id, None)) is None:
            new.append(clip.id)
            continue
        written = {f"{clip.id}/{name}": entry["hash"] for name, entry in record["files"].items()}
        same = written.keys() <= there and all(written.get(name) == seen.get(name) for name in clip.files.values())
        if not same or captions[clip.id] != record.get("meta", {}).get("caption", captions[clip.id]):
            edited.append(clip.id)
    found = ((edited, "changed since they were rendered"), (new, "added"), (list(records), "gone"))
    return tuple(f"{len(ids)} clips {what}: {_some(ids)}" for ids, what in found if ids)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _clip_source(
    clip: ClipFiles, files: Mapping[str, Path], caption: str, key: str, poses: PosesConfig, hashes: Mapping[str, str]
) -> ClipSource:
    """Check what can be checked without decoding: both videos open, cameras are sound and as many as frames."""
    with at(clip=clip.id):
        if clip.problem:
            raise DataError(clip.problem)
        context = _probe(files["context"])
        target = _probe(files["target"]) if "target" in files else None
        if target and (target.height, target.width) != (context.height, context.width):
            sizes = f"{context.height}x{context.width} and {target.height}x{target.width}"
            raise DataError(f"context and target video differ in size: {sizes}")
        notes = [f"not in the data set: {', '.join(clip.missing)}"] if clip.missing else []
        for role, info in (("context", context), ("target", target)):
            notes += [f"{role}: {note}" for note in (info.notes if info else ())]
        source = ClipSource(
            id=clip.id, caption=caption, files=files, static=clip.static, context_info=context, target_info=target,
            poses=poses, key=key, notes=tuple(notes), hashes=hashes,
        )  # fmt: skip
        read_cameras(source)
        return source


def _at_rate(source: ClipSource, fps: float) -> ClipSource:
    """The same clip. Raises DataError where a video cannot be brought to this rate."""
    for role, info in (("context", source.context_info), ("target", source.target_info)):
        if info is not None:
            with at(clip=source.id, file=source.files[role]):
                taken(info, fps)
    return source


def _rates(clips: Iterable[ClipSource]) -> Iterator[str]:
    """Clips of different rates in one folder: a model takes all frames for equally far apart."""
    rates = Counter(f"{clip.context_info.fps:.3g}" for clip in clips)
    if len(rates) > 1:
        told = ", ".join(f"{count} of {rate}" for rate, count in rates.most_common())
        yield f"clips differ in frames per second: {told}"


def own_file(source: ClipSource, name: str) -> Path | None:
    """A file beside the clip's videos; None where it has none, or shares its folder with other clips."""
    file = source.files["context"].parent / name
    return file if file.parent.name == source.id and file.is_file() else None


def _probe(file: Path) -> VideoInfo:
    with at(file=file):
        return probe_video(file)


@contextmanager
def at(**places: object) -> Iterator[None]:
    """Add places (clip, file, folder) to a DataError that passes through, outermost first."""
    try:
        yield
    except DataError as error:
        error.where = {**places, **error.where}
        raise


def read_role(source: ClipSource, role: str) -> Any:
    """JSON values of one of the clip's files."""
    return parse_json(source.read(role).data, source.files[role])


def read_lens(source: ClipSource) -> np.ndarray:
    """(4,) fx, fy, cx, cy of a clip that has intrinsics, in pixels of its pictures. Raises DataError."""
    info = source.context_info
    with at(file=source.files["intrinsics"]):
        return parse_intrinsics(read_role(source, "intrinsics"), (info.height, info.width), info.stretched_from)


# --- cameras ---------------------------------------------------------------------------------------------------------


def read_cameras(source: ClipSource) -> Cameras:
    """The clip's cameras, one per frame of its videos. Raises DataError naming the counts that differ."""
    context, target = source.context_info.frames, source.target_info and source.target_info.frames
    if source.static:
        still = np.repeat(np.eye(4)[None], max(context, target or 0), axis=0)
        return Cameras(form="static", context=still[:context], target=None if target is None else still[:target])
    with at(file=source.files["cameras"]):
        cameras = parse_cameras(read_role(source, "cameras"), frames=context, repair=source.poses.repair)
        if cameras.context is None and cameras.context_rows is None:
            raise DataError("the camera file has no cameras of the context video")
        if cameras.context is not None and len(cameras.context) != context:
            raise DataError(f"{len(cameras.context)} context cameras for {context} video frames")
        if cameras.target is not None and target is not None and len(cameras.target) != target:
            raise DataError(f"{len(cameras.target)} target cameras for {target} video frames")
    return cameras
