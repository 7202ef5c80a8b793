"""hm generate VIDEO: a video, a prompt and a camera preset in one line; what is assumed is said."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from warm import WarmCommand, ok

from hmcli.contracts import Reporter
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.runtime import Heard, Silent
from hmcli.stages.data.opening import open_dataset, read_cameras
from hmcli.stages.sampling.from_python import after_video, open_pipeline
from hmcli.stages.sampling.generations import open_generation
from hmcli.stages.sampling.one_video import Asked, as_folder
from hmcli.store.files import read_json, write_json
from hmcli.store.video import probe_video, read_video, write_video
from hmcli.world.views.cameras import pair_file
from hmcli.world.views.presets import parse_preset, preset_poses


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 frames of another shape than the model's: their number is no 4k+1."""
    y, x, t = np.mgrid[:60, :80, :26]
    frames = np.stack([3 * x + t, 4 * y, 255 - 9 * t], -1).astype(np.uint8).transpose(2, 0, 1, 3)
    file = tmp_path_factory.mktemp("phone") / "my holiday.mp4"
    write_video(file, frames, fps=10)
    return file


def after(hm: WarmCommand, run: Path, video: Path, out: Path, *more: object):
    return hm("generate", video, "--model", run, "--out", out, *more)


def test_a_video_a_prompt_and_a_preset_make_a_video(hm: WarmCommand, run: Path, phone: Path, tmp_path: Path):
    asked = ("--prompt", "a dog", "--cameras", "pan-right-return:40deg", "--frames", 14)
    made = after(hm, run, phone, tmp_path / "gen", *asked)
    generated = open_generation(ok(made), PosesConfig())
    row = generated.rows["my holiday"]
    assert (row.caption, row.frames, row.context_frames, row.fps) == ("a dog", 14, 25, 10)
    assert read_video(generated.path / row.video).shape == (14, 32, 48, 3)
    for said in (
        "the last 25 of the video's 26 frames",
        "17 frames are made for 14",
        "stands still",
        "37 degrees",
        "turns at up to 70",
    ):
        assert said in made.stderr.replace("\n", " "), said
    clip = open_dataset(tmp_path / "gen.clip", PosesConfig()).clips[0]
    cameras = read_cameras(clip)
    way = preset_poses(parse_preset("pan-right-return:40deg"), 17)
    np.testing.assert_allclose(cameras.target, way[1:], atol=1e-9)
    np.testing.assert_allclose(cameras.context, np.repeat(way[:1], 25, axis=0), atol=1e-9)
    lens = read_json(clip.files["intrinsics"])
    assert lens["fx"] == pytest.approx(80 / 2 / np.tan(np.deg2rad(18.5)) * 48 / 80)
    shown = read_video(clip.files["context"])
    assert shown[0].mean() > shown[-1].mean()  # frames 1 to 25, in order
    again = after(hm, run, phone, tmp_path / "gen", *asked)
    assert "1 items kept" in again.stderr


def folder(video: Path, out: Path, reporter: Reporter | None = None, **asked: Any) -> Path:
    """The clip alone, without what is generated after it."""
    data = DataConfig(size=(32, 48))
    return as_folder(video, Asked(**{"cameras": "still", **asked}), data, PosesConfig(), out, reporter or Silent())


@pytest.mark.parametrize("context", ["frozen", "joint"])
def test_python_makes_the_very_video_of_the_command(
    hm: WarmCommand, request: pytest.FixtureRequest, phone: Path, tmp_path: Path, context: str
):
    model = request.getfixturevalue("run" if context == "frozen" else "joint_run")
    asked = ("--prompt", "a dog", "--cameras", "pan-right-return:40deg", "--frames", 9, "--fov", 50)
    made = ok(after(hm, model, phone, tmp_path / "gen", *asked))
    given = after_video(
        model, phone, prompt="a dog", cameras="pan-right-return:40deg", frames=9, fov=50, reporter=Silent()
    )
    pipe = open_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    made_here = pipe(
        **given.arguments, generator=torch.Generator().manual_seed(given.seed), output_type="uint8"
    ).frames[0]  # fmt: skip
    write_video(tmp_path / "after.mp4", made_here, fps=given.fps)
    assert (tmp_path / "after.mp4").read_bytes() == next((made / "videos").iterdir()).read_bytes()


