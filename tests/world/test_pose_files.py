"""Poses of real videos: three formats written by hand from known cameras come back as those cameras."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hmcli.errors import DataError
from hmcli.world.files.pose_files import (
    PoseTrack,
    parse_colmap_binary,
    parse_colmap_text,
    parse_nerfstudio,
    parse_tum,
)
from hmcli.world.files.pose_times import at_video_frames


def cameras(count: int, seed: int = 0) -> np.ndarray:
    """(T, 4, 4) world_from_camera that turn about a tilted axis and move."""
    rng = np.random.default_rng(seed)
    poses = np.repeat(np.eye(4)[None], count, axis=0)
    turns = np.linspace(0.1, 0.9, count)[:, None] * rng.normal(size=3)
    poses[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    poses[:, :3, 3] = np.linspace(0, 2, count)[:, None] * rng.normal(size=3)
    return poses


def colmap_rows(poses: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Quaternion (w first) and translation of camera_from_world, as COLMAP stores them."""
    inverse = np.linalg.inv(poses)
    return [(Rotation.from_matrix(p[:3, :3]).as_quat()[[3, 0, 1, 2]], p[:3, 3]) for p in inverse]


def colmap_text(poses: np.ndarray, names: list[str]) -> str:
    rows = [
        f"{i + 1} {' '.join(map(repr, map(float, q)))} {' '.join(map(repr, map(float, t)))} 1 {name}\n1.0 2.0 -1"
        for i, ((q, t), name) in enumerate(zip(colmap_rows(poses), names, strict=True))
    ]
    return "# Image list with two lines of data per image:\n" + "\n".join(rows) + "\n"


def test_colmap_text_gives_back_the_cameras_and_the_lens_in_order_of_the_images_names():
    poses = cameras(3)
    text = colmap_text(poses[[2, 0, 1]], ["f10.png", "f1.png", "f2.png"])
    track = parse_colmap_text("# c\n1 SIMPLE_RADIAL 640 480 500.5 320 240 0\n", text)
    assert track.names == ("f1.png", "f2.png", "f10.png")
    assert np.allclose(track.world_from_camera, poses, atol=1e-12)
    assert track.lens is not None
    assert (track.lens.focal, track.lens.centre, track.lens.size) == ((500.5, 500.5), (320, 240), (480, 640))
    assert not track.lens.distorted


def test_an_image_without_points_does_not_swallow_the_next_one():
    poses = cameras(2)
    text = colmap_text(poses, ["1.png", "2.png"]).replace("1.0 2.0 -1", "")
    assert len(parse_colmap_text("1 PINHOLE 8 6 5 5 4 3\n", text).world_from_camera) == 2


def test_colmap_binary_says_the_same_as_its_text():
    poses = cameras(4, seed=1)
    names = [f"image {i}.jpg" for i in range(4)]
    lens = struct.pack("<Q", 1) + struct.pack("<iiQQ", 1, 4, 64, 48) + struct.pack("<8d", 50, 51, 32, 24, 0.1, 0, 0, 0)
    images = struct.pack("<Q", 4)
    for i, (q, t) in enumerate(colmap_rows(poses)):
        images += struct.pack("<i7di", i + 1, *q, *t, 1) + names[i].encode() + b"\0"
        images += struct.pack("<Q", i) + struct.pack("<ddq", 1.0, 2.0, 3) * i
    track = parse_colmap_binary(lens, images)
    same = parse_colmap_text("1 OPENCV 64 48 50 51 32 24 0.1 0 0 0", colmap_text(poses, names))
    assert track.names == same.names
    assert np.allclose(track.world_from_camera, same.world_from_camera, atol=1e-12)
    assert track.lens == same.lens
    assert track.lens is not None
    assert track.lens.distorted
    with pytest.raises(DataError, match="not whole"):
        parse_colmap_binary(lens, images[:-10])


def test_a_tum_trajectory_is_world_from_camera_with_the_scalar_last():
    poses = cameras(3)
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    lines = [
        f"{10 + 0.5 * i} {' '.join(map(repr, map(float, p[:3, 3])))} {' '.join(map(repr, map(float, q)))}"
        for i, (p, q) in enumerate(zip(poses, quaternions, strict=True))
    ]
    track = parse_tum("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(lines))
    assert np.allclose(track.world_from_camera, poses, atol=1e-12)
    assert track.times is not None
    assert track.times.tolist() == [10, 10.5, 11]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 1", "2: 2 0 0"),
        ("1 0 0 0 0 0 0 2", "length 2"),
        ("1 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1", "does not go on at pose 2"),
        ("# nothing\n", "empty"),
        ("1 0 0 x 0 0 0 1", "'x'"),
    ],
)
def test_a_bad_line_of_a_trajectory_is_named(text: str, said: str):
    with pytest.raises(DataError) as error:
        parse_tum(text)
    assert said in str(error.value)


