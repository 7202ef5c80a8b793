"""hm bench rows: videos that need no model, scored like those of one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sealing import edit
from warm import WarmCommand, ok

from hmcli.codecs.video import mini_codec
from hmcli.errors import DataError, UsageError
from hmcli.recipe.sections import CodecConfig, PosesConfig
from hmcli.runtime import Silent
from hmcli.stages.bench.redrawing import origin_of, redraw
from hmcli.stages.bench.row_clip import RowClip, depth_hash
from hmcli.stages.bench.row_kinds import ROWS, find_rows
from hmcli.stages.bench.rows import run
from hmcli.stages.data.annotations import ClipAnnotations, read_annotations
from hmcli.stages.data.opening import open_dataset, read_cameras
from hmcli.stages.latents.pixels import decode_video, encode_video
from hmcli.store.manifest import read_manifest
from hmcli.store.video import read_video, write_video
from hmcli.world.files.schema import SubjectState
from hmcli.world.views.cameras import latent_poses
from hmcli.world.views.warps import farness, homography_warp, views_of, widened

CLIPS = [f"s5-0000{number}" for number in range(3)]
COMPRESSED = 10  # levels by which a pixel may differ after it was compressed once more, on average over a few


@pytest.fixture(scope="module")
def rows(hm: WarmCommand, clips: Path, place: Path) -> Path:
    return ok(hm("bench", "rows", clips, "--out", place / "rows"))


@pytest.fixture(scope="module")
def table(hm: WarmCommand, rows: Path, place: Path) -> dict[str, dict[str, float]]:
    """Row -> metric -> mean, as `hm eval` says it."""
    found = {}
    for row in ROWS:
        scored = ok(hm("eval", rows / row, "--metric", "psnr", "--metric", "ssim", "--out", place / f"{row}.scores"))
        metrics = json.loads((scored / "scores.json").read_text())["metrics"]
        found[row] = {name: entry["mean"] for name, entry in metrics.items()}
    return found


@pytest.fixture(scope="module")
def plain(clips: Path, place: Path) -> Path:
    """The clips as a folder that does not say how it was rendered."""
    shutil.copytree(clips, place / "plain", ignore=shutil.ignore_patterns("manifest.json", "clips.jsonl"))
    return place / "plain"


@pytest.fixture(scope="module")
def by_views(hm: WarmCommand, plain: Path, place: Path) -> Path:
    """Rows of clips that cannot be drawn again."""
    return ok(hm("bench", "rows", plain, "--out", place / "by_views", "--row", "erased", "--row", "frozen"))


def video(rows: Path, row: str, clip: str) -> np.ndarray:
    return read_video(rows / row / "videos" / f"{clip}.mp4").astype(int)


def row_clip(data: Path, clip: str) -> RowClip:
    source = next(one for one in open_dataset(data, PosesConfig()).clips if one.id == clip)
    return RowClip(source=source, depth_hash=depth_hash(source), origin=None)


def lines(generation: Path) -> list[dict]:
    return [json.loads(line) for line in (generation / "generations.jsonl").read_text().splitlines()]


# --- what is written -------------------------------------------------------------------------------------------------


def test_each_row_is_a_generation_of_all_clips(rows, clips):
    assert sorted(path.name for path in rows.iterdir()) == sorted(ROWS)
    for row in ROWS:
        manifest = read_manifest(rows / row, kinds=("generation",))
        assert manifest.inputs == {"clips": read_manifest(clips).fingerprint}
        assert [line["id"] for line in lines(rows / row)] == CLIPS
        assert all(line["steps"] is line["seed"] is line["memory"] is None for line in lines(rows / row))
        assert all(line["context_frames"] == line["frames"] == 21 and line["fps"] == 10 for line in lines(rows / row))
        cameras = latent_poses(row_clip(clips, CLIPS[0]).poses[1])
        np.testing.assert_allclose(lines(rows / row)[0]["camera"], cameras, atol=1e-5)
        assert video(rows, row, CLIPS[0]).shape == (21, 32, 48, 3)
        assert (rows / row / "contact_sheet.png").is_file()


def test_rows_are_scored_like_a_model_and_stand_in_their_order(table):
    by_psnr = sorted(table, key=lambda row: table[row]["psnr"])
    assert by_psnr[-1] == "truth"
    by_psnr = [row for row in by_psnr if row not in ("truth", "codec-mini")]
    assert set(by_psnr[-2:]) == {"erased", "frozen"}  # of the truth everything but the subjects is right
    assert by_psnr[0] in ("another", "last-frame")
    assert table["erased"]["ssim"] > 0.9
    assert table["nearest-view"]["psnr"] > table["last-frame"]["psnr"]
    assert table["warp"]["psnr"] > table["nearest-view"]["psnr"]
    assert all(5 < entry["psnr"] < 70 and 0 < entry["ssim"] < 1 for entry in table.values())


def test_the_protocol_card_says_which_row_it_is_and_what_it_reads(table, place):
    card = (place / "erased.scores" / "protocol.md").read_text()
    assert "none: the model-free row erased" in card
    assert "what no model may see: the true target" in card
    assert "3 clips drawn again by the renderer" in card
    card = (place / "warp.scores" / "protocol.md").read_text()
    assert ROWS["warp"].definition in card
    assert "what a model is given" in card


def test_a_row_is_no_entry_of_a_benchmark(hm, table, place, tmp_path):
    done = hm("bench", "score", place / "warp.scores", "--name", "me", "--out", tmp_path / "scores.json")
    assert done.returncode == 2
    assert "this is the model-free row warp" in done.stderr


# --- what rows show --------------------------------------------------------------------------------------------------


def test_views_are_frames_of_the_context(rows, clips):
    chosen = []
    for source in open_dataset(clips, PosesConfig()).clips:
        cameras, context = read_cameras(source), read_video(source.files["context"]).astype(int)
        assert np.abs(video(rows, "last-frame", source.id) - context[-1]).mean() < COMPRESSED / 2
        nearest = [int(farness(pose, cameras.context).argmin()) for pose in cameras.target]
        assert np.abs(video(rows, "nearest-view", source.id) - context[nearest]).mean() < COMPRESSED / 2
        chosen.append(len(set(nearest)))
    assert max(chosen) > 3


def test_the_truth_is_itself_and_another_clip_is_the_next_ones_truth(rows, clips):
    true = {clip: read_video(clips / clip / "tgt.mp4").astype(int) for clip in CLIPS}
    for clip, after in zip(CLIPS, [*CLIPS[1:], CLIPS[0]], strict=True):
        assert np.abs(video(rows, "truth", clip) - true[clip]).mean() < 3
        assert np.abs(video(rows, "another", clip) - true[after]).mean() < 3
        assert np.abs(video(rows, "another", clip) - true[clip]).mean() > 2 * COMPRESSED


def test_the_codecs_row_is_what_comes_back_from_its_latents(rows, clips):
    codec, clip = mini_codec(CodecConfig(name="mini"), "cpu"), row_clip(clips, CLIPS[0])
    back = decode_video(encode_video(clip.target, codec, "cpu"), codec, "cpu").astype(int)
    assert np.abs(video(rows, "codec-mini", CLIPS[0]) - back).mean() < 3
    short = replace(clip, source=clip.source)
    short.__dict__["target"] = clip.target[:19, :30, :44]  # neither 4k+1 frames, nor sides that the codec takes
    drawn = ROWS["codec-mini"].draw(short)[0]
    assert drawn.shape == (19, 30, 44, 3)
    assert np.abs(drawn.astype(int) - short.target).mean() < 2 * np.abs(back - clip.target).mean()


def test_one_clip_alone_has_no_other(hm, plain, tmp_path):
    shutil.copytree(plain / CLIPS[0], tmp_path / "one" / CLIPS[0])
    (tmp_path / "one" / "caption.txt").write_text(f"{CLIPS[0]}\tsomebody\n", encoding="utf-8")
    done = hm("bench", "rows", tmp_path / "one", "--out", tmp_path / "rows", "--dry-run")
    assert "without another: no clip has a clip beside it" in done.stderr
    done = hm("bench", "rows", tmp_path / "one", "--out", tmp_path / "rows", "--row", "another")
    assert (done.returncode, "the row another needs a clip beside it" in done.stderr) == (2, True)


@pytest.mark.parametrize("clip", CLIPS)
def test_erased_is_the_truth_where_no_subject_is_and_not_where_one_is(clip, rows, clips):
    true, found = read_video(clips / clip / "tgt.mp4").astype(int), video(rows, "erased", clip)
    body = read_annotations(clips / clip).instances[21:] > 0
    error = np.abs(found - true).mean(-1)
    around = ~widened(body, 3)
    assert np.median(error[around]) <= 3
    assert (error[around] > COMPRESSED).mean() < 0.06  # shadows, and what compression makes of their edges
    inside = body & ~widened(~body, 1)
    assert error[inside].mean() > 2 * COMPRESSED


@pytest.mark.parametrize("made", ["rows", "by_views"])
def test_frozen_shows_subjects_where_the_context_last_shows_them_and_not_where_they_are(made, clips, request):
    rows, there, elsewhere = request.getfixturevalue(made), [], []
    for clip in CLIPS:
        about = read_annotations(clips / clip)
        source = next(one for one in open_dataset(clips, PosesConfig()).clips if one.id == clip)
        poses, lens = read_cameras(source).target, json.loads((clips / clip / "intrinsics.json").read_text())
        changed = np.abs(video(rows, "frozen", clip) - video(rows, "erased", clip)).mean(-1)
        then = [middles(state, poses, lens, [last_seen(about, state)] * 21) for state in about.subjects]
        for state in about.subjects:
            for frame, at in enumerate(middles(state, poses, lens, range(21, 42))):
                if inside(at) and all(np.abs(one[frame] - at).max() > 10 for one in then):
                    elsewhere.append(changed[frame, int(at[1]), int(at[0])])
        there += [changed[t, int(at[1]), int(at[0])] for one in then for t, at in enumerate(one) if inside(at)]
    assert len(there) > 20
    assert len(elsewhere) > 5
    assert (np.array(there) > 2 * COMPRESSED).mean() > 0.7
    assert (np.array(elsewhere) > 2 * COMPRESSED).mean() < 0.1


def last_seen(about: ClipAnnotations, state: SubjectState) -> int:
    return int(np.flatnonzero((about.instances[:21] == state.number).any((1, 2)))[-1])


def middles(state: SubjectState, poses: np.ndarray, lens: dict[str, float], moments: Sequence[int]) -> np.ndarray:
    """(T, 2) x, y of the middle of a subject's body in each frame of the target, where it was at a moment of its."""
    found = []
    for pose, moment in zip(poses, moments, strict=True):
        foot = state.position[moment]
        x, y, z = (foot - pose[:3, 3] + np.array([0, 0, state.height / 2])) @ pose[:3, :3]
        found.append([lens["fx"] * x / z + lens["cx"], lens["fy"] * y / z + lens["cy"]] if z > 0.5 else [-99, -99])
    return np.array(found)


