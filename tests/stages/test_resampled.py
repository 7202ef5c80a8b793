"""data.fps: clips brought to another rate by leaving out frames, with all that belongs to a frame, by either reader."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from warm import WarmCommand, ok

from hmcli.errors import DataError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import DataConfig, PosesConfig, SplitConfig
from hmcli.runtime import Silent
from hmcli.stages.data import pieces
from hmcli.stages.data.loading import load_clip
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.data.subjects import subject_tracks, target_boxes
from hmcli.stages.data.timing import taken
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import open_latents
from hmcli.store import video as v
from hmcli.store.files import read_json
from hmcli.store.hashing import read_content
from hmcli.store.manifest import read_manifest
from hmcli.world.files.layout import DEPTH, STATES
from hmcli.world.files.schema import parse_states
from hmcli.world.views.cameras import unreal_from_world

H, W = 32, 48
BY_FRAME = 10  # levels of brightness from frame to frame


def film(path: Path, times: list[float], suffix: str = ".mp4", last: float | None = None) -> Path:
    """A video whose frames say by their brightness which they are, shown at these times; the last stays 1/`last` s."""
    path = path.with_suffix(suffix)
    rate = 1 / (times[1] - times[0]) if len(times) > 1 else 30
    with av.open(str(path), "w") as container:
        rounded = Fraction(last or rate).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rounded, options={"qp": "1"})
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((H, W, 3), 5 + BY_FRAME * number, np.uint8), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 30000), round(30000 * time)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def even(frames: int, fps: float) -> list[float]:
    return [number / fps for number in range(frames)]


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames of a `film` these are."""
    return [round((float(frame.mean()) - 5) / BY_FRAME) for frame in frames]


def clip(folder: Path, context: list[float], target: list[float], name: str = "one") -> Path:
    """A clip of the released layout: frame i of each video is filmed i metres along, and i + 1 rows are its subject."""
    place = folder / name
    place.mkdir(parents=True)
    cameras = {}
    for part, camera, times in (("cond", "cond_cam", context), ("tgt", "tgt_cam", target)):
        film(place / part, times)
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        poses[:, 0, 3] = np.arange(len(times))
        cameras[camera] = {str(i): pose.tolist() for i, pose in enumerate(unreal_from_world(poses))}
        mask = (np.arange(H)[None, :, None] <= np.arange(len(times))[:, None, None]) * np.ones((1, 1, W), bool)
        v.write_video(place / f"{part}_mask.mp4", np.repeat(mask[..., None] * np.uint8(255), 3, axis=3), fps=30)
    (place / "camera.json").write_text(json.dumps(cameras))
    return folder