def test_python_says_how_many_frames_were_asked_for_and_makes_no_chunks(run: Path, phone: Path, tmp_path: Path):
    given = after_video(run, phone, cameras="still", frames=14, reporter=Silent())
    assert (given.frames, given.arguments["num_frames"]) == (14, 5)  # 5 latent frames are 17
    assert after_video(run, phone, cameras="still", reporter=Silent()).frames == 25
    with pytest.raises(UsageError, match="frames=40: a target longer than the context is made in chunks"):
        after_video(run, phone, cameras="still", frames=40, reporter=Silent())


def test_without_a_run_here_the_packaged_model_is_taken_aloud(hm: WarmCommand, phone: Path, tmp_path: Path):
    asked = ("--cameras", "still", "--frames", 5, "--dry-run")
    planned = hm("generate", phone, *asked, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "no run here: using the packaged model mini" in " ".join(planned.stderr.split())
    refused = hm("generate", tmp_path, cwd=tmp_path)
    assert (refused.returncode, "no complete artifact of kind run" in refused.stderr) == (2, True)


def test_a_strip_of_what_follows_a_video_has_no_truth(hm: WarmCommand, run: Path, phone: Path, tmp_path: Path):
    made = ok(after(hm, run, phone, tmp_path / "gen", "--cameras", "still", "--frames", 5, "--set", "sample.steps=1"))
    done = hm("strip", made, "--out", tmp_path / "s.mp4", "--scale", 1)
    assert probe_video(ok(done)).width == 2 * 48 + 4  # context and what was made
    assert "without the truth" in done.stderr


@pytest.mark.parametrize(
    "more", [{"prompt": "a cat"}, {"cameras": "pan-left"}, {"frames": 9}, {"degrees": 60.0}], ids=str
)
def test_another_wish_is_another_clip(phone: Path, tmp_path: Path, more):
    def key(**asked: Any) -> str:
        return str(read_json(folder(phone, tmp_path / "clip", **asked) / "made-from.json")["key"])

    assert key(frames=5) == key(frames=5) != key(**{"frames": 5, **more})


def test_cameras_of_a_file_are_taken_as_they_are(phone: Path, tmp_path: Path):
    way, said = preset_poses(parse_preset("truck-left:3m"), 34), Heard()
    write_json(tmp_path / "cameras.json", pair_file({"context": way[:26], "target": way[26:]}))
    made = folder(phone, tmp_path / "clip", said, cameras=str(tmp_path / "cameras.json"))
    assert all("stands still" not in text for _, text in said.said)
    cameras = read_cameras(open_dataset(made, PosesConfig()).clips[0])
    np.testing.assert_allclose(cameras.context, way[1:26], atol=1e-9)  # of the last 25 frames
    np.testing.assert_allclose(cameras.target, way[26:35], atol=1e-9)


@pytest.mark.parametrize(
    ("frames", "file", "made"), [(7, 9, [*range(9)]), (7, 7, [*range(7), 6, 6]), (0, 7, [*range(5)])]
)
def test_a_file_may_have_any_number_of_cameras(phone: Path, tmp_path: Path, frames: int, file: int, made: list[int]):
    way = preset_poses(parse_preset("truck-left:3m"), 8)
    write_json(tmp_path / "cameras.json", pair_file({"target": way[:file]}))
    clip = folder(phone, tmp_path / "clip", cameras=str(tmp_path / "cameras.json"), frames=frames)
    found = read_cameras(open_dataset(clip, PosesConfig()).clips[0])
    np.testing.assert_allclose(found.target, way[made], atol=1e-9)


def test_a_dry_run_checks_and_writes_nothing(hm: WarmCommand, run: Path, phone: Path, tmp_path: Path):
    planned = after(hm, run, phone, tmp_path / "gen", "--cameras", "still", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert list(tmp_path.iterdir()) == []
    assert after(hm, run, phone, tmp_path / "gen", "--cameras", "stil", "--dry-run").returncode == 2


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ([], 2, "needs --cameras"),
        (["--cameras", "pan-rihgt"], 2, "did you mean"),
        (["--cameras", "+".join(["pan-left"] * 60)], 2, "60 camera moves"),
        (["--cameras", "a\0b"], 2, "unknown camera move"),
        (["--cameras", "gone.json"], 3, "no such camera file"),
        (["--cameras", "still", "--prompt", "a\0b"], 2, "NUL"),
        (["--cameras", "still", "--fov", "200"], 2, "--fov"),
    ],
)
def test_what_cannot_be_is_said(hm: WarmCommand, run: Path, phone: Path, tmp_path: Path, more, code, says):
    refused = after(hm, run, phone, tmp_path / "gen", *more)
    assert (refused.returncode, says in refused.stderr) == (code, True), refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_camera_files_that_do_not_fit_are_refused_with_both_numbers(phone: Path, tmp_path: Path):
    way = preset_poses(parse_preset("still"), 30)
    file = tmp_path / "c.json"
    for content, frames, says in (
        ({"context": way[:20], "target": way[20:]}, 0, "20 context cameras for 26 video frames"),
        ({"context": way[:26]}, 0, "no poses of a target"),
        ({"target": way[26:]}, 9, "--frames 9: the camera file has 5 target cameras"),
    ):
        write_json(file, pair_file(content))
        with pytest.raises(DataError, match=re.escape(says)) as refused:
            folder(phone, tmp_path / "clip", cameras=str(file), frames=frames)
        assert refused.value.where["--cameras"] == file
    row = np.eye(4)[:3].reshape(-1).tolist()
    write_json(file, {"context_camera": [row] * 7, "video_camera": [row] * 7})
    with pytest.raises(DataError, match="rows of one latent frame each") as refused:
        folder(phone, tmp_path / "clip", cameras=str(file))
    assert refused.value.where["--cameras"] == file
    assert not (tmp_path / "clip").exists()


