"""Cameras: conversion against the golden vectors, the released file forms, and what is refused."""

from __future__ import annotations

import copy
import json
import re

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.world.views.cameras import (
    field_of_view,
    focal_length,
    latent_poses,
    parse_cameras,
    parse_text_matrix,
    relative_camera_rows,
    unreal_from_world,
    unreal_point_from_world,
    world_from_unreal,
    world_point_from_unreal,
)


def unreal_track(frames: int, seed: int = 0) -> np.ndarray:
    """A drifting, turning camera: (T, 4, 4) Unreal camera-to-world in centimetres."""
    rng = np.random.default_rng(seed)
    track = np.tile(np.eye(4), (frames, 1, 1))
    for frame in range(frames):
        track[frame, :3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        track[frame, :3, 0] *= np.linalg.det(track[frame, :3, :3])
        track[frame, :3, 3] = rng.normal(size=3) * 500
    return track


def numbered(matrices: np.ndarray) -> dict[str, list[list[float]]]:
    return {str(frame): matrix.tolist() for frame, matrix in enumerate(matrices)}


def as_text(matrix: np.ndarray) -> str:
    return " ".join("[" + " ".join(repr(float(x)) for x in column) + "]" for column in matrix.T) + " "


def rows_of(cameras) -> tuple[np.ndarray, np.ndarray]:
    first = cameras.target[0]
    context = relative_camera_rows(latent_poses(cameras.context), first)
    return context, relative_camera_rows(latent_poses(cameras.target), first)


@pytest.mark.parametrize(("degrees", "share"), [(90, 0.5), (53.130102354155978, 1.0), (36.869897645844021, 1.5)])
def test_half_the_pictures_width_at_the_focal_length_is_half_the_angle(degrees: float, share: float):
    angle = np.deg2rad(degrees)
    assert focal_length(angle, 640) == pytest.approx(share * 640, rel=1e-12)
    assert field_of_view(share * 640, 640) == pytest.approx(angle, rel=1e-12)


# --- golden vectors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tolerance"), [("cam1", 1e-4), ("cam2", 1e-4), ("cam3", 1e-4), ("cam4", 1e-4), ("synthetic0", 3e-5)]
)
def test_model_cameras_agree_with_the_golden_vectors(shared, name, tolerance):
    with np.load(shared / "golden" / "f_camera.npz", allow_pickle=False) as golden:
        content = {f"{part}_cam": numbered(golden[f"{name}.{part}_c2w"]) for part in ("cond", "tgt")}
        cameras = parse_cameras(content, frames=77, repair="refuse")
        for rows, key in zip(rows_of(cameras), ("ref_camera", "target_camera"), strict=True):
            np.testing.assert_allclose(rows, golden[f"{name}.{key}"], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "unreadable"), [("text", None), ("text_bad102", "102")])
def test_repaired_text_cameras_agree_with_the_golden_vectors(shared, name, unreadable):
    content = json.loads((shared / "golden" / "f_camera_text_example.json").read_text())
    if unreadable:
        content[unreadable] = "not a matrix"
    cameras = parse_cameras(content, frames=77, repair="reference")
    with np.load(shared / "golden" / "f_camera.npz", allow_pickle=False) as golden:
        for rows, key in zip(rows_of(cameras), ("ref_camera", "target_camera"), strict=True):
            np.testing.assert_allclose(rows, golden[f"{name}.{key}"], rtol=0, atol=3e-5)


def test_the_golden_text_example_is_refused_unless_repair_is_asked_for(shared):
    content = json.loads((shared / "golden" / "f_camera_text_example.json").read_text())
    content["102"] = "not a matrix"
    with pytest.raises(DataError, match="missing 0, 40 and unreadable 102") as refused:
        parse_cameras(content, frames=77, repair="refuse")
    assert "poses.repair=reference" in refused.value.fix


# --- conversion ------------------------------------------------------------------------------------------------------


