"""`hm generate --replay`: a row of generations.jsonl says what makes its pixels again; here they are made and compared.

Weights and inputs are looked up where the row says, or where the command line says that they lie now. Others than those
that the row was made from are refused by their hashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, HMError, UsageError
from hmcli.recipe.reading import from_dict
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling.generate import Generator
from hmcli.stages.sampling.job import Job, open_job, sorted_memory
from hmcli.stages.sampling.layout import CHUNKS, LIST, SUFFIX, Again, Row, VideoKey
from hmcli.stages.sampling.rollout import check_rollout
from hmcli.stages.sampling.samples import sample_item
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.store.files import file_name, parse_json_lines

KIND = "video"
MOST_THREADS = 512  # more are not started, whatever a row says
_WORDS = {  # of what a video is made from: how a person calls it, and which argument names it
    "latents": ("the clip's latents, cameras or subjects", "LATENTS"), "model": ("the model's weights", "--model"),
    "codec": ("the codec's weights", "codec.path"), "negative": ("the text encoder", "text.path"),
    "text": ("the caption's embedding", "LATENTS"), "past": ("the memory", "--memory"),
    "exported": ("the exported graphs", "--exported"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things lie now; what is None or empty lies where the row says."""

    latents: Path | None = None
    model: Path | None = None
    memory: tuple[Path, ...] = ()
    exported: Path | None = None
    device: str = ""


def run(
    row: str, places: Places, *, out: Path | None, force: bool, reporter: Reporter, dry_run: bool = False
) -> StageResult:
    """Make the video of a row (`FILE` or `FILE:LINE`) again, as the file `out`; see `hm generate --help`.

    Raises UsageError for rows that say too little, DataError for other weights or inputs than the row was made from,
    HMError where the same ones made other pixels on the same device.
    """
    made, again = read_row(row)
    file = out or Path(f"{file_name(sample_item(made.id, made.sample))}{SUFFIX}")
    if file.exists() and not force:
        raise UsageError(f"{file} is there already", fix="name another file with --out, or add --force")
    job = _job(made, again, places, reporter)
    check_same(again.made_of, job.made_of(made.id, made.sample), row)
    if dry_run:
        reporter.note(f"would make {file} again, {made.frames} frames on {job.device}")
        return StageResult(path=file, kind=KIND)
    file.parent.mkdir(parents=True, exist_ok=True)
    generator = Generator(job, file.with_name(file.name + CHUNKS))
    partial = generator.partial_of(job.key(made.id, made.sample))
    beside = [(job.view.clip(clip), number) for clip, number in again.beside or ()]
    with _as_many_threads(again, job.device):
        new = generator.sample(job.view.clip(made.id), made.sample, file, partial, beside)
    shutil.rmtree(generator.partial, ignore_errors=True)
    assert new.again is not None
    _compare(again, new.again, file, reporter)
    return StageResult(path=file, kind=KIND, details={"same_pixels": new.again.pixels == again.pixels})


@contextmanager
def _as_many_threads(again: Again, device: str) -> Iterator[None]:
    """A CPU shares sums among as many threads as the row was made with."""
    import torch

    before = torch.get_num_threads()
    wanted = again.threads if device == "cpu" and again.threads is not None else before
    torch.set_num_threads(min(max(wanted, 1), MOST_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_row(place: str) -> tuple[Row, Again]:
    """The row at `FILE` or `FILE:LINE` (lines are counted from 1); FILE may be the generation's folder."""
    name, _, line = place.rpartition(":")
    name, number = (name, int(line)) if name and line.isdecimal() else (place, 0)
    file = Path(name) / LIST if Path(name).is_dir() else Path(name)
    if not file.is_file():
        raise UsageError("there is no such row", where={"--replay": place}, fix=f"name GENERATION/{LIST}:LINE")
    lines = parse_json_lines(file.read_bytes(), file)
    if not number and len(lines) > 1:
        raise UsageError(f"{file} has {len(lines)} rows", fix=f"name one: {file}:1")
    if not 1 <= (number or 1) <= len(lines):
        raise UsageError(f"{file} has {len(lines)} rows, there is no row {number}")
    row = from_json(Row, lines[(number or 1) - 1], "a row", file=file, line=number or 1)
    if row.again is None:
        raise UsageError(
            "this row does not say what its video was made from: no model made it, or an earlier version of hm",
            where={"file": file, "clip": row.id}, fix="generate it again with this version",
        )  # fmt: skip
    return row, row.again


def _job(made: Row, again: Again, places: Places, reporter: Reporter) -> Job:
    """The job that a row was made by, with things as they lie now."""
    recipe = from_dict(again.recipe)
    folder = find_model(places.model or Path(again.model))
    kept, descriptions = sorted_memory(places.memory or tuple(map(Path, again.memory)), folder)
    latents, device = places.latents or Path(again.latents), places.device or again.device
    if not latents.exists():
        raise DataError(
            "the latents that this row was made from are not there any more", where={"latents": latents},
            fix="name them, or the same ones made again: hm generate LATENTS --replay ROW",
        )  # fmt: skip
    exported = places.exported or (None if again.exported is None else Path(again.exported))
    job, _ = open_job(recipe, folder, latents, kept, descriptions, (made.id,), device, reporter, exported)
    if recipe.sample.chunk:
        check_rollout(job)
    return job


def check_same(recorded: VideoKey, found: VideoKey, row: str) -> None:
    """Raise DataError, with both hashes of everything that differs, unless a video is made from what it was."""
    before, now = to_json(recorded), to_json(found)
    names = [field.name for field in fields(VideoKey) if before.get(field.name) != now.get(field.name)]
    if names:
        called = [_WORDS.get(name, (name, ""))[0] for name in names]
        where = {name: f"{before.get(name)} then, {now.get(name)} now" for name in names}
        options = sorted({_WORDS[name][1] for name in names if name in _WORDS})
        raise DataError(
            f"other pixels would come of this: {', '.join(called)} changed since the row was made",
            where={"--replay": row, **where},
            fix=f"name what it was made from ({', '.join(options)})" if options else "use the version that made it",
        )


def _compare(before: Again, now: Again, file: Path, reporter: Reporter) -> None:
    """Say whether the pixels are the same. Raises HMError where nothing can explain that they are not."""
    if before.pixels == now.pixels:
        reporter.note("the same pixels, bit for bit")
        return
    others = {
        name: f"{then} then, {here} now"
        for name, then, here in (
            ("device", before.device, now.device),
            ("threads", before.threads, now.threads),
            *((name, before.versions.get(name), version) for name, version in now.versions.items()),
        )
        if then != here
    }
    if not others:
        raise HMError(
            "the same weights and inputs made other pixels", where={"video": file, "pixels": now.pixels},
            fix="another processor rounds otherwise: compare with psnr",
        )  # fmt: skip
    said = "; ".join(f"{name}: {text}" for name, text in others.items())
    reporter.warn(f"these are not the same pixels bit for bit ({said})")
