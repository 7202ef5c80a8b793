"""hm eval of a plain folder: other systems' videos by clip id, what fits is scored, what does not is listed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm import WarmCommand

from hmcli.contracts import StageResult
from hmcli.errors import DataError, UsageError
from hmcli.metrics.pixel import psnr
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.reporting import report
from hmcli.stages.scoring import evaluate
from hmcli.store.video import read_video, write_video
from hmcli.world.views.cameras import unreal_from_world

HEIGHT, WIDTH, CONTEXT, TARGET = 16, 24, 9, 5
CLIPS = ("one", "two", "three")


def video(frames: int, seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Smooth random pictures that slide: (frames, *size, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 255, (size[0] // 4, size[1] // 4 + 8, 3), dtype=np.uint8)
    wide = coarse.repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([wide[:, frame : frame + size[1]] for frame in range(frames)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three true clips in the released layout, without loss."""
    root = tmp_path_factory.mktemp("truth")
    for seed, clip in enumerate(CLIPS):
        (root / clip).mkdir()
        for name, frames, add in (("cond", CONTEXT, 0), ("tgt", TARGET, 50)):
            write_video(root / clip / f"{name}.mp4", video(frames, seed + add), fps=15, quality="lossless")
        cameras = {
            f"{name}_cam": {
                str(i): of.tolist() for i, of in enumerate(unreal_from_world(np.tile(np.eye(4), (n, 1, 1))))
            }
            for name, n in (("cond", CONTEXT), ("tgt", TARGET))
        }
        (root / clip / "camera.json").write_text(json.dumps(cameras))
    return root


def noisy(frames: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed + 900).normal(0, 15, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def save(place: Path, frames: np.ndarray) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    write_video(place, frames, fps=15, quality="lossless")


def save_frames(folder: Path, frames: np.ndarray, first: int = 1) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, first):
        Image.fromarray(frame).save(folder / f"frame_{number}.png")


def scored(folder: Path, data: Path | None, out: Path, *settings: str, metrics: tuple[str, ...] = ("psnr",)):
    recipe = load_recipe(None, ["eval.backbone=hog", *settings])
    return evaluate.run(
        recipe, generation=folder, reference=data, metrics=metrics, out=out, reporter=Silent()
    )  # fmt: skip


def scores(result: StageResult) -> dict:
    return json.loads((result.path / "scores.json").read_text())["metrics"]


def reasons(result: StageResult) -> dict[str, str]:
    return {of.item: of.reason for of in result.quarantined}


def expected(*seeds: int) -> float:
    return float(np.mean([
        psnr(prediction=noisy(video(TARGET, seed + 50), seed), reference=video(TARGET, seed + 50)) for seed in seeds
    ]))  # fmt: skip


def test_videos_and_folders_of_frames_are_scored_as_they_are(data, tmp_path):
    folder = tmp_path / "theirs"
    for seed, clip in enumerate(CLIPS[:2]):
        save(folder / f"{clip}.mp4", noisy(video(TARGET, seed + 50), seed))
    save_frames(folder / "three", noisy(video(TARGET, 52), 2), first=8)  # 8, 9, 10: not in the order of text
    result = scored(folder, data, tmp_path / "eval")
    assert result.quarantined == ()
    assert scores(result)["psnr"]["mean"] == pytest.approx(expected(0, 1, 2), rel=1e-12)
    card = (result.path / "protocol.md").read_text()
    assert "plain folder" in card
    assert "zero-shot" in card
    assert "target: the target alone" in card


def test_joined_videos_are_judged_by_their_target(data, tmp_path):
    for seed, clip in enumerate(CLIPS):
        joined = np.concatenate([video(CONTEXT, seed + 7), noisy(video(TARGET, seed + 50), seed)])
        save(tmp_path / "theirs" / f"{clip}.mp4", joined)
    result = scored(tmp_path / "theirs", data, tmp_path / "eval", "eval.videos=joined")
    assert scores(result)["psnr"]["mean"] == pytest.approx(expected(0, 1, 2), rel=1e-12)
    refused = scored(tmp_path / "theirs", data, tmp_path / "other")
    assert scores(refused)["psnr"]["failed"] == 3
    assert "14 frames, the true clip 5 of the target" in reasons(refused)["one"]


def test_what_is_missing_or_does_not_fit_is_listed_with_its_reason(data, tmp_path, hm: WarmCommand):
    folder = tmp_path / "theirs"
    save(folder / "one.mp4", noisy(video(TARGET, 50), 0))
    save(folder / "two.mp4", video(TARGET - 1, 51))
    save(folder / "stranger.mp4", video(TARGET, 51))
    result = scored(folder, data, tmp_path / "eval")
    entry = scores(result)["psnr"]
    assert (entry["n"], entry["failed"], entry["mean"]) == (1, 2, pytest.approx(expected(0), rel=1e-12))
    assert "4 frames, the true clip 5" in reasons(result)["two"]
    assert "no video of this clip" in reasons(result)["three"]
    done = hm("eval", folder, "--reference", data, "--metric", "psnr", "--out", tmp_path / "again")
    assert done.returncode == 4
    assert "1 videos of the folder are of no true clip, and not scored: stranger" in done.stderr
    assert "2 of 3 true clips have no video that fits" in done.stderr


