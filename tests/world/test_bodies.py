"""Bodies and gait: feet stand where they are put, and figures neither float nor sink."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcli.world.bodies import Biped, Person, Quadruped, posed, settled
from hmcli.world.bodies.gait import foot_path, reach
from hmcli.world.space import extent
from hmcli.world.space.shapes import ROUND_CONE, Shapes, corners
from hmcli.world.subjects import SUBJECTS, Subject


def drawn(family: str, seed: int) -> tuple[Subject, np.ndarray, Shapes]:
    """A subject, phases over two strides, and its shapes there."""
    subject, phase_T = SUBJECTS[family](np.random.default_rng(seed)), np.linspace(0, 2, 81)
    return subject, phase_T, posed(subject.figure, phase_T, owner=1)


def flies(subject: Subject) -> bool:
    """Does it run or hop, so that no foot stands for a while?"""
    return not isinstance(subject.figure, Quadruped) and subject.figure.duty < 0.5


@pytest.mark.parametrize("family", list(SUBJECTS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_stand_on_the_ground_and_nothing_sinks(family, seed):
    subject, _, shapes = drawn(family, seed)
    lowest = extent.bottom(shapes).min(1)
    assert lowest.min() > -0.003
    assert lowest.min() < 0.005
    assert flies(subject) or lowest.max() < 0.006
    assert lowest.max() < 0.3


@pytest.mark.parametrize("family", list(SUBJECTS))
def test_standing_feet_stay_where_they_are(family):
    subject, phase_T, shapes = drawn(family, 4)
    height = shapes.centre[..., 2] - shapes.size[..., 0]  # of a limb's first ball: of a foot, the one below the ankle
    along = shapes.centre[..., 0] + phase_T[:, None] * subject.figure.stride_metres  # in the world, walking along x
    steps = np.ptp(shapes.centre[..., 0], axis=0) > 0.3 * subject.figure.stride_metres
    feet = (height.min(0) < 0.008) & steps & (shapes.kind == ROUND_CONE)
    stood = 0
    for foot in np.nonzero(feet)[0]:
        stands = height[:, foot] < height[:, foot].min() + 1e-5
        pairs = stands[1:] & stands[:-1] & (np.abs(np.diff(along[:, foot])) < 0.3 * subject.figure.stride_metres)
        assert np.abs(np.diff(along[:, foot]))[pairs].max() < 1e-3
        stood += int(pairs.sum()) > 20
    assert stood >= (2 if isinstance(subject.figure, Person | Biped) else 4)


@pytest.mark.parametrize("family", list(SUBJECTS))
def test_the_stated_sizes_hold_the_body(family):
    subject, _, shapes = drawn(family, 5)
    eight = np.arange(8) * np.pi / 4
    reach = max(extent.reach_along(shapes, (np.cos(a), np.sin(a), 0.0)).max() for a in eight)
    assert reach < 1.03 * subject.radius
    assert extent.top(shapes) == pytest.approx(subject.tall, rel=0.03)
    assert subject.body_length >= subject.tall
    assert subject.body_length <= 2.3 * subject.radius or subject.body_length == subject.tall
    assert 0.5 < subject.tall < 4.0


def test_there_are_49_families_of_people_and_animals_in_few_shapes():
    subjects = [SUBJECTS[family](np.random.default_rng(0)) for family in SUBJECTS]
    kinds = [subject.kind for subject in subjects]
    assert (kinds.count("person"), kinds.count("animal")) == (27, 22)
    assert {subject.plain for subject in subjects} == {"a person", "an animal"}
    assert max(len(posed(subject.figure, np.zeros(1), owner=1).kind) for subject in subjects) <= 40


@given(stride=st.floats(0.5, 2.0), duty=st.floats(0.4, 0.8), speed=st.floats(0.01, 0.2))
def test_a_standing_foot_does_not_slide(stride, duty, speed):
    phase = np.arange(0, duty, speed)
    x, z = foot_path(phase, stride, duty, lift=0.1)
    on_the_ground = phase * stride + x  # the body has moved on by phase * stride
    np.testing.assert_allclose(on_the_ground, on_the_ground[0], atol=1e-9)
    assert not z.any()


@given(st.floats(-0.5, 0.5), st.floats(0.2, 1.2), st.sampled_from([-1.0, 1.0]))
def test_legs_keep_their_length_whatever_they_reach_for(x, drop, bend):
    hip = np.array([[0.1, 0.2, 1.0]])
    knee, foot = reach(hip, hip + np.array([[x, 0.0, -drop]]), upper=0.45, lower=0.40, bend=bend)
    assert np.linalg.norm(knee - hip) == pytest.approx(0.45, abs=1e-6)
    assert np.linalg.norm(foot - knee) == pytest.approx(0.40, abs=1e-6)


@pytest.mark.parametrize("family", list(SUBJECTS))
def test_members_of_a_family_differ_and_a_seed_repeats_one(family):
    first, again, other = (SUBJECTS[family](np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first.figure != other.figure


def test_shapes_turn_and_move_with_the_subject():
    shapes = posed(SUBJECTS["dog"](np.random.default_rng(0)).figure, np.zeros(2), owner=2)
    moved = shapes.placed(np.array([[0.0, 0, 0], [3.0, -1, 0]]), np.array([0.0, np.pi / 2]))
    np.testing.assert_allclose(moved.centre[0], shapes.centre[0], atol=1e-12)
    x, y, z = shapes.centre[1].T
    np.testing.assert_allclose(moved.centre[1], np.stack([3 - y, x - 1, z], -1), atol=1e-12)
    np.testing.assert_allclose(
        moved.axes @ moved.axes.transpose(0, 1, 3, 2), np.broadcast_to(np.eye(3), moved.axes.shape), atol=1e-9
    )
    assert (moved.owner == 2).all()


@pytest.mark.parametrize("family", ["walker", "ostrich", "kangaroo"])
def test_who_stands_has_all_feet_on_the_ground_whatever_the_phase(family):
    figure = SUBJECTS[family](np.random.default_rng(0)).figure
    phase = np.linspace(0, 1, 25)
    walking, standing = (posed(figure, phase, 1, lift) for lift in (1.0, np.zeros(25)))
    lifted, resting = (highest_foot(shapes) for shapes in (walking, standing))
    assert lifted.max() > 0.02
    assert resting.max() < 0.01


@pytest.mark.parametrize("family", [name for name in SUBJECTS if isinstance(drawn(name, 0)[0].figure, Person)])
def test_the_soles_of_a_standing_person_lie_flat(family):
    shapes = posed(drawn(family, 0)[0].figure, np.zeros(1), 1, lift=np.zeros(1))
    heel = shapes.centre[0, :, 2] - shapes.size[0, :, 0]
    toe = (shapes.centre + shapes.axes[..., 2] * shapes.size[..., 2:])[0, :, 2] - shapes.size[0, :, 1]
    soles = (shapes.kind == ROUND_CONE) & (heel < 0.01)
    assert soles.sum() == 2
    assert np.abs(toe[soles]).max() < 0.006


def highest_foot(shapes: Shapes) -> np.ndarray:
    """(T,) metres: how high the lowest shape is on that side of the body where it is higher."""
    low = corners(shapes)[..., 2].min(-1)
    sides = [np.where(sign * shapes.centre[..., 1] > 0.02, low, np.inf).min(1) for sign in (1, -1)]
    return np.asarray(np.maximum(*sides))


def test_feet_settle_before_somebody_stands_and_not_while_it_slows_down_a_little():
    step = np.concatenate([np.full(10, 0.1), np.linspace(0.1, 0.0, 6), np.zeros(6), np.full(6, 0.1)])
    lift = settled(step.cumsum())
    assert lift[:8].min() == 1.0
    assert lift[17:20].max() == 0.0
    assert lift[-2:].min() == 1.0
    assert settled(np.linspace(0.3, 1.0, 20).cumsum()).min() == 1.0
