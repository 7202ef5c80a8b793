"""`hm generate`: denoise each clip's target latents along its target cameras, decode them, write one video a clip.

The past comes as context latents or, for frozen models, from a memory artifact; both give the same video. A clip's
noise depends on (seed, clip id) alone, so results depend on no order, selection or interruption.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.contracts import TIME_STRIDE, Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError, ran_out
from hmcli.recipe.reading import from_dict
from hmcli.recipe.sections import Recipe
from hmcli.reports.contact_sheet import Strip, cut_strip, lay_out, load_strips, save_png, save_strips, spaced_frames
from hmcli.stages.latents.pixels import decode_video
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.models.folders import ModelFolder, check_memory_fits, find_model
from hmcli.stages.models.identity import codec_of, text_of
from hmcli.stages.sampling.fits import batch_that_fits, check_clips, free_cached, memory_of, say_fewer
from hmcli.stages.sampling.job import (
    Job,
    check_exported,
    check_settings,
    finite,
    generate_together,
    inputs_read,
    open_job,
    sorted_memory,
)
from hmcli.stages.sampling.layout import (
    CHUNKS,
    KIND,
    LIST,
    SHEET,
    STRIPS,
    SUFFIX,
    VIDEOS,
    Again,
    GenerationAttributes,
    Network,
    Row,
    video_path,
)
from hmcli.stages.sampling.profile import DECODING, WRITING, lines, part, peak_so_far, profiled
from hmcli.stages.sampling.rollout import check_rollout, chunks_of, kept_frames, roll_out
from hmcli.stages.sampling.samples import in_order, items_of, sample_item, sample_seed
from hmcli.stages.shared.each import asked_for, each
from hmcli.stages.shared.makers import Unit, one_thread
from hmcli.stages.shared.outcome import planned, require_some, result_of, stay_unread
from hmcli.stages.shared.shards import Parts, Shard, share
from hmcli.stages.shared.typed import to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked, some
from hmcli.store.files import file_name, write_json_lines
from hmcli.store.listed import listed
from hmcli.store.manifest import is_artifact, read_manifest
from hmcli.store.video import VideoInfo, probe_video, read_video, write_video

SHEET_CLIPS = 8  # clips on the contact sheet
SHEET_FRAMES = 8  # of each of their videos
Video = tuple[LatentClip, int]  # a clip, and which sample of it


def run(
    recipe: Recipe,
    *,
    source: Path,
    model: Path,
    memory: tuple[Path, ...],
    clips: tuple[str, ...],
    out: Path,
    force: bool,
    device: str,
    reporter: Reporter,
    prune: bool = False,
    processes: int = 1,
    dry_run: bool = False,
    shard: Shard | None = None,
    profile: bool = False,
    exported: Path | None = None,
) -> StageResult:
    """Generate the clips of latents, or of a folder of clips (encoded first); see `hm generate --help`."""
    if profile:
        return _profiled(
            device, reporter, processes, partial(
                run, recipe, source=source, model=model, memory=memory, clips=clips, out=out, force=force,
                device=device, reporter=reporter, prune=prune, dry_run=dry_run, shard=shard, exported=exported,
            ),
        )  # fmt: skip
    folder = find_model(model)
    check_settings(recipe.sample, folder, device)
    if exported is not None:
        check_exported(recipe.sample, device, exported)
    kept, descriptions = sorted_memory(memory, folder)
    left_out: tuple[Quarantined, ...] = ()
    if not is_latents(source):
        _refuse_parts(shard, source)
        if out.exists():  # what keeps it from being written is said before anything is encoded
            with ArtifactWriter(out, KIND, recipe={}, inputs={}, seed=recipe.seed, reporter=reporter, force=force):
                pass
        encoded = _encode_first(recipe, source, out, folder, device, reporter, prune, processes, dry_run)
        if dry_run:
            plan = f"then {recipe.sample.steps} steps for each clip on {device}"
            ids = clips or encoded.details["clips"]
            return planned(
                out, KIND, plan, reporter, look=lambda writer: _say_gone(writer, ids), seed=recipe.seed,
                prune=prune,
            )  # fmt: skip
        source, left_out = encoded.path, encoded.quarantined
    job, ids = open_job(recipe, folder, source, kept, descriptions, clips, device, reporter, exported)
    if recipe.sample.chunk:
        check_rollout(job)
    own = share(shard, ids)
    check_clips(job, own.clips)
    units = [job_unit(job, clip) for clip in own.clips]
    unread = left_out or (() if clips else job.view.left_out)
    asked = asked_for(units, unread=frozenset(items_of([left.item for left in unread], recipe.sample.count)))
    items_of(ids, recipe.sample.count)  # names that clash are said before anything is made
    if dry_run:
        samples = "" if recipe.sample.count == 1 else f"{recipe.sample.count} samples of "
        plan = f"{samples}{len(units)} clips, {recipe.sample.steps} steps each on {device}"
        return planned(
            out, KIND, plan, reporter, look=asked, seed=recipe.seed, force=force, prune=prune,
            counts={"clips": len(units)}, part=own.part,
        )  # fmt: skip
    with _writer(job, out, descriptions, reporter, force=force, prune=prune, part=own.part) as writer:

        def with_unread(done: list[str]) -> list[str]:
            missing = left_out or [left for left in unread if left.item in writer.items]
            done = stay_unread(writer, missing, done, lambda clip: list(items_of([clip], recipe.sample.count)))
            require_some(done, writer.quarantined, source, own.part)
            return done

        return _made(writer, job, units, asked, processes, with_unread)


def from_job(job: Job, clips: Sequence[str], out: Path, reporter: Reporter) -> StageResult:
    """Generate clips with a job that is open already: with a model that is in memory, for instance."""
    units = [job_unit(job, clip) for clip in clips]
    with _writer(job, out, None, reporter) as writer:
        return _made(writer, job, units, asked_for(units))


def _writer(job: Job, out: Path, descriptions: Path | None, reporter: Reporter, **how: Any) -> ArtifactWriter:
    """A generation as it is written; `how` are further arguments of ArtifactWriter."""
    read = job.reads() | {"poses": job.view.manifest.recipe["poses"]}
    return ArtifactWriter(
        out, KIND, recipe=read, inputs=inputs_read(job, descriptions), seed=job.recipe.seed, reporter=reporter,
        under=job.under, **how,
    )  # fmt: skip


def _made(
    writer: ArtifactWriter, job: Job, units: list[Unit], asked: Asked, processes: int = 1,
    listed_too: Callable[[list[str]], list[str]] = lambda done: done,
) -> StageResult:  # fmt: skip
    """Make what is asked for and finish the artifact; `listed_too` adds clips that stay though they cannot be read."""
    writer.ask(asked)
    done = listed_too(_generate_clips(writer, job, units, processes))
    return _finish(writer, job, in_order(done, job.sample.count, writer.items))


def _profiled(device: str, reporter: Reporter, processes: int, stage: Callable[[], StageResult]) -> StageResult:
    """Run the stage, and say where time and memory went."""
    if processes > 1:
        raise UsageError("--profile measures one process", fix="leave out --num-processes")
    with profiled(device) as found:
        result = stage()
    for line in lines(found) or ["--profile: nothing was made, so nothing was measured"]:
        reporter.note(line)
    return replace(
        result, details={**result.details, "profile": {name: asdict(of) for name, of in found.parts.items()}}
    )


def is_latents(source: Path) -> bool:
    """Is there nothing to encode first?"""
    return is_artifact(source) and read_manifest(source).kind == "latents"


def _refuse_parts(shard: Shard | None, source: Path) -> None:
    """Every part would encode all clips first."""
    if shard is not None:
        raise UsageError(
            f"--shard {shard} needs latents: every part would encode the whole folder of clips first",
            where={"source": source}, fix=f"encode it first (hm encode {source}), and generate from the latents",
        )  # fmt: skip


def _encode_first(
    recipe: Recipe, source: Path, out: Path, folder: ModelFolder, device: str, reporter: Reporter, prune: bool,
    processes: int, dry_run: bool,
) -> StageResult:  # fmt: skip
    """A folder of clips becomes a latents artifact beside the output, with the model's own codec."""
    from hmcli.stages.latents import encode

    place = out.with_name(out.name + ".latents")
    reporter.note(f"{source} is no latents artifact: encoding it into {place} first")
    codec, text = codec_of(folder, recipe.codec.path), text_of(folder, recipe.text.path)
    resolved = replace(recipe, codec=codec, text=text)
    return encode.run(
        resolved, data=source, out=place, force=False, device=device, reporter=reporter, prune=prune,
        processes=processes, dry_run=dry_run,
    )  # fmt: skip


