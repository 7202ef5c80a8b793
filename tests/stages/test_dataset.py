"""Data sets end to end: real clips, small made-up ones, and everything that must be refused or set aside."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.recipe.sections import DataConfig, PosesConfig, SplitConfig
from hmcli.runtime import Silent
from hmcli.stages.data.loading import framed_intrinsics, load_clip
from hmcli.stages.data.opening import ClipSource, Dataset, open_dataset
from hmcli.stages.sampling.generations import Generated, find_reference
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.manifest import make_manifest
from hmcli.store.video import write_video
from hmcli.world.views.cameras import relative_camera_rows, unreal_from_world

SIZE = (32, 48)  # of the made-up videos: height, width
SMALL = DataConfig(size=(16, 24))
REFUSE = PosesConfig()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def make_video(path: Path, frames: int, seed: int = 0) -> np.ndarray:
    """A video whose brightness tells the frame: frame i is grey 40 + 8 i, with a brighter left half."""
    levels = (40 + 8 * np.arange(frames) + seed).astype(np.uint8)
    video = np.broadcast_to(levels[:, None, None, None], (frames, *SIZE, 3)).copy()
    video[:, :, : SIZE[1] // 2] += 30
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, video, fps=15, quality="lossless")
    return video


def track(frames: int, start: float = 0.0) -> np.ndarray:
    """A camera that turns about Z and moves along X: (T, 4, 4) world_from_camera."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for frame, angle in enumerate(start + 0.02 * np.arange(frames)):
        right = [np.sin(angle), -np.cos(angle), 0]
        forward = [np.cos(angle), np.sin(angle), 0]
        poses[frame, :3, :3] = np.stack([right, [0, 0, -1], forward], axis=1)
        poses[frame, 0, 3] = angle * 3
    return poses


def camera_json(path: Path, context: np.ndarray, target: np.ndarray | None = None) -> None:
    parts = {"cond_cam": context, **({"tgt_cam": target} if target is not None else {})}
    content = {
        key: {str(frame): matrix.tolist() for frame, matrix in enumerate(unreal_from_world(poses))}
        for key, poses in parts.items()
    }
    path.write_text(json.dumps(content))


def make_clip(folder: Path, context: int = 9, target: int | None = 5, seed: int = 0) -> None:
    """One clip in the released layout; without `target` only its cameras are there."""
    make_video(folder / "cond.mp4", context, seed)
    if target is not None:
        make_video(folder / "tgt.mp4", target, seed + 5)
    camera_json(folder / "camera.json", track(context), track(target or 5, start=0.5))


def only_clip(root: Path) -> ClipSource:
    dataset = open_dataset(root, REFUSE)
    assert not dataset.quarantined
    (clip,) = dataset.clips
    return clip


def reasons(dataset: Dataset) -> dict[str, str]:
    return {item.item: item.reason for item in dataset.quarantined}


# --- real clips ------------------------------------------------------------------------------------------------------


def test_the_published_examples_open_with_their_own_captions_and_cameras(shared):
    dataset = open_dataset(shared / "data" / "hm-world-examples", REFUSE)
    assert (dataset.layout, [clip.id for clip in dataset.clips], dataset.quarantined) == ("examples", list("1234"), ())
    lines = (shared / "data" / "hm-world-examples" / "caption.txt").read_text().splitlines()
    assert [clip.caption for clip in dataset.clips] == [line.strip() for line in lines]
    clip = load_clip(dataset.clips[2], DataConfig())
    assert (clip.context.shape, clip.target, clip.fps) == ((77, 64, 112, 3), None, 15.0)
    assert (clip.context_latent_frames, clip.camera_rows.shape) == (20, (40, 12))
    with np.load(shared / "golden" / "f_camera.npz", allow_pickle=False) as golden:
        wanted = np.concatenate([golden["cam3.ref_camera"], golden["cam3.target_camera"]])
    np.testing.assert_allclose(clip.camera_rows, wanted, rtol=0, atol=1e-4)


