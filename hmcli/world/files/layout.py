"""Layout: from a listing of relative file names, which kind of data set is this and what is each file's role?

Pure: a stage lists the folder and hands in names and the text of small index files (docs/conventions.md, "data sets").
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from hmcli.errors import DataError
from hmcli.world.files.captions import natural_key
from hmcli.world.views.cameras import PREFIXES, PartName

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
METADATA_LINES = "metadata.jsonl"  # written by `hm dataset import`
METADATA_NAMES = ("metadata.csv", METADATA_LINES)
CAPTION_NAME = "caption.txt"
PLAIN_CAPTION_NAME = "caption_plain.txt"  # the same without colours and names
RENDERED_INDEX = "clips.jsonl"  # written by `hm render`: the folder is an artifact of ours
SPLIT_RECORD = "split.json"  # written by `hm dataset split`, into every part and beside them
CAMERA, CHARACTER, CHECK = "camera.json", "character.json", "check.json"  # of a clip, as released
INTRINSICS, EVENTS, STATES, DEPTH = "intrinsics.json", "events.json", "subjects.json", "depth.npz"  # and ours
VideoName = Literal["", "mask", "instances", "amodal"]  # the pictures themselves, and what else has the form of a video
JOINT_MASK = "M_CustomDepth.mp4"  # subject painted red, context and target in one video
STATIC = "static"  # in a metadata camera column: the camera does not move

_WINDOWS = re.compile(r"[A-Za-z]:|//")  # a drive or a share, before the rest of a path

LayoutName = Literal["released", "rendered", "examples", "plain"]


def video_file(part: PartName, name: VideoName = "") -> str:
    """The file of one of a clip's videos."""
    return f"{PREFIXES[part]}_{name}.mp4" if name else f"{PREFIXES[part]}.mp4"


_CONTEXT, _TARGET = video_file("context"), video_file("target")
_RELEASED_ROLES = {
    _CONTEXT: "context",
    _TARGET: "target",
    CAMERA: "cameras",
    video_file("context", "mask"): "context_mask",
    video_file("target", "mask"): "target_mask",
    video_file("context", "instances"): "context_instances",
    video_file("target", "instances"): "target_instances",
    JOINT_MASK: "joint_mask",
    CHARACTER: "character",
    CHECK: "check",
    INTRINSICS: "intrinsics",
    EVENTS: "events",
}
_PUBLISHED = (_TARGET, video_file("context", "mask"), video_file("target", "mask"), CHARACTER, CHECK)
_COLUMNS = {  # role -> accepted column names
    "context": ("file_name", "video"),
    "caption": ("caption", "text", "prompt"),
    "target": ("target", "target_video"),
    "cameras": ("camera", "cameras", "camera_file"),
    "intrinsics": ("intrinsics", "intrinsics_file"),
    "id": ("id", "clip"),
}
_PLAIN_HELP = (
    "write metadata.csv beside the videos with the columns file_name, caption (may be empty) and camera "
    "(a camera file, or the word static); metadata.jsonl with the same keys works too"
)


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """One clip as its folder describes it: role -> relative file name, and what is absent."""

    id: str
    files: Mapping[str, str]  # roles: context, target, cameras, context_mask, target_mask, joint_mask, intrinsics, ...
    missing: tuple[str, ...] = ()  # published files this clip does not have
    others: tuple[str, ...] = ()  # files of the clip without a role here (depth, instance masks)
    caption: str | None = None  # from metadata; None: the folder's caption.txt says
    static: bool = False  # metadata declares that the camera does not move
    problem: str = ""  # why the clip cannot be used at all


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a folder is: its clips in natural order, and the video files that belong to none of them."""

    name: LayoutName
    clips: tuple[ClipFiles, ...]
    captions: Literal["keyed", "numbered", "metadata", "absent"]
    unused: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = field(default=())


def read_layout(names: Collection[str], metadata: Sequence[Mapping[str, Any]] = ()) -> Layout:
    """Decide what a folder is from its relative POSIX file names; `metadata` holds the rows of its metadata file.

    Raises DataError when there is no video, or when nothing says which caption and camera belong to a video.
    """
    names = sorted(name for name in names if not any(part.startswith(".") for part in PurePosixPath(name).parts))
    if not any(_is_video(name) for name in names):
        raise DataError("the folder holds no videos", where={"looked for": ", ".join(VIDEO_SUFFIXES)}, fix=_PLAIN_HELP)
    if metadata_name := find_metadata(names):
        return _plain(set(names), metadata, metadata_name)
    if any(name.partition("/")[2] in (_CONTEXT, _TARGET) for name in names):
        return _released(names)
    cameras = {name for name in names if re.fullmatch(r"cam[0-9]+\.json", name)}
    if any(re.fullmatch(r"[0-9]+\.mp4", name) for name in names) and (cameras or CAPTION_NAME in names):
        return _examples(names, cameras)
    if deeper := next((name for name in names if name.endswith(f"/{_CONTEXT}")), None):
        parent = PurePosixPath(deeper).parent.parent
        raise DataError("the clips lie deeper", where={"first clip": deeper}, fix=f"give the folder {parent}/ instead")
    videos = [name for name in names if _is_video(name)]
    what = f"{len(videos)} videos, but nothing says which caption and which camera belong to them"
    raise DataError(what, where={"first video": videos[0]}, fix=_PLAIN_HELP)


def find_metadata(names: Collection[str]) -> str | None:
    """The folder's metadata file; DataError when there are two."""
    found = [name for name in METADATA_NAMES if name in names]
    if len(found) > 1:
        raise DataError(f"both {' and '.join(found)} exist", fix="keep one of them")
    return found[0] if found else None


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


