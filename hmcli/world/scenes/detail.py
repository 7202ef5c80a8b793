"""Detail: a scene with flatter textures and an emptier sky, for small codecs and models. Shapes stay where they are."""

from __future__ import annotations

from dataclasses import replace

from hmcli.world.scenes.paints import blend
from hmcli.world.scenes.scene import Scene
from hmcli.world.space.light import Light
from hmcli.world.space.shapes import Paint

_CONTRAST = 0.3  # of a pattern's second colour with its first, as a share of what it was
_CLOUDS = 0.3  # share of the clouds that stay


def flat_scene(scene: Scene) -> Scene:
    """The same place with low contrast within each of its surfaces."""
    ground = replace(
        scene.ground, paint=_flat(scene.ground.paint),
        patches=tuple(replace(patch, paint=_flat(patch.paint)) for patch in scene.ground.patches),
    )  # fmt: skip
    shapes = replace(scene.shapes, paints=tuple(map(_flat, scene.shapes.paints)))
    return replace(scene, ground=ground, shapes=shapes)


def flat_light(light: Light) -> Light:
    """The same light from a sky with few clouds and no stars."""
    return replace(light, cloud=_CLOUDS * light.cloud, stars=0.0)


def _flat(paint: Paint) -> Paint:
    """Whatever glows is left alone: its second colour is the light it gives."""
    return paint if paint.glow else replace(paint, second=blend(paint.colour, paint.second, _CONTRAST))
