"""hm play without a server: the camera follows keys, chunks follow one another, a walk is read back."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from play_session import opened

from hmcli.core.inspection import Recorded
from hmcli.errors import MissingPartError, NotFiniteError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.data.opening import open_dataset, read_cameras
from hmcli.stages.latents import encode
from hmcli.stages.models.folders import find_model
from hmcli.stages.playing import opening, play, record, server, session
from hmcli.stages.playing.motion import KEYS, Pace, Speed, level, moved
from hmcli.stages.playing.opening import Start
from hmcli.stages.playing.session import Read, slots_read
from hmcli.stages.sampling.rollout import Chunk, Rollout
from hmcli.store.video import read_video
from hmcli.world.views.presets import parse_preset, preset_poses

PACE = Pace(turn=1.0, walk=2.0, settle=0.05)


def way(*held: str, frames: int = 20, speed: Speed | None = None, pose: np.ndarray | None = None):
    start = preset_poses(parse_preset("still"), 1)[0] if pose is None else pose
    return moved(start, speed or Speed(), held, frames=frames, fps=10, pace=PACE)


@pytest.mark.parametrize(
    ("key", "along"), [("ahead", (0, 1)), ("back", (0, -1)), ("aside-right", (1, 0)), ("aside-left", (-1, 0))]
)
def test_the_camera_walks_where_it_looks_and_stays_on_its_height(key: str, along: tuple[int, int]):
    start = preset_poses(parse_preset("still"), 1)[0]  # it looks along +y
    poses, _ = way(key)
    went = poses[-1][:3, 3] - start[:3, 3]
    assert np.linalg.norm(went) == pytest.approx(2.0 * 2, abs=0.2)
    np.testing.assert_allclose(went / np.linalg.norm(went), [*along, 0], atol=1e-9)
    np.testing.assert_allclose(poses[-1][:3, :3], start[:3, :3], atol=1e-9)


def test_left_is_counter_clockwise_seen_from_above_and_the_way_of_the_presets():
    left, _ = way("left", frames=5)
    preset = preset_poses(parse_preset("pan-left:40deg"), 5)
    for poses in (left, preset):
        ahead = level(poses[-1])
        assert np.arctan2(ahead[1], ahead[0]) > np.pi / 2
    np.testing.assert_allclose(left[:, :3, 3], np.repeat(left[:1, :3, 3], 5, axis=0))


def test_opposite_keys_cancel_out_and_speed_goes_on_over_chunks():
    still, _ = way("left", "right", "ahead", "back")
    np.testing.assert_allclose(still, np.repeat(still[:1], len(still), axis=0))
    whole, _ = way("left", "ahead", frames=12)
    first, speed = way("left", "ahead", frames=5)
    second, _ = way("left", "ahead", frames=7, speed=speed, pose=first[-1])
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=1e-12)
    _, ending = way(frames=40, speed=speed)
    assert abs(ending.turn) < 1e-6


def test_a_camera_that_looks_straight_down_walks_towards_the_upper_edge_of_its_picture():
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]])  # right, down, forward as columns
    poses, _ = way("ahead", pose=pose)
    assert poses[-1][1, 3] > 1
    assert len(KEYS) == 6
    with pytest.raises(ValueError, match="unknown keys 'up'"):
        way("up")


def test_chunks_follow_the_keys_and_tell_what_was_read(run: Path, latents: Path, tmp_path: Path):
    walk = opened(run, latents, tmp_path)
    assert walk.rate == 0
    first, second = walk.step(["left"]), walk.step([])
    size = walk.context_frames.shape[1:]
    assert first.frames.shape == second.frames.shape == (walk.length, *size)
    assert [made.number for made in walk.chunks] == [0, 1]
    np.testing.assert_array_equal(walk.frames_of(0), first.frames)
    assert second.latents[0] == first.latents[-1] + 1 == walk.clip.context + len(first.latents)
    assert len({frame.tobytes() for frame in first.frames}) == walk.length, "distinct frames"
    np.testing.assert_allclose(walk.latent_pose(first.latents[1]), first.poses[4])
    np.testing.assert_allclose(walk.latent_pose(2), walk.clip.world_poses()[2])
    for read in (read for reads in (*first.reads, *second.reads) for read in reads):
        assert 0 <= read.first <= read.last <= second.latents[-1]
        assert 0 < read.weight <= 1
    assert all(reads for reads in first.reads)
    assert {"context", "denoising", "decoding"} == set(first.seconds)
    assert walk.rate == pytest.approx(2 * walk.length / (first.took + second.took))


def test_a_walk_is_the_rollout_along_the_same_cameras(run: Path, latents: Path, tmp_path: Path):
    walk = opened(run, latents, tmp_path)
    walk.step(["left"])
    made = walk.step(["ahead"])
    plain, past = Rollout(walk.on, walk.clip, 1, tmp_path / "plain"), []
    for number, of in enumerate(walk.chunks):
        chunk = Chunk(number=number, start=number * walk.length, stop=(number + 1) * walk.length)
        past.append(plain.make(chunk, of.poses[::4]))
        plain.add(chunk, past[-1], of.poses[::4])
    np.testing.assert_array_equal(session.decode_video(past[1], walk.on.codec, "cpu"), made.frames)


def test_without_memory_frames_differ_and_nothing_is_read(run: Path, latents: Path, tmp_path: Path):
    on, off = opened(run, latents, tmp_path / "on"), opened(run, latents, tmp_path / "off", "sample.memory=off")
    assert (on.memory, off.memory) == (True, False)
    off.memory = True
    np.testing.assert_array_equal(on.step(["left"]).frames, off.step(["left"]).frames)
    off.memory = False
    seen, lost = on.step(["right"]), off.step(["right"])
    np.testing.assert_allclose(seen.poses, lost.poses)
    assert (seen.frames != lost.frames).any()
    assert not any(lost.reads)
    assert [made.memory for made in off.chunks] == [True, False]
    off.memory = True
    assert any(off.step(["left"]).reads), "memory that was turned off is still there"


def test_a_past_that_no_window_reaches_need_not_be_run(run: Path, latents: Path, tmp_path: Path):
    """Turning memory off late gives what an always dark rollout gives, and runs one chunk, not all of them."""
    walk = opened(run, latents, tmp_path)
    for _ in range(3):
        walk.step(["left"])
    walk.memory = False
    late = walk.step(["right"])
    dark = Rollout(walk.off, walk.clip, 1, tmp_path / "dark")
    for made in walk.chunks[:3]:
        chunk = Chunk(number=made.number, start=made.number * walk.length, stop=(made.number + 1) * walk.length)
        _ = dark._past.memory  # made at once after every chunk: nothing is left out
        dark.add(chunk, np.load(walk.place / "with" / f"{made.number:05d}.npy"), made.poses[::4])
    chunk = Chunk(number=3, start=3 * walk.length, stop=4 * walk.length)
    _ = dark._past.memory
    frames = session.decode_video(dark.make(chunk, late.poses[::4]), walk.off.codec, "cpu")
    np.testing.assert_array_equal(frames, late.frames)
    assert len(walk._rollouts[False].reached) < len(dark.reached)


def test_a_chunk_that_failed_is_made_anew_along_other_keys(run, latents, tmp_path, monkeypatch: pytest.MonkeyPatch):
    walk, other = opened(run, latents, tmp_path / "a"), opened(run, latents, tmp_path / "b")

    def fails(*_: object) -> np.ndarray:
        raise NotFiniteError("no numbers")

    with monkeypatch.context() as patch:
        patch.setattr(session, "decode_video", fails)
        with pytest.raises(NotFiniteError):
            walk.step(["left"])
    assert walk.chunks == []
    np.testing.assert_array_equal(walk.step(["right"]).frames, other.step(["right"]).frames)


def test_a_joint_model_walks_too(joint_run: Path, latents: Path, tmp_path: Path):
    walk = opened(joint_run, latents, tmp_path)
    walk.step(["left"])
    made = walk.step(["left"])
    assert all(read.first >= len(made.latents) for reads in made.reads for read in reads), "what slid out is not read"
    assert any(made.reads)


def test_reads_are_told_in_the_numbers_of_the_walk():
    def reading(step: int, slots: list[list[int]]) -> Recorded:
        return Recorded(
            frames_FW=None, slots_BFK=torch.tensor([slots]), block=0, part="target", step=step, branch="caption",
            first_frame=4, num_context=4, top_k=1, span_M2=torch.tensor([[0, 1], [2, 3], [4, 5]]),
        )  # fmt: skip

    heard = [reading(0, [[0], [1]]), reading(1, [[1], [1]]), reading(-1, [[2], [2]])]
    numbers = np.array([0, 1, 8, 9, 20, 21])  # a stretch of the past is out of reach
    found = slots_read(heard, numbers, (20, 21))
    assert found[0] == (Read(first=0, last=1, weight=0.5), Read(first=8, last=9, weight=0.5))
    assert found[1] == (Read(first=8, last=9, weight=1.0),)


def test_a_saved_walk_is_a_clip_that_hm_reads(run: Path, latents: Path, nano: Path, tmp_path: Path):
    walk, out = opened(run, latents, tmp_path / "w"), tmp_path / "walks"
    with pytest.raises(UsageError, match="no walk yet"):
        record.save(walk, out)
    made = [walk.step(["left"]), walk.step(["ahead"])]
    saved = record.save(walk, out)
    assert saved.path == out / "walk-001"
    assert record.save(walk, out).path == out / "walk-002"
    assert (saved.frames % 4, saved.frames + saved.left_out) == (1, 2 * walk.length)
    recipe = load_recipe(nano)
    dataset = open_dataset(out, recipe.poses)
    assert (dataset.layout, [clip.id for clip in dataset.clips]) == ("released", ["walk-001", "walk-002"])
    assert dataset.quarantined == ()
    assert dataset.clips[0].caption == " ".join(walk.clip.caption.split())
    cameras = read_cameras(dataset.clips[0])
    poses = np.concatenate([one.poses for one in made])[: saved.frames]
    np.testing.assert_allclose(cameras.target, poses, atol=1e-6)
    np.testing.assert_allclose(cameras.context, walk.context_poses, atol=1e-6)
    shown, kept = np.concatenate([one.frames for one in made])[: saved.frames], read_video(saved.path / "tgt.mp4")
    assert np.abs(kept.astype(int) - shown).mean() < 6, "near-lossless"
    done = encode.run(recipe, data=out, out=tmp_path / "again", force=False, device="cpu", reporter=Silent())
    assert done.counts["clips"] == 2


def test_a_folder_that_holds_something_else_is_not_written_to(run: Path, latents: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        record.check_out(tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


# --- what it starts from ---------------------------------------------------------------------------------------------


def test_a_folder_of_clips_starts_at_the_chosen_one_and_knows_where_its_subjects_are(run, clips, tmp_path):
    chosen = sorted(place.name for place in clips.iterdir() if place.is_dir())[1]
    walk = opened(run, clips, tmp_path, clip=chosen)
    assert walk.clip.id == chosen
    assert walk.on.view.ids() == [chosen], "the others are not encoded"
    assert walk.truth
    assert all(one.place.shape == (42, 2) for one in walk.truth)
    with pytest.raises(UsageError, match="no clip 'nobody'"):
        opened(run, clips, tmp_path / "other", clip="nobody")


def test_a_video_goes_on_from_a_camera_that_stands_still(run: Path, clips: Path, tmp_path: Path):
    shutil.copy(next(clips.glob("*/cond.mp4")), tmp_path / "mine.mp4")
    walk = opened(run, tmp_path / "mine.mp4", tmp_path / "w", prompt="a dog")
    assert (walk.clip.id, walk.clip.caption, walk.truth) == ("mine", "a dog", [])
    assert len({pose.tobytes() for pose in walk.context_poses}) == 1
    assert walk.step(["left"]).frames.shape[0] == walk.length


def test_without_a_source_a_clip_is_rendered(run: Path, tmp_path: Path):
    small = ["world.context_frames=13", "world.target_frames=21", "world.fps=10", "world.antialias=false"]
    walk = opened(run, None, tmp_path, *small, "world.visible_seconds=0.4", "world.hidden_seconds=0.4")
    assert walk.clip.id == f"s{opening.SEED}-00000"
    assert walk.truth


def test_what_a_walk_cannot_use_is_refused_by_name(run: Path, latents: Path, tmp_path: Path):
    for key, wanted in (("count=2", "sample.count"), ("batch=2", "sample.batch"), ("frames=5", "sample.frames")):
        with pytest.raises(UsageError, match=wanted):
            opened(run, latents, tmp_path, f"sample.{key}")
    with pytest.raises(UsageError, match="chunk by chunk"):
        opened(run, latents, tmp_path, "sample.chunk=0")
    with pytest.raises(UsageError, match="--prompt, --fov"):
        opened(run, latents, tmp_path, prompt="a dog", degrees=40)
    with pytest.raises(UsageError, match="no such file"):
        opened(run, tmp_path / "nowhere", tmp_path)
    with pytest.raises(UsageError, match="here is one"):
        opened(run, None, tmp_path, clip="a")


def test_chunks_are_as_short_as_the_model_allows(run: Path, joint_run: Path):
    assert opening.shortest_chunk(find_model(Path("mini"))) == 21
    assert opening.shortest_chunk(find_model(run)) == 5
    usual = opening.usual(find_model(joint_run), Start(source=Path("x")))
    assert usual["sample"]["anchor_radius"] == 0, "its context is no memory that has an anchor"
    assert opening.usual(find_model(run), Start(source=Path("x")))["sample"]["anchor_radius"] == opening.RADIUS


def test_a_missing_extra_is_said_before_anything_is_made(run, latents, tmp_path, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        server.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )  # fmt: skip
    start = Start(source=latents)
    recipe = load_recipe(None, [], opening.usual(find_model(run), start))
    with pytest.raises(MissingPartError, match="package uvicorn") as refused:
        play.run(recipe, model=run, start=start, out=tmp_path / "w", port=0, device="cpu", reporter=Silent())
    assert (refused.value.exit_code, refused.value.fix) == (5, "pip install 'hmcli[play]'")