def test_axes_are_right_down_forward_in_a_right_handed_world_in_metres():
    unreal = np.eye(4)[None].copy()  # looking along X, right is Y, up is Z (left-handed)
    unreal[0, :3, 3] = [100.0, 200.0, 300.0]
    pose = world_from_unreal(unreal)[0]
    np.testing.assert_allclose(pose[:3, 0], [0, -1, 0])  # right
    np.testing.assert_allclose(pose[:3, 1], [0, 0, -1])  # down
    np.testing.assert_allclose(pose[:3, 2], [1, 0, 0])  # forward
    np.testing.assert_allclose(pose[:3, 3], [1, -2, 3])
    np.testing.assert_allclose(world_point_from_unreal(unreal[0, :3, 3]), pose[:3, 3])


def test_rotations_become_proper_and_the_conversion_has_an_inverse():
    unreal = unreal_track(5)
    poses = world_from_unreal(unreal)
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1.0, atol=1e-12)
    np.testing.assert_allclose(unreal_from_world(poses), unreal, atol=1e-10)
    points = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(unreal_point_from_world(world_point_from_unreal(points)), points)


def test_conversion_leaves_its_input_alone():
    unreal = unreal_track(3)
    before = unreal.copy()
    unreal_from_world(world_from_unreal(unreal))
    np.testing.assert_array_equal(unreal, before)


def test_negating_the_worlds_y_changes_no_relative_pose():
    poses = world_from_unreal(unreal_track(4))
    mirrored = np.diag([1.0, -1.0, 1.0, 1.0]) @ poses
    one, other = (relative_camera_rows(track, track[1]) for track in (poses, mirrored))
    np.testing.assert_allclose(one, other, atol=1e-9)
    np.testing.assert_allclose(one[1].reshape(3, 4), np.eye(4)[:3], atol=1e-9)


def test_latent_poses_are_every_fourth_and_other_counts_are_refused():
    poses = world_from_unreal(unreal_track(9))
    np.testing.assert_array_equal(latent_poses(poses), poses[[0, 4, 8]])
    with pytest.raises(ValueError, match="8 poses are not 4k"):
        latent_poses(poses[:8])


# --- released forms --------------------------------------------------------------------------------------------------


def test_context_and_target_may_differ_in_length():
    cameras = parse_cameras(
        {"cond_cam": numbered(unreal_track(9)), "tgt_cam": numbered(unreal_track(5, seed=1))}, frames=9, repair="refuse"
    )
    assert (cameras.form, cameras.context.shape, cameras.target.shape) == ("pair", (9, 4, 4), (5, 4, 4))


def test_frames_are_ordered_by_number_not_by_position_in_the_file():
    track = unreal_track(12)
    backwards = dict(reversed(list(numbered(track).items())))
    cameras = parse_cameras({"cond_cam": backwards}, frames=12, repair="refuse")
    np.testing.assert_allclose(unreal_from_world(cameras.context), track, atol=1e-9)
    assert cameras.target is None


def test_matrices_in_arrays_are_converted_like_the_others_and_foreign_keys_are_reported():
    track = unreal_track(6)
    content = {"context_camera": track[:5].tolist(), "video_camera": track[5:].tolist(), "fps": 15}
    cameras = parse_cameras(content, frames=5, repair="refuse")
    np.testing.assert_array_equal(cameras.context, world_from_unreal(track[:5]))
    np.testing.assert_array_equal(cameras.target, world_from_unreal(track[5:]))
    assert cameras.ignored == ("fps",)


def test_ready_rows_are_taken_as_they_are():
    poses = world_from_unreal(unreal_track(5))
    rows = relative_camera_rows(poses, poses[2])
    content = {"context_camera": rows[:2].tolist(), "video_camera": rows[2:].tolist()}
    cameras = parse_cameras(content, frames=5, repair="refuse")
    assert cameras.context is None
    assert cameras.target is None
    np.testing.assert_array_equal(np.concatenate([cameras.context_rows, cameras.target_rows]), rows)


def test_whole_text_cameras_are_read_without_repair_at_any_length():
    track = unreal_track(14)
    content = {str(frame): as_text(matrix) for frame, matrix in enumerate(track)}
    cameras = parse_cameras(content, frames=9, repair="refuse")
    assert (len(cameras.context), len(cameras.target)) == (9, 5)
    np.testing.assert_allclose(unreal_from_world(np.concatenate([cameras.context, cameras.target])), track, atol=1e-10)


