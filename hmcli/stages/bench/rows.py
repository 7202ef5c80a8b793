"""`hm bench rows`: videos that need no model, of any folder of clips: what other scores are read against.

Each row becomes a generation artifact of its own, `out/<row>`, as if a model had made it: `hm eval` scores it so, rows
can be added later or made elsewhere, and each resumes by itself. What the rows are: hmcli/stages/bench/row_kinds.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.stages.bench.redrawing import Origin, origin_of
from hmcli.stages.bench.row_clip import DEPTH, RowClip, depth_hash, has, states_hash
from hmcli.stages.bench.row_kinds import ROWS, RowKind, find_rows
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset
from hmcli.stages.sampling.layout import (
    KIND,
    LIST,
    SHEET,
    SUFFIX,
    VIDEOS,
    GenerationAttributes,
    ModelFree,
    Row,
    video_path,
)
from hmcli.stages.shared.each import asked_for, each
from hmcli.stages.shared.makers import Unit, one_thread
from hmcli.stages.shared.outcome import planned, require_some, result_of, stay_unread
from hmcli.stages.shared.typed import LeftOut, key_of, to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json_lines
from hmcli.store.hashing import HashCache, hash_file, hash_json
from hmcli.store.manifest import is_artifact, is_unfinished
from hmcli.store.video import read_video, write_video
from hmcli.world.views.cameras import latent_poses

FORMAT = 1  # raise when a row would look different: older videos are then made anew
SHEET_CLIPS = 8  # clips on the contact sheet


@dataclass(frozen=True, kw_only=True)
class RowKey:
    """All that a row's video of a clip is made from."""

    format: int
    row: str
    source: str  # hash of the clip's files
    poses: str  # how its cameras are read
    depth: str | None  # hash, where the row reads it
    origin: str | None  # hash of how the clip was drawn, where it is drawn again ...
    states: str | None  # ... and of what says whether it is the same
    next: LeftOut[str] = None  # hash of the files of another clip, where the row reads that
    weights: LeftOut[str] = None  # hash of a codec's weights, where it goes through one


def run(
    data: Path, *, out: Path, rows: Sequence[str], force: bool = False, prune: bool = False, processes: int = 1,
    reporter: Reporter, dry_run: bool = False,
) -> StageResult:  # fmt: skip
    """Write the rows of a folder of clips; see `hm bench rows --help`."""
    chosen = find_rows(rows)
    if out.is_file() or is_artifact(out) or is_unfinished(out):
        raise UsageError(f"{out} holds something else", fix="name another folder: each row becomes an artifact in it")
    dataset = open_dataset(data, PosesConfig())
    for note in dataset.notes:
        reporter.note(note)
    size, origin = _size(dataset), origin_of(dataset)
    done: dict[str, StageResult] = {}
    for kind in _possible(dataset, chosen, asked=bool(rows), reporter=reporter):
        depths = {clip.id: depth_hash(clip) if DEPTH in kind.needs else None for clip in dataset.clips}
        job = Job(kind=kind, dataset=dataset, origin=origin, size=size, depths=depths)
        done[kind.name] = _make(
            job, out / kind.name, force=force, prune=prune, processes=processes, reporter=reporter, dry_run=dry_run
        )
    return StageResult(
        path=out, kind="rows", counts={"rows": len(done), "clips": len(dataset.clips)},
        quarantined=tuple(
            Quarantined(item=f"{name}/{left.item}", reason=left.reason)
            for name, one in done.items()
            for left in one.quarantined
        ),
        details={"rows": {name: str(one.path) for name, one in done.items()}} | ({"dry_run": True} if dry_run else {}),
    )  # fmt: skip


def _size(dataset: Dataset) -> tuple[int, int]:
    """Height and width of all clips: those a generation has are of one size, and of even sides, as its videos."""
    sizes = {(clip.context_info.height, clip.context_info.width) for clip in dataset.clips}
    if len(sizes) != 1:
        raise DataError("the clips differ in size", where={"data": dataset.path, "sizes": sorted(sizes)})
    height, width = sizes.pop()
    if height % 2 or width % 2:
        raise DataError(
            f"rows are written with even sides, these clips are {height}x{width}", where={"data": dataset.path}
        )
    return height, width


def _possible(dataset: Dataset, chosen: Sequence[RowKind], *, asked: bool, reporter: Reporter) -> list[RowKind]:
    """The rows that some clip has the files for. Raises UsageError for one that was asked for and has none."""
    found = []
    for kind in chosen:
        lacking = [what for what in kind.needs if not any(has(clip, what) for clip in dataset.clips)]
        if kind.reads_next and len(dataset.clips) < 2:
            lacking = [*lacking, "a clip beside it"]
        if not lacking:
            found.append(kind)
        elif asked:
            what = f"the row {kind.name} needs {', '.join(lacking)}, which no clip has"
            raise UsageError(what, where={"data": dataset.path}, fix="leave the row out, or render the clips")
        else:
            reporter.note(f"without {kind.name}: no clip has {', '.join(lacking)}")
    return found


def codec_hash() -> str:
    """Of the packaged codec's weights."""
    from hmcli.codecs.video import MINI_WEIGHTS  # torch loads here

    return hash_json({file.name: hash_file(file, cache=HashCache()) for file in sorted(MINI_WEIGHTS.iterdir())})


