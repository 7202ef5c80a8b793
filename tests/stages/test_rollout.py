"""Rollouts: chunks follow one another, see what was made before them, and go on where they were stopped."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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
from hmcli.stages.latents.view import LatentClip
from hmcli.stages.memory.kept import History, anchor_of, compute_memory, rows_from
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling.job import Job, open_job
from hmcli.stages.sampling.rollout import Chunk, _Frozen, check_rollout, chunks_of, roll_out, target_poses
from hmcli.stages.sampling.samples import chunk_seed
from hmcli.store.video import read_video
from hmcli.world.views.cameras import relative_camera_rows

CHUNK = 9
HM = Path(sys.executable).with_name("hm")


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
        np.save(tmp_path / f"{chunk.number:05d}.npy", latents)
        past.add(chunk, latents, target_poses(clip, chunk))
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
    said += [text for _, text in heard.said if "older than any" not in text]
    assert says in " ".join(said)
    assert bool(said) == bool(says)


def test_what_of_a_rollout_has_no_limit_is_said_until_it_has_one(nano: Path, run: Path, latents: Path):
    def notes(*more: str) -> list[str]:
        job = dataclasses.replace(job_of(nano, run, latents, *more), reporter=(heard := Heard()))
        check_rollout(job)
        return [text for _, text in heard.said if "older than any" in text]

    assert len(notes()) == 1
    assert notes("sample.max_history=9") == []


def test_every_sample_has_noise_of_its_own_in_every_chunk(job: Job, tmp_path: Path):
    first, second = rolled(job, tmp_path / "1"), rolled(job, tmp_path / "2", number=2)
    assert all(not np.allclose(a, b, atol=0.1) for a, b in zip(first, second, strict=True))
    seeds = {chunk_seed(5, clip, number, chunk) for clip in "ab" for number in (1, 2) for chunk in range(4)}
    assert len(seeds) == 16


# --- old and far memory ----------------------------------------------------------------------------------------------

RADIUS, AWAY = "sample.anchor_radius=2", 3.0  # metres


@pytest.fixture(scope="module")
def far(nano: Path, run: Path, latents: Path) -> Job:
    return job_of(nano, run, latents, RADIUS)


def walked(job: Job) -> LatentClip:
    """A clip whose second and third chunk of four are filmed from elsewhere."""
    clip = job.view.clip(job.view.ids()[0])
    poses = np.repeat(clip.frame_poses[20:21], 21 + 33, axis=0)
    poses[21 + 9 : 21 + 27, 0, 3] += AWAY
    return dataclasses.replace(clip, frame_poses=poses, poses=np.repeat(poses[:1], 6 + 9, axis=0), target=9)


def under_anchors(job: Job, clip: LatentClip) -> list[np.ndarray]:
    """The same rollout by hand: for every chunk memory of what its anchor reaches is made anew, all of it in memory."""
    network, made = job.network, list[np.ndarray]()
    chunks = [clip.frame_poses[21:][[at, at + 4, min(at + 8, 32)]] for at in (0, 9, 18, 27)]
    past = [(clip.context_latents, clip.world_poses()[:6])]
    home, away = clip.frame_poses[0], chunks[1][0]
    reached = [(home, [(0, 0)]), (away, [(1, 0)]), (away, [(1, 0), (2, 0)]), (home, [(0, 3), (1, 3), (3, 0)])]
    for number, (anchor, kept) in enumerate(reached):  # which stretch, and how many latent frames are left out after it
        memory = None
        for index, gap in kept:
            seen, poses = past[index]
            later = network.encode_context(torch.tensor(seen)[None], rows_from(poses, anchor, "cpu"))
            later = later.starting_at(0 if memory is None else memory.num_context_frames).older_by(gap)
            memory = later if memory is None else memory.then(later)
        latents = sample(
            network, generator=torch.Generator().manual_seed(chunk_seed(job.recipe.seed, clip.id, 1, number)), frames=3,
            size=job.view.latent_size, schedule=make_schedule(job.sample.steps, job.sample.shift),
            text=torch.tensor(clip.text)[None], negative_text=torch.tensor(job.negative)[None],
            guidance=job.sample.guidance, memory=memory, camera=rows_from(chunks[number], anchor, "cpu"),
            retrieval=None,
        )[0].numpy()  # fmt: skip
        made.append(latents)
        past.append((latents, chunks[number]))
    return made


def test_beyond_the_radius_the_past_near_a_new_anchor_is_run_again(far: Job, tmp_path: Path):
    heard, clip = Heard(), walked(far)
    found = list(roll_out(dataclasses.replace(far, reporter=heard), clip, 1, tmp_path))
    wanted = under_anchors(far, clip)
    assert [np.array_equal(a, b) for a, b in zip(found, wanted, strict=True)] == [True] * 4
    said = [text for _, text in heard.said if "anchor" in text]
    assert ["frame 9: " in said[0], "1 of 2 " in said[0]] == [True, True]
    assert ["frame 27: " in said[1], "3 of 4 " in said[1]] == [True, True]


def test_within_the_radius_nothing_changes(job: Job, nano: Path, run: Path, latents: Path, tmp_path: Path):
    clip = walked(job)
    wide = job_of(nano, run, latents, f"sample.anchor_radius={AWAY + 0.01}")
    plain, found = list(roll_out(job, clip, 1, tmp_path / "a")), list(roll_out(wide, clip, 1, tmp_path / "b"))
    assert all(np.array_equal(a, b) for a, b in zip(plain, found, strict=True))
    near = list(roll_out(job_of(nano, run, latents, RADIUS), clip, 1, tmp_path / "c"))
    assert np.array_equal(near[0], plain[0])
    assert not np.allclose(near[1], plain[1], atol=1e-4)


def test_a_rollout_that_was_stopped_finds_its_anchors_again(far: Job, tmp_path: Path):
    clip = walked(far)
    whole = list(roll_out(far, clip, 1, tmp_path / "whole"))
    for stopped in (1, 2, 3):
        some = roll_out(far, clip, 1, tmp_path / str(stopped))
        for _ in range(stopped):
            next(some)
        some.close()
        again = list(roll_out(far, clip, 1, tmp_path / str(stopped)))
        assert all(np.array_equal(a, b) for a, b in zip(again, whole, strict=True))


def test_windows_that_reach_over_a_short_chunk_have_the_frames_before_it(far: Job, tmp_path: Path):
    clip = walked(far)
    past = _Frozen(far, clip, tmp_path)
    away = np.repeat(clip.frame_poses[-1:], 3, axis=0) + AWAY * np.eye(4)[3]
    past.add(Chunk(number=0, start=0, stop=1), np.zeros(0), clip.frame_poses[21:22])
    assert past.come_to(away) == "a new anchor pose: 2 of 2 stretches of the past are run again"


def test_old_memory_is_read_as_if_it_were_no_older_than_asked(
    job: Job, nano: Path, run: Path, latents: Path, tmp_path: Path
):
    plain, same = (
        rolled(job, tmp_path / "a"),
        rolled(job_of(nano, run, latents, "sample.max_history=12"), tmp_path / "b"),
    )
    assert all(
        np.array_equal(a, b) for a, b in zip(plain, same, strict=True)
    )  # the third chunk has 6 + 6 frames before
    newer = job_of(nano, run, latents, "sample.max_history=6")
    found = rolled(newer, tmp_path / "c")
    assert [np.array_equal(a, b) for a, b in zip(plain, found, strict=True)] == [True, False, False]
    assert newer.network.config.max_history == 6
    assert all(np.array_equal(a, b) for a, b in zip(found, by_hand(newer), strict=True))


def test_frames_that_are_not_wanted_are_not_made(job: Job, nano: Path, run: Path, latents: Path, tmp_path: Path):
    some = rolled(job_of(nano, run, latents, "sample.frames=10"), tmp_path / "some")
    whole = rolled(job, tmp_path / "whole")
    assert [part.shape[1] for part in some] == [3, 1]
    assert np.array_equal(some[0], whole[0])
    with pytest.raises(DataError, match=r"sample\.frames=22, but the target has 21"):
        rolled(job_of(nano, run, latents, "sample.frames=22"), tmp_path / "more")


def test_keys_of_old_and_far_memory_are_refused_where_there_is_none(
    job: Job, nano: Path, run: Path, joint_run: Path, latents: Path
):
    for setting in ("sample.max_history=6", "sample.anchor_radius=2"):
        with pytest.raises(UsageError, match="context is joint"):
            job_of(nano, joint_run, latents, "model.memory.context=joint", setting)
    with pytest.raises(UsageError, match="made at once") as refused:
        job_of(nano, run, latents, RADIUS, "sample.chunk=0")
    assert refused.value.fix == "set sample.chunk too"
    asked = job_of(nano, run, latents, RADIUS)
    asked.__dict__["memory"] = dataclasses.replace(asked.memory, policy="all", top_k=0)
    with pytest.raises(UsageError, match="policy all reads any frame"):
        check_rollout(asked)
    longer = dataclasses.replace(job_of(nano, run, latents, RADIUS), history=History([], job.model))
    longer.history.views = [SimpleNamespace(path=Path("first")), SimpleNamespace(path=Path("next"))]
    with pytest.raises(UsageError, match="cannot be run again"):
        check_rollout(longer)


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
    assert "49 frames are made for 47" in made.stderr
    assert len(read_video(tmp_path / "gen" / "videos" / "cond.mp4")) == 47
    assert "47 of 47 frames" in made.stderr
    refused = hm("generate", video, "--model", run, "--cameras", "still", "--out", tmp_path / "no", "--set",
                 "sample.chunk=8")  # fmt: skip
    assert (refused.returncode, "5 or 9" in refused.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [132, 1000])
def test_a_rollout_of_any_length_has_that_length_and_can_be_stopped_by_force_on_its_way(
    hm: WarmCommand, run: Path, clips: Path, tmp_path: Path, frames: int
):
    video = sorted(clips.glob("*/cond.mp4"))[0]
    words = (
        "generate",
        video,
        "--model",
        run,
        "--cameras",
        "truck-left-return:3m+pan-right-return:30deg",
        "--frames",
        frames,
        "--set",
        "sample.steps=1",
        "--set",
        "sample.max_history=6",
        "--set",
        "sample.anchor_radius=0.5",
    )
    whole = ok(hm(*words, "--out", tmp_path / "whole"))
    pixels = read_video(whole / "videos" / "cond.mp4")
    assert len(pixels) == frames
    out, chunks = tmp_path / "cut", tmp_path / "cut.chunks"
    process = subprocess.Popen([HM, *map(str, words), "--out", str(out)])
    while len(list(chunks.glob("*/*.npy"))) < 4 and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    process.wait()
    made = {file.name: file.stat().st_mtime_ns for file in chunks.glob("*/*.npy")}
    assert 4 <= len(made) < 1 + frames // 21, "it did not come so far, or was not stopped"
    assert not (out / "manifest.json").exists()
    again = hm(*words, "--out", out)
    assert f"{frames} of {frames} frames" in again.stderr
    assert np.array_equal(read_video(ok(again) / "videos" / "cond.mp4"), pixels)
    assert not chunks.exists()
