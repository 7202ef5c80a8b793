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
    at_video_frames,
    parse_colmap_binary,
    parse_colmap_text,
    parse_nerfstudio,
    parse_tum,
)


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
    dense = at_video_frames(track, frames, 10.0, interpolate=True)
    assert np.allclose(dense[::between], poses, atol=1e-9)
    assert np.allclose(dense[:, :3, :3] @ dense[:, :3, :3].swapaxes(1, 2), np.eye(3), atol=1e-9)


def test_image_numbers_place_poses_and_nothing_is_invented_beyond_them():
    track = PoseTrack(world_from_camera=cameras(3), names=("a1.png", "a3.png", "a5.png"))
    assert len(at_video_frames(track, 5, 15, interpolate=True)) == 5
    with pytest.raises(DataError, match="3 poses for 5"):
        at_video_frames(track, 5, 15, interpolate=False)
    with pytest.raises(DataError, match="frames 0 to 4, the video has 0 to 8"):
        at_video_frames(track, 9, 15, interpolate=True)
