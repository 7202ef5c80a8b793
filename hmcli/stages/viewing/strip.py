"""`hm strip`: context, truth and generations of the same clips side by side, as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.reports.contact_sheet import save_png
from hmcli.reports.strip import FORMATS, StripRow, animate, save_animation, stills
from hmcli.stages.data import pieces
from hmcli.stages.data.loading import rate
from hmcli.stages.data.opening import ClipSource, Dataset
from hmcli.stages.sampling.generations import Generated, find_reference, open_generation, unchanged_source
from hmcli.stages.scoring.videos import ClipVideos
from hmcli.store.hashing import HashCache
from hmcli.store.video import write_video

MOST = 4  # clips shown unless named
STILL = ".png"
FILM = ".mp4"


def run(
    paths: Sequence[Path],
    *,
    reference: Path | None,
    clips: Sequence[str],
    labels: Sequence[str],
    scale: int,
    most_mib: float,
    out: Path,
    force: bool,
    poses: PosesConfig,
    reporter: Reporter,
) -> StageResult:
    """Write the strip to `out`; see `hm strip --help`.

    Raises UsageError for generations that do not go together, DataError for clips that cannot be read.
    """
    if out.suffix.lower() not in (*FORMATS, FILM):
        raise UsageError(f"--out {out.name}: a strip is a {', '.join((*FORMATS, FILM))} file")
    if out.exists() and not force:
        raise UsageError(f"{out} is there already", fix="name another file with --out, or add --force")
    if labels and len(labels) != len(paths):
        raise UsageError(
            f"{len(labels)} labels for {len(paths)} generations", fix="give one --label for each, in order"
        )
    generations = [open_generation(path, poses) for path in paths]
    dataset, shows_truth = _reference(generations[0], reference, reporter)
    chosen = _choose(generations, clips, reporter)
    rows, cache = [], HashCache()
    with reporter.progress("reading", len(chosen), "clip") as advance:
        for clip in chosen:
            rows.append(_row(_source(dataset, clip), generations, clip, cache, shows_truth))
            advance(1)
    names = ["context", *["truth"] * shows_truth, *(labels or [path.name for path in paths])]
    fps = float(rate(_source(dataset, chosen[0]), generations[0].data))
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if out.suffix.lower() == STILL:
            save_png(stills(rows, names, scale), out)
        elif out.suffix.lower() == FILM:
            _save_film(animate(rows, names, fps, scale), fps, out, round(most_mib * 2**20))
        else:
            save_animation(animate(rows, names, fps, scale), fps, out, round(most_mib * 2**20))
    except ValueError as error:
        raise DataError(str(error), where={"out": out}, fix="show fewer clips, or a smaller --scale") from error
    return StageResult(path=out, kind="strip", counts={"clips": len(rows)})


def _save_film(frames: np.ndarray, fps: float, out: Path, most_bytes: int) -> None:
    """Write (T, H, W, 3) as an mp4, with white lines at the lower and right edge where sides are odd."""
    sides = [(0, side % 2) for side in frames.shape[1:3]]
    part = out.with_name(f".{out.stem}.part{FILM}")
    write_video(part, np.pad(frames, [(0, 0), *sides, (0, 0)], constant_values=255), fps=fps)
    if (size := part.stat().st_size) > most_bytes:
        part.unlink()
        raise ValueError(f"{size / 2**20:.1f} MiB, at most {most_bytes / 2**20:.2g} MiB are asked for")
    part.replace(out)


def _choose(generations: Sequence[Generated], clips: Sequence[str], reporter: Reporter) -> list[str]:
    """The clips named, or the first that every generation has."""
    common = [clip for clip in generations[0].rows if all(clip in one.rows for one in generations)]
    if missing := [clip for clip in clips if clip not in common]:
        raise UsageError(
            f"not every generation has {', '.join(map(repr, missing))}",
            where={"generations": ", ".join(str(one.path) for one in generations)},
        )
    if not common:
        raise UsageError("these generations have no clip in common")
    if not clips and len(common) > MOST:
        reporter.note(f"the first {MOST} of {len(common)} clips; name others with --clips")
    return list(clips) or common[:MOST]


def _source(dataset: Dataset, clip: str) -> ClipSource:
    for source in dataset.clips:
        if source.id == clip:
            return source
    raise DataError("the reference has no clip of this id", where={"reference": dataset.path, "clip": clip})


def _of(data: DataConfig) -> tuple[object, ...]:
    """What of it must be alike, for frames to be the same ones."""
    return data.size, data.frames, data.fps, data.split


def _reference(generated: Generated, named: Path | None, reporter: Reporter) -> tuple[Dataset, bool]:
    """The clips, and whether they show what truly happens: what follows a video, nobody knows."""
    dataset, why_not = find_reference(generated, named)
    if dataset is not None:
        return dataset, True
    if (clips := unchanged_source(generated)) is None:
        raise DataError(f"without a reference: {why_not}", fix="name the folder of clips with --reference")
    reporter.note(f"without the truth: {why_not}")
    return clips, False


def _row(
    source: ClipSource, generations: Sequence[Generated], clip: str, cache: HashCache, shows_truth: bool
) -> StripRow:  # fmt: skip
    """The first sample of each. Raises DataError where sizes or lengths differ."""
    data = generations[0].data
    made = []
    for one in generations:
        if _of(one.data) != _of(data):
            raise UsageError(
                "the generations differ in size, frames, frame rate or split",
                where={"one": generations[0].path, "other": one.path},
            )
        videos = ClipVideos(one, clip, cache)
        made.append(videos.read(videos.rows[0]))
    try:
        truth = [pieces.target_video(source, data)] if shows_truth else []
        return StripRow(context=pieces.context_video(source, data), targets=(*truth, *made))
    except ValueError as error:
        raise DataError(str(error), where={"clip": clip}) from error
