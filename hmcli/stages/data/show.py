"""`hm dataset show`: a gallery of clips that plays in a browser: videos, timeline, contact sheet, top-down plot.

The folder holds everything it shows, so that it can be moved or put on a web server as it is.
"""

from __future__ import annotations

import json
import shutil
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import PosesConfig
from hmcli.reports.contact_sheet import contact_sheet, save_png
from hmcli.reports.gallery import GalleryClip, Lane, gallery
from hmcli.reports.top_down import Walked, top_down
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset, read_cameras, read_lens, read_rows
from hmcli.stages.data.presence import out_of_sight
from hmcli.store.files import file_name, inside, write_text
from hmcli.store.video import read_video
from hmcli.world.files import schema
from hmcli.world.files.layout import RENDERED_INDEX
from hmcli.world.files.tables import RenderedRow
from hmcli.world.hidden.sightings import Absence
from hmcli.world.views.cameras import field_of_view
from hmcli.world.views.field_of_view import measure

PAGE = "index.html"
MOST = 60  # clips shown unless named
_FACTS = ("scene", "split", "trajectory", "subjects", "paths", "seed", "fps")  # of clips.jsonl, where it has them


def run(
    path: Path, *, clips: Sequence[str], out: Path, open_browser: bool, poses: PosesConfig, reporter: Reporter
) -> StageResult:
    """Write the gallery into `out`; see `hm dataset show --help`."""
    if out.exists() and any(out.iterdir()) and not (out / PAGE).is_file():
        raise UsageError(f"{out} holds something else", fix="name another folder with --out")
    dataset = open_dataset(path, poses, needs_captions=False)
    chosen = _choose(dataset, clips, reporter)
    rows = _index(dataset)
    shown: list[GalleryClip] = []
    left_out = [item for item in dataset.quarantined if not clips or item.item in clips]
    with reporter.progress("showing", len(chosen), "clip") as advance:
        for source in chosen:
            try:
                shown.append(_show(source, rows.get(source.id), out))
            except DataError as error:
                left_out.append(Quarantined(item=source.id, reason=str(error)))
            advance(1)
    if not shown:
        raise DataError("no clip can be shown", where={"data": path, **{q.item: q.reason for q in left_out[:3]}})
    write_text(out / PAGE, gallery(dataset.path.absolute().name, shown))
    if open_browser:
        webbrowser.open((out / PAGE).absolute().as_uri())
    return StageResult(
        path=out / PAGE, kind="gallery", counts={"clips": len(shown)}, quarantined=tuple(left_out)
    )  # fmt: skip


def _choose(dataset: Dataset, clips: Sequence[str], reporter: Reporter) -> list[ClipSource]:
    known = {source.id: source for source in dataset.clips}
    if missing := [clip for clip in clips if clip not in known]:
        raise UsageError(f"no clip {', '.join(map(repr, missing))} here", where={"data": dataset.path})
    if not clips and len(known) > MOST:
        reporter.note(f"the first {MOST} of {len(known)} clips; name others with --clips")
    return [known[clip] for clip in clips] or list(dataset.clips[:MOST])


def _index(dataset: Dataset) -> dict[str, RenderedRow]:
    return read_rows(dataset.path) if (dataset.path / RENDERED_INDEX).is_file() else {}


def _show(source: ClipSource, row: RenderedRow | None, out: Path) -> GalleryClip:
    """Copy a clip's videos, draw its pictures, and say what is known of it."""
    parts = [part for part in ("context", "target") if part in source.files]
    videos = {part: read_video(source.files[part]) for part in parts}
    frames = (len(videos["context"]), len(videos["target"]) if "target" in videos else 0)
    place = file_name(source.id)
    folder = inside(out, f"clips/{place}")
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        shutil.copyfile(source.files[part], folder / f"{part}.mp4")
    gone, known_from = out_of_sight(source, videos)
    save_png(contact_sheet([(f"{source.id}  {part}", videos[part]) for part in parts]), folder / "sheet.png")
    plan, lens = _plan(source, videos, gone)
    pictures = [("contact sheet", f"clips/{place}/sheet.png")]
    if plan is not None:
        save_png(plan, folder / "plan.png")
        pictures.append(("from above", f"clips/{place}/plan.png"))
    said = [(name, getattr(row, name, None)) for name in _FACTS]
    facts = [(name, _plain(value)) for name, value in said if value is not None]
    facts += [] if lens is None else [("field of view", lens)]
    facts += [("out of sight", f"known from {known_from}" if known_from else "not known: neither masks nor check.json")]
    return GalleryClip(
        id=source.id, caption=source.caption, facts=tuple(facts), frames=frames,
        videos=tuple(f"clips/{place}/{part}.mp4" for part in parts), lanes=_lanes(gone, known_from, source, row),
        pictures=tuple(pictures),
    )  # fmt: skip


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _lanes(gone: Sequence[Absence], known_from: str, source: ClipSource, row: RenderedRow | None) -> tuple[Lane, ...]:
    """A lane per subject that is known of, also when it is always in sight."""
    names, subjects = list(dict.fromkeys(one.subject for one in gone)), row.subjects if row is not None else ()
    if known_from == "masks" and "context_instances" in source.files:
        names = [f"subject {number}" for number in range(1, len(subjects or names) + 1)]
    families = {f"subject {n}": f"{n}: {name}" for n, name in enumerate(subjects, 1)}
    return tuple(
        Lane(
            subject=families.get(name, name),
            hidden=tuple((one.first, one.last, one.reason or "") for one in gone if one.subject == name),
        )
        for name in names
    )


def _plan(
    source: ClipSource, videos: Mapping[str, np.ndarray], gone: Sequence[Absence]
) -> tuple[np.ndarray | None, str | None]:
    """The top-down picture, and the field of view in words; without absolute poses there is none."""
    cameras = read_cameras(source)
    if cameras.context is None:
        return None, None
    both = "target" in videos and cameras.target is not None
    poses = np.concatenate([cameras.context, cameras.target]) if both else cameras.context
    angle, words = _angle(source, videos, poses, both)
    walked = _walked(source, gone, len(poses))
    return top_down(poses, walked, context=len(cameras.context), field_of_view=angle), words


def _angle(
    source: ClipSource, videos: Mapping[str, np.ndarray], poses: np.ndarray, both: bool
) -> tuple[float | None, str | None]:
    """Horizontal field of view in radians: written, or measured, or not known."""
    info = source.context_info
    if "intrinsics" in source.files:
        lens = read_lens(source)
        angle = field_of_view(lens[0], info.width)
        return angle, f"{np.rad2deg(angle):.1f} degrees"
    found = measure(np.concatenate(list(videos.values())) if both else videos["context"], poses)
    if found is None:
        return None, None
    return float(np.deg2rad(found.degrees)), f"{found.degrees:.1f} degrees, measured"


def _walked(source: ClipSource, gone: Sequence[Absence], frames: int) -> list[Walked]:
    """Subjects' ways where the data set has them in our form; the released character.json is not readable."""
    if "character" not in source.files:
        return []
    try:
        tracks = schema.parse_subjects(json.loads(source.files["character"].read_text(encoding="utf-8")))
    except (DataError, ValueError):
        return []
    walked = []
    for number, track in enumerate(tracks, 1):
        place = np.concatenate([track.context, track.target])[:frames, :2]
        hidden = np.zeros(len(place), bool)
        for one in gone:
            if one.subject in (f"subject {number}", "subjects"):
                hidden[one.first : one.last + 1] = True
        walked.append(Walked(name=track.name, place=place, hidden=hidden))
    return [one for one in walked if len(one.place) == frames]