def test_clips_bring_their_own_prompt_and_cameras(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    refused = hm("generate", latents, "--model", run, "--out", tmp_path / "gen", "--prompt", "a dog", "--fov", 40)
    assert refused.returncode == 2
    assert "--prompt, --fov" in refused.stderr
    cut = hm("generate", latents, "--model", run, "--out", tmp_path / "gen", "--frames", 9)
    assert "--set sample.frames=9" in cut.stderr
    gone = hm("generate", tmp_path / "gone.mp4", "--model", run, "--out", tmp_path / "gen", "--cameras", "still")
    assert (gone.returncode, "there is no such file" in gone.stderr) == (2, True)


def test_outputs_and_settings_that_cannot_be_are_refused_before_anything_is_encoded(
    hm: WarmCommand, run: Path, phone: Path, tmp_path: Path
):
    (tmp_path / "gen").mkdir()
    (tmp_path / "gen" / "mine.txt").write_text("mine")
    refused = after(hm, run, phone, tmp_path / "gen", "--cameras", "still", "--frames", 9)
    assert (refused.returncode, "mine.txt" in refused.stderr) == (2, True)
    for setting in ("sample.offload=memory", "sample.cache=last-block", "sample.anchor_radius=1"):
        more = ("--cameras", "still", "--frames", 9, "--set", setting)
        unknown = after(hm, run, phone, tmp_path / "new", *more)
        assert (unknown.returncode, setting in unknown.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.glob("*.latents")) == []


def test_a_folder_of_somebody_else_is_not_written_into(phone: Path, tmp_path: Path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        folder(phone, tmp_path / "clip")
    assert [file.name for file in (tmp_path / "clip").iterdir()] == ["mine.txt"]
    (tmp_path / "clip" / "made-from.json").write_text(json.dumps({"key": "other"}))
    assert len(open_dataset(folder(phone, tmp_path / "clip"), PosesConfig()).clips) == 1