def inside(at: Sequence[float]) -> bool:
    return 3 < at[0] < 45 and 3 < at[1] < 29


def test_pasted_subjects_go_on_from_where_the_context_last_shows_them_whole(rows, clips):
    """The row paste is the row warp but for subjects; where they are is told by their true states in the context."""
    found = []
    for source in open_dataset(clips, PosesConfig()).clips:
        about, clip = read_annotations(clips / source.id), row_clip(clips, source.id)
        lens = json.loads((clips / source.id / "intrinsics.json").read_text())
        changed = np.abs(video(rows, "paste", source.id) - video(rows, "warp", source.id)).mean(-1)
        assert np.median(changed) <= 2
        for number, cut in zip(clip.last_seen, clip.cutouts, strict=True):
            state = next(state for state in about.subjects if state.number == number)
            if cut.frame < 9:
                continue  # it was seen for too short a time
            velocity = (state.position[cut.frame] - state.position[cut.frame - 9]) / 9
            np.testing.assert_allclose(cut.velocity, velocity, atol=0.03)  # metres per frame; a step is about 0.1
            ahead = 21 + np.arange(21) - cut.frame
            straight = replace(state, position=state.position[cut.frame] + velocity * ahead[:, None])
            for t, (x, y) in enumerate(middles(straight, clip.poses[1], lens, range(21))):
                if inside((x, y)):
                    found.append(changed[t, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].max())
    assert len(found) > 15
    assert (np.array(found) > 2 * COMPRESSED).mean() > 0.6


