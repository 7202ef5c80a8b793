"""Intersection: every shape against its plain definition, walked along the ray in small steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmcli.world.render.intersect import MISS, enter
from hmcli.world.space import shapes

KINDS = {
    "box": (shapes.BOX, lambda p, s: (np.abs(p) < 1).all(-1)),
    "ellipsoid": (shapes.ELLIPSOID, lambda p, s: (p * p).sum(-1) < 1),
    "cylinder": (shapes.CYLINDER, lambda p, s: (np.hypot(p[..., 0], p[..., 1]) < 1) & (np.abs(p[..., 2]) < 1)),
    "cone": (
        shapes.CONE,
        lambda p, s: (np.hypot(p[..., 0], p[..., 1]) < (1 - p[..., 2]) / 2) & (np.abs(p[..., 2]) < 1),
    ),
    "round cone": (shapes.ROUND_CONE, lambda p, s: in_round_cone(p, s)),
}


def in_round_cone(points: np.ndarray, size: tuple[float, float, float]) -> np.ndarray:
    """Inside any of the balls between the two ends."""
    along = np.linspace(0, 1, 200)[:, None]
    radius = size[0] + (size[1] - size[0]) * along
    away = points - along[..., None] * np.array([0, 0, size[2]])
    return (np.linalg.norm(away, axis=-1) < radius).any(0)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("size", [(0.5, 0.3, 1.5), (0.2, 0.6, 0.9)])
def test_rays_enter_where_they_first_meet_the_shape(kind, size):
    number, inside = KINDS[kind]
    rng = np.random.default_rng(8)
    origin = rng.normal(size=(80, 3))
    origin *= rng.uniform(3, 5, (80, 1)) / np.linalg.norm(origin, axis=1, keepdims=True)
    direction = rng.uniform(-1.7, 1.7, (80, 3)) - origin
    steps = np.linspace(0, 2, 1001)
    walked = np.stack([inside(origin + t * direction, size) for t in steps])
    met = walked.any(0)

    def columns(values: np.ndarray) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor(values, dtype=torch.float32).unbind(1))

    found = enter(number, columns(origin), columns(direction), columns(np.tile(size, (80, 1)))).numpy()
    surely = met & (walked.sum(0) > 8)  # a shorter way inside is lost between the steps
    assert surely.sum() > 8
    assert (~met).sum() > 5
    np.testing.assert_allclose(found[surely], steps[walked.argmax(0)][surely], atol=4e-3)
    assert (found[~met] == MISS).mean() > 0.9  # a graze may be missed by the steps
    assert (found[met] < MISS).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_shapes_behind_the_ray_are_not_met(kind):
    def one(*values: float) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor([value]) for value in values)

    assert enter(KINDS[kind][0], one(4.0, 0.1, 0.2), one(1.0, 0.0, 0.05), one(0.5, 0.3, 1.0)).item() == MISS
