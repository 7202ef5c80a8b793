"""`hm dataset caption`: a model writes captions for the clips one has.

What it wrote is kept in a hidden file beside them as it comes, so that the same command goes on where it stopped; the
captions get their place (caption.txt, or the metadata file) when all are there. Those that are there stay, unless they
are to be overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import PosesConfig
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset
from hmcli.stages.shared.captioner import FRAMES, PROMPT, check_captioner
from hmcli.store.files import read_csv, read_json_lines, write_csv, write_json_lines, write_text
from hmcli.store.hashing import HashCache, hash_json, hash_tree
from hmcli.store.lock import ArtifactLock, writing_output
from hmcli.store.manifest import is_artifact
from hmcli.store.video import read_video
from hmcli.world.files.captions import caption_lines, lines_of_others, numbered_lines
from hmcli.world.files.layout import CAPTION_NAME, find_metadata, with_captions

UNFINISHED = (
    ".captions.jsonl"  # {"clip", "of", "caption"} as they come; `of` is a hash of all that a caption depends on
)


def run(
    path: Path, *, captioner: Path, force: bool, device: str, poses: PosesConfig, reporter: Reporter
) -> StageResult:  # fmt: skip
    """Write what is missing into the folder's captions; see `hm dataset caption --help`.

    Raises UsageError for a folder that `hm render` made: its captions are part of it.
    """
    check_captioner(captioner)
    if is_artifact(path):
        raise UsageError(
            "rendered clips have their captions, and are not changed", where={"data": path},
            fix="hm render ... --captioner writes other ones; hm dataset split makes folders that can be captioned",
        )  # fmt: skip
    with ArtifactLock(path), writing_output(path):
        dataset = open_dataset(path, poses, needs_captions=not force)
        wanted = [clip for clip in dataset.clips if force or not clip.caption]
        told, failed = _told(dataset, wanted, captioner, device, reporter) if wanted else ({}, [])
        if told:
            _write(dataset, told)
        (path / UNFINISHED).unlink(missing_ok=True)
    kept = len(dataset.clips) - len(wanted)
    reporter.note(f"{len(told)} captions written, {kept} were there" + ("" if force else " (--force overwrites them)"))
    left_out = tuple(one for one in dataset.quarantined if one.item != CAPTION_NAME)
    return StageResult(
        path=path, kind="folder", counts={"written": len(told), "kept": kept}, quarantined=(*left_out, *failed)
    )


def _told(
    dataset: Dataset, wanted: list[ClipSource], captioner: Path, device: str, reporter: Reporter
) -> tuple[dict[str, str], list[Quarantined]]:
    """A caption for every clip that the model can say something of, and why it cannot for the others."""
    model = hash_json([hash_tree(captioner, cache=HashCache()), PROMPT, FRAMES])
    keys = {clip.id: hash_json([model, clip.hashes["context"]]) for clip in wanted}
    if (place := dataset.path / UNFINISHED).is_symlink():
        raise DataError("a link lies where unfinished captions are kept", where={"file": place}, fix="remove it")
    told, failed = _finished(place, keys), []
    if left := [clip for clip in wanted if clip.id not in told]:
        from hmcli.stages.shared.captioner import load_captioner  # transformers loads here

        caption = load_captioner(captioner, device)
        with reporter.progress("captioning", len(left), "clip") as advance, place.open("a", encoding="utf-8") as file:
            for clip in left:
                try:
                    if not (text := caption(read_video(clip.read("context")))):
                        raise DataError("the model wrote nothing", where={"clip": clip.id})
                    file.write(json.dumps({"clip": clip.id, "of": keys[clip.id], "caption": text}) + "\n")
                    file.flush()
                    told[clip.id] = text
                except DataError as error:
                    failed.append(Quarantined(item=clip.id, reason=str(error)))
                    reporter.warn(f"{clip.id} gets no caption: {error}")
                advance(1)
    return told, failed


def _finished(place: Path, keys: Mapping[str, str]) -> dict[str, str]:
    """What was written before the command was stopped, as far as it is of the same videos and the same model."""
    told: dict[str, str] = {}
    lines = place.read_text(encoding="utf-8", errors="replace").split("\n") if place.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
            if keys.get(row["clip"]) == row["of"] and isinstance(row["caption"], str):
                told[row["clip"]] = row["caption"]
        except (ValueError, KeyError, TypeError):
            continue  # cut off as the command was killed
    return told


def _write(dataset: Dataset, told: Mapping[str, str]) -> None:
    """Put captions where the folder has them."""
    metadata = find_metadata([file.name for file in dataset.path.iterdir()])
    if metadata is None:
        _write_lines(dataset, told)
    elif metadata.endswith(".csv"):
        rows = with_captions(read_csv(dataset.path / metadata), metadata, told)
        write_csv(dataset.path / metadata, list(rows[0]), rows)
    else:
        file = dataset.path / metadata
        write_json_lines(file, with_captions(read_json_lines(file), metadata, told))


def _write_lines(dataset: Dataset, told: Mapping[str, str]) -> None:
    file = dataset.path / CAPTION_NAME
    before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    if dataset.layout == "examples":
        write_text(file, numbered_lines(before, told))
        return
    captions = {**dataset.captions, **told}
    write_text(file, caption_lines([*captions.items(), *lines_of_others(before, [*captions])]))
