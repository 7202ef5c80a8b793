"""Scenes: families of places, by name. Every draw of a family has its own layout and colours."""

from hmcli import registry
from hmcli.world.scenes.scene import CLEAR, Family, Scene, is_free

SCENES: dict[str, Family] = {  # those of this package: others are drawn only when a recipe names them
    name.replace("-", "_"): registry.find("scene", name) for name in registry.BUILT_IN["scene"]
}

__all__ = ["CLEAR", "SCENES", "Family", "Scene", "is_free", "scene_family"]


def scene_family(name: str) -> Family:
    """The family of this name, of this or another package."""
    return SCENES.get(name) or registry.find("scene", name)