def _say_gone(writer: ArtifactWriter, ids: Iterable[str]) -> None:
    """For a dry run that does not know yet what clips will be: videos of other ones would go."""
    if gone := writer.ask(Asked(keys={}, unread=frozenset(ids))).gone:
        writer.reporter.note(f"{len(gone)} go ({some(gone)})")


# --- clips -----------------------------------------------------------------------------------------------------------


def job_unit(job: Job, clip: str) -> Unit:
    """All samples of a clip."""
    items = items_of([clip], job.sample.count)
    return Unit(id=clip, items={item: job.key(clip, number) for item, (_, number) in items.items()})


def _generate_clips(writer: ArtifactWriter, job: Job, units: list[Unit], processes: int) -> list[str]:
    """Generate what is not there yet; returns the ids of all clips that are."""
    batches = _batches(job, units) if job.sample.batch > 1 else {unit.id: [unit] for unit in units}
    generator = Generator(
        job, writer.path.with_name(writer.path.name + CHUNKS),
        clips={name: [unit.id for unit in of] for name, of in batches.items()},
    )  # fmt: skip
    gone: set[str] = set()

    def keep(unit: Unit, made: list[Row | Failed], place: Path) -> None:
        for one in made:
            if isinstance(one, Failed):
                if not writer.quarantine(one.clip, one.reason, one.items):
                    gone.add(one.clip)
                continue
            item = sample_item(one.id, one.sample)
            with writer.item_file(item, unit.items[item], suffix=SUFFIX, parent=VIDEOS, meta=to_json(one)) as file:
                os.replace(place / video_name(item), file)
            shutil.rmtree(generator.partial_of(unit.items[item]), ignore_errors=True)

    joined = [
        Unit(id=name, items={item: key for unit in of for item, key in unit.items.items()}, clips=len(of))
        for name, of in batches.items()
    ]
    done = each(writer, joined, generator, keep, label="generating", processes=processes)
    if generator.partial.is_dir() and not any(generator.partial.iterdir()):
        generator.partial.rmdir()
    return [unit.id for name in done for unit in batches[name] if unit.id not in gone]


