"""Company and obstacles: nobody walks through anybody or anything; what covers whom."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.cover import covered
from hmcli.world.obstacles import clearance, footprints
from hmcli.world.shapes import BOX, CYLINDER, Paint, ShapeList, turn_about_z
from hmcli.world.sight import Body, sight
from hmcli.world.trajectories import CameraTrack

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
    assert covered(body.shapes(), [wall.shapes()], pose).tolist() == [True, False, False]