def test_nerfstudio_cameras_look_backwards_with_y_up():
    poses = cameras(2)
    gl = poses @ np.diag([1.0, -1, -1, 1])
    frames = [{"file_path": f"images/frame_{i:05d}.png", "transform_matrix": m.tolist()} for i, m in enumerate(gl, 1)]
    top = {"w": 96, "h": 64, "fl_x": 80.0, "frames": frames[::-1]}
    track = parse_nerfstudio(top)
    assert np.allclose(track.world_from_camera, poses)
    assert track.lens is not None
    assert (track.lens.focal, track.lens.centre) == ((80, 80), (48, 32))
    angled = parse_nerfstudio({"w": 96, "h": 64, "camera_angle_x": 2 * np.arctan(0.6), "frames": frames})
    assert angled.lens is not None
    assert angled.lens.focal[0] == pytest.approx(80)
    with pytest.raises(DataError, match=r"frames\[1\]|4x4"):
        parse_nerfstudio({"frames": [frames[0], {"file_path": "a", "transform_matrix": [[1, 2]]}]})


@given(st.integers(2, 7), st.integers(1, 4))
def test_interpolated_poses_hit_the_given_ones_and_stay_rigid_between(count: int, between: int):
    poses = cameras(count)
    track = PoseTrack(world_from_camera=poses, times=3.0 + np.arange(count) * 0.1 * between)
    frames = (count - 1) * between + 1
    dense = at_video_frames(track, np.arange(frames) / 10, interpolate=True)
    assert np.allclose(dense[::between], poses, atol=1e-9)
    assert np.allclose(dense[:, :3, :3] @ dense[:, :3, :3].swapaxes(1, 2), np.eye(3), atol=1e-9)


def test_image_numbers_place_poses_and_nothing_is_invented_beyond_them():
    track = PoseTrack(world_from_camera=cameras(3), names=("a1.png", "a3.png", "a5.png"))
    times = np.arange(9) / 15
    assert len(at_video_frames(track, times[:5], interpolate=True)) == 5
    with pytest.raises(DataError, match=r"3 poses for 5.*frame 1 has none"):
        at_video_frames(track, times[:5], interpolate=False)
    with pytest.raises(DataError, match="frames 0 to 4, the video has 0 to 8"):
        at_video_frames(track, times, interpolate=True)


def named(*names: str) -> PoseTrack:
    return PoseTrack(world_from_camera=cameras(len(names)), names=names)


@pytest.mark.parametrize("start", [0, 1, 100])
def test_as_many_images_as_frames_numbered_one_by_one_are_taken_in_order(start: int):
    track = named(*(f"shot2/f{start + i:04d}.png" for i in range(4)))
    assert np.array_equal(at_video_frames(track, np.arange(4) / 7, interpolate=False), track.world_from_camera)


def test_images_without_any_number_are_taken_in_order_only_when_there_is_one_per_frame():
    assert len(at_video_frames(named("a.png", "b.png"), np.arange(2) / 7, interpolate=False)) == 2
    with pytest.raises(DataError, match="no image's name has a number"):
        at_video_frames(named("a.png", "b.png"), np.arange(3) / 7, interpolate=True)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("0.png", "1.png", "3.png", "4.png"), "go on to frame 4"),  # one was left out, one is too many
        (("0.png", "2.png", "4.png", "6.png"), "go on to frame 6"),  # every second frame of a longer video
        (("1.png", "2.png", "x.png", "4.png"), "has no number"),
        (("a1.png", "b1.png", "b2.png", "b3.png"), "the same number"),
    ],
)
def test_image_numbers_are_looked_at_also_when_there_are_as_many_as_frames(names: tuple[str, ...], said: str):
    with pytest.raises(DataError, match=said):
        at_video_frames(named(*names), np.arange(4) / 7, interpolate=False)


def timed(times: np.ndarray) -> PoseTrack:
    return PoseTrack(world_from_camera=cameras(len(times)), times=times)