def test_pasted_subjects_are_gone_from_where_the_context_showed_them(rows, clips):
    found = []
    for name in CLIPS:
        clip = row_clip(clips, name)
        bodies = np.repeat(255 * (clip.context_labels > 0)[..., None], 3, -1).astype(np.uint8)
        views = views_of(bodies, clip.poses[0], clip.intrinsics)
        shown = np.stack([homography_warp(views, pose)[..., 0] for pose in clip.poses[1]]) == 255
        found.append(np.abs(video(rows, "paste", name) - video(rows, "warp", name)).mean(-1)[shown])
    apart = np.concatenate(found)
    assert len(apart) > 200
    assert (apart > COMPRESSED).mean() > 0.7


# --- clips that cannot be drawn again --------------------------------------------------------------------------------


def test_where_clips_cannot_be_drawn_again_other_frames_say_what_is_behind_a_subject(by_views, clips, rows):
    ways = {line["made"] for row in ("erased", "frozen") for line in lines(by_views / row)}
    assert ways == {"from other frames by depth (the data set does not say how it was drawn)"}
    for clip in CLIPS:
        true, found = read_video(clips / clip / "tgt.mp4").astype(int), video(by_views, "erased", clip)
        body = read_annotations(clips / clip).instances[21:] > 0
        error = np.abs(found - true).mean(-1)
        assert error[~widened(body, 4)].max() < 4 * COMPRESSED  # shadows stay
        behind = np.abs(found - video(rows, "erased", clip)).mean(-1)
        assert behind[body].mean() < error[body].mean() / 2


