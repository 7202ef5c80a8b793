"""Training on several latents artifacts: what a step sees, in which order, and what each rank reads of it."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_server import Server
from training_runs import rows, sets, training_of
from warm import WarmCommand, ok, wait_for

from hmcli.errors import DataError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import TrainConfig
from hmcli.stages.latents.stores import LatentsStores, open_stores
from hmcli.stages.latents.view import LatentsView, open_latents
from hmcli.stages.training import train
from hmcli.stages.training.feeding import Feed, order_of
from hmcli.stages.training.learning import SHARDS_AT_ONCE, batches_by_shard
from hmcli.stages.training.ranks import Ranks
from hmcli.store.manifest import read_manifest


@pytest.fixture(scope="session")
def more(hm: WarmCommand, nano: Path, place: Path) -> Path:
    """Two clips of another seed."""
    few = sets("seed=11", "world.clips=2")
    clips = ok(hm("render", nano, "--out", place / "more-clips", *few))
    return ok(hm("encode", clips, "--recipe", nano, "--out", place / "more.zarr"))


# --- several stores --------------------------------------------------------------------------------------------------


def test_several_stores_are_one_list_of_clips(latents: Path, more: Path):
    one, two = open_latents(latents), open_latents(more)
    both = open_stores([latents, more])
    assert sorted(both.ids()) == [
        f"{name}/{clip}" for name, of in (("latents", one), ("more", two)) for clip in of.ids()
    ]
    for view, name in ((one, "latents"), (two, "more")):
        for clip in view.ids():
            found, own = both.clip(f"{name}/{clip}"), view.clip(clip)
            assert found.id == f"{name}/{clip}"
            assert np.array_equal(found.latents, own.latents)
            assert np.array_equal(found.text, own.text)
            assert both.latents_hash(found.id) == view.latents_hash(clip)
            assert np.array_equal(both.subjects(found.id)["masks"], view.subjects(clip)["masks"])
    assert both.fingerprint not in (one.fingerprint, two.fingerprint)
    assert open_stores(latents).fingerprint == one.fingerprint


def test_clips_of_one_shape_are_one_group_wherever_they_lie(latents: Path, more: Path):
    names = [group.name for path in (latents, more) for group in open_latents(path).groups]
    both = open_stores([latents, more])
    assert [group.name for group in both.groups] == list(dict.fromkeys(names))
    assert sorted(clip for group in both.groups for clip in group.ids) == sorted(both.ids())


def test_stores_whose_folders_are_called_alike_are_numbered(latents: Path, more: Path, tmp_path: Path):
    same = shutil.copytree(more, tmp_path / "latents.zarr")
    assert {clip.split("/")[0] for clip in open_stores([latents, same]).ids()} == {"1", "2"}


def test_the_same_latents_twice_are_refused(latents: Path, tmp_path: Path):
    copy = shutil.copytree(latents, tmp_path / "copy")
    with pytest.raises(UsageError, match="the same latents are given twice"):
        open_stores([latents, copy])


def test_latents_of_another_size_or_codec_do_not_go_together(latents: Path, more: Path):
    one, two = open_latents(latents), open_latents(more)
    two.attributes = dataclasses.replace(two.attributes, size=(64, 96))
    with pytest.raises(DataError, match="do not go together: size"):
        LatentsStores([one, two])
    three = open_latents(more)
    three.manifest = dataclasses.replace(three.manifest, inputs={**three.manifest.inputs, "codec": "sha256:other"})
    with pytest.raises(DataError, match="do not go together: weights of the codec"):
        LatentsStores([one, three])


def test_a_training_on_two_stores_stopped_in_the_middle_ends_with_the_same_losses(
    hm: WarmCommand, nano: Path, latents: Path, more: Path, tmp_path: Path
):
    line = ["train", nano, "--latents", latents, "--latents", more]
    line += sets("train.steps=16", "train.shuffle=shards", "train.held_out=1")
    whole = ok(hm(*line, "--out", tmp_path / "whole"))
    running = hm.start(*line, "--out", tmp_path / "stopped")
    wait_for(lambda: (tmp_path / "stopped" / "checkpoints" / "000004").is_dir())
    running.send_signal(signal.SIGKILL)
    running.wait()
    resumed = hm(*line, "--out", tmp_path / "stopped")
    assert "going on from step" in resumed.stderr
    assert rows(ok(resumed)) == rows(whole)
    stores = [read_manifest(path).fingerprint for path in (latents, more)]
    assert read_manifest(whole).inputs == {"latents 1": stores[0], "latents 2": stores[1]}
    swapped = hm(*[*line[:3], more, "--latents", latents, *line[6:]], "--out", whole)
    assert swapped.returncode == 2
    assert "latents 1" in swapped.stderr


def test_memory_describes_one_artifact_alone(hm: WarmCommand, nano: Path, latents: Path, more: Path, tmp_path: Path):
    memory = ok(hm("tokenize-memory", latents, "--recipe", nano, "--out", tmp_path / "memory"))
    line = ["train", nano, "--latents", latents, "--latents", more, "--memory", memory, "--out", tmp_path / "run"]
    refused = hm(*line, *sets("model.memory.policy=fov"))
    assert refused.returncode == 2
    assert "--memory describes the clips of one latents artifact" in refused.stderr


def test_latents_at_a_url_train_two_ranks_like_those_here(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    server = Server(latents.parent)
    line = ["train", nano, "--latents", f"{server.url}/{latents.name}", "--out", tmp_path / "far"]
    nothing = hm(*[*line[:3], f"{server.url}/elsewhere", *line[4:]])
    assert nothing.returncode == 3
    assert f"{server.url}/elsewhere/manifest.json" in nothing.stderr
    server.faults["/latents/c/0/0/0/0/0"] = [404]
    broken = hm(*line)
    assert (broken.returncode, broken.stdout) == (3, "")
    assert "a file of the artifact is not there" in broken.stderr
    assert f"{server.url}/{latents.name}/data.zarr/" in broken.stderr
    far = ok(hm(*line, "--num-processes", "2"))
    losses, wanted = ([row["loss"] for row in rows(of)] for of in (far, run))
    assert losses == pytest.approx(wanted, rel=1e-5)
    assert read_manifest(far).inputs == read_manifest(run).inputs
    assert all(n == 1 for name, n in server.asked.items() if "/c/" in name and "/latents/" not in name)
    server.close()


# --- order -----------------------------------------------------------------------------------------------------------


def shards_of(*sizes: int) -> list[list[str]]:
    return [[f"{shard}.{row}" for row in range(size)] for shard, size in enumerate(sizes)]


def test_every_epoch_shows_every_clip_and_reads_every_file_in_one_stretch():
    groups = [shards_of(*[8] * 11, 3), [[f"other {clip}" for clip in shard] for shard in shards_of(8, 8, 5)]]
    count = sum(-(-sum(map(len, group)) // 4) for group in groups)
    order = batches_by_shard(groups, 4, seed=3)
    epochs = [[next(order) for _ in range(count)] for _ in range(2)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        for group in groups:
            seen = [clip for batch in epoch for clip in batch if clip in {c for shard in group for c in shard}]
            counts = Counter(seen)
            assert set(counts) == {clip for shard in group for clip in shard}
            assert sum(counts.values()) - len(counts) < 4, "the last batch alone is filled up"
            files = [clip.rpartition(".")[0] for clip in seen[: len(counts)]]
            for first, name in enumerate(files):
                last = len(files) - 1 - files[::-1].index(name)
                assert len(set(files[first : last + 1])) <= SHARDS_AT_ONCE
            assert files != sorted(files)


def test_the_order_follows_from_the_seed():
    again = [batches_by_shard([shards_of(8, 8, 8)], 4, seed=seed) for seed in (3, 3, 4)]
    one, same, other = ([next(order) for _ in range(12)] for order in again)
    assert one == same != other


def test_shards_are_those_on_disk_and_held_out_clips_are_in_none(latents: Path, more: Path):
    view = open_stores([latents, more])
    assert set(view.shards) == set(view.ids())
    assert len(set(view.shards.values())) == sum(len(open_latents(path).groups) for path in (latents, more))
    aside = view.ids()[-1:]
    order = order_of(view, aside, TrainConfig(shuffle="shards", batch=2), seed=0)
    shown = {clip for _ in range(6) for clip in next(order)}
    assert shown == set(view.ids()) - set(aside)


def test_a_run_from_before_there_was_a_choice_of_order_goes_on(nano: Path, monkeypatch: pytest.MonkeyPatch):
    """The default order has no part in what makes a run that run."""
    monkeypatch.setattr(train, "hash_json", lambda value: value["train"])
    assert "shuffle" not in train.run_key(load_recipe(str(nano)), {})
    assert train.run_key(load_recipe(str(nano), ["train.shuffle=shards"]), {})["shuffle"] == "shards"


def test_a_run_without_dropped_cameras_is_the_run_it_was_before_there_were_any(
    nano: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train, "hash_json", lambda value: value["train"])
    assert "camera_dropout" not in train.run_key(load_recipe(str(nano)), {})
    assert train.run_key(load_recipe(str(nano), ["train.camera_dropout=0.1"]), {})["camera_dropout"] == 0.1


# --- each rank reads its own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        ["train.draws=3", "train.older=9", "train.anchor_turn=30", "train.anchor_shift=2", "train.text_dropout=0.5",
         "train.camera_dropout=0.5"],
        ["train.subject_weight=3", "model.memory.context=joint", "flow.noise=per-frame", "flow.loss=all"],
        ["model.memory.policy=random"], ["model.memory.policy=oracle", "model.positions=rays"],
    ],
)  # fmt: skip
def test_a_rank_that_reads_its_clips_alone_prepares_its_share_of_the_batch(
    nano: Path, latents: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
):
    training = training_of(nano, latents, "train.batch=3", *settings)
    chosen = training.view.ids()[::-1]
    whole = training.prepare(5, [training.view.clip(clip) for clip in chosen])
    read: list[str] = []
    clip_of = LatentsView.clip

    def noted(view: LatentsView, clip: str):
        read.append(clip)
        return clip_of(view, clip)

    for rank in range(2):
        apart = dataclasses.replace(training, ranks=Ranks(rank=rank, count=2))
        feed = Feed(apart, chosen)
        monkeypatch.setattr(LatentsView, "clip", noted)
        found, wanted = feed.prepare(5, chosen), whole.share(rank, 2)
        monkeypatch.setattr(LatentsView, "clip", clip_of)
        assert [clip.id for clip in found.clips] == [clip.id for clip in wanted.clips]
        assert read == [clip.id for clip in wanted.clips]
        read.clear()
        assert (found.first, found.chosen) == (wanted.first, chosen)
        for part, of in ((found.batch, wanted.batch), (found.question, wanted.question)):
            for field in dataclasses.fields(part):
                value, other = getattr(part, field.name), getattr(of, field.name)
                assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, field.name
        assert torch.equal(training.loss(found), training.loss(wanted))
        pieces = [found.share(2 * rank + piece, 4).clips for piece in range(2)]
        assert [clip.id for piece in pieces for clip in piece] == [clip.id for clip in wanted.clips]
        with pytest.raises(ValueError, match="are not held here"):
            found.share(1 - rank, 2)


def test_what_was_read_stays_in_memory_while_all_fits(nano: Path, latents: Path, monkeypatch: pytest.MonkeyPatch):
    training = training_of(nano, latents)
    chosen = training.view.ids()[:2]
    kept = Feed(training, chosen)
    assert kept.prepare(0, chosen).clips[0] is kept.prepare(1, chosen).clips[0]
    assert kept.ahead == 0
    monkeypatch.setattr("hmcli.stages.training.feeding.CACHE_BYTES", 1)
    anew = Feed(training, chosen)
    assert anew.prepare(0, chosen).clips[0] is not anew.prepare(1, chosen).clips[0]
    assert anew.ahead == 2
