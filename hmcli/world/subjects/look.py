"""Look: what a family's draw gives before it has a name."""

from __future__ import annotations

from typing import NamedTuple

from hmcli.world.bodies import Figure


class Look(NamedTuple):
    figure: Figure
    speed: float  # metres per second
    words: str  # "a hiker in a red jacket ..."
