"""Company and obstacles: nobody walks through anybody or anything; what covers whom."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.hidden.cover import LOOKED_AT, covered, covers, somebody_covered
from hmcli.world.space.obstacles import blocked, clearance, footprints
from hmcli.world.space.shapes import BOX, CYLINDER, Paint, ShapeList, Shapes, turn_about_z
from hmcli.world.staging.company import Walker, not_too_near
from hmcli.world.staging.paths import Course, walk
from hmcli.world.staging.shooting import Lens
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.sight import Body, sight
from hmcli.world.views.trajectories import CameraTrack

GREY = Paint(colour=(0.5, 0.5, 0.5))


def things():
    found = ShapeList()
    found.add(BOX, (2.0, 1.0, 0.5), (1.0, 0.25, 0.5), GREY, turn_about_z(np.pi / 6))
    found.add(CYLINDER, (-3.0, 0.0, 3.0), (0.5, 0.5, 0.5), GREY)  # overhead
    found.add(BOX, (0.0, 0.0, 0.01), (5.0, 5.0, 0.01), GREY)  # a mat
    return footprints(found.shapes())


def test_clearance_is_the_distance_to_the_turned_box():
    across = np.array([-np.sin(np.pi / 6), np.cos(np.pi / 6)])
    for away in (0.3, 1.0, 2.0):
        spot = np.array([2.0, 1.0]) + across * (0.25 + away)
        assert clearance(spot[None], things(), 0.0, 1.8) == pytest.approx(away)
    assert clearance(np.array([[2.1, 1.05]]), things(), 0.0, 1.8) == 0


def test_mats_and_what_hangs_overhead_are_in_nobody_s_way():
    far = np.array([[-3.0, 0.0]])
    assert clearance(far, things(), 0.0, 1.8) > 3.0
    assert clearance(far, things(), 0.0, 3.0) == 0


def test_the_nearest_point_of_a_way_counts():
    way = np.stack([np.linspace(-2, 6, 33), np.full(33, -1.5)], -1)
    alone = min(clearance(point[None], things(), 0, 1.8) for point in way)
    assert clearance(way, things(), 0, 1.8) == pytest.approx(alone)


def test_sight_knows_the_edges_of_the_picture():
    frames = 5
    camera = CameraTrack(eye=np.tile([0.0, -10.0, 2.0], (frames, 1)), yaw=np.full(frames, np.pi / 2))
    track = np.stack([np.array([0.0, 3.0, 3.4, 5.0, -3.4]), np.zeros(frames)], -1)
    seen = sight(camera, Body(track=track, heading=np.zeros(frames), radius=0.5, tall=1.8))
    half = np.arctan(0.34)
    assert seen.wholly(half).tolist() == [True, False, False, False, False]
    assert seen.partly(half).tolist() == [True, True, True, False, True]
    assert (np.sign(seen.beside) == [0, -1, -1, -1, 1]).all()  # left is positive
    np.testing.assert_allclose(seen.ahead, 10.0)


def test_a_wall_covers_who_stands_behind_it_and_not_who_stands_before():
    frames = 3
    wall, body = ShapeList(), ShapeList(frames, owner=1)
    wall.add(BOX, (0.0, -2.0, 1.5), (1.0, 0.1, 1.5), GREY)
    body.add(BOX, np.array([[0.0, 0.0, 0.9], [2.2, 0.0, 0.9], [0.0, -4.0, 0.9]]), (0.2, 0.2, 0.8), GREY)
    pose = np.tile(np.array([[1, 0, 0, 0], [0, 0, 1, -10], [0, -1, 0, 1.5], [0, 0, 0, 1.0]]), (frames, 1, 1))
    assert covered(body.shapes(), [covers(wall.shapes(), pose)], pose).tolist() == [True, False, False]


def watching(frames: int, height: float = 2.0) -> CameraTrack:
    """From (0, -10), looking along +y."""
    return CameraTrack(eye=np.tile([0.0, -10.0, height], (frames, 1)), yaw=np.full(frames, np.pi / 2))


def test_a_crowd_wants_somebody_covered_for_so_many_frames_on_end():
    frames = 31
    wall = ShapeList()
    wall.add(BOX, (0.0, -2.0, 1.5), (1.0, 0.1, 1.5), GREY)
    places = np.stack([np.linspace(-3.0, 3.0, frames), np.zeros(frames), np.full(frames, 0.9)], -1)
    behind = np.tile([0.0, 5.0, 0.9], (frames, 1))
    poses = watching(frames, 1.5).world_from_camera()
    count = int(covered(somebody(places), [covers(wall.shapes(), poses)], poses).sum())
    assert 5 <= count <= 9
    one, other = (somebody(way[LOOKED_AT]) for way in (places, behind))
    poses = poses[LOOKED_AT]
    things = covers(wall.shapes(), poses)
    assert somebody_covered([one], things, poses, 0.8, count - 1)
    assert not somebody_covered([one], things, poses, 0.8, count + 2)
    assert somebody_covered([one, other], things, poses, 0.8, frames)


def somebody(places: np.ndarray) -> Shapes:
    """A box of a person at these places (T, 3)."""
    body = ShapeList(len(places), owner=1)
    body.add(BOX, places, (0.2, 0.2, 0.8), GREY)
    return body.shapes()


def test_a_thing_close_before_the_camera_blocks_its_view():
    found = ShapeList()
    found.add(BOX, (0.4, -8.0, 1.5), (0.4, 0.2, 1.5), GREY)
    found.add(BOX, (0.0, -5.0, 1.5), (9.0, 0.2, 1.5), GREY)  # a wall, too far away
    found.add(BOX, (0.0, -9.0, 0.5), (1.0, 0.2, 0.5), GREY)  # a bench below the camera
    around = np.pi / 2 + np.array([0.0, np.pi, 0.35])
    eye = np.tile([0.0, -10.0, 2.0], (3, 1))
    share = blocked(eye, around, 0.3, footprints(found.shapes()), 3.0)
    assert share == pytest.approx([7 / 13, 0.0, 0.0], abs=1 / 13)


def test_a_subject_whose_legs_are_below_the_picture_is_too_near():
    subject = SUBJECTS["walker"](np.random.default_rng(0))
    lens = Lens(half_angle=np.deg2rad(18.5), aspect=4 / 7, height=(0.3, 0.9), cut=0.1)
    away = walk(Course(), 9, 10, 1.0, 0.0)
    # feet are in the picture from 10.5 metres on, and a tenth may be cut
    for ahead, fits in (
        (11.0, True),
        (9.5, True),
        (7.0, False),
    ):
        walker = Walker(subject=subject, path="straight", walk=away.moved(np.array([0.0, ahead - 10.0])))
        assert not_too_near(walker, watching(9), lens) == fits


def test_a_turned_walk_is_the_same_walk():
    before = walk(Course(turn=0.4), 17, 10, 1.2, 0.3)
    after = before.turned(np.pi / 2)
    np.testing.assert_allclose(after.position[:, 0], -before.position[:, 1], atol=1e-12)
    np.testing.assert_allclose(after.position[:, 1], before.position[:, 0], atol=1e-12)
    np.testing.assert_allclose(after.heading - before.heading, np.pi / 2)
    np.testing.assert_array_equal(after.distance, before.distance)
