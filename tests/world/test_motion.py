"""Paths and camera trajectories: laws that hold along the way, continuous shots that come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hmcli.world.staging.paths import PATHS, Course, Gauge, walk
from hmcli.world.views.trajectories import (
    FASTEST_TURN,
    MOVES,
    STARTS,
    TRAJECTORIES,
    CameraTrack,
    Setting,
    Timing,
    dolly,
    film,
    shot_of,
    start_pose,
)

GAUGE = Gauge(speed=1.2, room=1.5)


def some_walk(name: str, frames: int = 43, fps: int = 10):
    return walk(PATHS[name](GAUGE, np.random.default_rng(1)), frames, fps, 1.2, 0.7)


@pytest.mark.parametrize("name", list(PATHS))
def test_walkers_look_where_they_go_and_stay_on_the_ground(name):
    track = some_walk(name)
    steps = np.diff(track.position, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), np.diff(track.distance), rtol=0.02, atol=2e-4)
    moving = np.diff(track.distance) > 0.02
    along = np.arctan2(steps[:, 1], steps[:, 0])
    middle = (track.heading[1:] + track.heading[:-1]) / 2
    assert np.abs(np.angle(np.exp(1j * (along - middle))))[moving].max() < 0.05
    assert track.heading[0] == pytest.approx(0.7)
    assert (track.position[:, 2] == 0).all()
    assert np.abs(track.position.max(0) + track.position.min(0)).max() < 1e-9  # around the origin


def test_there_are_ten_paths_and_they_differ():
    tracks = [some_walk(name).position for name in PATHS]
    assert len(tracks) == 10
    apart = [np.abs(a - b).max() for i, a in enumerate(tracks) for b in tracks[:i]]
    assert min(apart) > 0.3


def test_only_some_paths_change_their_pace():
    steady = {name for name in PATHS if np.ptp(np.diff(some_walk(name).distance)) < 1e-9}
    assert steady == set(PATHS) - {"pace_change", "stop_and_go"}
    pace = np.diff(some_walk("stop_and_go").distance) * 10
    assert pace.min() < 0.12
    assert ((pace[1:] > 0.6) & (pace[:-1] <= 0.6)).sum() >= 2  # it goes on more than once


def test_a_law_holds_whatever_the_length_of_the_walk():
    course = Course(turn=0.3, swing=0.5, length=2.0, beat=1.4)
    short, long = (walk(course, frames, 10, 1.0, 0.0) for frames in (21, 41))
    moved = long.position[10:31] - long.position[10]
    angle = -long.heading[10]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(short.position[:, :2] - short.position[0, :2], moved[:, :2] @ turn.T, atol=1e-9)


def setting(turn: float = 0.9) -> Setting:
    return Setting(eye=np.array([0.5, -8.0, 1.3]), pivot=FOCUS, turn=turn, half_width=0.32)


FOCUS = np.array([-1.0, 0.3])


def standing(frames: int) -> np.ndarray:
    return np.zeros((frames, 2))


def at_once(**moves: Any) -> Timing:
    """A timing that begins with the subject in the picture."""
    return Timing(arrive=-9.0, arrive_frames=1.0, **moves)


def shoot(name: str, timing: Timing, frames: int = 34) -> CameraTrack:
    return film(shot_of(name, setting(), np.random.default_rng(4), rolled=standing(frames)), timing, -0.08)


TIMING = at_once(away=4.0, away_frames=13.0, back=17.0, back_frames=14.0)


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_a_trajectory_goes_away_and_ends_where_its_law_says(name):
    track = shoot(name, TIMING)
    pose = track.world_from_camera()
    first = np.angle(np.exp(1j * (track.yaw[0] - np.arctan2(*(FOCUS - track.eye[0, :2])[::-1]))))
    assert abs(first) < 0.32 * 0.9  # the place is in the picture
    assert track.yaw[-1] - track.yaw[0] == pytest.approx(-0.08)
    away = abs(track.yaw[16] - track.yaw[0]), np.linalg.norm(track.eye[16] - track.eye[0])
    assert away[0] > 0.25 or away[1] > 3.5  # it turns or drives far enough to lose somebody
    np.testing.assert_allclose(np.linalg.det(pose[:, :3, :3]), 1)
    np.testing.assert_allclose(pose[:, 2, 2], 0)  # no pitch
    np.testing.assert_allclose(pose[:, :3, 1], np.broadcast_to([0, 0, -1], (34, 3)))  # no roll


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_a_shot_is_continuous_also_where_the_target_begins(name):
    track = shoot(name, TIMING)
    turns, steps = np.diff(track.yaw), np.diff(track.eye, axis=0)
    assert np.abs(np.diff(turns)).max() < 0.045
    assert np.abs(np.diff(steps, axis=0)).max() < 0.25


@pytest.mark.parametrize("name", list(MOVES))
def test_left_and_right_mirror_each_other(name):
    middle = Setting(eye=np.array([0.0, -8.0, 1.3]), pivot=np.zeros(2), turn=0.9, half_width=0.32)
    left, right = (
        shot_of(f"{name}_{side}", middle, np.random.default_rng(2), rolled=standing(9)) for side in ("left", "right")
    )
    assert left.pan == -right.pan
    assert left.orbit == -right.orbit
    assert left.slide[0] == pytest.approx(-right.slide[0])
    assert left.slide[1] == pytest.approx(right.slide[1])
    assert left.pan > 0 or left.slide[0] < 0  # left is counter-clockwise, and towards -x for who looks along +y


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_cameras_turn_no_faster_than_the_real_ones(name):
    for seed in range(8):
        shot = shot_of(name, setting(), np.random.default_rng(seed), rolled=standing(60))
        frames = shot.seconds(shot.pan) * 15
        track = film(shot, at_once(away=0, away_frames=frames, back=1e6, back_frames=1), 0.0)
        assert np.abs(np.diff(track.yaw)).max() * 15 <= FASTEST_TURN * 1.001


def test_there_are_28_trajectories_and_several_places_to_start_from():
    assert len(TRAJECTORIES) == 28
    places = [start_pose(start, FOCUS, 10.0, 2.1, np.random.default_rng(3)) for start in STARTS.values()]
    assert len(places) >= 3
    assert all(place[1] < -7 and place[2] == 2.1 for place in places)
    assert all(np.linalg.norm(place[:2] - FOCUS) == pytest.approx(10.0) for place in places)


def test_several_timings_at_once_give_what_each_gives_alone():
    several = np.array([[2.0], [9.0]])
    shot = shot_of("orbit_with_pan_left", setting(), np.random.default_rng(5), rolled=standing(31))
    both = film(shot, at_once(away=several, away_frames=7.0, back=20.0, back_frames=9.0), 0.1)
    for row, away in enumerate((2.0, 9.0)):
        alone = film(shot, at_once(away=away, away_frames=7.0, back=20.0, back_frames=9.0), 0.1)
        np.testing.assert_allclose(both.eye[row], alone.eye)
        np.testing.assert_allclose(both.yaw[row], alone.yaw)


def test_a_camera_that_looks_aside_first_turns_to_its_subject_in_time():
    shot = shot_of("pan_left", setting(), np.random.default_rng(6), rolled=standing(40), aside=0.7)
    never = {"away": 99.0, "away_frames": 9.0, "back": 99.0, "back_frames": 9.0}
    track = film(shot, Timing(arrive=5.0, arrive_frames=10.0, **never), 0)
    assert track.yaw[0] == pytest.approx(shot.yaw + 0.7)
    assert track.yaw[5] == pytest.approx(shot.yaw + 0.7)
    np.testing.assert_allclose(track.yaw[15:], shot.yaw)


def test_a_dolly_stays_beside_who_walks_a_bend_and_knows_nothing_of_the_hidden_way():
    track = some_walk("arc", frames=60, fps=10).position[:, :2]
    other = track.copy()
    other[30:] += 5.0  # what happens out of sight
    rolled, same = (dolly(way, range(4, 30), 0.5, 10) for way in (track, other))
    np.testing.assert_allclose(rolled, same)
    beside = track[4:30] - rolled[4:30]
    assert np.ptp(beside, axis=0).max() < 0.35  # where the subject itself goes 3 metres
    steps = np.linalg.norm(np.diff(rolled, axis=0), axis=1)
    assert steps[50] == pytest.approx(steps[27] * 0.5, rel=0.1)  # half its pace, later
    assert np.abs(np.diff(rolled, 2, axis=0)).max() < 0.02  # without a jerk