def _batches(job: Job, units: list[Unit]) -> dict[str, list[Unit]]:
    """Clips of one shape that are made at once, in their order, by the id of the first."""
    size, by_shape = batch_that_fits(job, [unit.id for unit in units]), dict[Any, list[Unit]]()
    for unit in units:
        by_shape.setdefault(job.view.where[unit.id][0].shape, []).append(unit)
    rows = (of[start : start + size] for of in by_shape.values() for start in range(0, len(of), size))
    order = {unit.id: number for number, unit in enumerate(units)}
    return {of[0].id: of for of in sorted(rows, key=lambda of: order[of[0].id])}


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A clip of a batch that cannot be made; the others are."""

    clip: str
    reason: str
    items: list[str]


def video_name(item: str) -> str:
    """What an item's video is called where it is made."""
    return f"{file_name(item)}{SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Latents of a video, what was made at once, and this video's share of the time."""

    clip: LatentClip
    number: int
    latents: np.ndarray  # (C, F, h, w)
    beside: list[tuple[str, int]]
    seconds: float


@dataclass(frozen=True)
class Generator:
    """Generates clips by their ids (hmcli.stages.shared.makers.Maker); `place` gets a video of each sample."""

    job: Job
    partial: Path  # a folder for what is made in chunks
    clips: Mapping[str, list[str]] = field(default_factory=dict)  # unit -> what is made at once; else: one clip
    most: list[int] = field(default_factory=list)  # videos at a time that fitted, once more did not
    imports: tuple[str, ...] = ("hmcli.core.transformer", "hmcli.codecs.video")

    def reporting_to(self, reporter: Reporter) -> Generator:
        return replace(self, job=replace(self.job, reporter=reporter))

    def load(self) -> None:
        _ = self.job.network, self.job.codec

    def make(self, unit: Unit, place: Path) -> list[Row | Failed]:
        """The rows of generations.jsonl of the samples that are asked for. Raises DataError for a unit of one clip."""
        ids = self.clips.get(unit.id, [unit.id])
        place.mkdir()
        if len(ids) == 1:
            return [*self._one_by_one(unit, place)]
        asked = [(item, of) for item, of in items_of(ids, self.job.sample.count).items() if item in unit.items]
        failed: dict[str, Failed] = {}
        loaded: dict[str, LatentClip] = {}
        for name in dict.fromkeys(name for _, (name, _) in asked):
            try:
                loaded[name] = self._checked(name)
            except DataError as error:
                failed[name] = _failed(name, error, asked)
        made: list[Row | Failed] = []
        videos = [(loaded[name], number) for _, (name, number) in asked if name in loaded]
        for sampled in self._in_batches(videos):
            clip, number = sampled.clip, sampled.number
            try:
                made.append(self._of_batch(sampled, place / video_name(sample_item(clip.id, number))))
            except DataError as error:
                failed[clip.id] = _failed(clip.id, error, asked)
        return [*(row for row in made if row.id not in failed), *failed.values()]  # type: ignore[union-attr]

    def _one_by_one(self, unit: Unit, place: Path) -> Iterator[Row]:
        clip = self._checked(unit.id)
        with memory_of(self.job, clip.id):
            for item, (_, number) in items_of([clip.id], self.job.sample.count).items():
                if item in unit.items:
                    yield self.sample(clip, number, place / video_name(item), self.partial_of(unit.items[item]))

    def _checked(self, name: str) -> LatentClip:
        """Raises DataError for a clip that cannot be read, or is too short for the model's memory."""
        clip, size = self.job.view.clip(name), self.job.view.latent_size
        check_memory_fits(self.job.config, clip.id, context=clip.context, target=clip.target, size=size)
        return clip

    def _in_batches(self, videos: Sequence[Video]) -> Iterator[Sampled]:
        """`sample.batch` at a time, or as many as fit."""
        start = 0
        while start < len(videos):
            began, now = time.monotonic(), videos[start : start + min([self.job.sample.batch, *self.most])]
            if (made := self._together(now)) is None:
                self.most.append(len(now) // 2)
                say_fewer(self.job, len(now) // 2, f"it ran out with {len(now)}")
                continue
            seconds, beside = (time.monotonic() - began) / len(now), [(clip.id, number) for clip, number in now]
            for (clip, number), latents in zip(now, made, strict=True):
                yield Sampled(clip=clip, number=number, latents=latents, beside=beside, seconds=seconds)
            start += len(now)

    def _together(self, videos: Sequence[Video]) -> list[np.ndarray] | None:
        """Their latents; None where several do not fit into memory at once."""
        with memory_of(self.job, videos[0][0].id):
            try:
                return generate_together(self.job, videos)
            except (MemoryError, RuntimeError) as error:
                if len(videos) == 1 or not ran_out(error):
                    raise
        free_cached(self.job.device)
        return None

    def partial_of(self, key: str) -> Path:
        """Where the chunks of the sample with this key are kept until it is whole."""
        return self.partial / key.removeprefix("sha256:")[:16]

    def sample(
        self, clip: LatentClip, number: int, file: Path, partial: Path, beside: Sequence[Video] = ()
    ) -> Row:  # fmt: skip
        """Write one sample's video; `partial` is a folder for its chunks, `beside` are all videos of its batch."""
        if not beside:
            return self._written(clip, number, file, self._pictures(clip, number, partial))
        every = {(of.clip.id, of.number): of for of in self._in_batches(beside)}
        return self._of_batch(every[clip.id, number], file)

    def _of_batch(self, sampled: Sampled, file: Path) -> Row:
        clip, number = sampled.clip, sampled.number
        pictures = [self._decoded(finite(sampled.latents, clip, number))[: kept_frames(self.job, clip)]]
        return self._written(clip, number, file, pictures, sampled.beside, sampled.seconds)

    def _written(
        self, clip: LatentClip, number: int, file: Path, pictures: Iterable[np.ndarray],
        beside: Sequence[tuple[str, int]] = (), before: float = 0.0,
    ) -> Row:  # fmt: skip
        """`before`: seconds that were spent on the pictures already."""
        started, digest = time.monotonic() - before, hashlib.sha256()

        def frames() -> Iterator[np.ndarray]:
            for frame in chain.from_iterable(pictures):
                digest.update(np.ascontiguousarray(frame).tobytes())
                yield frame

        with part(WRITING):
            write_video(file, frames(), fps=clip.fps)
        again = self.job.again(clip.id, number, f"sha256:{digest.hexdigest()}", beside)
        return _row(self.job, clip, number, probe_video(file), round(time.monotonic() - started, 3), again)

    def _pictures(self, clip: LatentClip, number: int, partial: Path) -> Iterator[np.ndarray]:
        """(T, H, W, 3) uint8: the target, or a chunk of it after the other."""
        job, wanted = self.job, kept_frames(self.job, clip)
        if not job.sample.chunk:
            sampled = finite(generate_together(job, [(clip, number)])[0], clip, number)
            yield self._decoded(sampled)[:wanted]
            return
        chunks = chunks_of(wanted, job.sample.chunk)
        for chunk, latents in zip(chunks, roll_out(job, clip, number, partial), strict=True):
            yield self._decoded(latents)[: chunk.stop - chunk.start]
            job.reporter.note(f"{clip.id}: {chunk.stop} of {wanted} frames")

    def _decoded(self, latents: np.ndarray) -> np.ndarray:
        codec = self.job.codec
        with part(DECODING):
            return decode_video(latents, codec, self.job.device)


def _failed(clip: str, error: DataError, asked: Sequence[tuple[str, tuple[str, int]]]) -> Failed:
    return Failed(clip=clip, reason=str(error), items=[item for item, (of, _) in asked if of == clip])


def _row(job: Job, clip: LatentClip, number: int, video: VideoInfo, seconds: float, again: Again) -> Row:
    sample = job.sample
    return Row(
        id=clip.id, video=video_path(sample_item(clip.id, number)), caption=clip.caption,
        seed=sample_seed(job.recipe.seed, clip.id, number), sample=number,
        frames=video.frames, fps=clip.fps, height=video.height, width=video.width,
        context_frames=1 + TIME_STRIDE * (clip.context - 1), steps=sample.steps, guidance=sample.guidance,
        shift=sample.shift, negative=sample.negative, dtype=sample.dtype, memory=sample.memory,
        camera=[] if clip.poses is None else clip.poses[clip.context :].round(6).tolist(), seconds=seconds,
        peak_bytes=peak_so_far(job.device) or None, again=again,
    )  # fmt: skip


# --- the artifact ----------------------------------------------------------------------------------------------------


def _finish(writer: ArtifactWriter, job: Job, done: list[str]) -> StageResult:
    view = job.view
    attributes = GenerationAttributes(
        data=from_dict({"data": view.manifest.recipe["data"]}).data, source_dataset=view.attributes.source,
        source_dataset_fingerprint=view.manifest.inputs["clips"], model=str(job.model.path.absolute()),
        latents=str(view.path.absolute()),
        network=Network(
            parameters=job.model.about.parameters, policy=job.memory.policy, top_k=job.memory.top_k,
        ),
    )  # fmt: skip
    if not writer.unchanged(done):
        with one_thread():
            shown = {clip: _strips(writer, job, clip) for clip in [c for c in done if c in view.where][:SHEET_CLIPS]}
        if writer.part:  # the sheet of the whole is laid out anew
            save_strips(shown, writer.staged / STRIPS)
        _write_tables(writer, done, shown)
    return _complete(writer, done, to_json(attributes))


def join(writer: ArtifactWriter, parts: Parts) -> StageResult:
    """Complete the generation whose videos were made in parts, and are in the writer."""
    done = parts.items
    if not writer.unchanged(done):
        shown: dict[str, list[Strip]] = {}
        for path in parts.paths:
            shown |= _strips_of(path)
        _write_tables(writer, done, dict(list(shown.items())[:SHEET_CLIPS]))
    return _complete(writer, done, parts.attributes)


def _strips_of(part: Path) -> dict[str, list[Strip]]:
    """The rows of the sheet that a part keeps, by clip."""
    try:
        return load_strips(listed(part).read(STRIPS).data)
    except ValueError as error:
        where = {"artifact": part, "file": STRIPS, "at": error}
        raise DataError("the rows of a contact sheet cannot be read", where=where, fix="make the part again") from error


def _complete(writer: ArtifactWriter, done: list[str], attributes: dict[str, Any]) -> StageResult:
    clips = len({writer.items[item]["meta"]["id"] for item in done})
    more = {"videos": len(done)} if len(done) > clips else {}
    manifest = writer.finish(done, counts={"clips": clips, **more}, attributes=attributes)
    return result_of(writer, manifest, contact_sheet=str(writer.path / SHEET))


def _write_tables(writer: ArtifactWriter, done: list[str], shown: Mapping[str, list[Strip]]) -> None:
    items = writer.items
    write_json_lines(writer.staged / LIST, [items[item]["meta"] for item in done])
    if shown:
        save_png(lay_out([strip for of in shown.values() for strip in of]), writer.staged / SHEET)


def _strips(writer: ArtifactWriter, job: Job, clip_id: str) -> list[Strip]:
    """Context, true target where there is one (both through the codec), and what was generated."""
    clip, codec = job.view.clip(clip_id), job.codec
    rows = [(f"{clip_id}  context, decoded", decode_video(clip.context_latents, codec, job.device))]
    if clip.has_target:
        truth = decode_video(clip.latents[:, clip.context :], codec, job.device)
        rows.append((f"{clip_id}  true target, decoded", truth))
    file = writer.place(clip_id)
    numbers = spaced_frames(probe_video(file).frames, SHEET_FRAMES)
    made = np.concatenate([read_video(file, start=number, count=1) for number in numbers])  # it may be a long one
    strips = [cut_strip(label, video, SHEET_FRAMES) for label, video in rows]
    return [*strips, cut_strip(f"{clip_id}  generated", made, numbers=numbers)]