def test_a_clip_is_drawn_again_only_where_it_comes_out_as_it_is(clips, tmp_path):
    dataset = open_dataset(clips, PosesConfig())
    first, second = dataset.clips[:2]
    origin, true = origin_of(dataset), read_video(first.files["target"])
    assert redraw(origin, first, true).target.shape == true.shape
    with pytest.raises(DataError, match="draws other pictures"):
        redraw(origin, first, read_video(second.files["target"]))
    swapped = replace(origin, draws={first.id: origin.draws[second.id]})
    with pytest.raises(DataError, match="moves its camera or its subjects otherwise"):
        redraw(swapped, first, true)
    with pytest.raises(DataError, match="does not describe it"):
        redraw(replace(origin, world={"clips": "many"}), first, true)
    with pytest.raises(DataError, match="does not say how it was drawn"):
        redraw(swapped, second, true)
    shutil.copytree(clips, tmp_path / "clips", ignore=shutil.ignore_patterns("subjects.json"))
    with pytest.raises(DataError, match="do not say how its camera and its subjects move"):
        redraw(origin, row_clip(tmp_path / "clips", first.id).source, true)


def test_a_manifest_that_does_not_say_how_the_world_is_says_nothing_of_how_clips_were_drawn(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "clips")
    for change in (lambda recipe: recipe.update(world="hard"), lambda recipe: recipe.pop("world")):
        edit(tmp_path / "clips" / "manifest.json", lambda values, change=change: change(values["recipe"]))
        assert origin_of(open_dataset(tmp_path / "clips", PosesConfig())) is None


def test_a_row_without_its_files_is_left_out_or_refused(hm, plain, tmp_path):
    shutil.copytree(plain, tmp_path / "flat", ignore=shutil.ignore_patterns("depth.npz"))
    done = hm("bench", "rows", tmp_path / "flat", "--out", tmp_path / "rows", "--dry-run")
    assert done.returncode == 0
    assert "without depth-warp: no clip has depth" in done.stderr
    assert "row warp (context) of 3 clips" in done.stderr
    assert not (tmp_path / "rows").exists()
    done = hm("bench", "rows", tmp_path / "flat", "--out", tmp_path / "rows", "--row", "paste")
    assert (done.returncode, "the row paste needs depth" in done.stderr) == (2, True)


