"""Paths and camera trajectories: constant speed, headings along the way, continuous shots that come back."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.paths import PATHS, walk
from hmcli.world.trajectories import TRAJECTORIES, Setting, timing


@pytest.mark.parametrize("name", list(PATHS))
def test_walkers_keep_their_speed_and_look_where_they_go(name):
    track = walk(PATHS[name], frames=23, fps=10, speed=1.2, heading=0.7, rng=np.random.default_rng(1))
    steps = np.diff(track.position, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.12, rtol=0.01)
    np.testing.assert_allclose(np.diff(track.distance), 0.12)
    along = np.arctan2(steps[:, 1], steps[:, 0])
    middle = (track.heading[1:] + track.heading[:-1]) / 2
    assert np.abs(np.angle(np.exp(1j * (along - middle)))).max() < 0.02
    assert track.heading[0] == pytest.approx(0.7)
    assert (track.position[:, 2] == 0).all()


def test_a_path_does_not_depend_on_how_long_one_follows_it():
    short, long = (walk(PATHS["weave"], n, 10, 1.0, 0.2, np.random.default_rng(2)) for n in (9, 21))
    np.testing.assert_allclose(np.diff(short.position, axis=0), np.diff(long.position, axis=0)[:8], atol=1e-12)
    np.testing.assert_allclose(short.heading, long.heading[:9], atol=1e-12)


def setting(turn: float) -> Setting:
    subject = np.stack([np.linspace(-1, 1, 34), np.linspace(0.1, 0.3, 34)], -1)
    return Setting(eye=np.array([0.5, -8.0, 1.3]), pivot=np.zeros(2), subject=subject, aim=(0.05, -0.08), turn=turn)


@pytest.mark.parametrize("name", list(TRAJECTORIES))
@pytest.mark.parametrize("turn", [0.9, -0.9])
def test_a_trajectory_turns_away_and_ends_at_the_subject(name, turn):
    rng = np.random.default_rng(4)
    away, back = timing(context=17, target=17, rng=rng)
    scene = setting(turn)
    track = TRAJECTORIES[name](away, back, scene, rng)
    pose = track.world_from_camera()
    for frame, aim in ((0, 0.05), (33, -0.08)):
        towards = scene.subject[frame] - track.eye[frame, :2]
        bearing = np.arctan2(towards[1], towards[0])
        assert np.angle(np.exp(1j * (track.yaw[frame] - bearing))) == pytest.approx(aim)
    assert track.yaw[16] - track.yaw[0] == pytest.approx(turn, abs=0.02)
    np.testing.assert_allclose(
        pose[:, :3, :3] @ pose[:, :3, :3].transpose(0, 2, 1), np.broadcast_to(np.eye(3), (34, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(pose[:, :3, :3]), 1)
    np.testing.assert_allclose(pose[:, 2, 2], 0)  # no pitch
    np.testing.assert_allclose(pose[:, :3, 1], np.broadcast_to([0, 0, -1], (34, 3)))


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_the_target_goes_on_where_the_context_ends(name):
    rng = np.random.default_rng(6)
    away, back = timing(context=33, target=33, rng=rng)
    scene = setting(0.9)
    scene = Setting(eye=scene.eye, pivot=scene.pivot, subject=np.zeros((66, 2)), aim=scene.aim, turn=scene.turn)
    track = TRAJECTORIES[name](away, back, scene, rng)
    turns, steps = np.abs(np.diff(track.yaw)), np.linalg.norm(np.diff(track.eye, axis=0), axis=1)
    assert np.abs(np.diff(turns)).max() < 0.02  # no jump at any frame, the seam included
    assert np.abs(np.diff(steps)).max() < 0.05


def test_the_camera_leaves_in_the_context_and_returns_in_the_target():
    for seed in range(20):
        away, back = timing(context=21, target=13, rng=np.random.default_rng(seed))
        assert away[0] == 0
        assert away[20] > 0.99
        assert back[20] == 0
        assert back[-1] == 1