def test_poses_are_matched_to_frames_by_their_times_to_a_millisecond():
    frames = np.arange(40) / 30
    rounded = timed((1305031102.17 + frames).round(4))
    assert np.array_equal(at_video_frames(rounded, frames, interpolate=False), rounded.world_from_camera)
    faster = timed(np.arange(400) / 300)  # ten poses per frame
    assert np.array_equal(at_video_frames(faster, frames, interpolate=False), faster.world_from_camera[:400:10])
    late = timed(frames + np.r_[np.zeros(20), np.full(20, 0.0012)])
    with pytest.raises(DataError, match=r"frame 20 has none: the nearest is at 0\.6679 s"):
        at_video_frames(late, frames, interpolate=False)
    slower = timed(np.arange(40) / 24)  # as many poses as frames, of another rate
    with pytest.raises(DataError, match="frame 1 has none"):
        at_video_frames(slower, frames, interpolate=False)
    assert len(at_video_frames(slower, frames, interpolate=True)) == 40
    with pytest.raises(DataError, match=r"seconds 0 to 0\.633"):
        at_video_frames(timed(frames[:20]), frames, interpolate=True)


# --- lenses ----------------------------------------------------------------------------------------------------------


def transforms(**given: object) -> dict:
    frames = [{"file_path": f"f{i}.png", "transform_matrix": m.tolist()} for i, m in enumerate(cameras(3), 1)]
    return {"frames": frames, **given}


@pytest.mark.parametrize(
    ("given", "focal"),
    [
        ({"fl_x": 80.0}, (80, 80)),
        ({"fl_x": 80.0, "fl_y": 90.0}, (80, 90)),
        ({"camera_angle_x": 2 * np.arctan(0.6)}, (80, 80)),
        ({"camera_angle_y": 2 * np.arctan(0.4)}, (80, 80)),
    ],
)
def test_intrinsics_without_a_size_are_those_of_the_video(given: dict, focal: tuple[float, float]):
    lens = parse_nerfstudio(transforms(**given), (64, 96)).lens
    assert lens is not None
    assert lens.focal == pytest.approx(focal)
    assert (lens.centre, lens.size, lens.size_is_the_videos) == ((48, 32), (64, 96), True)


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "EQUIRECTANGULAR", "FISHEYE624", "OMNIDIRECTIONALSTEREO_L"])
def test_what_is_no_pinhole_is_refused_by_name_also_without_coefficients(model: str):
    with pytest.raises(DataError, match=f"{model} is no pinhole"):
        parse_nerfstudio(transforms(camera_model=model, fl_x=80, w=96, h=64))
    with pytest.raises(DataError, match="OPENCV_FISHEYE is no pinhole"):
        parse_colmap_text("1 OPENCV_FISHEYE 8 6 5 5 4 3 0 0 0 0\n", colmap_text(cameras(1), ["1.png"]))


def test_unknown_camera_models_are_named():
    with pytest.raises(DataError, match="unknown camera model SHINY"):
        parse_colmap_text("1 SHINY 8 6 5 5 4 3\n", colmap_text(cameras(1), ["1.png"]))
    with pytest.raises(DataError, match="unknown camera model SHINY"):
        parse_nerfstudio(transforms(camera_model="SHINY", fl_x=80, w=96, h=64))
    for number in (-1, 77):
        lens = struct.pack("<Q", 1) + struct.pack("<iiQQ", 1, number, 64, 48) + struct.pack("<8d", *range(8))
        with pytest.raises(DataError, match=f"unknown camera model number {number}"):
            parse_colmap_binary(lens, struct.pack("<Q", 0))


def test_focal_lengths_that_differ_in_their_last_digits_are_one_lens():
    def text(off: float) -> str:
        return f"1 PINHOLE 8 6 500 500 4 3\n2 PINHOLE 8 6 {500 * (1 + off)!r} 500 4 3\n"

    images = colmap_text(cameras(2), ["1.png", "2.png"]).replace(" 1 2.png", " 2 2.png")
    assert parse_colmap_text(text(9e-7), images).lens is not None
    with pytest.raises(DataError, match="2 different cameras"):
        parse_colmap_text(text(3e-6), images)

    def frames(off: float) -> dict:
        content = transforms(w=96, h=64)
        for frame, factor in zip(content["frames"], (1, 1 + off, 1), strict=True):
            frame["fl_x"] = 80 * factor
        return content

    assert parse_nerfstudio(frames(9e-7)).lens is not None
    with pytest.raises(DataError, match="2 different intrinsics"):
        parse_nerfstudio(frames(3e-6))
    half = frames(0)
    del half["frames"][1]["fl_x"]
    with pytest.raises(DataError, match="2 different intrinsics"):
        parse_nerfstudio(half)
