"""Bodies and gait: feet stand where they are put, and figures neither float nor sink."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcli.world.bodies import posed
from hmcli.world.gait import foot_path, reach
from hmcli.world.shapes import ROUND_CONE, Shapes, corners
from hmcli.world.subjects import SUBJECTS


def lowest(shapes: Shapes) -> np.ndarray:
    """(T,) height of the lowest point of all round cones (both end balls)."""
    limbs = shapes.kind == ROUND_CONE
    first, last, length = np.moveaxis(shapes.size[:, limbs], -1, 0)
    start = shapes.centre[:, limbs, 2]
    end = start + shapes.axes[:, limbs, 2, 2] * length
    return np.minimum(start - first, end - last).min(1)


@pytest.mark.parametrize("family", list(SUBJECTS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_stand_on_the_ground_in_every_phase(family, seed):
    subject = SUBJECTS[family](np.random.default_rng(seed))
    feet = lowest(posed(subject.figure, np.linspace(0, 2, 41), owner=1))
    assert feet.min() > -0.02 * subject.figure.height
    assert feet.max() < 0.03 * subject.figure.height


@pytest.mark.parametrize("family", list(SUBJECTS))
def test_the_stated_height_is_that_of_the_figure(family):
    subject = SUBJECTS[family](np.random.default_rng(5))
    shapes = posed(subject.figure, np.zeros(1), owner=1)
    assert corners(shapes)[..., 2].max() == pytest.approx(subject.tall, rel=0.15)


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


def test_members_of_a_family_differ_and_a_seed_repeats_one():
    first, again, other = (SUBJECTS["walker"](np.random.default_rng(seed)) for seed in (3, 3, 4))
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