# --- one row ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of one data set. `depths` are hashes of its clips' depth, where the row reads it."""

    kind: RowKind
    dataset: Dataset
    origin: Origin | None
    size: tuple[int, int]
    depths: Mapping[str, str | None]

    def following(self, source: ClipSource) -> ClipSource | None:
        """The next clip of the data set whose target is as long, after the last one the first; None for a row that
        does not read it."""
        clips = self.dataset.clips if self.kind.reads_next else ()
        at = next((place for place, clip in enumerate(clips) if clip.id == source.id), 0)
        return next((clip for clip in (*clips[at + 1 :], *clips[:at]) if _frames(clip) >= _frames(source)), None)

    def key(self, source: ClipSource) -> str:
        """The content key of a clip's video."""
        drawn = self.kind.uses == "target"
        return key_of(
            RowKey(
                format=FORMAT, row=self.kind.name, source=source.key, poses=source.poses.repair,
                depth=self.depths[source.id],
                origin=self.origin.of(source.id) if drawn and self.origin is not None else None,
                states=states_hash(source) if drawn else None,
                next=None if (other := self.following(source)) is None else other.key,
                weights=codec_hash() if self.kind.reads_weights else None,
            )
        )  # fmt: skip


def _make(
    job: Job, out: Path, *, force: bool, prune: bool, processes: int, reporter: Reporter, dry_run: bool
) -> StageResult:
    dataset = job.dataset
    units = [Unit(id=clip.id, items={clip.id: job.key(clip)}) for clip in dataset.clips]
    asked = asked_for(units, unread=frozenset(left.item for left in dataset.quarantined), seeded=False)
    if dry_run:
        plan = f"row {job.kind.name} ({job.kind.uses}) of {len(units)} clips"
        return planned(
            out, KIND, plan, reporter, look=asked, force=force, prune=prune, counts={"clips": len(units)},
            quarantined=dataset.quarantined,
        )  # fmt: skip
    read = {"poses": asdict(PosesConfig())}
    with ArtifactWriter(
        out, KIND, recipe=read, inputs={"clips": dataset.fingerprint}, seed=0, reporter=reporter, force=force,
        prune=prune, under=f"{FORMAT} {job.kind.name}",
    ) as writer:  # fmt: skip
        writer.ask(asked)

        def keep(unit: Unit, row: Row, made: Path) -> None:
            key, meta = unit.items[unit.id], to_json(row)
            with writer.item_file(unit.id, key, suffix=SUFFIX, parent=VIDEOS, meta=meta) as file:
                os.replace(made, file)

        painter = Painter(
            row=job.kind.name, clips={clip.id: clip for clip in dataset.clips}, origin=job.origin, depths=job.depths,
            following={clip.id: job.following(clip) for clip in dataset.clips},
        )  # fmt: skip
        done = each(writer, units, painter, keep, label=job.kind.name, processes=processes)
        done = stay_unread(writer, dataset.quarantined, done)
        require_some(done, writer.quarantined, dataset.path)
        return _finish(writer, job, done)


def _frames(clip: ClipSource) -> int:
    return 0 if clip.target_info is None else clip.target_info.frames


@dataclass(frozen=True, kw_only=True)
class Painter:
    """Makes a row's videos by the ids of clips (hmcli.stages.shared.makers.Maker), each at `place`."""

    row: str
    clips: Mapping[str, ClipSource]
    origin: Origin | None
    depths: Mapping[str, str | None]
    following: Mapping[str, ClipSource | None]

    @property
    def imports(self) -> tuple[str, ...]:
        return ("hmcli.world.render",) if ROWS[self.row].uses == "target" else ()

    def reporting_to(self, reporter: Reporter) -> Painter:
        return self  # it tells nothing

    def load(self) -> None:
        pass  # there are no weights

    def make(self, unit: Unit, place: Path) -> Row:
        """The clip's row of generations.jsonl."""
        started, source = time.monotonic(), self.clips[unit.id]
        clip = RowClip(source=source, depth_hash=self.depths[unit.id], origin=self.origin, next=self.following[unit.id])
        video, made = ROWS[self.row].draw(clip)
        write_video(place, video, fps=clip.fps)
        frames, height, width = video.shape[:3]
        return Row(
            id=unit.id, video=video_path(unit.id), caption=source.caption, seed=None, frames=frames, fps=clip.fps,
            height=height, width=width, context_frames=source.context_info.frames, steps=None, guidance=None,
            shift=None, negative=None, dtype=None, memory=None, made=made,
            camera=latent_poses(clip.poses[1]).round(6).tolist(), seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip


def _finish(writer: ArtifactWriter, job: Job, done: list[str]) -> StageResult:
    kind, dataset = job.kind, job.dataset
    attributes = GenerationAttributes(
        data=DataConfig(size=job.size), source_dataset=str(dataset.path.absolute()),
        source_dataset_fingerprint=dataset.fingerprint, model="", latents="",
        model_free=ModelFree(row=kind.name, uses=kind.uses, definition=kind.definition),
    )  # fmt: skip
    if not writer.unchanged(done):
        write_json_lines(writer.staged / LIST, [writer.items[clip]["meta"] for clip in done])
        with one_thread():
            _write_sheet(writer, dataset, kind.name, done)
    manifest = writer.finish(done, counts={"clips": len(done)}, attributes=to_json(attributes))
    return result_of(writer, manifest)


def _write_sheet(writer: ArtifactWriter, dataset: Dataset, row: str, done: Sequence[str]) -> None:
    """The last of the context, the true target where there is one, and the row."""
    from hmcli.reports.contact_sheet import contact_sheet, save_png

    sources = {clip.id: clip for clip in dataset.clips}
    strips = []
    for clip in [clip for clip in done if clip in sources][:SHEET_CLIPS]:
        files = sources[clip].files
        parts = [("context", files["context"])] + ([("true target", files["target"])] if "target" in files else [])
        strips += [(f"{clip}  {name}", read_video(file)) for name, file in [*parts, (row, writer.place(clip))]]
    save_png(contact_sheet(strips), writer.staged / SHEET)
