"""Views: one draw of a scene family, looked at from the camera's place in several directions, for tests of scenes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from hmcli.recipe.sections import WorldConfig
from hmcli.world.render import draw_clip
from hmcli.world.scenes import SCENES
from hmcli.world.space.light import light_from
from hmcli.world.staging.clip import ClipDescription, describe_clip

DIRECTIONS = (0.0, -52.0, 48.0)  # degrees to the right of +y, where the subject is


@cache
def _any_clip() -> ClipDescription:
    return describe_clip(WorldConfig(subjects=("walker",)), 0, 0)


def looking(degrees: float, eye: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) world_from_camera of a level camera."""
    angle = np.deg2rad(degrees)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1] = (np.cos(angle), -np.sin(angle), 0.0), (0.0, 0.0, -1.0)
    pose[:3, 2], pose[:3, 3] = (np.sin(angle), np.cos(angle), 0.0), eye
    return pose


def stand(family: str, draw: int, directions: tuple[float, ...] = DIRECTIONS) -> ClipDescription:
    """One frame in each direction; layout, light and the camera's place differ from draw to draw."""
    rng = np.random.default_rng([list(SCENES).index(family), draw])
    scene = SCENES[family](rng)
    light = light_from(rng, scene.moods)
    eye = (rng.uniform(-2, 2), rng.uniform(-10, -7.5), rng.uniform(1.0, 1.7))
    poses = np.stack([looking(degrees + rng.uniform(-8, 8), eye) for degrees in directions])
    clip, frames = _any_clip(), len(directions)
    actor = clip.actors[0]
    walk = replace(
        actor.walk, **{name: getattr(actor.walk, name)[:frames] for name in ("position", "heading", "distance")}
    )
    return replace(
        clip, scene=scene, light=light, world_from_camera=poses, texture_seed=int(rng.integers(2**31)),
        actors=(replace(actor, walk=walk, phase=actor.phase[:frames], lift=actor.lift[:frames]),),
        needs=replace(clip.needs, context_frames=frames), target_frames=0,
    )  # fmt: skip


def views(family: str, draw: int, size: tuple[int, int]) -> np.ndarray:
    """(directions, H, W, 3) uint8."""
    return draw_clip(stand(family, draw), size).rgb


def descriptor(views_VHW3: np.ndarray) -> np.ndarray:
    """What a place looks like at a glance: shares of 64 colours, and each view as 8 x 8 pixels."""
    levels = (views_VHW3 // 64).astype(int)
    colours = np.bincount((levels @ (16, 4, 1)).ravel(), minlength=64) / levels[..., 0].size
    count, height, width, _ = views_VHW3.shape
    small = views_VHW3.reshape(count, 8, height // 8, 8, width // 8, 3).mean((2, 4)) / 255
    return np.concatenate([np.sqrt(colours), small.mean(0).ravel() / 4])