def test_a_real_clip_splits_into_two_supervised_halves_of_one_track(shared):
    dataset = open_dataset(shared / "data" / "hm-world-examples", REFUSE)
    data = DataConfig(split=SplitConfig(context=37, target=37))
    clip, whole = load_clip(dataset.clips[0], data), load_clip(dataset.clips[0], DataConfig())
    np.testing.assert_array_equal(clip.context, whole.context[:37])
    np.testing.assert_array_equal(clip.target, whole.context[37:74])
    np.testing.assert_array_equal(clip.target_poses, whole.context_poses[37:74])
    assert (clip.context_latent_frames, clip.camera_rows.shape) == (10, (20, 12))
    np.testing.assert_allclose(clip.camera_rows[10].reshape(3, 4), np.eye(4)[:3], atol=1e-5)
    assert any("last 3 of 77 frames" in note for note in clip.notes)


# --- made-up clips ---------------------------------------------------------------------------------------------------


def test_a_released_clip_loads_whole(tmp_path):
    make_clip(tmp_path / "c1")
    (tmp_path / "caption.txt").write_text("c1\ta grey wall\n")
    clip = load_clip(only_clip(tmp_path), SMALL)
    assert (clip.id, clip.caption, clip.fps) == ("c1", "a grey wall", 15.0)
    assert (clip.context.shape, clip.target.shape) == ((9, 16, 24, 3), (5, 16, 24, 3))
    np.testing.assert_allclose(clip.context[:, 8, 20, 0].astype(int), 40 + 8 * np.arange(9), atol=2)
    np.testing.assert_allclose(clip.target[:, 8, 3, 1].astype(int), 75 + 8 * np.arange(5), atol=2)
    np.testing.assert_allclose(clip.context_poses, track(9), atol=1e-9)
    np.testing.assert_allclose(clip.target_poses, track(5, start=0.5), atol=1e-9)
    poses = np.concatenate([track(9)[::4], track(5, start=0.5)[::4]])
    np.testing.assert_allclose(clip.camera_rows, relative_camera_rows(poses, track(1, start=0.5)[0]), atol=1e-9)
    assert clip.context_latent_frames == 3
    assert "not in the data set: cond_mask.mp4" in clip.notes[0]
    assert clip.intrinsics is None
    assert clip.context_mask is None


def test_context_only_clips_keep_their_target_cameras(tmp_path):
    make_clip(tmp_path / "c1", target=None)
    clip = load_clip(only_clip(tmp_path), SMALL)
    assert clip.target is None
    assert (clip.target_poses.shape, clip.camera_rows.shape) == ((5, 4, 4), (5, 12))


def test_masks_and_intrinsics_follow_the_frame(tmp_path):
    make_clip(tmp_path / "c1")
    subject = np.zeros((9, *SIZE, 3), dtype=np.uint8)
    subject[:, 8:24, 24:] = 255
    write_video(tmp_path / "c1" / "cond_mask.mp4", subject, fps=15, quality="lossless")
    intrinsics = {"fx": 60.0, "fy": 60.0, "cx": 24.0, "cy": 16.0, "width": SIZE[1], "height": SIZE[0]}
    (tmp_path / "c1" / "intrinsics.json").write_text(json.dumps(intrinsics))
    clip = load_clip(only_clip(tmp_path), DataConfig(size=(16, 16)))  # the middle 32x32, halved
    wanted = np.zeros((16, 16), dtype=np.uint8)
    wanted[4:12, 8:] = 1
    np.testing.assert_array_equal(clip.context_mask, np.broadcast_to(wanted, (9, 16, 16)))
    assert clip.target_mask is None
    np.testing.assert_allclose(clip.intrinsics, [30, 30, 8, 8])


def test_instance_masks_tell_subjects_apart(tmp_path):
    make_clip(tmp_path / "c1")
    labels = np.zeros((9, *SIZE), dtype=np.uint8)
    labels[:, :16, :] = 1
    labels[:, 16:, 24:] = 2
    write_video(tmp_path / "c1" / "cond_instances.mp4", labels, fps=15, quality="lossless")
    write_video(tmp_path / "c1" / "cond_mask.mp4", np.minimum(labels, 1) * 255, fps=15, quality="lossless")
    mask = load_clip(only_clip(tmp_path), SMALL).context_mask
    np.testing.assert_array_equal(mask, labels[:, ::2, ::2])


