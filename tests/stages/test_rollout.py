"""Rollouts: chunks follow one another, see what was made before them, and go on where they were stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from warm import WarmCommand, ok

from hmcli.core.flow import make_schedule
from hmcli.core.memory import Held, Joined
from hmcli.core.sampler import sample
from hmcli.errors import DataError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Heard, Silent
from hmcli.stages.memory.kept import anchor_of, compute_memory, rows_from
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling.job import Job, open_job
from hmcli.stages.sampling.rollout import Chunk, _Frozen, check_rollout, chunks_of, roll_out
from hmcli.stages.sampling.samples import chunk_seed
from hmcli.store.video import read_video
from hmcli.world.views.cameras import relative_camera_rows

CHUNK = 9


def job_of(nano: Path, model: Path, latents: Path, *more: str) -> Job:
    recipe = load_recipe(str(nano), [f"sample.chunk={CHUNK}", *more])
    return open_job(recipe, find_model(model), latents, [], None, (), "cpu", Silent())[0]


@pytest.fixture(scope="module")
def job(nano: Path, run: Path, latents: Path) -> Job:
    return job_of(nano, run, latents)


def rolled(job: Job, place: Path, number: int = 1) -> list[np.ndarray]:
    return list(roll_out(job, job.view.clip(job.view.ids()[0]), number, place))


def test_chunks_cover_the_target_and_the_last_one_is_whole_for_the_codec():
    chunks = chunks_of(21, CHUNK)
    assert [(c.start, c.stop, c.frames, c.latents) for c in chunks] == [(0, 9, 9, 3), (9, 18, 9, 3), (18, 21, 5, 2)]
    assert [(c.start, c.stop) for c in chunks_of(5, 9)] == [(0, 5)]
    assert Chunk(number=0, start=0, stop=1).latents == 1
    with pytest.raises(UsageError, match="4k\\+1") as refused:
        chunks_of(21, 8)
    assert "5 or 9" in refused.value.fix


def by_hand(job: Job, number: int = 1) -> list[np.ndarray]:
    """What a frozen model makes when all memory stays in memory, spelled out."""
    clip = job.view.clip(job.view.ids()[0])
    anchor, network = anchor_of(clip), job.network
    memory, made = compute_memory(network, clip, anchor, None, "cpu"), []
    target = clip.frame_poses[21:]
    for chunk, frames in enumerate(([0, 4, 8], [9, 13, 17], [18, 20])):
        poses = target[frames]
        latents = sample(
            network, generator=torch.Generator().manual_seed(chunk_seed(job.recipe.seed, clip.id, number, chunk)),
            frames=len(frames), size=job.view.latent_size, schedule=make_schedule(job.sample.steps, job.sample.shift),
            text=torch.tensor(clip.text)[None], negative_text=torch.tensor(job.negative)[None],
            guidance=job.sample.guidance, memory=memory, camera=rows_from(poses, anchor, "cpu"), retrieval=None,
        )  # fmt: skip
        made.append(latents[0].numpy())
        later = network.encode_context(latents, rows_from(poses, anchor, "cpu"))
        memory = memory.then(later.starting_at(memory.num_context_frames))
    return made


def test_a_frozen_model_reads_everything_that_was_made_from_disk_as_if_it_were_in_memory(job: Job, tmp_path: Path):
    found, wanted = rolled(job, tmp_path), by_hand(job)
    assert [part.shape[1] for part in found] == [3, 3, 2]
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_what_was_made_matters_for_what_follows(job: Job, tmp_path: Path):
    clip = job.view.clip(job.view.ids()[0])
    whole = rolled(job, tmp_path / "a")
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "00000.npy", whole[0] + 1)
    other = list(roll_out(job, clip, 1, tmp_path / "b"))
    assert np.array_equal(other[0], whole[0] + 1)
    assert not np.allclose(other[1], whole[1], atol=1e-3)


def test_a_rollout_that_was_stopped_goes_on_to_the_same_end(job: Job, tmp_path: Path):
    whole = rolled(job, tmp_path / "whole")
    clip = job.view.clip(job.view.ids()[0])
    for stopped in (1, 2):
        place = tmp_path / str(stopped)
        some = roll_out(job, clip, 1, place)
        for _ in range(stopped):
            next(some)
        some.close()
        (place / "00001.memory").mkdir(exist_ok=True)  # of a write that was cut off
        (place / "00001.memory" / "half").write_text("")
        before = {file.name: file.stat().st_mtime_ns for file in place.glob("*.npy")}
        assert len(before) == stopped
        again = list(roll_out(job, clip, 1, place))
        assert all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))
        assert {name: (place / name).stat().st_mtime_ns for name in before} == before


def test_a_damaged_chunk_is_named_and_not_made_anew_in_silence(job: Job, tmp_path: Path):
    rolled(job, tmp_path)
    file = tmp_path / "00001.npy"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match="cannot be read") as refused:
        rolled(job, tmp_path)
    assert refused.value.where["file"] == file


def test_memory_of_chunks_stays_on_disk(job: Job, tmp_path: Path):
    clip = job.view.clip(job.view.ids()[0])
    past, latents = _Frozen(job, clip, tmp_path), np.zeros((16, 3, 4, 6), np.float32)
    held = past.memory.blocks[0].slots
    for chunk in chunks_of(36, CHUNK):
        past.add(chunk, latents, past.poses_of(chunk))
    slots = past.memory.blocks[0].slots
    assert isinstance(slots, Joined)
    assert slots.count > held.count
    assert [isinstance(part, Held) for part in slots.parts] == [True, False, False, False, False]


def test_a_joint_model_sees_the_latest_frames_as_many_as_its_context_has(
    nano: Path, joint_run: Path, latents: Path, tmp_path: Path
):
    job = job_of(nano, joint_run, latents, "model.memory.context=joint")
    clip = job.view.clip(job.view.ids()[0])
    found = rolled(job, tmp_path)
    seen, poses = clip.context_latents, clip.world_poses()[: clip.context]
    for chunk, frames in enumerate(([0, 4, 8], [9, 13, 17], [18, 20])):
        to = clip.frame_poses[21:][frames]
        rows = relative_camera_rows(np.concatenate([poses, to]), to[0]).astype(np.float32)
        wanted = sample(
            job.network, generator=torch.Generator().manual_seed(chunk_seed(job.recipe.seed, clip.id, 1, chunk)),
            frames=len(frames), size=job.view.latent_size, schedule=make_schedule(job.sample.steps, job.sample.shift),
            text=torch.tensor(clip.text)[None], negative_text=torch.tensor(job.negative)[None],
            guidance=job.sample.guidance, context=torch.tensor(seen)[None], camera=torch.tensor(rows)[None],
        )[0].numpy()  # fmt: skip
        assert np.array_equal(found[chunk], wanted)
        seen = np.concatenate([seen, wanted], 1)[:, -clip.context :]
        poses = np.concatenate([poses, to])[-clip.context :]


@pytest.mark.parametrize(("chunk", "says"), [(9, "=13 or more"), (5, "=13 or more"), (13, ""), (17, "=13 or 21")])
def test_a_chunk_makes_as_many_slots_as_are_read_and_none_of_its_frames_is_lost_in_silence(job: Job, chunk, says):
    heard, said = Heard(), list[str]()
    asked = dataclasses.replace(job, reporter=heard, recipe=dataclasses.replace(
        job.recipe, sample=dataclasses.replace(job.recipe.sample, chunk=chunk)))  # fmt: skip
    asked.__dict__["memory"] = dataclasses.replace(job.memory, top_k=2)
    try:
        check_rollout(asked)
    except UsageError as refused:
        said.append(f"{refused.what}={refused.fix.removeprefix('set it to ')}")
    said += [text for _, text in heard.said]
    assert says in " ".join(said)
    assert bool(said) == bool(says)


def test_every_sample_has_noise_of_its_own_in_every_chunk(job: Job, tmp_path: Path):
    first, second = rolled(job, tmp_path / "1"), rolled(job, tmp_path / "2", number=2)
    assert all(not np.allclose(a, b, atol=0.1) for a, b in zip(first, second, strict=True))
    seeds = {chunk_seed(5, clip, number, chunk) for clip in "ab" for number in (1, 2) for chunk in range(4)}
    assert len(seeds) == 16


def test_clips_without_poses_and_policies_that_know_given_frames_are_refused(job: Job, tmp_path: Path):
    clip = dataclasses.replace(job.view.clip(job.view.ids()[0]), frame_poses=None)
    with pytest.raises(DataError, match="camera pose of every frame"):
        next(roll_out(job, clip, 1, tmp_path))
    oracle = dataclasses.replace(job.memory, policy="oracle")
    knows = dataclasses.replace(job)
    knows.__dict__["memory"] = oracle
    with pytest.raises(UsageError, match="policy oracle"):
        check_rollout(knows)


def test_one_chunk_is_what_comes_without_chunks_and_nothing_stays_beside_it(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    made = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "gen", "--set", "sample.chunk=21"))
    for video in sorted((made / "videos").iterdir()):
        assert np.array_equal(read_video(video), read_video(generation / "videos" / video.name))
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["gen"]


def test_a_long_target_of_a_video_comes_in_chunks_and_all_frames_are_there(
    hm: WarmCommand, run: Path, clips: Path, tmp_path: Path
):
    video = sorted(clips.glob("*/cond.mp4"))[0]
    made = hm("generate", video, "--model", run, "--cameras", "pan-left-return:20deg", "--frames", 47, "--out",
              tmp_path / "gen", "--set", "sample.steps=1")  # fmt: skip
    ok(made)
    assert "47 frames are made 21 at a time" in made.stderr
    assert len(read_video(tmp_path / "gen" / "videos" / "cond.mp4")) == 49
    assert "49 of 49 frames" in made.stderr
    refused = hm("generate", video, "--model", run, "--cameras", "still", "--out", tmp_path / "no", "--set",
                 "sample.chunk=8")  # fmt: skip
    assert (refused.returncode, "5 or 9" in refused.stderr) == (2, True)