def test_the_reference_repair_works_for_other_lengths_than_77():
    track = unreal_track(13)  # 2 * (9 - 2) - 1 frames for a context of 9
    content = {str(frame): as_text(matrix) for frame, matrix in enumerate(track) if frame not in (0, 6)}
    cameras = parse_cameras(content, frames=9, repair="reference")
    read = [1, 1, 2, 3, 4, 5, 5, 7, 8, 9, 10, 11, 12, 12]
    context, target = read[:7], read[7:]
    wanted = [context[0], *context, context[-1], target[0], *target, target[-1]]
    got = unreal_from_world(np.concatenate([cameras.context, cameras.target]))
    np.testing.assert_allclose(got, track[wanted], atol=1e-10)


def test_the_reference_repair_refuses_more_frames_than_the_video_means():
    content = {str(frame): as_text(matrix) for frame, matrix in enumerate(unreal_track(14))}
    with pytest.raises(DataError, match="13 text cameras, but frame 13 exists"):
        parse_cameras(content, frames=9, repair="reference")


@pytest.mark.parametrize(
    "text", ["", "[1 0 0 0] [0 1 0 0] [0 0 1 0]", "[1 0 0] [0 1 0] [0 0 1] [0 0 0]", "[a b c d]" * 4, "x", None, 3]
)
def test_text_that_is_no_four_columns_is_unreadable(text):
    assert parse_text_matrix(text) is None


def test_text_brackets_are_columns():
    matrix = unreal_track(1)[0]
    np.testing.assert_array_equal(parse_text_matrix(as_text(matrix)), matrix)
    with_commas = as_text(matrix).strip().replace(" ", ", ").replace("],", "]")
    np.testing.assert_array_equal(parse_text_matrix(with_commas), matrix)


# --- refusals --------------------------------------------------------------------------------------------------------


def broken(change) -> dict:
    content = {"cond_cam": numbered(unreal_track(5)), "tgt_cam": numbered(unreal_track(5, seed=1))}
    content = copy.deepcopy(content)
    change(content["tgt_cam"])
    return content


def put(frame: str, row: int, column: int, value: object):
    def change(track: dict) -> None:
        track[frame][row][column] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("3", 0, 3, float("nan")), "frame 3 is not finite"),
        (put("3", 0, 3, float("inf")), "frame 3 is not finite"),
        (put("2", 0, 0, 7.0), "frame 2 is no rotation"),
        (put("1", 3, 0, 0.5), "frame 1 has a last row"),
        (lambda track: track.update({"4": (np.diag([1.0, -1, 1, 1])).tolist()}), "frame 4 is a mirror image"),
        (lambda track: track.pop("2"), "frame 2 is missing"),
        (lambda track: track.update({"2": [[1.0, 0, 0]] * 3}), re.escape("shape (3, 3), not (4, 4)")),
        (lambda track: track.update({"2": "identity"}), "nested lists of numbers"),
        (lambda track: track.update({"2": [[1], [1, 2]]}), "nested lists of numbers"),
        (lambda track: track.clear(), "cameras must be an object"),
    ],
)  # fmt: skip
def test_cameras_that_are_no_poses_are_refused_by_frame(change, message):
    with pytest.raises(DataError, match=message) as refused:
        parse_cameras(broken(change), frames=5, repair="refuse")
    assert str(refused.value.where["key"]).startswith("tgt_cam")


def test_the_repair_switch_never_excuses_a_broken_matrix():
    content = broken(put("2", 0, 0, float("nan")))
    with pytest.raises(DataError, match="frame 2 is not finite"):
        parse_cameras(content, frames=5, repair="reference")


@pytest.mark.parametrize("content", [[], {}, {"cameras": []}, None, {"00": "[]"}])
def test_unknown_forms_are_refused(content):
    with pytest.raises(DataError):
        parse_cameras(content, frames=5, repair="refuse")