def test_one_red_mask_covers_context_and_target(tmp_path):
    make_clip(tmp_path / "c1")
    painted = np.full((14, *SIZE, 3), (40, 60, 200), dtype=np.uint8)
    painted[:9, :, :24] = (250, 10, 20)
    painted[9:, :, 24:] = (250, 10, 20)
    write_video(tmp_path / "c1" / "M_CustomDepth.mp4", painted, fps=15, quality="lossless")
    clip = load_clip(only_clip(tmp_path), SMALL)
    left = np.broadcast_to(np.arange(24) < 12, (16, 24))
    np.testing.assert_array_equal(clip.context_mask, np.broadcast_to(left, (9, 16, 24)))
    np.testing.assert_array_equal(clip.target_mask, np.broadcast_to(~left, (5, 16, 24)))
    write_video(tmp_path / "c1" / "M_CustomDepth.mp4", painted[:13], fps=15, quality="lossless")
    with pytest.raises(DataError, match="13 mask frames for 9 or 14"):
        load_clip(only_clip(tmp_path), SMALL)


def test_other_lengths_are_refused_trimmed_or_padded_as_the_recipe_says(tmp_path):
    make_clip(tmp_path / "c1", context=10, target=5)
    source = only_clip(tmp_path)
    with pytest.raises(DataError, match="10 frames are not 4k") as refused:
        load_clip(source, SMALL)
    assert "9 and 13" in str(refused.value)
    assert refused.value.where["clip"] == "c1"
    trimmed = load_clip(source, DataConfig(size=SMALL.size, frames="trim"))
    padded = load_clip(source, DataConfig(size=SMALL.size, frames="pad"))
    np.testing.assert_array_equal(trimmed.context, padded.context[:9])
    np.testing.assert_array_equal(padded.context[9:], np.repeat(padded.context[9:10], 4, axis=0))
    np.testing.assert_array_equal(padded.context_poses[10:], np.repeat(padded.context_poses[9:10], 3, axis=0))
    assert (len(trimmed.context_poses), len(padded.context_poses), len(padded.target)) == (9, 13, 5)
    assert "context: the last 1 of 10 frames are dropped (data.frames=trim)" in trimmed.notes
    assert "context: the last of 10 frames is repeated 3 times (data.frames=pad)" in padded.notes


def test_a_split_takes_both_halves_from_the_context_video(tmp_path):
    make_clip(tmp_path / "c1", context=12, target=5)
    source = only_clip(tmp_path)
    clip = load_clip(source, DataConfig(size=SMALL.size, split=SplitConfig(context=5, target=5)))
    np.testing.assert_allclose(clip.target[:, 8, 20, 0].astype(int), 40 + 8 * np.arange(5, 10), atol=2)
    np.testing.assert_allclose(clip.target_poses, track(12)[5:10], atol=1e-9)
    assert "the last 2 of 12 frames are left out by data.split" in clip.notes
    assert "the target video is left out by data.split" in clip.notes
    with pytest.raises(DataError, match=r"9 \+ 5 = 14 frames, the video has 12"):
        load_clip(source, DataConfig(size=SMALL.size, split=SplitConfig(context=9, target=5)))


def test_clips_without_target_cameras_can_only_be_split(tmp_path):
    make_video(tmp_path / "c1" / "cond.mp4", 10)
    camera_json(tmp_path / "c1" / "camera.json", track(10))
    source = only_clip(tmp_path)
    with pytest.raises(DataError, match="neither a target video nor") as refused:
        load_clip(source, SMALL)
    assert "data.split" in refused.value.fix
    assert load_clip(source, DataConfig(size=SMALL.size, split=SplitConfig(context=5, target=5))).target is not None