# --- released layout, and ours ---------------------------------------------------------------------------------------


def _released(names: Sequence[str]) -> Layout:
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, rest = name.partition("/")
        if rest:
            folders.setdefault(folder, []).append(rest)
    clips = [_released_clip(folder, inside) for folder, inside in folders.items() if _RELEASED_ROLES.keys() & inside]
    return Layout(
        name="rendered" if RENDERED_INDEX in names else "released",
        clips=tuple(sorted(clips, key=lambda clip: natural_key(clip.id))),
        captions="keyed" if CAPTION_NAME in names else "absent",
        unused=tuple(name for name in names if "/" not in name and _is_video(name)),
    )


def _released_clip(folder: str, inside: Sequence[str]) -> ClipFiles:
    files = {_RELEASED_ROLES[name]: f"{folder}/{name}" for name in inside if name in _RELEASED_ROLES}
    lacking = [name for name in (_CONTEXT, CAMERA) if name not in inside]
    expected = _PUBLISHED if JOINT_MASK not in inside else [name for name in _PUBLISHED if "_mask" not in name]
    return ClipFiles(
        id=folder,
        files=files,
        missing=tuple(name for name in expected if name not in inside),
        others=tuple(f"{folder}/{name}" for name in inside if name not in _RELEASED_ROLES),
        problem=f"the clip has no {' and no '.join(lacking)}" if lacking else "",
    )


# --- the published examples ------------------------------------------------------------------------------------------


def _examples(names: Sequence[str], cameras: Collection[str]) -> Layout:
    videos = [name for name in names if "/" not in name and _is_video(name)]
    numbered = [name for name in videos if re.fullmatch(r"[0-9]+\.mp4", name)]
    clips = []
    for video in sorted(numbered, key=natural_key):
        number = video.removesuffix(".mp4")
        has_camera = (camera := f"cam{number}.json") in cameras
        files = {"context": video, **({"cameras": camera} if has_camera else {})}
        problem = "" if has_camera else f"there is no {camera} beside {video}"
        clips.append(ClipFiles(id=number, files=files, missing=_PUBLISHED, problem=problem))
    return Layout(
        name="examples",
        clips=tuple(clips),
        captions="numbered" if CAPTION_NAME in names else "absent",
        unused=tuple(name for name in videos if name not in numbered),
    )


# --- plain folders with metadata -------------------------------------------------------------------------------------


def _plain(names: Collection[str], rows: Sequence[Mapping[str, Any]], source: str) -> Layout:
    if not rows:
        raise DataError("the metadata lists no videos", where={"file": source}, fix=_PLAIN_HELP)
    anywhere = any(column in row for row in rows for column in _COLUMNS["caption"])  # else it may be misspelt
    clips = [
        _plain_clip(names, row, _roles(row, source, captioned=not anywhere), f"{source}, row {i}")
        for i, row in enumerate(rows, 1)
    ]
    ids = [clip.id for clip in clips]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise DataError(f"two rows describe clip {twice[0]!r}", where={"file": source}, fix="add a column id")
    used = {name for clip in clips for name in clip.files.values()}
    known = {column for columns in _COLUMNS.values() for column in columns}
    return Layout(
        name="plain",
        clips=tuple(sorted(clips, key=lambda clip: natural_key(clip.id))),
        captions="metadata",
        unused=tuple(name for name in sorted(names) if _is_video(name) and name not in used),
        ignored_columns=tuple(dict.fromkeys(column for row in rows for column in row if column not in known)),
    )


