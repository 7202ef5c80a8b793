"""Scenes: families of places. Every draw of a family has its own layout and colours.

The subject walks near the origin; the camera stands towards -y and looks about +y, so that ground stays free. `SCENES`
lists the families by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hmcli.world.shapes import (
    BOX,
    CONE,
    CYLINDER,
    ELLIPSOID,
    Colour,
    Ground,
    Paint,
    Patch,
    ShapeList,
    Shapes,
    turn_about_z,
)  # fmt: skip

CLEAR = 7.0  # metres around the line from the camera to the origin that stay free of things
_FAR = 90.0  # metres: half the length of roads and paths
_CAMERA_SIDE = 14.0  # metres the free ground reaches towards -y


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One drawn place: still shapes, ground, and the words a caption uses for it."""

    family: str
    shapes: Shapes
    ground: Ground
    words: str


def is_free(x: float, y: float, reach: float = 0.0) -> bool:
    """May a thing of radius `reach` stand here without blocking the stage?"""
    return float(np.hypot(x, y - np.clip(y, -_CAMERA_SIDE, 1.0))) > CLEAR + reach


def _vary(colour: Colour, rng: np.random.Generator, amount: float = 0.12) -> Colour:
    value = np.clip(np.array(colour) * rng.uniform(1 - amount, 1 + amount) + rng.uniform(-0.025, 0.025, 3), 0.02, 0.98)
    return float(value[0]), float(value[1]), float(value[2])


def _scaled(colour: Colour, factor: float) -> Colour:
    return min(colour[0] * factor, 1.0), min(colour[1] * factor, 1.0), min(colour[2] * factor, 1.0)


def street(rng: np.random.Generator) -> Scene:
    """Houses across a road, parked cars, street trees and lamps; paved ground in front."""
    things = ShapeList()
    kerb = rng.uniform(7.5, 9.0)
    width = rng.uniform(5.0, 7.0)
    walls = [_vary(c, rng) for c in ((0.66, 0.36, 0.26), (0.76, 0.66, 0.52), (0.55, 0.58, 0.62), (0.84, 0.80, 0.72),
                                     (0.45, 0.52, 0.58), (0.78, 0.55, 0.40))]  # fmt: skip
    for side in (1, -1):  # behind the road, and far behind the camera
        x = -62.0
        front = kerb + width + rng.uniform(3.5, 5.0) if side > 0 else -34.0
        while x < 62:
            half = rng.uniform(3.2, 5.5) * (1 if side > 0 else 1.8)
            tall = rng.uniform(4.0, 8.5) if side > 0 else rng.uniform(3.0, 4.5)
            _house(things, (x + half, front), half, tall, side, walls[rng.integers(len(walls))], rng)
            x += 2 * half + rng.choice([0.0, 0.0, 1.5])
    for end in (-1, 1):
        for y in (-24.0, -12.0):
            _house(things, (end * rng.uniform(30, 36), y), 5.0, 4.0, 1, walls[rng.integers(len(walls))], rng)
    gap = rng.uniform(7.0, 10.0)
    leaf = _vary((0.24, 0.46, 0.14), rng, 0.2)
    for x in np.arange(-40 + rng.uniform(0, gap), 40, gap):
        round_tree(things, x + rng.uniform(-1, 1), kerb + width + 1.8, rng.uniform(0.75, 1.0), leaf, rng)
    for x in np.arange(-36 + rng.uniform(0, 12), 36, 12.0):
        _lamp(things, x, kerb - 0.5)
    for x in np.arange(-34, 34, rng.uniform(8.0, 12.0)):
        if rng.random() < 0.75:
            _car(things, x + rng.uniform(-1.5, 1.5), kerb + 1.2, _car_colour(rng))
    for _ in range(10):
        x, y = rng.uniform(-24, 24), rng.uniform(-14, kerb - 1.5)
        if is_free(x, y, 1.0):
            _street_thing(things, x, y, rng)
    return Scene(
        family="street",
        shapes=things.shapes(),
        ground=_paved(kerb, width, rng),
        words="a paved street with houses and parked cars",
    )