def test_another_size_is_an_error_of_the_clip_until_resizing_is_asked_for(data, tmp_path):
    small = video(TARGET, 50)[:, ::2, ::2]
    save(tmp_path / "theirs" / "one.mp4", small)
    save(tmp_path / "theirs" / "two.mp4", noisy(video(TARGET, 51), 1))
    result = scored(tmp_path / "theirs", data, tmp_path / "eval")
    assert "8x12 (height x width), the true clip 16x24" in reasons(result)["one"]
    resized = scored(tmp_path / "theirs", data, tmp_path / "resized", "eval.resize=stretch")
    assert set(reasons(resized)) == {"three"}
    large = np.stack([np.asarray(Image.fromarray(f).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) for f in small])
    wanted = np.mean([psnr(prediction=large, reference=video(TARGET, 50)).mean(), expected(1)])
    assert scores(resized)["psnr"]["mean"] == pytest.approx(wanted, rel=1e-12)


def test_a_changed_video_is_scored_again_and_the_others_are_kept(data, tmp_path):
    folder = tmp_path / "theirs"
    for seed, clip in enumerate(CLIPS):
        save(folder / f"{clip}.mp4", noisy(video(TARGET, seed + 50), seed))
    scored(folder, data, tmp_path / "eval")
    save(folder / "two.mp4", noisy(video(TARGET, 51), 0))
    noise = psnr(prediction=noisy(video(TARGET, 51), 0), reference=video(TARGET, 51)).mean()
    wanted = (2 * expected(0, 2) + noise) / 3
    assert scores(scored(folder, data, tmp_path / "eval"))["psnr"]["mean"] == pytest.approx(wanted, rel=1e-12)


def test_frames_with_a_gap_and_clips_that_are_there_twice_are_left_out(data, tmp_path):
    folder = tmp_path / "theirs"
    save_frames(folder / "one", video(TARGET + 1, 50))
    (folder / "one" / "frame_3.png").unlink()
    save_frames(folder / "two", video(TARGET, 51))
    save(folder / "two.mp4", video(TARGET, 51))
    save(folder / "three.mp4", noisy(video(TARGET, 52), 2))
    said = reasons(scored(folder, data, tmp_path / "eval"))
    assert "after frame 2 the next one is missing" in said["one"]
    assert "several videos of this clip: two, two.mp4" in said["two"]


def test_without_a_reference_only_what_needs_no_truth_is_scored_and_said(tmp_path, hm: WarmCommand):
    save(tmp_path / "theirs" / "any name.mp4", video(TARGET, 50))
    done = hm("eval", tmp_path / "theirs", "--out", tmp_path / "eval", "--set", "eval.backbone=hog")
    assert done.returncode == 0, done.stderr
    assert "without --reference only what needs no truth is scored" in done.stderr
    found = json.loads((tmp_path / "eval" / "scores.json").read_text())["metrics"]
    alone = {"subject-consistency", "background-consistency", "motion-amount", "drift-sharpness", "drift-colour"}
    assert {entry["metric"] for entry in found.values()} == alone
    with pytest.raises(UsageError, match="joined needs the true clips"):
        scored(tmp_path / "theirs", None, tmp_path / "no", "eval.videos=joined")


def test_a_folder_of_something_else_is_refused(data, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no videos"):
        scored(tmp_path / "empty", data, tmp_path / "eval")
    save(tmp_path / "theirs" / "stranger.mp4", video(TARGET, 50))
    with pytest.raises(DataError, match="named by the id of a true clip"):
        scored(tmp_path / "theirs", data, tmp_path / "eval")


def test_a_report_shows_them_beside_the_truth(data, tmp_path):
    for seed, clip in enumerate(CLIPS):
        save(tmp_path / "theirs" / f"{clip}.mp4", noisy(video(TARGET, seed + 50), seed))
    result = scored(tmp_path / "theirs", data, tmp_path / "theirs.evaluation")
    report.run(
        [result.path], out=tmp_path / "r.html", bundle=None, tables=None, clips=(), generations=(), reference=None,
        title="t", reporter=Silent(),
    )  # fmt: skip
    html = (tmp_path / "r.html").read_text()
    assert html.count('id="media-') == 9  # context, truth and theirs of three clips
    shutil.rmtree(tmp_path / "theirs")
    report.run(
        [result.path], out=tmp_path / "r.html", bundle=None, tables=None, clips=(), generations=(), reference=None,
        title="t", reporter=Silent(),
    )  # fmt: skip
    assert "is not there any more" in (tmp_path / "r.html").read_text()


def test_what_is_read_of_a_joined_folder_of_frames_is_its_end(data, tmp_path):
    joined = np.concatenate([video(CONTEXT, 7), noisy(video(TARGET, 50), 0)])
    save_frames(tmp_path / "theirs" / "one", joined, first=0)
    result = scored(tmp_path / "theirs", data, tmp_path / "eval", "eval.videos=joined")
    assert scores(result)["psnr"]["mean"] == pytest.approx(expected(0), rel=1e-12)
    assert len(read_video(data / "one" / "tgt.mp4")) == TARGET