def test_ready_camera_rows_are_used_as_they_are(tmp_path):
    make_clip(tmp_path / "c1")
    poses = np.concatenate([track(9)[::4], track(5, start=0.5)[::4]])
    rows = relative_camera_rows(poses, poses[3])
    content = {"context_camera": rows[:3].tolist(), "video_camera": rows[3:].tolist()}
    (tmp_path / "c1" / "camera.json").write_text(json.dumps(content))
    source = only_clip(tmp_path)
    clip = load_clip(source, SMALL)
    np.testing.assert_array_equal(clip.camera_rows, rows)
    assert clip.context_poses is None
    with pytest.raises(DataError, match="cannot be split"):
        load_clip(source, DataConfig(size=SMALL.size, split=SplitConfig(context=5, target=1)))
    content["context_camera"] = rows[:2].tolist()
    (tmp_path / "c1" / "camera.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="2 camera rows for 3 latent frames"):
        load_clip(only_clip(tmp_path), SMALL)


def test_a_plain_folder_reads_captions_and_cameras_from_its_metadata(tmp_path):
    make_video(tmp_path / "a.mp4", 9)
    make_video(tmp_path / "a_after.mp4", 5)
    make_video(tmp_path / "b.mp4", 9)
    camera_json(tmp_path / "b.json", track(9), track(5, start=0.5))
    rows = [
        {"file_name": "a.mp4", "caption": "", "target": "a_after.mp4", "camera": "static"},
        {"file_name": "b.mp4", "caption": 'with, comma and "quotes"', "target": "", "camera": "b.json"},
        {"file_name": "c.mp4", "caption": "gone", "target": "", "camera": "b.json"},
    ]
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    dataset = open_dataset(tmp_path, REFUSE)
    still, moving = dataset.clips
    assert (still.caption, moving.caption) == ("", 'with, comma and "quotes"')
    assert "c.mp4 does not exist" in reasons(dataset)["c"]
    rows_still = load_clip(still, SMALL).camera_rows
    np.testing.assert_array_equal(rows_still, np.tile(np.eye(4)[:3].ravel(), (5, 1)))
    assert load_clip(moving, SMALL).camera_rows.shape == (5, 12)


# --- what is set aside, and what is refused --------------------------------------------------------------------------


def test_bad_clips_are_quarantined_with_their_reasons_and_the_others_stay(tmp_path):
    for name in ("good", "truncated", "counts", "nan", "text", "no_camera", "json"):
        make_clip(tmp_path / name)
    video = tmp_path / "truncated" / "cond.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    camera_json(tmp_path / "counts" / "camera.json", track(8), track(5))
    poses = track(9)
    poses[4, 0, 3] = np.nan
    camera_json(tmp_path / "nan" / "camera.json", poses, track(5))
    (tmp_path / "text" / "camera.json").write_text(json.dumps({"0": "[1 0 0 0]", "2": "x"}))
    (tmp_path / "no_camera" / "camera.json").unlink()
    (tmp_path / "json" / "camera.json").write_text("{")
    dataset = open_dataset(tmp_path, REFUSE)
    assert [clip.id for clip in dataset.clips] == ["good"]
    why = reasons(dataset)
    assert why.keys() == {"truncated", "counts", "nan", "text", "no_camera", "json"}
    assert "cond.mp4" in why["truncated"]
    assert "8 context cameras for 9 video frames" in why["counts"]
    assert "frame 4 is not finite" in why["nan"]
    assert "unreadable 0, 2" in why["text"]
    assert "no camera.json" in why["no_camera"]
    assert "not valid JSON" in why["json"]
    assert load_clip(dataset.clips[0], SMALL).context.shape == (9, 16, 24, 3)


def test_a_video_cut_off_behind_its_index_is_never_read_as_a_shorter_one(tmp_path):
    make_clip(tmp_path / "good")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (9, *SIZE, 3), dtype=np.uint8)
    make_clip(tmp_path / "cut")
    video = tmp_path / "cut" / "cond.mp4"
    write_video(video, noise, fps=15, quality="lossless")
    video.write_bytes(video.read_bytes()[: int(video.stat().st_size * 0.8)])
    dataset = open_dataset(tmp_path, REFUSE)
    assert "cut" in reasons(dataset)


def test_repaired_text_cameras_need_the_recipes_word(tmp_path):
    make_clip(tmp_path / "c1", context=9, target=9)
    matrices = unreal_from_world(track(13))
    text = {
        str(frame): " ".join(f"[{' '.join(map(repr, column.tolist()))}]" for column in matrix.T)
        for frame, matrix in enumerate(matrices)
        if frame != 0
    }
    (tmp_path / "c1" / "camera.json").write_text(json.dumps(text))
    with pytest.raises(DataError, match="none of the 1 clips can be used") as refused:
        open_dataset(tmp_path, REFUSE)
    assert "missing 0" in str(refused.value)
    (clip,) = open_dataset(tmp_path, PosesConfig(repair="reference")).clips
    poses = load_clip(clip, SMALL).context_poses
    np.testing.assert_allclose(poses, track(13)[[1, 1, 1, 2, 3, 4, 5, 6, 6]], atol=1e-9)


