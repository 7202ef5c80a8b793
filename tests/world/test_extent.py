"""Extent: how far shapes reach, compared with many points on their surfaces."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.space import extent
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, Paint, ShapeList

GREY = Paint(colour=(0.5, 0.5, 0.5))


def tilted(rng: np.random.Generator) -> np.ndarray:
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return axes


def surface(kind: int, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) points of a shape in its own frame, corners and rims among them."""
    if kind == BOX:
        return size * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    if kind == ELLIPSOID:
        ball = rng.normal(size=(60000, 3))
        return size * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, 3000)
    ring = np.stack([size[0] * np.cos(angle), size[0] * np.sin(angle), 0 * angle], 1)
    up = np.array([0.0, 0.0, size[2]])
    return np.concatenate([ring - up, (ring if kind == CYLINDER else np.zeros((1, 3))) + up])


@pytest.mark.parametrize("kind", [BOX, ELLIPSOID, CYLINDER, CONE])
def test_reach_is_that_of_the_furthest_point(kind):
    rng = np.random.default_rng(kind)
    for _ in range(4):
        axes, centre, size = tilted(rng), rng.normal(size=3), rng.uniform(0.2, 0.9, 3)
        if kind in (CYLINDER, CONE):
            size[1] = size[0]
        things = ShapeList()
        things.add(kind, centre, size, GREY, axes)
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        points = centre + surface(kind, size, rng) @ axes.T
        found = extent.reach_along(things.shapes(), tuple(direction))
        assert found[0, 0] == pytest.approx((points @ direction).max(), abs=2e-3)


def test_a_limb_reaches_as_far_as_its_end_balls():
    things = ShapeList()
    things.limb((0.0, 0.0, 1.0), (2.0, 0.0, 1.0), 0.3, 0.5, GREY)
    things.limb((-1.0, 1.0, 3.0), (-1.0, 1.0, 2.0), 0.2, 0.1, GREY)
    shapes = things.shapes()
    assert extent.top(shapes) == pytest.approx(3.2)
    np.testing.assert_allclose(extent.bottom(shapes), [[0.5, 1.9]], atol=1e-9)
    assert extent.length(shapes) == pytest.approx(2.5 + 1.2)
    assert extent.ground_radius(shapes) == pytest.approx(2.5, rel=0.01)