def test_a_clip_without_the_files_of_a_row_is_set_aside(hm, plain, tmp_path):
    shutil.copytree(plain, tmp_path / "holes")
    (tmp_path / "holes" / CLIPS[1] / "depth.npz").unlink()
    (tmp_path / "holes" / CLIPS[2] / "depth.npz").write_bytes(b"PK\x03\x04")
    done = hm("bench", "rows", tmp_path / "holes", "--out", tmp_path / "rows", "--row", "paste", "--json")
    assert done.returncode == 4
    said = {one["item"]: one["reason"].splitlines()[0] for one in json.loads(done.stdout)["quarantined"]}
    assert said == {f"paste/{CLIPS[1]}": "the clip has no depth", f"paste/{CLIPS[2]}": "the depth cannot be read"}
    assert [line["id"] for line in lines(tmp_path / "rows" / "paste")] == [CLIPS[0]]


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (lambda tgt: tgt[:-3], "depth of shape (18, 32, 48) for frames of shape (21, 32, 48)"),
        (lambda tgt: tgt[:, :5], "depth of shape (21, 5, 48) for frames of shape (21, 32, 48)"),
        (lambda tgt: np.where(tgt < 9, np.nan, tgt), "the depth holds values that are no distance"),
        (lambda tgt: -tgt, "the depth holds values that are no distance"),
        (lambda tgt: tgt.astype(str), "the depth holds values that are no distance"),
    ],
)
def test_depth_that_is_none_of_the_frames_is_refused(vary, said, plain, tmp_path):
    shutil.copytree(plain / CLIPS[0], tmp_path / "clips" / CLIPS[0])
    (tmp_path / "clips" / "caption.txt").write_text(f"{CLIPS[0]}\tsomebody\n", encoding="utf-8")
    file = tmp_path / "clips" / CLIPS[0] / "depth.npz"
    with np.load(file) as parts:
        made = {name: vary(values) if name == "tgt" else values for name, values in parts.items()}
    np.savez(file, **made)
    with pytest.raises(DataError) as error:
        row_clip(tmp_path / "clips", CLIPS[0]).depth  # noqa: B018
    assert (error.value.what, error.value.where["file"]) == (said, file)


def test_clips_without_subjects_are_their_warp_and_their_truth(plain, tmp_path):
    data = tmp_path / "clips"
    shutil.copytree(plain, data)
    for file in (data / CLIPS[0]).glob("*_instances.mp4"):
        write_video(file, np.zeros((21, 32, 48), np.uint8), fps=10, quality="lossless")
    clip = row_clip(data, CLIPS[0])
    np.testing.assert_array_equal(ROWS["paste"].draw(clip)[0], ROWS["warp"].draw(clip)[0])
    for row in ("erased", "frozen"):
        np.testing.assert_array_equal(ROWS[row].draw(clip)[0], clip.target)


def test_half_a_data_set_is_refused_and_half_a_clip_set_aside(hm, clips, plain, tmp_path):
    shutil.copytree(clips, tmp_path / "half", ignore=shutil.ignore_patterns("manifest.json"))
    done = hm("bench", "rows", tmp_path / "half", "--out", tmp_path / "rows")
    assert (done.returncode, "the data set is unfinished" in done.stderr) == (3, True)
    shutil.copytree(plain, tmp_path / "parts", ignore=shutil.ignore_patterns("subjects.json"))
    (tmp_path / "parts" / CLIPS[0] / "tgt.mp4").unlink()
    (tmp_path / "parts" / CLIPS[1] / "camera.json").unlink()
    ask = ("bench", "rows", tmp_path / "parts", "--out", tmp_path / "rows", "--row", "last-frame", "--row", "erased")
    done = hm(*ask, "--json")
    said = {one["item"]: one["reason"].splitlines()[0] for one in json.loads(done.stdout)["quarantined"]}
    assert done.returncode == 4
    assert said == {
        f"last-frame/{CLIPS[1]}": "the clip has no camera.json",
        f"erased/{CLIPS[1]}": "the clip has no camera.json",
        f"erased/{CLIPS[0]}": "the clip has no target",
    }
    assert [line["id"] for line in lines(tmp_path / "rows" / "last-frame")] == [CLIPS[0], CLIPS[2]]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [(((31, 47), (31, 47)), "even sides, these clips are 31x47"), (((32, 48), (32, 46)), "the clips differ in size")],
)
def test_clips_that_no_generation_can_hold_are_refused(sizes, said, plain, tmp_path):
    for clip, size in zip(CLIPS, sizes, strict=False):
        shutil.copytree(plain / clip, tmp_path / "clips" / clip, ignore=shutil.ignore_patterns("*.mp4"))
        for part in ("cond", "tgt"):
            video = np.zeros((21, *size, 3), np.uint8)
            write_video(tmp_path / "clips" / clip / f"{part}.mp4", video, fps=10, quality="lossless")
    with pytest.raises(DataError, match=said):
        run(tmp_path / "clips", out=tmp_path / "rows", rows=(), reporter=Silent())


