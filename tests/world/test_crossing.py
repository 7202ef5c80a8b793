"""Crossing: ways on which somebody of a crowd is hidden for a while."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hmcli.world.bodies import settled
from hmcli.world.hidden.cover import LOOKED_AT, somebody_covered, things_that_cover
from hmcli.world.space.obstacles import footprints
from hmcli.world.space.shapes import CYLINDER, Paint, ShapeList, Shapes
from hmcli.world.staging.clip import Actor
from hmcli.world.staging.company import Stage, Walker, apart, free_of_things, not_too_near, noticed, set_out
from hmcli.world.staging.crossing import _STRAY, Crossing, Spots, _in_line, cross, crossing, crowd
from hmcli.world.staging.shooting import Lens
from hmcli.world.subjects import SUBJECTS, Subject
from hmcli.world.views.trajectories import CameraTrack

FRAMES, FPS, HIDDEN = 77, 15, 5
LENS = Lens(half_angle=np.deg2rad(30), aspect=4 / 7, height=(0.3, 0.9), cut=0.1)


def a(family: str, seed: int = 0) -> Subject:
    return SUBJECTS[family](np.random.default_rng(seed))


def ground(*pillars: tuple[float, float, float]) -> Shapes:
    """A far bush, and pillars: x, y and radius, metres."""
    found = ShapeList()
    for x, y, radius in ((0.0, 40.0, 0.5), *pillars):
        found.add(CYLINDER, (x, y, 1.4), (radius, radius, 1.4), Paint(colour=(0.5, 0.5, 0.5)))
    return found.shapes()


def found(first: str, things: Shapes, seed: int, moves: float = 1.0) -> Crossing:
    """The first subject walks about the origin; the camera, ten metres away, goes `moves` metres sideways."""
    rng = np.random.default_rng(seed)
    eye = np.stack([np.linspace(0, moves, FRAMES), np.full(FRAMES, -8.0), np.full(FRAMES, 1.5)], -1)
    camera = CameraTrack(eye=eye, yaw=np.full(FRAMES, np.pi / 2))
    stage = Stage(camera=camera, arrive=0, leave=45, lens=LENS, things=footprints(things), fps=FPS)
    walker = set_out(a(first), "straight", FRAMES, FPS, 1.0, rng)
    covering = things_that_cover(things, camera.world_from_camera()[LOOKED_AT])
    return crossing(walker, stage, covering, HIDDEN)


def bearings(points: np.ndarray) -> np.ndarray:
    return np.arctan2(points[:, 1], points[:, 0])


def really_hidden(people: list[Walker], at: Crossing, things: Shapes) -> bool:
    """Looking at every part of everybody."""
    bodies = []
    for number, one in enumerate(people, 1):
        strides = one.walk.distance / one.subject.figure.stride_metres
        lift = settled(one.walk.distance)
        actor = Actor(number=number, subject=one.subject, path=one.path, walk=one.walk, phase=strides, lift=lift)
        bodies.append(actor.shapes(LOOKED_AT))
    poses = at.camera.world_from_camera()
    return somebody_covered(bodies, things_that_cover(things, poses), poses, LENS.half_width, HIDDEN)


@pytest.mark.parametrize(
    ("first", "second", "things", "behind"),
    [
        ("walker", "schoolchild", ground((-1.0, -3.0, 0.5), (2.0, -2.5, 0.5)), "a thing"),
        ("elephant", "horse", ground(), "the first"),
        ("tortoise", "panda", ground(), "the second"),
    ],
)
def test_who_crosses_is_hidden_or_hides_the_first(first, second, things, behind):
    """As boxes are less than the whole truth, most of those found are enough."""
    really = []
    for seed in range(9):
        at = found(first, things, seed)
        one = cross(a(second), ["straight"], at, np.random.default_rng(seed))
        if one is None:
            continue
        assert apart(one, at.first)
        assert noticed(one, at.stage)
        assert not_too_near(one, at.stage.camera, LENS)
        assert free_of_things(one, at.stage.things)
        really.append(really_hidden([at.first, one], at, things))
    assert len(really) >= (2 if behind == "the second" else 8)
    assert np.mean(really) > 0.6


def test_a_crossing_stays_in_line_whatever_the_camera_and_what_it_crosses_do():
    """From the frame on in which it stands in line, it drifts across the view no faster than its heading strays."""
    at = found("walker", ground(), 3, moves=5.0)
    walker, frame, rng = at.first, np.arange(10, 40), np.random.default_rng(1)
    eye, drift = at.stage.camera.eye[:, :2], rng.uniform(-0.03, 0.03, (len(frame), 2))
    target = rng.uniform(-2, 2, (len(frame), 2))
    spots = Spots(frame=frame, away=rng.uniform(4, 12, len(frame)), target=target, drift=drift)
    track = _in_line(walker, spots, at.stage.camera, rng).bodies(walker).track
    now, then = (track[np.arange(len(frame)), frame + ahead] - eye[frame + ahead] for ahead in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(now, axis=1), spots.away)
    np.testing.assert_allclose(bearings(now), bearings(target - eye[frame]))
    apart_by = bearings(then) - bearings(target + drift - eye[frame + 1])
    step = np.linalg.norm(np.diff(walker.body.track, axis=0), axis=1)[frame]
    assert (np.abs(apart_by) * spots.away < 4 * _STRAY * step + 1e-3).all()
    assert np.abs(np.diff(eye[:, 0])).max() > 4 * _STRAY * step.max()  # the camera goes faster than that


def test_in_a_crowd_one_after_another_crosses_and_all_keep_their_places():
    things, rng = ground((0.5, -3.0, 0.6), (2.5, -3.0, 0.6)), np.random.default_rng(2)
    at = found("elephant", things, 0)
    assert not at.first_hidden
    others = (a("horse"), a("cow"))
    crossed = tried = 0
    for number in range(4):
        people = crowd(others, ["straight"], at, number, rng)
        if people is not None:
            assert [one.subject for one in people] == [at.first.subject, *others]
            assert all(apart(one, other) for one, other in itertools.combinations(people, 2))
            crossed += really_hidden([at.first, people[1 + number % 2]], at, things)
            tried += 1
    assert tried >= 2
    assert crossed >= tried / 2
