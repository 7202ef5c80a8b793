"""Light on surfaces against the formulas written out: normals, sun, shadows, sky, lamps and haze, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hmcli.recipe.sections import WorldConfig
from hmcli.world.render import draw_clip
from hmcli.world.space.light import Lamp, Light
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, ROUND_CONE, Ground, Paint, ShapeList, turn_about_z
from hmcli.world.staging.clip import ClipDescription, describe_clip

SIZE = (48, 64)
GREY, RED = (0.5, 0.5, 0.5), (0.8, 0.4, 0.3)
AWAY = np.array([300.0, 0.0, 1.6])  # from the subjects of the clip: middle of the shape
FIRST, LAST, LENGTH = 0.9, 0.9, 1.1  # of the round cone: a limb of one thickness
SIZES = {
    BOX: (1.2, 0.8, 1.0), ELLIPSOID: (1.3, 0.8, 1.0), ROUND_CONE: (FIRST, LAST, LENGTH), CYLINDER: (1.0, 1.0, 1.1),
    CONE: (1.2, 1.2, 1.3),
}  # fmt: skip
TURN = turn_about_z(0.5)


def round_cone(p: np.ndarray, last: float) -> np.ndarray:
    """1 plus metres outside of balls of every size between the first and the last, the nearest of them."""
    aside, z, sine = np.hypot(p[..., 0], p[..., 1]), p[..., 2], (FIRST - last) / LENGTH
    along = np.clip(z - aside * sine / np.sqrt(1 - sine**2), 0, LENGTH)
    return 1 + np.hypot(aside, z - along) - (FIRST + along / LENGTH * (last - FIRST))


# inside below 1, on the surface 1; of points in the shape's own frame, metres
INSIDE: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    BOX: lambda p: np.abs(p / SIZES[BOX]).max(-1),
    ELLIPSOID: lambda p: np.linalg.norm(p / SIZES[ELLIPSOID], axis=-1),
    ROUND_CONE: lambda p: round_cone(p, LAST),
    CYLINDER: lambda p: np.maximum(np.hypot(p[..., 0], p[..., 1]) / SIZES[CYLINDER][0], np.abs(p[..., 2]) / 1.1),
    CONE: lambda p: np.maximum(np.hypot(p[..., 0], p[..., 1]) / 1.2 + (p[..., 2] / 1.3 + 1) / 2, -p[..., 2] / 1.3),
}
LIGHT = Light(
    towards_sun=(-0.48, -0.6, 0.64), sun=(1.0, 0.9, 0.7), sun_strength=1.1, sky_strength=0.4, fill=(0.2, 0.3, 0.4),
    zenith=(0.3, 0.5, 0.8), horizon=(0.8, 0.7, 0.6), cloud=0.0, haze=0.03, stars=0.0, towards_orb=(0.0, 1.0, 0.0),
    orb=(0.0, 0.0, 0.0), orb_radius=0.0, words="",
)  # fmt: skip
LAMP = Lamp(place=(301.5, -2.5, 3.0), colour=(0.9, 0.9, 0.4), strength=6.0)


@pytest.fixture(scope="module")
def clip() -> ClipDescription:
    world = WorldConfig(context_frames=13, target_frames=17, fps=5, size=(24, 40), subjects_per_clip=(1, 1))
    return describe_clip(world, 0, 1)


def staged(clip: ClipDescription, kind: int) -> ClipDescription:
    """One red shape over grey ground, far from the subjects, filmed from eight metres away and a little above."""
    shapes = ShapeList()
    shapes.add(kind, AWAY, SIZES[kind], Paint(colour=RED), axes=TURN)
    down = 0.25
    forward, right = np.array([0, np.cos(down), -np.sin(down)]), np.array([1.0, 0, 0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], -1)
    pose[:3, 3] = AWAY + np.array([0.4, -8.0, 2.2])
    scene = replace(clip.scene, shapes=shapes.shapes(), ground=Ground(paint=Paint(colour=GREY)), lamps=(LAMP,))
    poses = np.repeat(pose[None], clip.frames, 0)
    return replace(clip, scene=scene, light=LIGHT, world_from_camera=poses)


def points(clip: ClipDescription, depth: np.ndarray) -> np.ndarray:
    """(H, W, 3) where the rays of the first frame end, in the world."""
    fx, fy, cx, cy = clip.intrinsics(SIZE)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(SIZE)], -1)
    pose = clip.world_from_camera[0]
    return (rays * depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]


def shown(clip: ClipDescription, kind: int, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours that the formulas give to points (H, W, 3), in 255 levels, and which of them lie on the shape."""
    sun = np.array(LIGHT.towards_sun)

    def inside(q: np.ndarray) -> np.ndarray:
        return INSIDE[kind]((q - AWAY) @ TURN)

    on_ground = np.abs(p[..., 2]) < 1e-3
    slope = np.stack([inside(p + d) - inside(p - d) for d in 1e-4 * np.eye(3)], -1)
    normal = np.where(on_ground[..., None], [0.0, 0, 1], slope / np.linalg.norm(slope, axis=-1, keepdims=True))
    steps = p[..., None, :] + np.linspace(0.02, 6, 150)[:, None] * sun
    sunny = (inside(steps).min(-1) > 1) | ~on_ground
    up = (normal[..., 2:] + 1) / 2
    sky = np.square(LIGHT.zenith) * 0.55 + np.square(LIGHT.horizon) * 0.45
    light = np.square(LIGHT.sun) * LIGHT.sun_strength * (np.maximum(normal @ sun, 0) * sunny)[..., None]
    light = light + LIGHT.sky_strength * (sky * up + 0.16 * (1 - up)) + np.square(LIGHT.fill) * (0.6 + 0.4 * up)
    away = p - LAMP.place
    square = (away**2).sum(-1) + 0.05
    facing = (normal * away).sum(-1) / np.sqrt(square)
    lamp = np.maximum(0.25 - 0.75 * facing, 0) * LAMP.strength / (square + 1)
    light = (light + np.square(LAMP.colour) * lamp[..., None]) * np.where(on_ground[..., None], GREY, RED) ** 2
    metres = np.linalg.norm(p - clip.world_from_camera[0, :3, 3], axis=-1)[..., None]
    clear = 1 / (1 + (metres * LIGHT.haze) ** 2)
    hazy = np.square(LIGHT.horizon) * (LIGHT.sky_strength * 0.55 + 0.55)
    light = light * clear + hazy * (1 - clear)
    return 255 * np.sqrt(np.clip(1.45 * light * (1 + light / 4) / (1 + light), 0, 1)), ~on_ground


@pytest.mark.parametrize("kind", list(SIZES), ids=["box", "ellipsoid", "round cone", "cylinder", "cone"])
def test_pixels_have_the_colours_of_the_formulas(clip: ClipDescription, kind: int):
    stage = staged(clip, kind)
    drawn = draw_clip(stage, SIZE, antialias=False)
    seen = np.isfinite(drawn.depth[0])
    p = points(stage, np.where(seen, drawn.depth[0], 1.0))
    wanted, on_shape = shown(stage, kind, p)
    off = np.abs(drawn.rgb[0] - wanted).max(-1)
    assert (seen & on_shape).sum() > 150
    assert np.abs(INSIDE[kind]((p[seen & on_shape] - AWAY) @ TURN) - 1).max() < 2e-3
    for part in (seen & on_shape, seen & ~on_shape):
        assert (off[part] < 1.5).mean() > 0.97, np.percentile(off[part], [50, 90, 97, 100])  # but for rims of shadows
