"""`hm dataset split`: two folders of links, train and test, decided by the clips' names alone.

By clip, one goes to the test part when the hash of (seed, id) falls below the share asked for: clips that are added
later do not move the others. By scene or subjects, where the data set says them, whole families are held out: those
with the lowest hashes, at least one and never all; a clip that mixes held-out subjects with others is in neither part.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset, read_rows
from hmcli.store.files import inside, read_json_lines, write_json, write_json_lines, write_text
from hmcli.world.files.captions import caption_lines
from hmcli.world.files.layout import CAPTION_NAME, PLAIN_CAPTION_NAME, RENDERED_INDEX, SPLIT_RECORD
from hmcli.world.staging.splits import hash_share

By = Literal["clip", "scene", "subjects"]
PARTS = ("train", "test")


def run(
    path: Path, *, test: float, by: By, seed: int, out: Path, poses: PosesConfig, reporter: Reporter
) -> StageResult:
    """Write `out`/train and `out`/test; see `hm dataset split --help`.

    Raises UsageError when the data set cannot be split so, or `out` holds something else.
    """
    if not 0 < test < 1:
        raise UsageError(f"--test={test:g}: the share of the test part must be between 0 and 1")
    if seed < 0:
        raise UsageError(f"--seed={seed}: a seed is a number from 0")
    _refuse_nested(path, out)
    dataset = open_dataset(path, poses)
    if dataset.layout not in ("released", "rendered"):
        raise UsageError(
            f"only folders with one folder per clip can be split, this one has the layout {dataset.layout!r}",
            where={"data": path}, fix="split its metadata file instead: one metadata file per part",
        )  # fmt: skip
    if out.exists() and not (out / SPLIT_RECORD).is_file() and any(out.iterdir()):
        raise UsageError(f"{out} holds something else", fix="name another folder with --out")
    held_out, chosen = _decide(dataset, by, test, seed)
    sides: dict[str, list[ClipSource]] = {
        part: [clip for clip in dataset.clips if chosen[clip.id] == part] for part in PARTS
    }
    record = {"source": str(dataset.path.absolute()), "test": test, "by": by, "seed": seed, "held_out": held_out}
    for part, clips in sides.items():
        if not clips:
            reporter.warn(f"the {part} part is empty: {len(dataset.clips)} clips are few for a share of {test:g}")
        _write_part(inside(out, part), dataset, clips)
        write_json(inside(out, part) / SPLIT_RECORD, record | {"part": part})
    write_json(out / SPLIT_RECORD, record | {part: [clip.id for clip in clips] for part, clips in sides.items()})
    counts = {part: len(clips) for part, clips in sides.items()}
    counts["neither"] = sum(part == "" for part in chosen.values())
    reporter.note(", ".join(f"{count} clips in {part}" for part, count in counts.items()))
    if held_out:
        reporter.note(f"held out: {', '.join(held_out)}")
    return StageResult(path=out, kind="split", counts=counts, quarantined=dataset.quarantined)


def _refuse_nested(path: Path, out: Path) -> None:
    """Parts inside of the folder they are made of would be clips of it, and the other way round."""
    source, place = (Path(os.path.realpath(folder)) for folder in (path, out))
    if place.is_relative_to(source) or source.is_relative_to(place):
        raise UsageError(
            "a split cannot lie inside the folder that is split, nor around it",
            where={"data": source, "out": place}, fix="name a folder beside it with --out",
        )  # fmt: skip


def held_out_families(families: set[str], test: float, seed: int) -> set[str]:
    """The share `test` of the families, those with the lowest hashes: at least one, and never all."""
    count = min(max(1, round(test * len(families))), len(families) - 1)
    return set(sorted(families, key=lambda family: hash_share(f"{seed} {family}"))[:count])


def _decide(dataset: Dataset, by: By, test: float, seed: int) -> tuple[list[str], dict[str, str]]:
    """Held-out families, and the part of every clip ("" for neither)."""
    if by == "clip":
        return [], {clip.id: "test" if hash_share(f"{seed} {clip.id}") < test else "train" for clip in dataset.clips}
    if dataset.layout != "rendered":
        raise UsageError(
            f"this data set does not say the {by} of its clips", where={"data": dataset.path}, fix="use --by clip"
        )
    rows = read_rows(dataset.path)
    if lacking := [clip.id for clip in dataset.clips if clip.id not in rows]:
        raise DataError(f"{RENDERED_INDEX} lacks clip {lacking[0]!r}", where={"data": dataset.path}, fix="--by clip")
    families = {
        clip.id: {rows[clip.id].scene} if by == "scene" else set(rows[clip.id].subjects) for clip in dataset.clips
    }
    if len(every := set().union(*families.values())) < 2:
        raise UsageError(
            f"all clips have the same {by}: {', '.join(every)}", where={"data": dataset.path}, fix="use --by clip"
        )
    out = held_out_families(every, test, seed)
    parts = {clip: "test" if own <= out else "" if own & out else "train" for clip, own in families.items()}
    return sorted(out), parts


def _write_part(folder: Path, dataset: Dataset, clips: list[ClipSource]) -> None:
    """Links to the clips' folders, their captions, and what else the data set says of them. Marked last, as whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPLIT_RECORD).unlink(missing_ok=True)
    wanted = {clip.id: (dataset.path / clip.id).resolve() for clip in clips}
    for there in folder.iterdir():
        if there.is_symlink() and wanted.get(there.name) != there.resolve():
            there.unlink()
    for name, target in wanted.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(os.path.relpath(target, folder.resolve()), target_is_directory=True)
    write_text(folder / CAPTION_NAME, caption_lines((clip.id, clip.caption) for clip in clips))
    if (index := dataset.path / RENDERED_INDEX).is_file():
        write_json_lines(folder / RENDERED_INDEX, [row for row in read_json_lines(index) if row.get("id") in wanted])
    if (plain := dataset.path / PLAIN_CAPTION_NAME).is_file():
        lines = plain.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(folder / PLAIN_CAPTION_NAME, "".join(line for line in lines if line.split("\t")[0] in wanted))
