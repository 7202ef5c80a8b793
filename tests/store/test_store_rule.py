"""The rule for finished work: what is asked for is replaced by a whole successor, what is not goes only with prune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from store.small_stages import LatentsStage, latents, write_clips

from hmcli.errors import DataError, UsageError
from hmcli.store import hashing
from hmcli.store.arrays import StackReader
from hmcli.store.artifact import ArtifactWriter, verify
from hmcli.store.asked import Asked
from hmcli.store.manifest import read_manifest

CLIPS = {"a": 1.0, "b": 2.0, "c": 3.0}
TEXTS = {"x": "one", "y": "two"}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def row(stage: LatentsStage, item: str) -> np.ndarray:
    path, number = read_manifest(stage.out).items[item]["rows"]["latents"]
    return StackReader(stage.out / path)[number]


# --- replaced --------------------------------------------------------------------------------------------------------


def test_what_is_replaced_stays_until_its_successor_is_whole(tmp_path, notes):
    write_clips(tmp_path / "d", notes, TEXTS)
    caption = tmp_path / "d" / "clips" / "x" / "caption.txt"
    with ArtifactWriter(tmp_path / "d", "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        with pytest.raises(FileExistsError), writer.item_folder("x", "ONE", parent="clips") as folder:
            folder.mkdir()  # fails half way
        assert caption.read_text() == "one"
        with writer.item_folder("x", "ONE", parent="clips") as folder:
            (folder / "caption.txt").write_text("ONE")
            assert caption.read_text() == "one"
        assert caption.read_text() == "ONE"


def test_an_item_that_moves_leaves_nothing_where_it_was(tmp_path, notes):
    write_clips(tmp_path / "d", notes, TEXTS)
    with (
        ArtifactWriter(tmp_path / "d", "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer,
        writer.item_folder("x", "ONE", parent="texts") as folder,
    ):
        (folder / "caption.txt").write_text("ONE")
    assert sorted(tree(tmp_path / "d" / "clips")) == ["y/caption.txt"]
    assert not (tmp_path / "d" / "quarantine").exists()


# --- fewer, more, another seed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"force": True}])
def test_fewer_items_are_refused_with_their_number_and_nothing_is_touched(stage, options):
    stage.run(CLIPS)
    before = tree(stage.out)
    with pytest.raises(UsageError, match="2 finished items would go") as caught:
        stage.run({"b": 2.0}, **options)
    assert caught.value.exit_code == 2
    assert "a, c" in str(caught.value)
    assert "--prune" in caught.value.fix
    assert (stage.made, tree(stage.out)) == ([], before)


def test_prune_lets_the_others_go(stage):
    stage.run(CLIPS)
    assert list(stage.run({"b": 2.0}, prune=True).items) == ["b"]
    assert stage.made == []


def test_more_items_extend(stage):
    stage.run(CLIPS)
    manifest = stage.run({**CLIPS, "d": 4.0})
    assert stage.made == ["d"]
    assert list(manifest.items) == ["a", "b", "c", "d"]


def test_another_seed_is_refused_with_the_number_of_items_it_would_replace(stage):
    stage.run(CLIPS)
    before = tree(stage.out)
    with pytest.raises(UsageError, match=r"2 finished items would go: .* seed 7, asked for is seed 8"):
        stage.run({"a": 1.0, "b": 22.0, "c": 33.0}, seed=8)
    assert (stage.made, tree(stage.out)) == ([], before)
    manifest = stage.run({"a": 1.0, "b": 22.0, "c": 33.0}, seed=8, prune=True)
    assert (stage.made, manifest.seed) == (["b", "c"], 8)


def test_another_seed_that_changes_no_item_is_no_loss(stage):
    stage.run(CLIPS)
    assert stage.run(CLIPS, seed=8).seed == 8
    assert stage.made == []
    with stage.writer(seed=9) as writer:
        assert writer.ask(Asked(keys={**CLIPS, "a": "value 11"}, seeded=False)).replaced


def test_the_rule_holds_for_an_unfinished_artifact_too(stage):
    with stage.writer() as writer:
        for clip in ("a", "b"):
            writer.put_arrays(clip, f"value {CLIPS[clip]}", {"latents": latents(CLIPS[clip]), "valid": np.array(True)})
    with pytest.raises(UsageError, match="1 finished items would go"):
        stage.run({"a": 1.0, "c": 3.0})
    with pytest.raises(UsageError, match="seed 7, asked for is seed 8"):
        stage.run({"a": 11.0, "b": 22.0}, seed=8)
    stage.run({"a": 11.0, "b": 22.0}, seed=8, prune=True)
    assert np.array_equal(row(stage, "a"), latents(11.0))


def test_a_stage_that_asks_for_nothing_beforehand_is_held_to_the_rule_at_its_end(stage):
    stage.run(CLIPS)
    with stage.writer() as writer:
        assert writer.kept("a", "value 1.0")
        with pytest.raises(UsageError, match="2 finished items would go"):
            writer.finish(["a"])
    assert list(read_manifest(stage.out).items) == list(CLIPS)


def test_items_that_others_are_made_of_go_with_them(stage):
    stage.run({**CLIPS, "text 1": 9.0})
    keys = {clip: f"value {value}" for clip, value in CLIPS.items()}
    with stage.writer() as writer:
        found = writer.ask(Asked(keys=keys, helps=lambda item: item.startswith("text")))
        assert (found.gone, str(found)) == ((), "3 kept")
    with stage.writer() as writer, pytest.raises(UsageError, match="1 finished items would go"):
        writer.ask(Asked(keys=keys))


def test_the_outlook_says_what_a_run_would_do(stage):
    stage.run(CLIPS)
    with stage.writer(prune=True) as writer:
        found = writer.ask(Asked(keys={"a": "value 1.0", "b": "value 22", "d": "value 4"}))
        assert str(found) == "1 kept, 1 replaced, 1 new, 1 go (c)"
    with stage.writer(force=True) as writer:
        found = writer.ask(Asked(keys={"a": "value 1.0", "b": "value 2.0"}, unread=frozenset("c")))
        assert str(found) == "2 replaced, 1 whose source cannot be read now"


# --- sources that cannot be read now ---------------------------------------------------------------------------------


def test_an_item_whose_source_cannot_be_read_now_stays_and_is_reported(stage):
    first = stage.run(CLIPS)
    stage.refuse["b"] = "the disk is not there"
    second = stage.run(CLIPS)
    assert (stage.made, list(second.items)) == ([], list(CLIPS))
    assert second.quarantined == [{"item": "b", "reason": "the disk is not there"}]
    assert any("b stays as it was: the disk is not there" in warning for warning in stage.reporter.warnings)
    assert np.array_equal(row(stage, "b"), latents(2.0))
    before = tree(stage.out)
    assert stage.run(CLIPS) == second  # the same again changes nothing
    assert tree(stage.out) == before
    stage.refuse.clear()
    healed = stage.run(CLIPS)
    assert (stage.made, healed.quarantined, healed.fingerprint) == ([], [], first.fingerprint)


def test_a_damaged_item_does_not_stay(stage, flip):
    stage.run(CLIPS)
    flip(stage.out / "data.zarr" / "3x4" / "latents" / "c" / "0" / "0" / "0" / "0", 12)
    stage.refuse["a"] = "the disk is not there"
    assert list(stage.run(CLIPS).items) == ["b", "c"]


def test_an_item_made_under_other_settings_does_not_stay_among_those_of_now_but_is_not_lost(stage):
    stage.run(CLIPS)
    stage.refuse["b"] = "the disk is not there"
    manifest = stage.run({clip: value * 10 for clip, value in CLIPS.items()}, under="wan")
    assert list(manifest.items) == ["a", "c"]
    saved = load_file(stage.out / "quarantine" / "b.safetensors")
    assert np.array_equal(saved["latents"], latents(2.0))
    assert any("item b cannot be made now" in warning for warning in stage.reporter.warnings)
    assert verify(stage.out, stage.reporter) == []


def test_a_folder_that_can_neither_be_made_nor_stay_goes_to_quarantine(tmp_path, notes):
    write_clips(tmp_path / "d", notes, TEXTS)
    with ArtifactWriter(tmp_path / "d", "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        writer.ask(Asked(keys={"x": "one", "y": "TWO"}))
        assert writer.kept("x", "one")
        assert not writer.quarantine("y", "no camera", ["y"])
        assert list(writer.finish(["x"]).items) == ["x"]
    assert (tmp_path / "d" / "quarantine" / "clips-y" / "caption.txt").read_text() == "two"
    assert sorted(tree(tmp_path / "d" / "clips")) == ["x/caption.txt"]


def test_what_was_quarantined_at_once_was_never_there(stage: Any):
    stage.refuse["b"] = "too dark"
    assert list(stage.run(CLIPS).items) == ["a", "c"]
    assert not (stage.out / "quarantine").exists()
    stage.refuse |= {"a": "", "c": ""}
    assert list(stage.run(CLIPS).items) == ["a", "c"]
    with pytest.raises(DataError):
        StackReader(stage.out / "data.zarr" / "3x4" / "latents")[2]


def test_a_remembered_hash_never_makes_damage_part_of_something_new(stage, flip, monkeypatch):
    """The cache says that a shard is as it was; when its rows are stacked anew, their bytes are looked at."""
    monkeypatch.setattr(hashing, "_WORTH_REMEMBERING", 0)
    monkeypatch.setattr(hashing, "_SETTLED_NS", 0)
    stage.run(CLIPS)
    shard = stage.out / "data.zarr" / "3x4" / "latents" / "c" / "0" / "0" / "0" / "0"
    written = hashing.hash_file(shard)
    flip(shard, 12)
    hashing.remember(shard, written, hashing.HashCache())
    with pytest.raises(DataError, match="item a: a row is damaged"):
        stage.run({**CLIPS, "d": 4.0})
    assert list(stage.run({**CLIPS, "d": 4.0}).items) == ["a", "b", "c", "d"]
    assert stage.made == ["a"]
    assert np.array_equal(row(stage, "a"), latents(1.0))
