"""Scene: one drawn place, and the family it was drawn from.

The subject walks near the origin; the camera stands towards -y and looks about +y, so that ground stays free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmcli.world.space.light import Lamp
from hmcli.world.space.shapes import Colour, Ground, ShapeList, Shapes

CLEAR = 7.0  # metres around the line from the camera to the origin that stay free of things
_CAMERA_SIDE = 14.0  # metres the free ground reaches towards -y
_MIDDLE = (0.0, -6.0)  # things are scattered around this point, between subject and camera
_OCCLUDERS_APART = 2.4  # metres


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One drawn place: still shapes, ground, lamps, and the words a caption uses for it."""

    family: str
    shapes: Shapes
    ground: Ground
    lamps: tuple[Lamp, ...]
    preposition: str  # a caption says "on" a beach, "in" a hall
    words: str
    plain: str  # the same without colours and names; always "in" it
    moods: tuple[str, ...]  # names of hmcli.world.space.light.MOODS that suit the place
    occluders: tuple[tuple[float, float, float], ...]  # x, y, radius of slim things on the stage, metres


def is_free(x: float, y: float, reach: float = 0.0) -> bool:
    """May a thing of radius `reach` stand here without blocking the stage?"""
    return float(np.hypot(x, y - np.clip(y, -_CAMERA_SIDE, 1.0))) > CLEAR + reach


class Site:
    """A place while it is built: its things and lamps so far, the ground they take, and where chance comes from."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.things = rng, ShapeList()
        self.lamps: list[Lamp] = []
        self._taken: list[tuple[float, float, float]] = []

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def side(self) -> float:
        """1 or -1."""
        return float(self.rng.choice([-1.0, 1.0]))

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def vary(self, colour: Colour, amount: float = 0.12) -> Colour:
        """A colour like this one: brighter or darker by up to `amount`, and of a slightly other hue."""
        value = np.array(colour) * self.rng.uniform(1 - amount, 1 + amount) + self.rng.uniform(-0.025, 0.025, 3)
        red, green, blue = np.clip(value, 0.02, 0.98)
        return float(red), float(green), float(blue)

    def take(self, x: float, y: float, reach: float) -> None:
        """Nothing that is scattered later comes here."""
        self._taken.append((x, y, reach))

    def claim(self, x: float, y: float, reach: float) -> bool:
        """Take this ground for a thing of radius `reach`, unless it is the stage or taken."""
        free = is_free(x, y, reach) and all(np.hypot(x - a, y - b) > reach + r for a, b, r in self._taken)
        if free:
            self.take(x, y, reach)
        return free

    def scatter(
        self, count: int, near: float, far: float, reach: float, place: Callable[[float, float], object]
    ) -> None:
        """Up to `count` things of radius `reach` all around, `near` to `far` metres from the middle."""
        start = self.between(0, 2 * np.pi)
        for i in range(count):
            for _ in range(4):
                angle = start + 2 * np.pi * (i + self.between(0, 1)) / count
                away = self.between(near, far)
                x, y = _MIDDLE[0] + away * float(np.cos(angle)), _MIDDLE[1] + away * float(np.sin(angle))
                if self.claim(x, y, reach):
                    place(x, y)
                    break


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of place: `build` puts things on a site and returns its ground.

    `occluder` puts one slim thing there and returns its radius in metres.
    """

    name: str
    preposition: str
    words: str
    plain: str
    moods: tuple[str, ...]
    build: Callable[[Site], Ground]
    occluder: Callable[[Site, float, float], float]

    def __call__(self, rng: np.random.Generator, *, occluders: bool = False) -> Scene:
        """One draw; with `occluders`, one to three slim things stand on the stage, most of them towards the camera."""
        site = Site(rng)
        ground = self.build(site)
        slim = _stand_occluders(site, self.occluder) if occluders else ()
        return Scene(
            family=self.name, shapes=site.things.shapes(), ground=ground, lamps=tuple(site.lamps),
            preposition=self.preposition, words=self.words, plain=self.plain, moods=self.moods, occluders=slim,
        )  # fmt: skip


def _stand_occluders(
    site: Site, occluder: Callable[[Site, float, float], float]
) -> tuple[tuple[float, float, float], ...]:
    stood: list[tuple[float, float, float]] = []
    for _ in range(int(site.rng.integers(1, 4))):
        x, y = site.between(-4.5, 4.5), site.between(-4.5, -1.2)
        if all(np.hypot(x - a, y - b) > _OCCLUDERS_APART for a, b, _ in stood):
            stood.append((x, y, occluder(site, x, y)))
    return tuple(stood)