def _paved(kerb: float, width: float, rng: np.random.Generator) -> Ground:
    """Paving with a road along x between two kerbs and a line in its middle."""
    paving = _vary((0.66, 0.62, 0.57), rng)
    asphalt = Paint(colour=_vary((0.33, 0.33, 0.35), rng), second=(0.40, 0.40, 0.41), pattern="mottled", scale=0.7)
    base = Paint(colour=paving, second=_scaled(paving, 0.62), pattern="tiles", scale=rng.uniform(0.8, 1.3))
    strips = (
        (width / 2 + 0.2, Paint(colour=_scaled(paving, 1.12))),
        (width / 2 - 0.05, asphalt),
        (0.08, Paint(colour=(0.86, 0.84, 0.76))),
    )
    middle = (0.0, kerb + width / 2)
    return Ground(paint=base, patches=tuple(Patch(centre=middle, half=(_FAR, half), paint=p) for half, p in strips))


def _house(
    things: ShapeList, place: tuple[float, float], half: float, height: float, side: int, wall: Colour,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """`place` is the middle of the front, which faces -y when `side` is 1; `half` and `height` are half sizes."""
    (x, front), deep = place, 4.0
    glass = _vary((0.24, 0.32, 0.42), rng, 0.2)
    panes = Paint(colour=wall, second=glass, pattern="windows", scale=rng.uniform(1.7, 2.6))
    y = front + side * deep
    things.add(BOX, (x, y, height), (half, deep, height), panes)
    things.add(BOX, (x, front, 0.6), (half * 0.995, 0.12, 0.6), Paint(colour=_scaled(wall, 0.6)))
    if rng.random() < 0.6:
        roof = Paint(colour=_vary((0.42, 0.24, 0.20), rng, 0.3))
        things.add(BOX, (x, y, 2 * height + 0.25), (half + 0.25, deep + 0.3, 0.25), roof)
    if rng.random() < 0.7:
        shade = Paint(colour=_car_colour(rng), second=(0.93, 0.92, 0.88), pattern="checks", scale=0.9)
        things.add(BOX, (x + rng.uniform(-1, 1), front - side * 0.6, 2.7), (half * 0.45, 0.6, 0.08), shade)


def _car_colour(rng: np.random.Generator) -> Colour:
    colours = ((0.72, 0.12, 0.10), (0.13, 0.27, 0.58), (0.86, 0.86, 0.84), (0.16, 0.42, 0.30), (0.88, 0.66, 0.16))
    return _vary(colours[rng.integers(len(colours))], rng)


def _car(things: ShapeList, x: float, y: float, colour: Colour) -> None:
    paint, glass, rubber = Paint(colour=colour), Paint(colour=(0.13, 0.17, 0.21)), Paint(colour=(0.09, 0.09, 0.10))
    things.add(BOX, (x, y, 0.58), (2.05, 0.85, 0.30), paint)
    things.add(BOX, (x - 0.15, y, 1.08), (1.10, 0.74, 0.24), glass)
    things.add(BOX, (x - 0.15, y, 1.36), (1.05, 0.74, 0.06), paint)
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # the axis of a wheel lies across the car
    for forward in (-1.3, 1.3):
        for aside in (-0.80, 0.80):
            things.add(CYLINDER, (x + forward, y + aside, 0.33), (0.33, 0.33, 0.10), rubber, upright)


def _lamp(things: ShapeList, x: float, y: float) -> None:
    iron = Paint(colour=(0.20, 0.22, 0.24))
    things.limb((x, y, 0), (x, y, 3.7), 0.09, 0.06, iron)
    things.add(ELLIPSOID, (x, y, 3.85), (0.24, 0.24, 0.26), Paint(colour=(0.98, 0.94, 0.80)))


def _street_thing(things: ShapeList, x: float, y: float, rng: np.random.Generator) -> None:
    """A bench, a bollard or a planter."""
    wood = Paint(colour=(0.58, 0.38, 0.20), second=(0.42, 0.26, 0.13), pattern="planks", scale=0.15)
    which = rng.integers(3)
    if which == 0:
        things.add(BOX, (x, y, 0.46), (0.95, 0.24, 0.04), wood)
        things.add(BOX, (x, y + 0.24, 0.75), (0.95, 0.04, 0.18), wood)
        for aside in (-0.75, 0.75):
            things.add(BOX, (x + aside, y, 0.21), (0.05, 0.22, 0.21), Paint(colour=(0.2, 0.2, 0.22)))
    elif which == 1:
        colour = Paint(colour=_car_colour(rng))
        things.add(CYLINDER, (x, y, 0.42), (0.22, 0.22, 0.42), colour)
        things.add(ELLIPSOID, (x, y, 0.84), (0.22, 0.22, 0.14), colour)
    else:
        things.add(BOX, (x, y, 0.3), (0.7, 0.7, 0.3), Paint(colour=(0.62, 0.58, 0.54)))
        leaf = Paint(colour=(0.18, 0.36, 0.12), second=(0.40, 0.58, 0.22), pattern="mottled", scale=0.4)
        things.add(ELLIPSOID, (x, y, 0.85), (0.62, 0.62, 0.45), leaf)


def meadow(rng: np.random.Generator) -> Scene:
    """Grass with a footpath, trees, rocks, bushes, a fence and a barn; hills far away."""
    things = ShapeList()
    leaf, pine = _vary((0.30, 0.50, 0.16), rng, 0.2), _vary((0.12, 0.33, 0.20), rng, 0.2)
    for _ in range(46):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(8, 30)
        x, y, big = far * np.cos(angle), far * np.sin(angle), rng.uniform(0.8, 1.35)
        if not is_free(x, y, 1.6 * big):
            continue
        if rng.random() < 0.5:
            round_tree(things, x, y, big, leaf, rng)
        else:
            conifer(things, x, y, big, pine, rng)
    for _ in range(26):
        x, y = rng.uniform(-20, 20), rng.uniform(-16, 20)
        if is_free(x, y, 0.6):
            _meadow_thing(things, x, y, leaf, rng)
    _fence(things, rng.uniform(9.0, 11.0), rng)
    _barn(things, rng.choice([-1.0, 1.0]) * rng.uniform(6, 16), rng.uniform(17, 23), rng)
    for _ in range(9):
        angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(14, 26)
        hill = Paint(colour=_vary((0.34, 0.46, 0.28), rng), second=(0.26, 0.38, 0.24), pattern="mottled", scale=6.0)
        place = (75 * np.cos(angle), 75 * np.sin(angle), -2.0)
        things.add(ELLIPSOID, place, (size, size, rng.uniform(6, 11)), hill)
    return Scene(
        family="meadow",
        shapes=things.shapes(),
        ground=_grown(rng),
        words="a green meadow with trees and a footpath",
    )


def _grown(rng: np.random.Generator) -> Ground:
    """Grass with patches of flowers and a path along x."""
    grass = _vary((0.38, 0.56, 0.22), rng, 0.15)
    earth = _vary((0.66, 0.53, 0.37), rng)
    soil = Paint(colour=earth, second=_scaled(earth, 0.78), pattern="mottled", scale=0.6)
    middle = rng.uniform(-2.5, 5.0)
    flowers = Paint(colour=_scaled(grass, 1.15), second=(0.80, 0.78, 0.36), pattern="spots", scale=0.5)
    patches = [
        Patch(
            centre=(rng.uniform(-25, 25), rng.uniform(-10, 25)),
            half=(rng.uniform(1.5, 4), rng.uniform(0.8, 2)),
            paint=flowers,
            round=True,
        )
        for _ in range(5)
    ]
    base = Paint(colour=grass, second=_scaled(grass, 0.68), pattern="mottled", scale=rng.uniform(1.0, 1.8))
    path = Patch(centre=(0.0, middle), half=(_FAR, rng.uniform(0.8, 1.3)), paint=soil)
    return Ground(paint=base, patches=(*patches, path))


def round_tree(things: ShapeList, x: float, y: float, big: float, leaf: Colour, rng: np.random.Generator) -> None:
    trunk = Paint(colour=_vary((0.40, 0.29, 0.20), rng), second=(0.28, 0.20, 0.14), pattern="mottled", scale=0.3)
    tall = rng.uniform(1.7, 2.3) * big
    things.limb((x, y, 0), (x + rng.uniform(-0.1, 0.1), y, tall), 0.20 * big, 0.13 * big, trunk)
    own = _vary(leaf, rng, 0.15)
    crown = Paint(colour=_scaled(own, 0.72), second=_scaled(own, 1.45), pattern="mottled", scale=rng.uniform(0.5, 0.8))
    start = rng.uniform(0, 2 * np.pi)
    things.add(ELLIPSOID, (x, y, tall + 1.15 * big), np.array([1.25, 1.25, 1.15]) * big, crown)
    for angle in start + np.array([0.0, 2.1, 4.2]):
        aside = 0.75 * big
        place = (x + aside * np.cos(angle), y + aside * np.sin(angle), tall + rng.uniform(0.45, 0.9) * big)
        things.add(ELLIPSOID, place, np.array([0.9, 0.9, 0.78]) * big * rng.uniform(0.85, 1.15), crown)


def conifer(things: ShapeList, x: float, y: float, big: float, leaf: Colour, rng: np.random.Generator) -> None:
    trunk = Paint(colour=_vary((0.36, 0.26, 0.19), rng))
    things.limb((x, y, 0), (x, y, 1.2 * big), 0.17 * big, 0.15 * big, trunk)
    own = _vary(leaf, rng, 0.15)
    for level in range(3):
        needles = Paint(colour=own, second=_scaled(own, 1.5 + 0.15 * level), pattern="mottled", scale=0.45)
        size = np.array([1.35 - 0.33 * level, 1.35 - 0.33 * level, 0.95]) * big
        things.add(CONE, (x, y, (1.5 + 1.0 * level) * big), size, needles)


def _meadow_thing(things: ShapeList, x: float, y: float, leaf: Colour, rng: np.random.Generator) -> None:
    """A rock or a bush."""
    if rng.random() < 0.45:
        grey = _vary((0.56, 0.55, 0.52), rng)
        stone = Paint(colour=grey, second=_scaled(grey, 0.7), pattern="mottled", scale=0.35)
        size = np.array([1.0, 0.8, 0.6]) * rng.uniform(0.3, 0.8)
        things.add(ELLIPSOID, (x, y, size[2] * 0.5), size, stone, turn_about_z(rng.uniform(0, 6.3)))
    else:
        own = _vary(_scaled(leaf, 0.9), rng, 0.2)
        bush = Paint(colour=_scaled(own, 0.75), second=_scaled(own, 1.35), pattern="mottled", scale=0.35)
        size = np.array([1.0, 1.0, 0.75]) * rng.uniform(0.45, 0.9)
        things.add(ELLIPSOID, (x, y, size[2] * 0.55), size, bush)


def _fence(things: ShapeList, y: float, rng: np.random.Generator) -> None:
    wood = Paint(colour=_vary((0.72, 0.62, 0.48), rng), second=(0.55, 0.46, 0.34), pattern="mottled", scale=0.2)
    left, right = rng.uniform(-26, -12), rng.uniform(12, 26)
    for height in (0.5, 0.95):
        things.add(BOX, ((left + right) / 2, y, height), ((right - left) / 2, 0.04, 0.07), wood)
    for x in np.arange(left, right, 2.6):
        things.add(BOX, (x, y, 0.6), (0.08, 0.08, 0.6), wood)


def _barn(things: ShapeList, x: float, y: float, rng: np.random.Generator) -> None:
    red = _vary((0.62, 0.20, 0.15), rng, 0.2)
    boards = Paint(colour=red, second=_scaled(red, 0.6), pattern="planks", scale=0.5)
    things.add(BOX, (x, y, 1.9), (3.4, 2.6, 1.9), boards)
    roof = Paint(colour=_vary((0.36, 0.33, 0.33), rng, 0.2))
    slope = 0.6
    for side in (-1, 1):
        axes = np.array(
            [[1, 0, 0], [0, np.cos(slope), -side * np.sin(slope)], [0, side * np.sin(slope), np.cos(slope)]]
        )
        things.add(BOX, (x, y - side * 1.45, 4.65), (3.7, 1.9, 0.12), roof, axes)
    things.add(BOX, (x, y - 2.62, 1.2), (1.0, 0.06, 1.2), Paint(colour=(0.90, 0.88, 0.82)))


Family = Callable[[np.random.Generator], Scene]
SCENES: dict[str, Family] = {"street": street, "meadow": meadow}
