"""Writing artifacts: what is done is kept, what is stale or damaged is redone, and nothing foreign is touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reference.misaligned import OFFSETS, astray, mapped, shift_data
from store.small_stages import latents, write_clips

from hmcli.aligned import tensor_of
from hmcli.errors import DataError, LockedError, UsageError
from hmcli.store.arrays import StackReader
from hmcli.store.artifact import ArtifactWriter, verify
from hmcli.store.manifest import is_artifact, is_unfinished, make_manifest, read_manifest, write_manifest

CLIPS = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}


def rows(out: Path, manifest) -> dict[str, np.ndarray]:
    reader = StackReader(out / manifest.arrays["3x4/latents"]["path"])
    return {item: reader[row] for row, item in enumerate(manifest.items)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


# -- stacked arrays ----------------------------------------------------------------------------------------------------


def test_a_finished_artifact_holds_its_arrays_and_no_working_files(stage):
    manifest = stage.run(CLIPS)
    assert sorted(p.name for p in stage.out.iterdir()) == ["data.zarr", "manifest.json"]
    assert [p.name for p in stage.out.parent.glob("*.lock")] == []
    assert manifest.arrays["3x4/latents"]["shape"] == [5, 2, 3, 4]
    assert manifest.arrays["3x4/latents"]["axes"] == ["clip", "channel", "y", "x"]
    assert manifest.items["b"]["meta"] == {"value": 2.0}
    for item, row in rows(stage.out, manifest).items():
        assert np.array_equal(row, latents(CLIPS[item]))
    assert read_manifest(stage.out) == manifest
    assert verify(stage.out, stage.reporter) == []


@pytest.mark.parametrize("offset", OFFSETS)
def test_an_array_is_the_same_wherever_its_part_has_it(stage, offset):
    values = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
    with stage.writer() as writer:
        writer.put_arrays("a", "key", {"flag": np.array(True), "latents": values})
        (part,) = stage.out.rglob("*.safetensors")
        shift_data(part, offset)
        read = tensor_of(writer.get_array("a", "latents"))
    assert not astray(read)
    assert not mapped([part])
    assert np.array_equal(read.numpy(), values)


def test_running_again_changes_nothing(stage):
    first = stage.run(CLIPS)
    before = tree(stage.out)
    assert stage.run(CLIPS) == first
    assert stage.made == []
    assert tree(stage.out) == before
    assert "5 items kept" in stage.reporter.notes


def test_only_the_stale_item_is_redone(stage):
    first = stage.run(CLIPS)
    second = stage.run({**CLIPS, "c": 33.0})
    assert stage.made == ["c"]
    assert "1 items stale: redone" in stage.reporter.notes
    assert second.fingerprint != first.fingerprint
    assert second.created_at > first.created_at
    for item, row in rows(stage.out, second).items():
        assert np.array_equal(row, latents(33.0 if item == "c" else CLIPS[item]))
    assert verify(stage.out, stage.reporter) == []


def test_the_same_content_has_the_same_fingerprint_wherever_and_however_it_was_made(stage, tmp_path):
    stage.run({**CLIPS, "c": 33.0})
    redone = stage.run(CLIPS)
    stage.out = tmp_path / "elsewhere"
    assert stage.run(CLIPS).fingerprint == redone.fingerprint


def test_force_redoes_everything_with_the_same_fingerprint(stage):
    first = stage.run(CLIPS)
    second = stage.run(CLIPS, force=True)
    assert stage.made == list(CLIPS)
    assert second.fingerprint == first.fingerprint
    assert second.created_at > first.created_at


def test_items_no_longer_asked_for_are_dropped_with_prune_and_that_is_said(stage):
    stage.run(CLIPS)
    manifest = stage.run({"e": 5.0, "b": 2.0}, prune=True)
    assert stage.made == []
    assert list(manifest.items) == ["e", "b"]
    assert any("3 items are no longer asked for" in note for note in stage.reporter.notes)
    assert np.array_equal(rows(stage.out, manifest)["e"], latents(5.0))


def test_a_new_recipe_gets_a_new_manifest_even_when_every_item_is_kept(stage):
    first = stage.run(CLIPS)
    second = stage.run(CLIPS, recipe={"codec": {"name": "wan2.1"}})
    assert stage.made == []
    assert second.recipe == {"codec": {"name": "wan2.1"}}
    assert second.fingerprint != first.fingerprint


def test_an_array_that_was_put_but_not_stacked_is_not_lost_in_silence(stage):
    with stage.writer() as writer:
        writer.put_arrays("a", "k", {"latents": latents(1.0)})
        with pytest.raises(ValueError, match="latents were put but never stacked"):
            writer.finish(["a"])
    assert is_unfinished(stage.out)


def test_an_item_that_was_not_made_cannot_be_finished(stage):
    stage.run(CLIPS)
    with stage.writer() as writer:
        assert not writer.kept("a", "another key")
        with pytest.raises(ValueError, match="neither kept nor made in this run: a"):
            writer.finish(["a"])
    assert is_artifact(stage.out)


# -- quarantine --------------------------------------------------------------------------------------------------------


def test_a_quarantined_item_is_recorded_said_and_tried_again(stage):
    stage.refuse["b"] = "the video is cut short"
    manifest = stage.run(CLIPS)
    assert manifest.quarantined == [{"item": "b", "reason": "the video is cut short"}]
    assert any("b is left out: the video is cut short" in warning for warning in stage.reporter.warnings)
    before = tree(stage.out)
    assert stage.run(CLIPS) == manifest  # tried again, refused again, nothing changed
    assert tree(stage.out) == before
    stage.refuse.clear()
    healed = stage.run(CLIPS)
    assert stage.made == ["b"]
    assert list(healed.items) == list(CLIPS)
    assert healed.quarantined == []


def test_a_flipped_byte_in_a_part_redoes_that_item_alone(stage, flip):
    with stage.writer() as writer:
        for clip in ("a", "b"):
            writer.put_arrays(clip, f"value {CLIPS[clip]}", {"latents": latents(CLIPS[clip]), "valid": np.array(True)})
    (part,) = (stage.out / "unfinished" / "parts").glob("b.*")
    flip(part, part.stat().st_size - 3)
    manifest = stage.run(CLIPS)
    assert stage.made == ["b", "c", "d", "e"]
    assert np.array_equal(rows(stage.out, manifest)["b"], latents(2.0))
    assert (stage.out / "quarantine" / part.name).is_file()
    (reason,) = (stage.out / "quarantine" / "reasons.jsonl").read_text().splitlines()
    assert "damaged" in json.loads(reason)["reason"]
    assert any("item b" in warning and "quarantine" in warning for warning in stage.reporter.warnings)


def test_an_unreadable_record_redoes_that_item_alone(stage):
    with stage.writer() as writer:
        for clip in ("a", "b"):
            writer.put_arrays(clip, f"value {CLIPS[clip]}", {"latents": latents(CLIPS[clip]), "valid": np.array(True)})
    (stage.out / "unfinished" / "items" / "a.json").write_text('{"item": "a", "ke')
    stage.run(CLIPS)
    assert stage.made == ["a", "c", "d", "e"]
    assert (stage.out / "quarantine" / "a.json").is_file()


def test_a_flipped_byte_in_a_shard_redoes_only_the_rows_it_hit(stage, flip):
    first = stage.run(CLIPS)  # shards of two rows: a b | c d | e
    shard = stage.out / "data.zarr" / "3x4" / "latents" / "c" / "1" / "0" / "0" / "0"
    damaged = shard.read_bytes()
    flip(shard, 12)  # in the first row of the second shard
    assert verify(stage.out, stage.reporter) == ["data.zarr/3x4/latents/c/1/0/0/0: its bytes are not those written"]
    second = stage.run(CLIPS)
    assert stage.made == ["c"]
    assert second.fingerprint == first.fingerprint
    assert shard.read_bytes() == damaged
    names = sorted(file.name for file in (stage.out / "quarantine").iterdir())
    assert names == ["data.zarr-3x4-latents-c-1-0-0-0", "reasons.jsonl"]
    assert len(stage.reporter.warnings) == 1
    assert "item c: a row is damaged" in stage.reporter.warnings[0]
    assert verify(stage.out, stage.reporter) == []


def test_a_missing_shard_redoes_its_rows(stage):
    stage.run(CLIPS)
    (stage.out / "data.zarr" / "3x4" / "latents" / "c" / "0" / "0" / "0" / "0").unlink()
    manifest = stage.run(CLIPS)
    assert stage.made == ["a", "b"]
    assert np.array_equal(rows(stage.out, manifest)["a"], latents(1.0))


def test_a_damaged_description_of_an_array_redoes_its_rows_and_is_set_aside(stage):
    first = stage.run(CLIPS)
    described = stage.out / "data.zarr" / "3x4" / "latents" / "zarr.json"
    described.write_text("{")
    second = stage.run(CLIPS)
    assert stage.made == list(CLIPS)
    assert second.fingerprint == first.fingerprint
    assert not any("None" in warning for warning in stage.reporter.warnings)
    assert verify(stage.out, stage.reporter) == []


def test_rows_are_not_read_by_a_description_that_was_changed(stage):
    stage.run(CLIPS)
    described = stage.out / "data.zarr" / "3x4" / "latents" / "zarr.json"
    described.write_text(described.read_text().replace('"float32"', '"int32"'))
    manifest = stage.run(CLIPS)
    assert stage.made == list(CLIPS)
    assert np.array_equal(rows(stage.out, manifest)["b"], latents(2.0))


# -- files outside of the items ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_damaged_table_is_set_aside_and_made_again(tmp_path, notes, damage):
    first, _ = write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"})
    table = tmp_path / "d" / "clips.jsonl"
    written = table.read_text()
    if damage == "remove":
        table.unlink()
    else:
        table.write_text({"change": "x\nz", "cut": "x"}[damage])
    second, made = write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"})
    assert (made, table.read_text()) == ([], written)
    assert second.fingerprint == first.fingerprint
    assert second.files == first.files
    (warning,) = notes.warnings
    assert "clips.jsonl" in warning
    assert (tmp_path / "d" / "quarantine" / "clips.jsonl").is_file() == (damage != "remove")
    assert verify(tmp_path / "d", notes) == []
    before = tree(tmp_path / "d")
    assert write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"}) == (second, [])
    assert tree(tmp_path / "d") == before


def test_a_damaged_description_of_the_group_costs_no_row(stage):
    first = stage.run(CLIPS)
    described = stage.out / "data.zarr" / "zarr.json"
    written = described.read_text()
    described.write_text(written.replace("attributes", "atributes"))
    second = stage.run(CLIPS)
    assert stage.made == []
    assert second.fingerprint == first.fingerprint
    assert described.read_text() == written
    assert (stage.out / "quarantine" / "data.zarr-zarr.json").is_file()
    assert verify(stage.out, stage.reporter) == []


def finish_run(out: Path, notes, log: str | None) -> tuple[dict[str, object], bool]:
    """A run whose log is written in place, when there is one to write; returns (files, was it unchanged)."""
    with ArtifactWriter(out, "run", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        if not writer.kept("020", "k"):
            with writer.item_file("020", "k", suffix=".pt", parent="checkpoints") as file:
                file.write_bytes(b"weights")
        if not (same := writer.unchanged(["020"])) and log is not None:
            (out / "steps.jsonl").write_text(log)
        return dict(writer.finish(["020"], files=["steps.jsonl"]).files), same


def test_a_log_written_in_place_that_was_lost_is_reported_and_can_be_written_again(tmp_path, notes):
    files, _ = finish_run(tmp_path / "r", notes, "step 1\n")
    assert finish_run(tmp_path / "r", notes, None) == (files, True)
    (tmp_path / "r" / "steps.jsonl").write_text("step 7\n")
    assert finish_run(tmp_path / "r", notes, "step 1\n") == (files, False)
    assert (tmp_path / "r" / "quarantine" / "steps.jsonl").read_text() == "step 7\n"
    (tmp_path / "r" / "steps.jsonl").unlink()
    assert finish_run(tmp_path / "r", notes, None) == ({}, False)
    assert any("steps.jsonl is missing" in warning for warning in notes.warnings)
    assert verify(tmp_path / "r", notes) == []
    assert finish_run(tmp_path / "r", notes, None) == ({}, True)


def test_a_log_that_is_gone_before_the_end_is_said_and_costs_no_item(tmp_path, notes):
    assert finish_run(tmp_path / "r", notes, None) == ({}, False)
    (warning,) = notes.warnings
    assert "steps.jsonl is not there any more" in warning
    assert (tmp_path / "r" / "checkpoints" / "020.pt").read_bytes() == b"weights"


# -- items with files of their own -------------------------------------------------------------------------------------


def test_folders_take_their_place_whole(tmp_path, notes):
    manifest, _ = write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"})
    assert (tmp_path / "d" / "clips" / "y" / "caption.txt").read_text() == "two"
    assert manifest.items["x"]["path"] == "clips/x"
    assert list(manifest.files) == ["clips.jsonl"]
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["clips", "clips.jsonl", "manifest.json"]
    assert verify(tmp_path / "d", notes) == []


def test_a_failed_block_leaves_nothing(tmp_path, notes):
    write_clips(tmp_path / "d", notes, {"x": "one"})
    before = tree(tmp_path / "d")
    with ArtifactWriter(tmp_path / "d", "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        assert writer.kept("x", "one")
        with pytest.raises(FileExistsError), writer.item_folder("y", "two", parent="clips") as folder:  # noqa: PT012
            (folder / "caption.txt").write_text("half")
            folder.mkdir()
        writer.quarantine("y", "no camera")
    assert tree(tmp_path / "d") == before
    assert is_artifact(tmp_path / "d")


def test_a_stale_folder_is_replaced_and_a_dropped_one_removed(tmp_path, notes):
    write_clips(tmp_path / "d", notes, {"x": "one", "y": "two", "z": "three"})
    manifest, made = write_clips(tmp_path / "d", notes, {"x": "ONE", "y": "two"}, prune=True)
    assert made == ["x"]
    assert sorted(tree(tmp_path / "d" / "clips")) == ["x/caption.txt", "y/caption.txt"]
    assert (tmp_path / "d" / "clips.jsonl").read_text() == "x\ny"
    assert (tmp_path / "d" / "clips" / "x" / "caption.txt").read_text() == "ONE"
    assert list(manifest.items) == ["x", "y"]
    assert verify(tmp_path / "d", notes) == []


@pytest.mark.parametrize("damage", ["change", "cut", "remove"])
def test_a_damaged_folder_is_quarantined_and_redone(tmp_path, notes, damage):
    first, _ = write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"})
    caption = tmp_path / "d" / "clips" / "y" / "caption.txt"
    if damage == "remove":
        caption.unlink()
    else:
        caption.write_text({"change": "tvo", "cut": "t"}[damage])
    assert len(verify(tmp_path / "d", notes)) == 1
    second, made = write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"})
    assert made == ["y"]
    assert second.fingerprint == first.fingerprint
    assert caption.read_text() == "two"
    assert (tmp_path / "d" / "quarantine" / "y").is_dir()


def test_a_folder_of_the_users_in_an_items_place_is_moved_aside_not_deleted(tmp_path, notes):
    write_clips(tmp_path / "d", notes, {"x": "one"})
    (tmp_path / "d" / "clips" / "y").mkdir()
    (tmp_path / "d" / "clips" / "y" / "precious.txt").write_text("mine")
    write_clips(tmp_path / "d", notes, {"x": "one", "y": "two"})
    assert (tmp_path / "d" / "quarantine" / "y" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("item", ["../x", "/etc/x", "a/b", ".", "..", ".hidden", "x" * 400, "ü/ß", "a\nb", "con:"])
def test_any_id_is_an_item_inside_the_artifact(tmp_path, notes, item):
    manifest, _ = write_clips(tmp_path / "d", notes, {item: "one"})
    place = tmp_path / "d" / manifest.items[item]["path"]
    assert place.parent == tmp_path / "d" / "clips"
    assert (place / "caption.txt").read_text() == "one"
    assert write_clips(tmp_path / "d", notes, {item: "one"})[1] == []


def test_an_empty_id_and_a_name_of_the_stores_own_are_refused(tmp_path, notes):
    with pytest.raises(DataError, match="empty id"):
        write_clips(tmp_path / "d", notes, {"": "one"})
    with ArtifactWriter(tmp_path / "e", "dataset", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        for name in ("manifest.json", "unfinished", "quarantine"):
            with pytest.raises(DataError, match="cannot be named"), writer.item_folder(name, "k"):
                pass


def test_items_can_be_files_and_be_discarded(tmp_path, notes):
    with ArtifactWriter(tmp_path / "g", "generation", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        for clip in ("x", "y"):
            timing: dict[str, float] = {}
            with writer.item_file(clip, "k", suffix=".mp4", parent="videos", meta=timing) as file:
                file.write_bytes(clip.encode())
                timing["seconds"] = 1.5
        writer.discard("x")
        manifest = writer.finish(["y"])
    assert manifest.items["y"]["path"] == "videos/y.mp4"
    assert manifest.items["y"]["meta"] == {"seconds": 1.5}
    assert sorted(tree(tmp_path / "g")) == ["manifest.json", "videos/y.mp4"]


def test_an_artifact_inside_counts_by_its_fingerprint_not_by_its_date(tmp_path, notes):
    fingerprints = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        with ArtifactWriter(tmp_path / name, "run", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
            with writer.item_folder("020", "k", parent="checkpoints") as folder:
                write_manifest(folder, make_manifest("checkpoint", recipe={"seed": seed}, inputs={}, seed=seed))
            fingerprints.append(writer.finish(["020"]).fingerprint)
        assert verify(tmp_path / name, notes) == []
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_files_beside_an_inner_manifest_do_not_count_for_the_item_but_are_still_watched(tmp_path, notes):
    fingerprints = []
    for name, state in (("one", b"uninterrupted"), ("two", b"resumed"), ("two", None)):
        with ArtifactWriter(tmp_path / name, "run", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
            if not writer.kept("020", "k"):
                with writer.item_folder("020", "k", parent="checkpoints") as folder:
                    (folder / "state" / "deep").mkdir(parents=True)
                    (folder / "training_state.pt").write_bytes(state or b"made again")
                    (folder / "state" / "deep" / "more.pt").write_bytes(state or b"made again")
                    write_manifest(folder, make_manifest("checkpoint", recipe={"lr": 1}, inputs={}, seed=3))
            fingerprints.append(writer.finish(["020"]).fingerprint)
        state_file = tmp_path / name / "checkpoints" / "020" / "training_state.pt"
        assert verify(tmp_path / name, notes) == []
        state_file.write_bytes(b"damaged")
        assert len(verify(tmp_path / name, notes)) == 1
    assert len(set(fingerprints)) == 1
    assert (tmp_path / "two" / "quarantine" / "020" / "training_state.pt").read_bytes() == b"damaged"


def test_an_artifact_deeper_in_an_item_counts_by_its_fingerprint_and_the_rest_by_its_bytes(tmp_path, notes):
    fingerprints = []
    for name, inner, outer in (("a", "1", "x"), ("b", "2", "x"), ("c", "1", "y")):
        with ArtifactWriter(tmp_path / name, "run", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
            with writer.item_folder("020", "k") as folder:
                (folder / "model").mkdir()
                (folder / "model" / "state.pt").write_text(inner)
                (folder / "notes.txt").write_text(outer)
                write_manifest(folder / "model", make_manifest("checkpoint", recipe={}, inputs={}, seed=3))
            fingerprints.append(writer.finish(["020"]).fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_staged_files_join_a_folder_of_items_and_never_replace_one(tmp_path, notes):
    with ArtifactWriter(tmp_path / "m", "memory", recipe={}, inputs={}, seed=0, reporter=notes) as writer:
        with writer.item_folder("x", "k", parent="data.zarr") as folder:
            (folder / "slots").write_bytes(b"1")
        (writer.staged / "data.zarr").mkdir()
        (writer.staged / "data.zarr" / "zarr.json").write_text("{}")
        writer.finish(["x"])
    assert sorted(tree(tmp_path / "m")) == ["data.zarr/x/slots", "data.zarr/zarr.json", "manifest.json"]
    with ArtifactWriter(tmp_path / "m", "memory", recipe={}, inputs={}, seed=1, reporter=notes) as writer:
        assert writer.kept("x", "k")
        (writer.staged / "data.zarr" / "x").mkdir(parents=True)
        (writer.staged / "data.zarr" / "x" / "slots").write_bytes(b"2")
        with pytest.raises(ValueError, match="would replace an item"):
            writer.finish(["x"])
    assert (tmp_path / "m" / "data.zarr" / "x" / "slots").read_bytes() == b"1"


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_foreign_folder_is_refused_and_left_alone(stage):
    stage.out.mkdir()
    (stage.out / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty and is no artifact of hm") as caught:
        stage.run(CLIPS, force=True)
    assert caught.value.where["out"] == stage.out
    assert tree(stage.out) == {"thesis.tex": b"years of work"}
    assert list(stage.out.parent.glob("*.lock")) == []


def test_a_file_in_the_place_of_the_artifact_is_refused(stage):
    stage.out.write_text("a file")
    with pytest.raises(UsageError, match="a file, not a folder"):
        stage.run(CLIPS)
    assert stage.out.read_text() == "a file"


@pytest.mark.parametrize("finished", [True, False])
def test_an_artifact_of_another_kind_is_refused(stage, notes, finished):
    if finished:
        stage.run(CLIPS)
    else:
        with stage.writer() as writer:
            writer.put_arrays("a", "k", {"latents": latents(1.0)})
    before = tree(stage.out)
    with pytest.raises(UsageError, match="kind 'latents', this command writes 'dataset'"):
        write_clips(stage.out, notes, {"x": "one"}, force=True)
    assert tree(stage.out) == before


def test_a_corrupt_manifest_stops_the_writer(stage):
    stage.run(CLIPS)
    (stage.out / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        stage.run(CLIPS)
    assert (stage.out / "manifest.json").read_text() == "{"


def test_an_empty_folder_is_used(stage):
    stage.out.mkdir()
    assert list(stage.run(CLIPS).items) == list(CLIPS)


def test_a_second_writer_is_refused(stage):
    with stage.writer(), pytest.raises(LockedError), stage.writer():
        pass
    assert not stage.out.exists()
