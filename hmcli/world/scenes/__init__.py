"""Scenes: families of places, by name. Every draw of a family has its own layout and colours."""

from hmcli.world.scenes.coast import COAST
from hmcli.world.scenes.countryside import COUNTRYSIDE
from hmcli.world.scenes.dry import DRY
from hmcli.world.scenes.indoors import INDOORS
from hmcli.world.scenes.play import PLAY
from hmcli.world.scenes.scene import CLEAR, Family, Scene, is_free
from hmcli.world.scenes.towns import TOWNS

SCENES: dict[str, Family] = {family.name: family for family in (*TOWNS, *COUNTRYSIDE, *COAST, *DRY, *INDOORS, *PLAY)}

__all__ = ["CLEAR", "SCENES", "Family", "Scene", "is_free"]