def test_shifted_captions_are_refused(tmp_path):
    for number in (1, 2, 3):
        make_video(tmp_path / f"{number}.mp4", 9, seed=number)
        camera_json(tmp_path / f"cam{number}.json", track(9), track(5))
    (tmp_path / "caption.txt").write_text("one\nthree\n")
    with pytest.raises(DataError, match=r"2 lines and the highest clip is 3\.mp4"):
        open_dataset(tmp_path, REFUSE)
    (tmp_path / "caption.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "2.mp4").unlink()
    assert [clip.caption for clip in open_dataset(tmp_path, REFUSE).clips] == ["one", "three"]


def test_a_folder_without_videos_or_without_a_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="the folder holds no videos"):
        open_dataset(tmp_path, REFUSE)
    with pytest.raises(DataError, match="there is no such folder"):
        open_dataset(tmp_path / "absent", REFUSE)
    with pytest.raises(DataError, match="this is a file"):
        open_dataset(tmp_path / "notes.txt", REFUSE)


def test_a_render_that_was_interrupted_is_refused(tmp_path):
    make_clip(tmp_path / "c1")
    (tmp_path / "clips.jsonl").write_text("")
    with pytest.raises(DataError, match="unfinished"):
        open_dataset(tmp_path, REFUSE)


# --- identity --------------------------------------------------------------------------------------------------------


def test_keys_follow_content_and_the_fingerprint_follows_every_clip(tmp_path):
    make_clip(tmp_path / "a")
    make_clip(tmp_path / "b", seed=3)
    before = open_dataset(tmp_path, REFUSE)
    shutil.copytree(tmp_path, copy := tmp_path.with_name("copy"))
    assert open_dataset(copy, REFUSE).fingerprint == before.fingerprint
    os.utime(tmp_path / "a" / "cond.mp4")
    assert open_dataset(tmp_path, REFUSE).fingerprint == before.fingerprint
    camera_json(tmp_path / "b" / "camera.json", track(9, start=0.1), track(5))
    after = open_dataset(tmp_path, REFUSE)
    assert after.clips[0].key == before.clips[0].key
    assert after.clips[1].key != before.clips[1].key
    assert after.fingerprint != before.fingerprint


def make_rendered(root: Path, ids: tuple[str, ...]) -> str:
    """A finished artifact of kind dataset; returns its fingerprint."""
    with ArtifactWriter(root, "dataset", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        for number, item in enumerate(ids):
            with writer.item_folder(item, "k", meta={"caption": f"a box, {item}"}) as folder:
                make_clip(folder, seed=number)
                (folder / "depth.npz").write_bytes(b"depth")
        (writer.staged / "clips.jsonl").write_text("".join(json.dumps({"id": item}) + "\n" for item in ids))
        (writer.staged / "caption.txt").write_text("".join(f"{item}\ta box, {item}\n" for item in ids))
        return writer.finish(ids).fingerprint


def test_a_rendered_data_set_has_the_fingerprint_of_its_manifest(tmp_path):
    fingerprint = make_rendered(tmp_path / "d", ("a", "b"))
    dataset = open_dataset(tmp_path / "d", REFUSE)
    assert (dataset.layout, dataset.fingerprint, dataset.notes) == ("rendered", fingerprint, ())


def edit_camera(root: Path) -> None:
    camera_json(root / "b" / "camera.json", track(9, start=0.1), track(5))


def edit_caption(root: Path) -> None:
    (root / "caption.txt").write_text("a\ta box, a\nb\ta sphere\n")


def add_mask(root: Path) -> None:
    shutil.copy(root / "b" / "cond.mp4", root / "b" / "cond_mask.mp4")


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (edit_camera, "1 clips changed since they were rendered: b"),
        (edit_caption, "1 clips changed since they were rendered: b"),
        (add_mask, "1 clips changed since they were rendered: b"),
        (lambda root: (root / "b" / "tgt.mp4").unlink(), "1 clips changed since they were rendered: b"),
        (lambda root: shutil.copytree(root / "b", root / "a2"), "1 clips added: a2"),
        (lambda root: shutil.rmtree(root / "b"), "1 clips gone: b"),
    ],
)
def test_a_rendered_data_set_that_was_edited_is_another_one_and_says_which_clips(tmp_path, change, note):
    fingerprint = make_rendered(root := tmp_path / "d", ("a", "b"))
    before = open_dataset(root, REFUSE)
    if note.endswith("a2"):
        (root / "caption.txt").write_text("a\ta box, a\na2\tanother\nb\ta box, b\n")
    change(root)
    after = open_dataset(root, REFUSE)
    assert after.fingerprint != fingerprint
    assert note in after.notes
    assert after.clips[0].key == before.clips[0].key