# --- a stage like the others -----------------------------------------------------------------------------------------


def test_an_unknown_row_is_refused_with_the_known_ones():
    with pytest.raises(UsageError) as error:
        find_rows(["warp", "magic"])
    assert "magic" in error.value.what
    assert "last-frame, nearest-view, warp" in error.value.fix
    assert [row.name for row in find_rows(["depth_warp", "warp", "warp"])] == ["warp", "depth-warp"]


def test_a_second_run_keeps_what_is_there_and_processes_make_the_same(hm, clips, rows, tmp_path):
    before = (rows / "warp" / "manifest.json").read_bytes()
    done = hm("bench", "rows", clips, "--out", rows, "--row", "warp", "--dry-run")
    assert "there already: 3 kept" in done.stderr
    again = ok(hm("bench", "rows", clips, "--out", rows, "--row", "warp"))
    assert (again / "warp" / "manifest.json").read_bytes() == before
    two = ok(hm("bench", "rows", clips, "--out", tmp_path / "two", "--row", "warp", "--num-processes", 2))
    for clip in CLIPS:
        name = f"warp/videos/{clip}.mp4"
        assert (two / name).read_bytes() == (rows / name).read_bytes()


def test_what_a_video_was_made_from_decides_whether_it_is_kept(hm, plain, tmp_path):
    data, out = tmp_path / "clips", tmp_path / "rows"
    shutil.copytree(plain, data)
    ask = ("bench", "rows", data, "--out", out, "--row", "depth-warp", "--row", "last-frame")
    ok(hm(*ask))
    with np.load(data / CLIPS[0] / "depth.npz") as parts:
        nearer = {name: values / 2 for name, values in parts.items()}
    np.savez_compressed(data / CLIPS[0] / "depth.npz", **nearer)
    said = hm(*ask, "--dry-run").stderr
    assert "there already: 2 kept, 1 replaced" in said
    assert "there already: 3 kept\n" in said  # the last frame has no depth in it


def test_a_truth_drawn_again_is_another_video_than_one_by_views(hm, by_views, plain, clips, tmp_path):
    data, out = tmp_path / "clips", tmp_path / "rows"
    shutil.copytree(plain, data)
    shutil.copytree(by_views, out)
    ask = ("--out", out, "--row", "erased", "--dry-run")
    assert "there already: 3 kept\n" in hm("bench", "rows", data, *ask).stderr
    (data / CLIPS[0] / "subjects.json").write_text("[]")
    assert "there already: 2 kept, 1 replaced" in hm("bench", "rows", data, *ask).stderr
    assert "there already: 3 replaced" in hm("bench", "rows", clips, *ask).stderr  # it says how it was drawn


def test_fewer_clips_are_refused_unless_the_others_may_go(hm, plain, tmp_path):
    data, out = tmp_path / "clips", tmp_path / "rows"
    shutil.copytree(plain, data)
    ok(hm("bench", "rows", data, "--out", out, "--row", "last-frame"))
    shutil.rmtree(data / CLIPS[2])
    captions = (data / "caption.txt").read_text().splitlines()
    (data / "caption.txt").write_text("\n".join(captions[:2]) + "\n")
    refused = hm("bench", "rows", data, "--out", out, "--row", "last-frame")
    assert (refused.returncode, "1 finished items would go" in refused.stderr) == (2, True)
    ok(hm("bench", "rows", data, "--out", out, "--row", "last-frame", "--prune"))
    assert [line["id"] for line in lines(out / "last-frame")] == CLIPS[:2]


def test_rows_are_not_written_into_an_artifact(hm, clips):
    done = hm("bench", "rows", clips, "--out", clips)
    assert (done.returncode, "holds something else" in done.stderr) == (2, True)