@pytest.fixture(params=["decord", "PyAV"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "decord":
        pytest.importorskip("decord")
    else:
        monkeypatch.setattr(v, "_read_decord", lambda *arguments: None)
    return request.param


UNEVEN = [0, 0.03, 0.07, 0.1, 0.2, 0.24, 0.3, 0.31, 0.4, 0.42, 0.5]  # as a phone films in the dark
TAKEN = [  # times of the frames, the rate asked for, the frames that are nearest
    (even(17, 30), 15, [0, 2, 4, 6, 8, 10, 12, 14, 16]),
    (even(13, 30), 20, [0, 1, 3, 4, 6, 7, 9, 10, 12]),
    (even(9, 30), 30, list(range(9))),
    (even(17, 24), 10, [0, 2, 5, 7, 10, 12, 14]),
    (even(9, 24000 / 1001), 23.98, list(range(9))),
    (UNEVEN, 10, [0, 3, 4, 6, 8, 10]),
    ([0.0], 5, [0]),
]  # fmt: skip


@pytest.mark.parametrize(("times", "fps", "wanted"), TAKEN)
def test_the_frames_nearest_in_time_are_taken(tmp_path: Path, times: list[float], fps: float, wanted: list[int]):
    info = v.probe_video(film(tmp_path / "film", times))
    assert taken(info, fps).tolist() == wanted
    assert taken(info, None).tolist() == list(range(len(times)))


def test_times_that_a_container_rounds_take_the_same_frames(tmp_path: Path):
    times = even(24, 30)
    found = [taken(v.probe_video(film(tmp_path / "film", times, suffix)), 29.9).tolist() for suffix in (".mp4", ".mkv")]
    assert found[0] == found[1] == list(range(23))


def test_how_long_the_last_frame_stays_is_not_part_of_the_rate(tmp_path: Path):
    info = v.probe_video(film(tmp_path / "film", even(9, 15), last=30))
    assert info.fps > 15.5
    assert taken(info, 15).tolist() == list(range(9))


REFUSED = [
    (even(9, 15), 30, r"data\.fps=30, but the video has 15 frames per second"),
    (even(9, 30000 / 1001), 30, r"data\.fps=30, but the video has 29\.97"),
    ([0, 0.03, 0.07, 0.1, 0.13, 0.5, 0.53], 12, r"data\.fps=12, but the video has 11\.321"),
    ([0, 0.03, 0.07, 0.1, 0.13, 0.5, 0.53], 10, r"would show frame 4 twice: .* between 0\.100 and 0\.500 s"),
]


@pytest.mark.parametrize(("times", "fps", "why"), REFUSED)
def test_no_frame_is_made_up_or_shown_twice(tmp_path: Path, times: list[float], fps: float, why: str):
    folder = clip(tmp_path / "clips", times, times)
    with pytest.raises(DataError, match="none of the 1 clips can be used") as refused:
        open_dataset(folder, PosesConfig(), fps=fps)
    assert re.search(why, str(refused.value))
    source = open_dataset(folder, PosesConfig()).clips[0]
    with pytest.raises(DataError, match=why):
        load_clip(source, DataConfig(size=(H, W), fps=fps, frames="trim"))


@pytest.mark.parametrize(
    ("times", "fps", "wanted"), [(even(17, 30), 15.0, [0, 2, 4, 6, 8, 10, 12, 14, 16]), (UNEVEN, 10.0, [0, 3, 4, 6, 8])]
)
def test_poses_and_masks_are_those_of_the_frames_taken(
    tmp_path: Path, reader: str, times: list[float], fps: float, wanted: list[int]
):
    source = open_dataset(clip(tmp_path / "clips", times, times), PosesConfig(), fps=fps).clips[0]
    data = DataConfig(size=(H, W), fps=fps, frames="trim")
    loaded = load_clip(source, data)
    assert loaded.fps == fps
    assert any("frames are taken" in note and f"to {fps:g} per second" in note for note in loaded.notes)
    assert loaded.target is not None
    assert loaded.context_poses is not None
    assert loaded.target_poses is not None
    assert loaded.context_mask is not None
    assert loaded.target_mask is not None
    for video, poses, mask in (
        (loaded.context, loaded.context_poses, loaded.context_mask),
        (loaded.target, loaded.target_poses, loaded.target_mask),
    ):
        assert numbers(video) == wanted
        assert poses[:, 0, 3].round(6).tolist() == wanted
        assert (mask[:, :, 0].sum(axis=1) - 1).tolist() == wanted
    assert numbers(pieces.context_video(source, data)) == numbers(pieces.target_video(source, data)) == wanted
    np.testing.assert_array_equal(pieces.target_masks(source, data), loaded.target_mask)


def test_a_split_counts_the_frames_that_are_taken(tmp_path: Path, reader: str):
    source = open_dataset(clip(tmp_path / "clips", even(20, 30), even(5, 30)), PosesConfig()).clips[0]
    data = DataConfig(size=(H, W), fps=15, split=SplitConfig(context=5, target=5))
    loaded = load_clip(source, data)
    assert loaded.target is not None
    assert loaded.target_poses is not None
    assert (numbers(loaded.context), numbers(loaded.target)) == ([0, 2, 4, 6, 8], [10, 12, 14, 16, 18])
    assert loaded.target_poses[:, 0, 3].round(6).tolist() == [10, 12, 14, 16, 18]
    assert numbers(pieces.target_video(source, data)) == pieces.target_frames(source, data) == [10, 12, 14, 16, 18]
    with pytest.raises(DataError, match=r"5 \+ 9 = 14 frames, the video has 10 at data\.fps=15"):
        load_clip(source, DataConfig(size=(H, W), fps=15, split=SplitConfig(context=5, target=9)))


def test_depth_and_subjects_are_those_of_the_frames_taken(clips: Path):
    source = open_dataset(clips, PosesConfig()).clips[0]
    folder = source.files["context"].parent
    states = parse_states(read_json(folder / STATES))
    every, some = DataConfig(size=(H, W)), DataConfig(size=(H, W), fps=8)
    wanted = taken(source.context_info, 8)
    assert wanted.tolist() == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 19, 20]
    depth, whole = (pieces.clip_depth(source, read_content(folder / DEPTH), data) for data in (some, every))
    np.testing.assert_array_equal(depth.context_NHW, whole.context_NHW[wanted])
    np.testing.assert_array_equal(depth.target_THW, whole.target_THW[wanted])
    boxes, whole_boxes = (target_boxes(source, states, data) for data in (some, every))
    np.testing.assert_array_equal(boxes.amodal_TS4, whole_boxes.amodal_TS4[wanted])
    tracks = subject_tracks(source, states, some)
    assert tracks.target_T.tolist() == (21 + wanted).tolist()
    np.testing.assert_array_equal(
        pieces.clip_cameras(source, some).target_T44, pieces.clip_cameras(source, every).target_T44[wanted]
    )


def test_mixed_rates_become_one_and_the_latents_say_so(hm: WarmCommand, nano: Path, tmp_path: Path):
    folder = clip(tmp_path / "clips", even(17, 30), even(17, 30), "fast")
    clip(folder, even(9, 15), even(9, 15), "slow")
    mixed = hm("encode", folder, "--recipe", nano, "--out", tmp_path / "mixed.zarr")
    ok(mixed)
    assert "clips differ in frames per second" in mixed.stderr
    done = hm("encode", folder, "--recipe", nano, "--out", tmp_path / "even.zarr", "--set", "data.fps=15")
    view = open_latents(ok(done))
    assert "differ" not in done.stderr
    assert "9 of 17 frames are taken, from 30 to 15 per second" in done.stderr
    assert read_manifest(tmp_path / "even.zarr").recipe["data"]["fps"] == 15
    assert [view.clip(name).fps for name in view.ids()] == [15, 15]
    assert [view.clip(name).latents.shape[1] for name in view.ids()] == [6, 6]


def test_another_rate_is_another_key(nano: Path, tmp_path: Path):
    folder = clip(tmp_path / "clips", even(17, 30), even(17, 30))
    source = open_dataset(folder, PosesConfig()).clips[0]
    keys = {encode.clip_key(source, load_recipe(nano, words), "") for words in ([], ["data.fps=15"], ["data.fps=7.5"])}
    assert len(keys) == 3


def test_cameras_that_are_rows_of_latent_frames_cannot_be_resampled(tmp_path: Path):
    folder = clip(tmp_path / "clips", even(17, 30), even(17, 30))
    still = np.tile(np.eye(4)[:3].reshape(12), (5, 1)).tolist()
    rows = {"context_camera": still, "video_camera": still}
    (folder / "one" / "camera.json").write_text(json.dumps(rows))
    source = open_dataset(folder, PosesConfig()).clips[0]
    with pytest.raises(DataError, match="rows per latent frame cannot be resampled"):
        load_clip(source, DataConfig(size=(H, W), fps=15))


def test_dry_run_names_clips_that_cannot_be_brought_to_the_rate(nano: Path, tmp_path: Path):
    folder = clip(tmp_path / "clips", even(9, 30), even(9, 30), "fast")
    clip(folder, even(9, 10), even(9, 10), "slow")
    recipe = load_recipe(nano, ["data.fps=15", "data.frames=trim"])
    found = encode.run(
        recipe, data=folder, out=tmp_path / "l", force=False, device="cpu", reporter=Silent(), dry_run=True
    )
    assert [left.item for left in found.quarantined] == ["slow"]
    assert not (tmp_path / "l").exists()