def test_two_different_edits_of_a_rendered_data_set_have_two_fingerprints(tmp_path):
    make_rendered(tmp_path / "d", ("a", "b"))
    edit_camera(tmp_path / "d")
    first = open_dataset(tmp_path / "d", REFUSE).fingerprint
    edit_caption(tmp_path / "d")
    assert open_dataset(tmp_path / "d", REFUSE).fingerprint != first


def test_what_was_set_aside_in_a_rendered_data_set_is_no_clip_of_it(tmp_path):
    make_rendered(tmp_path / "d", ("a", "b"))
    edit_camera(tmp_path / "d")
    make_rendered(tmp_path / "d", ("a", "b"))
    (tmp_path / "d" / "quarantine").mkdir(exist_ok=True)
    shutil.copytree(tmp_path / "d" / "b", tmp_path / "d" / "quarantine" / "b")
    dataset = open_dataset(tmp_path / "d", REFUSE)
    assert ([clip.id for clip in dataset.clips], dataset.quarantined, dataset.notes) == (["a", "b"], (), ())


def test_a_rendered_source_that_was_edited_is_no_default_reference(tmp_path):
    fingerprint = make_rendered(root := tmp_path / "d", ("a", "b"))
    manifest = make_manifest("generation", recipe={}, inputs={}, seed=0)
    generated = Generated(
        path=tmp_path, manifest=manifest, rows={}, samples={}, data=SMALL, poses=REFUSE, source=str(root),
        source_fingerprint=fingerprint, model_free=None,
    )  # fmt: skip
    dataset, why_not = find_reference(generated, None)
    assert dataset is not None
    edit_camera(root)
    dataset, why_not = find_reference(generated, None)
    assert dataset is None
    assert "has changed since the generation was made from it" in why_not


def test_sources_can_be_sent_to_worker_processes(tmp_path):
    make_clip(tmp_path / "a")
    source = only_clip(tmp_path)
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.mark.parametrize("written", [(32, 48), (32, 64)])
def test_a_lens_of_stored_or_shown_pixels_is_one_lens(tmp_path: Path, written: tuple[int, int]):
    height, width = written
    frames = np.full((5, 32, 48, 3), 90, np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=15)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    lens = {"fx": 60 * width / 64, "fy": 55, "cx": 30 * width / 64, "cy": 15, "width": width, "height": height}
    (tmp_path / "lens.json").write_text(json.dumps(lens), encoding="utf-8")
    row = {"file_name": "a.mp4", "text": "A wall.", "camera": "static", "intrinsics": "lens.json"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (source,) = open_dataset(tmp_path, PosesConfig()).clips
    found = framed_intrinsics(source, DataConfig(size=(32, 64)))
    assert found is not None
    np.testing.assert_allclose(found, [60, 55, 30, 15])


def test_a_nul_in_the_caption_file_sets_its_clip_aside(tmp_path: Path):
    for name in ("a", "b"):
        make_clip(tmp_path / name)
    (tmp_path / "caption.txt").write_text("a\ta\0wall\nb\tA wall.\n", encoding="utf-8")
    found = open_dataset(tmp_path, REFUSE)
    assert [clip.caption for clip in found.clips] == ["A wall."]
    assert [left.item for left in found.quarantined] == ["a"]
    assert r"holds '\x00', which is no letter" in found.quarantined[0].reason
