"""Parts say of which whole they are; taking their items copies bytes, and notices damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sealing import edit

from hmcli.errors import DataError
from hmcli.runtime import Silent
from hmcli.store import arrays
from hmcli.store.artifact import ArtifactWriter, find_newest
from hmcli.store.manifest import FORMAT, WHOLE, is_part, make_manifest, read_manifest, write_manifest
from hmcli.store.parts import Part, hash_clips, part_of
from hmcli.store.records import Record

AXES = ["clip", "y", "x"]
CLIPS = tuple("abcdefg")
PART = Part(index=1, of=2, clips=("d", "e", "f", "g"), whole=hash_clips(CLIPS))


def rows_of(clips: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {clip: np.random.default_rng(ord(clip)).normal(size=(2, 3)).astype(np.float32) for clip in clips}


def written(out: Path, clips: tuple[str, ...], part: Part | None = None) -> Path:
    """An artifact with a row of an array for each clip, three in a shard, and a file."""
    with ArtifactWriter(out, "latents", recipe={}, inputs={}, seed=0, reporter=Silent(), part=part) as writer:
        for clip, row in rows_of(clips).items():
            writer.put_arrays(clip, f"key {clip}", {"latents": row})
            with writer.item_folder(f"folder {clip}", f"key {clip}", parent="clips") as folder:
                (folder / "words.txt").write_text(clip)
        writer.stack("latents", list(clips), axes=AXES, units="one", group="2x3", rows_per_shard=3)
        writer.finish([*clips, *(f"folder {clip}" for clip in clips)])
    return out


def joined(out: Path, parts: list[Path], taken: tuple[str, ...] = CLIPS) -> Path:
    """What is taken of all items, from the first part that has it."""
    found: dict[str, tuple[Record, Path]] = {}
    for part in parts:
        for item, record in read_manifest(part).items.items():
            if item.removeprefix("folder ") in taken:
                found.setdefault(item, (record, part))
    with ArtifactWriter(out, "latents", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        for item, (record, part) in found.items():
            writer.adopt(item, record, part)
        clips = [item for item, (record, _) in found.items() if "rows" in record]
        writer.stack("latents", clips, axes=AXES, units="one", group="2x3", rows_per_shard=3)
        writer.finish([*clips, *(f"folder {clip}" for clip in clips)])
    return out


def shards(artifact: Path) -> dict[str, bytes]:
    root = artifact / "data.zarr" / "2x3" / "latents"
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# --- what a part says of itself --------------------------------------------------------------------------------------


def test_a_part_says_which_one_it_is_and_an_earlier_hm_does_not_take_it_for_the_whole(tmp_path: Path):
    manifest = make_manifest("latents", recipe={}, inputs={}, seed=0)
    write_manifest(tmp_path, replace(manifest, part=PART.to_json()))
    assert part_of(read_manifest(tmp_path)) == PART
    assert is_part(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["format"] == FORMAT
    write_manifest(tmp_path, manifest)
    values = json.loads((tmp_path / "manifest.json").read_text())
    assert (values["format"], "part" in values, part_of(read_manifest(tmp_path))) == (WHOLE, False, None)
    assert not is_part(tmp_path)


@pytest.mark.parametrize(
    "said", [{}, {"index": 2}, {"index": -1}, {"of": "2"}, {"clips": []}, {"clips": [1]}, {"whole": None}, {"more": 1}]
)
def test_a_malformed_part_is_refused(said: dict[str, object], tmp_path: Path):
    write_manifest(tmp_path, replace(make_manifest("latents", recipe={}, inputs={}, seed=0), part=PART.to_json()))
    edit(tmp_path / "manifest.json", lambda values: values.update(part={**values["part"], **said} if said else {}))
    with pytest.raises(DataError, match="the manifest is damaged: part"):
        read_manifest(tmp_path)


def test_what_is_whole_may_not_speak_of_parts(tmp_path: Path):
    write_manifest(tmp_path, make_manifest("latents", recipe={}, inputs={}, seed=0))
    edit(tmp_path / "manifest.json", lambda values: values.update(part=PART.to_json()))
    with pytest.raises(DataError, match="unknown part"):
        read_manifest(tmp_path)


def test_a_left_out_input_is_never_a_part(tmp_path: Path):
    whole = written(tmp_path / "whole", CLIPS)
    written(tmp_path / "newer", PART.clips, PART)
    assert find_newest(tmp_path, ["latents"]) == whole


def test_a_part_that_becomes_another_one_is_written_anew(tmp_path: Path):
    written(tmp_path / "out", PART.clips, PART)
    other = replace(PART, whole=hash_clips(CLIPS[1:]))
    written(tmp_path / "out", PART.clips, other)
    assert part_of(read_manifest(tmp_path / "out")) == other


# --- taking items ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bounds", "shards_copied"), [(3, [("0", 0), ("1", 0), ("1", 3)]), (2, [])])
def test_whole_shards_are_copied_and_only_those(
    bounds: int, shards_copied: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    parts = [written(tmp_path / f"{i}", clips) for i, clips in enumerate((CLIPS[:bounds], CLIPS[bounds:]))]
    copied, read = [], arrays.StackReader.shard_bytes

    def spy(array: arrays.StackReader, row: int) -> bytes:
        copied.append((array.path.parents[2].name, row))
        return read(array, row)

    monkeypatch.setattr(arrays.StackReader, "shard_bytes", spy)
    joined(tmp_path / "out", parts)
    assert copied == shards_copied


@pytest.mark.parametrize("bounds", [1, 2, 3, 6])
def test_joined_it_is_what_is_written_at_once(bounds: int, tmp_path: Path):
    parts = [written(tmp_path / f"part-{i}", clips) for i, clips in enumerate((CLIPS[:bounds], CLIPS[bounds:]))]
    one, two = read_manifest(written(tmp_path / "one", CLIPS)), read_manifest(joined(tmp_path / "two", parts))
    assert (one.items, one.files, one.arrays) == (two.items, two.files, two.arrays)
    assert list(one.items) == list(two.items)


@pytest.mark.parametrize(
    ("pieces", "taken"),
    [
        (("a", "abc"), "abc"),
        (("abc",), "ab"),
        (("abc", "bde"), "abcde"),
        (("abcdef",), "def"),
        (("abcdef",), "bcd"),
        (("axy", "zbc"), "abc"),
    ],
)
def test_rows_that_are_not_taken_are_not_copied_either(pieces: tuple[str, ...], taken: str, tmp_path: Path):
    """As with captions, of which several parts may have the same."""
    parts = [written(tmp_path / f"part-{i}", tuple(clips)) for i, clips in enumerate(pieces)]
    one = read_manifest(written(tmp_path / "one", tuple(taken)))
    two = read_manifest(joined(tmp_path / "two", parts, tuple(taken)))
    assert (one.items, one.files, one.arrays) == (two.items, two.files, two.arrays)


@pytest.mark.parametrize("name", ["clips/folder e/words.txt", "data.zarr/2x3/latents/c/0/0/0"])
def test_damage_of_what_is_taken_is_refused(name: str, flip: Callable[[Path, int], None], tmp_path: Path):
    parts = [written(tmp_path / "0", CLIPS[:3]), written(tmp_path / "1", CLIPS[3:])]
    flip(parts[1] / name, 0)
    with pytest.raises(DataError, match="not as it was written") as caught:
        joined(tmp_path / "out", parts)
    assert caught.value.where["file"] == name
    assert not (tmp_path / "out" / "manifest.json").exists()
    flip(parts[1] / name, 0)
    joined(tmp_path / "out", parts)
    assert shards(tmp_path / "out") == shards(written(tmp_path / "one", CLIPS))
