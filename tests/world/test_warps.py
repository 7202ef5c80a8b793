"""Warps: each against the equation written out pixel by pixel, and against a world whose truth is known."""

from __future__ import annotations

import numpy as np

from hmcli.world.views.warps import by_farness, depth_warp, farness, homography_warp, views_of, widened

SIZE = (24, 40)
LENS = np.array([50.0, 48.0, 20.5, 11.0])  # fx, fy, cx, cy


def pose(yaw: float = 0.0, pitch: float = 0.0, eye: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """world_from_camera: degrees to the right and down from looking along +z; camera axes right, down, forward."""
    a, b = np.deg2rad([yaw, pitch])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = turn @ nod, eye
    return found


def look(camera: np.ndarray) -> np.ndarray:
    """(H, W, 3) directions in the world through the middle of each pixel, pixel by pixel."""
    fx, fy, cx, cy = LENS
    found = np.zeros((*SIZE, 3))
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            found[row, column] = camera[:3, :3] @ [(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0]
    return found


def painted(points: np.ndarray) -> np.ndarray:
    """Smooth colours of points (.., 3), or directions."""
    waves = [np.sin(points @ (3.0, 2.0, 1.0)), np.cos(points @ (1.0, 3.5, 2.0)), np.sin(points @ (2.0, 1.0, 3.0) + 1)]
    return np.rint(127 + 100 * np.stack(waves, -1)).astype(np.uint8)


def far_away(camera: np.ndarray) -> np.ndarray:
    """A frame of a world that is infinitely far away."""
    direction = look(camera)
    return painted(direction / np.linalg.norm(direction, axis=-1, keepdims=True))


def wall(camera: np.ndarray, distance: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """A frame of a wall at z = distance, and its depth along the camera's forward axis."""
    direction = look(camera)
    along = (distance - camera[2, 3]) / direction[..., 2]
    return painted((camera[:3, 3] + direction * along[..., None]) * 0.4), along


def test_far_is_in_degrees_and_a_metre_counts_two():
    cameras = np.stack([pose(10), pose(0, eye=(0, 3, 4)), pose(-4, 3, eye=(1, 0, 0))])
    found = farness(pose(), cameras)
    np.testing.assert_allclose(found[:2], [10, 10], atol=1e-5)
    turned = pose(-4, 3)[:3, :3]
    np.testing.assert_allclose(found[2], 2 + np.rad2deg(np.arccos((np.trace(turned) - 1) / 2)), atol=1e-5)


def test_after_the_nearest_view_every_fourth_frame_follows_from_near_to_far():
    cameras = np.stack([pose(yaw) for yaw in range(0, 20, 2)])
    assert by_farness(pose(10.9), cameras) == [5, 4, 8, 0]


def test_where_a_camera_only_turns_the_homography_gives_the_true_frame():
    cameras = np.stack([pose(yaw, pitch) for yaw, pitch in ((0, 0), (8, 2), (16, -3))])
    views = views_of(np.stack([far_away(one) for one in cameras]), cameras, LENS)
    for camera in (pose(9, 1), pose(14.5, -2), pose(2, 0)):
        error = np.abs(homography_warp(views, camera).astype(int) - far_away(camera))
        inside = np.zeros(SIZE, bool)  # of the nearest view's picture, or the first one's
        for one in cameras[[int(farness(camera, cameras).argmin()), 0]]:
            x, y, z = np.moveaxis(look(camera) @ one[:3, :3], -1, 0)
            u, v = LENS[0] * x / z + LENS[2], LENS[1] * y / z + LENS[3]
            inside |= (u > 0.5) & (u < SIZE[1] - 0.5) & (v > 0.5) & (v < SIZE[0] - 0.5)
        assert inside.mean() > 0.8
        assert error[inside].max() <= 3  # interpolation


def test_a_view_warped_to_its_own_camera_is_itself():
    cameras = np.stack([pose(3), pose(9)])
    frames = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)
    depth = np.random.default_rng(1).uniform(2, 30, (2, *SIZE))
    depth[0, :4] = np.inf  # sky
    np.testing.assert_array_equal(homography_warp(views_of(frames, cameras, LENS), cameras[1]), frames[1])
    np.testing.assert_array_equal(depth_warp(views_of(frames, cameras, LENS, depth=depth), cameras[0]), frames[0])


def test_holes_come_from_the_next_nearest_view_then_from_the_edge_of_the_nearest():
    cameras = np.stack([pose(0), pose(90), pose(90), pose(90), pose(20)])
    frames = np.stack([np.full((*SIZE, 3), value, np.uint8) for value in (10, 99, 99, 99, 40)])
    frames[4, :, -1] = 70  # the right edge of the view to the right
    found = homography_warp(views_of(frames, cameras, LENS), pose(23))
    x, _, z = np.moveaxis(look(pose(23)) @ cameras[4][:3, :3], -1, 0)
    u = LENS[0] * x / z + LENS[2]
    assert (found[u > SIZE[1]] == 70).all()
    assert (found[:, 8:12] == 40).all()
    aside = homography_warp(views_of(frames, cameras, LENS), pose(14))  # its left part only the first view shows
    assert (aside[:, 0] == 10).all()
    assert (aside[12, -1] == 40).all()


def test_what_is_hidden_in_a_view_is_taken_from_another_one():
    cameras = np.stack([pose(0), pose(40), pose(40), pose(40), pose(4)])
    frames = np.stack([np.full((*SIZE, 3), value, np.uint8) for value in (10, 0, 0, 0, 40)])
    hidden = np.zeros((5, *SIZE), bool)
    hidden[0, 8:16, 10:30] = True
    frames[0][hidden[0]] = 200
    found = homography_warp(views_of(frames, cameras, LENS, hidden=hidden), pose(0))
    assert (found[hidden[0]] == 40).all()
    assert (found[~hidden[0]] == 10).all()
    alone = homography_warp(views_of(frames[:1], cameras[:1], LENS, hidden=hidden[:1]), pose(0))
    assert (alone == 10).all()  # nobody shows it: the nearest pixel that may be shown


def test_what_is_hidden_in_a_view_is_taken_from_another_one_by_depth_too():
    cameras = np.stack([pose(0)] * 5)
    frames = np.stack([np.full((*SIZE, 3), value, np.uint8) for value in (10, 0, 0, 0, 40)])
    hidden = np.zeros((5, *SIZE), bool)
    hidden[0, 8:16, 10:30] = True
    depth = np.full((5, *SIZE), 6.0)
    depth[0][hidden[0]] = 2.0  # somebody stands there
    found = depth_warp(views_of(frames, cameras, LENS, depth=depth, hidden=hidden), pose(0))
    assert (found[hidden[0]] == 40).all()
    assert (found[~hidden[0]] == 10).all()


def test_where_nothing_moves_depth_gives_the_true_frame_also_from_another_place():
    cameras = np.stack([pose(0), pose(6, eye=(0.8, 0.1, 0.4)), pose(-5, 2, eye=(-0.6, 0, 0))])
    seen = [wall(one) for one in cameras]
    views = views_of(
        np.stack([frame for frame, _ in seen]), cameras, LENS, depth=np.stack([depth for _, depth in seen])
    )
    camera = pose(1, 1, eye=(0.3, 0.2, 0.6))
    shown = slice(3, -3), slice(5, -5)  # in the nearest view, too
    error = np.abs(depth_warp(views, camera).astype(int) - wall(camera)[0])[shown]
    by_turning = np.abs(homography_warp(views, camera).astype(int) - wall(camera)[0])[shown]
    assert error.max() <= 12
    assert error.mean() < 2
    assert by_turning.mean() > 15


def test_near_things_hide_what_is_behind_them():
    camera, frame, depth = pose(0), np.full((*SIZE, 3), 30, np.uint8), np.full(SIZE, 20.0)
    frame[:, 15:20], depth[:, 15:20] = 220, 2.0  # a post, two metres away
    views = views_of(frame[None], camera[None], LENS, depth=depth[None])
    moved = depth_warp(views, pose(0, eye=(0.2, 0, 0)))  # to the right by 0.2 m: the post goes left by 50 * 0.2 / 2
    assert (moved[12, 10:15] == 220).all()
    assert (moved[12, :9] == 30).all()
    assert (moved[12, 21:] == 30).all()


def test_only_what_is_wanted_is_warped():
    camera = pose(0)
    frame, depth = wall(camera)
    wanted = np.zeros(SIZE, bool)
    wanted[5:9, 10:14] = True
    found = depth_warp(views_of(frame[None], camera[None], LENS, depth=depth[None]), camera, wanted)
    np.testing.assert_array_equal(found, np.where(wanted[..., None], frame, 0))


def test_masks_are_widened_within_their_frame():
    masks = np.zeros((3, 7, 9), bool)
    masks[1, 3, 4] = True
    found = widened(masks, 2)
    assert found.sum() == 25
    assert found[1, 1:6, 2:7].all()