def plain_row(*, id: str, video: str, caption: str, cameras: str, intrinsics: str = "") -> dict[str, str]:
    """A row of a metadata file, from the clip's files by relative name."""
    row = {"id": id, "context": video, "caption": caption, "cameras": cameras, "intrinsics": intrinsics}
    return {_COLUMNS[role][0]: cell for role, cell in row.items() if cell or role == "caption"}


def with_captions(rows: Sequence[Mapping[str, Any]], source: str, captions: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a metadata file, with other captions for some clips."""
    changed = []
    for number, row in enumerate(rows, 1):
        roles = _roles(row, source, captioned=False)
        clip = _row_id(_cells(row, roles, f"{source}, row {number}"))
        new = {roles.get("caption", _COLUMNS["caption"][0]): captions[clip]} if clip in captions else {}
        changed.append({**row, **new})
    return changed


def _roles(row: Mapping[str, Any], source: str, *, captioned: bool) -> dict[str, str]:
    """Role -> the column of this row that plays it. Raises DataError for two that play the same, or none that must."""
    roles: dict[str, str] = {}
    for role, columns in _COLUMNS.items():
        present = [column for column in columns if column in row]
        if len(present) > 1:
            raise DataError(f"the columns {' and '.join(present)} mean the same", where={"file": source})
        if present:
            roles[role] = present[0]
    for role in ("context", *(["caption"] if captioned else [])):
        if role not in roles:
            what = f"a row has no column {' or '.join(_COLUMNS[role])}"
            raise DataError(what, where={"file": source, "columns": ", ".join(map(str, row))}, fix=_PLAIN_HELP)
    return roles


def _cells(row: Mapping[str, Any], roles: Mapping[str, str], place: str) -> dict[str, str]:
    """Role -> what the row says. Raises DataError for what is no text."""
    cells: dict[str, str] = {}
    for role, column in roles.items():
        value = row[column]
        if value is None or (role == "caption" and isinstance(value, float) and math.isnan(value)):
            value = ""  # what tables of data frames write for a cell without a value
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(f"{column} is {value!r}, not text", where={"row": place})
        if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in str(value)):
            raise DataError(
                f"{column} has a letter that is none (NUL, or half of a pair): {value!a}", where={"row": place}
            )
        cells[role] = str(value).strip()
    return cells


def _file_named(cell: str, names: Collection[str]) -> str:
    """The file that a cell means: as it is, or as Windows writes it, with backslashes."""
    plain = PurePosixPath(cell).as_posix()
    if plain in names or "\\" not in cell:
        return plain
    return PurePosixPath(cell.replace("\\", "/")).as_posix()


def _row_id(cells: Mapping[str, str]) -> str:
    """The clip's id: its own column, or the video without its suffix."""
    return cells.get("id") or str(PurePosixPath(cells["context"]).with_suffix(""))


def _plain_clip(names: Collection[str], row: Mapping[str, Any], roles: Mapping[str, str], place: str) -> ClipFiles:
    cells = _cells(row, roles, place)
    static = cells.get("cameras") == STATIC
    wanted = {
        role: _file_named(cells[role], names)
        for role in ("context", "target", "cameras", "intrinsics")
        if cells.get(role) and not (static and role == "cameras")
    }
    if "context" not in wanted:
        raise DataError("a row names no video", where={"row": place}, fix=_PLAIN_HELP)
    absent = [name for name in wanted.values() if name not in names]
    problem = f"{absent[0]} does not exist in the folder" if absent else ""
    if absent and (PurePosixPath(absent[0]).is_absolute() or _WINDOWS.match(absent[0])):
        problem = f"{absent[0]} is a place of another folder or machine: name files relative to the metadata file"
    if not problem and "cameras" not in wanted and not static:
        problem = "the metadata names no camera file for the clip and does not call its camera static"
    return ClipFiles(
        id=_row_id(cells),
        files=wanted,
        missing=() if "target" in wanted else ("target",),
        caption=cells.get("caption", ""),
        static=static,
        problem=problem,
    )
