"""Things: what several kinds of places have: boxes and posts on the ground, trees, rocks, benches, lamps."""

from __future__ import annotations

import numpy as np

from hmcli.world.scenes.paints import IRON, scaled, shaded, solid
from hmcli.world.scenes.scene import Site
from hmcli.world.space.light import Lamp
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, Colour, Paint, turn_about_z

UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # puts the axis of a cylinder along y
ALONG_X = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # puts it along x
WOOD = Paint(colour=(0.58, 0.38, 0.20), second=(0.42, 0.26, 0.13), pattern="planks", scale=0.15)
BARK = Paint(colour=(0.40, 0.29, 0.20), second=(0.28, 0.20, 0.14), pattern="mottled", scale=0.3)


def block(
    site: Site, place: tuple[float, float], half: tuple[float, float], z: tuple[float, float], paint: Paint,
    turn: float = 0.0,
) -> None:  # fmt: skip
    """A box from z[0] to z[1], turned about its middle by `turn` radians."""
    size = (half[0], half[1], (z[1] - z[0]) / 2)
    site.things.add(BOX, (*place, (z[0] + z[1]) / 2), size, paint, turn_about_z(turn))


def post(site: Site, x: float, y: float, radius: float, z: tuple[float, float], paint: Paint) -> None:
    """An upright cylinder from z[0] to z[1]."""
    site.things.add(CYLINDER, (x, y, (z[0] + z[1]) / 2), (radius, radius, (z[1] - z[0]) / 2), paint)


def spike(site: Site, x: float, y: float, radius: float, z: tuple[float, float], paint: Paint) -> None:
    """An upright cone from z[0] to its apex at z[1]."""
    site.things.add(CONE, (x, y, (z[0] + z[1]) / 2), (radius, radius, (z[1] - z[0]) / 2), paint)


def ball(
    site: Site, x: float, y: float, z: float, size: tuple[float, float, float], paint: Paint, turn: float = 0.0
) -> None:
    site.things.add(ELLIPSOID, (x, y, z), size, paint, turn_about_z(turn))


def turned(x: float, y: float, forward: float, aside: float, turn: float) -> tuple[float, float]:
    """The place `forward` and `aside` of (x, y) for a thing turned by `turn`."""
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    return x + forward * cos - aside * sin, y + forward * sin + aside * cos


def tilted(angle: float, turn: float = 0.0) -> np.ndarray:
    """Axes of a box whose +y side is raised by `angle`, then turned about z."""
    cos, sin = np.cos(angle), np.sin(angle)
    return turn_about_z(turn) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def gable(
    site: Site, place: tuple[float, float], half: tuple[float, float], eaves: float, rise: float,
    paints: tuple[Paint, Paint], turn: float = 0.0,
) -> None:  # fmt: skip
    """Two roof halves and what fills them (paints: roof, walls) over a house of half size `half` whose walls end at
    `eaves`; the ridge runs along its x. Steeper than 45 degrees, the filling would show outside."""
    slope, over = float(np.arctan2(rise, half[1])), 1.12
    length, thick = float(np.hypot(half[1], rise)), rise * float(np.cos(slope))
    for side in (-1, 1):
        axes = tilted(-side * slope, turn)
        roof = (*turned(*place, 0.0, side * over * half[1] / 2, turn), eaves + rise * (1 - over / 2))
        site.things.add(BOX, roof, (half[0] * 1.06, length * over / 2, 0.09), paints[0], axes)
        aside = half[1] / 2 - thick / 2 * float(np.sin(slope))
        filled = (*turned(*place, 0.0, side * aside, turn), eaves + rise / 2 - thick / 2 * float(np.cos(slope)))
        site.things.add(BOX, filled, (half[0] * 0.99, length / 2, thick / 2), paints[1], axes)


def round_tree(site: Site, x: float, y: float, big: float, leaf: Colour, trunk: Paint = BARK) -> None:
    things, rng = site.things, site.rng
    tall = rng.uniform(1.7, 2.3) * big
    things.limb((x, y, 0), (x + rng.uniform(-0.1, 0.1), y, tall), 0.20 * big, 0.13 * big, trunk)
    own = site.vary(leaf, 0.15)
    crown = Paint(colour=scaled(own, 0.72), second=scaled(own, 1.45), pattern="mottled", scale=rng.uniform(0.5, 0.8))
    start = rng.uniform(0, 2 * np.pi)
    ball(site, x, y, tall + 1.15 * big, (1.25 * big, 1.25 * big, 1.15 * big), crown)
    for angle in start + np.array([0.0, 2.1, 4.2]):
        aside, size = 0.75 * big, big * rng.uniform(0.85, 1.15)
        place = (x + aside * np.cos(angle), y + aside * np.sin(angle), tall + rng.uniform(0.45, 0.9) * big)
        ball(site, *place, (0.9 * size, 0.9 * size, 0.78 * size), crown)


def conifer(site: Site, x: float, y: float, big: float, needles: tuple[Paint, Paint, Paint]) -> None:
    """`needles` from the lowest of three cones to the top."""
    site.things.limb((x, y, 0), (x, y, 1.2 * big), 0.17 * big, 0.15 * big, BARK)
    for level, paint in enumerate(needles):
        wide, middle = (1.35 - 0.33 * level) * big, 1.5 + level
        spike(site, x, y, wide, ((middle - 0.95) * big, (middle + 0.95) * big), paint)


def green_needles(site: Site, leaf: Colour) -> tuple[Paint, Paint, Paint]:
    own = site.vary(leaf, 0.15)
    low, middle, top = (shaded("mottled", own, 1.5 + 0.15 * level, 0.45) for level in range(3))
    return low, middle, top


def bush(site: Site, x: float, y: float, leaf: Colour, big: float) -> None:
    own = site.vary(leaf, 0.2)
    paint = Paint(colour=scaled(own, 0.75), second=scaled(own, 1.35), pattern="mottled", scale=0.35)
    ball(site, x, y, big * 0.41, (big, big, big * 0.75), paint)


def rock(site: Site, x: float, y: float, colour: Colour, big: float) -> None:
    grey = site.vary(colour)
    size = (big, 0.8 * big, 0.6 * big)
    ball(site, x, y, size[2] * 0.5, size, shaded("mottled", grey, 0.7, 0.35), site.between(0, 6.3))


def bench(site: Site, x: float, y: float, turn: float = 0.0, wood: Paint = WOOD) -> None:
    block(site, (x, y), (0.95, 0.24), (0.42, 0.50), wood, turn)
    block(site, turned(x, y, 0, 0.24, turn), (0.95, 0.04), (0.50, 0.93), wood, turn)
    for aside in (-0.75, 0.75):
        block(site, turned(x, y, aside, 0, turn), (0.05, 0.22), (0.0, 0.42), solid((0.2, 0.2, 0.22)), turn)


def lamp_post(site: Site, x: float, y: float, tall: float = 3.7, *, lit: bool = False) -> None:
    """A street lamp; a lit one also shines on what is near."""
    warm = (0.99, 0.90, 0.70)
    site.things.limb((x, y, 0), (x, y, tall), 0.09, 0.06, solid(IRON))
    globe = Paint(colour=warm, glow=1.6) if lit else solid((0.98, 0.94, 0.80))
    ball(site, x, y, tall + 0.15, (0.24, 0.24, 0.26), globe)
    if lit:
        site.lamps.append(Lamp(place=(x, y, tall), colour=warm, strength=45.0))


def crate(site: Site, x: float, y: float, big: float, turn: float, paint: Paint = WOOD) -> None:
    block(site, (x, y), (big, big), (0.0, 2 * big), paint, turn)


def barrel(site: Site, x: float, y: float, colour: Colour, big: float = 0.32) -> None:
    post(
        site, x, y, big, (0.0, 2.6 * big), Paint(colour=colour, second=scaled(colour, 0.5), pattern="rings", scale=big)
    )


def car(site: Site, x: float, y: float, colour: Colour, turn: float = 0.0) -> None:
    def at(forward: float, aside: float) -> tuple[float, float]:
        return turned(x, y, forward, aside, turn)

    block(site, (x, y), (2.05, 0.85), (0.28, 0.88), solid(colour), turn)
    block(site, at(-0.15, 0), (1.10, 0.74), (0.84, 1.32), solid((0.13, 0.17, 0.21)), turn)
    block(site, at(-0.15, 0), (1.05, 0.74), (1.30, 1.42), solid(colour), turn)
    for forward in (-1.3, 1.3):
        for aside in (-0.80, 0.80):
            wheel = (*at(forward, aside), 0.33)
            site.things.add(
                CYLINDER, wheel, (0.33, 0.33, 0.10), solid((0.09, 0.09, 0.10)), turn_about_z(turn) @ UPRIGHT
            )


def column(site: Site, x: float, y: float, radius: float, tall: float, paint: Paint, foot: Paint) -> None:
    """A shaft between a square foot and a square head."""
    block(site, (x, y), (radius * 1.35, radius * 1.35), (0.0, radius * 0.7), foot)
    site.things.limb((x, y, radius * 0.7), (x, y, tall - radius), radius, radius * 0.84, paint)
    block(site, (x, y), (radius * 1.3, radius * 1.3), (tall - radius * 0.8, tall), foot)


def far_hills(site: Site, count: int, away: float, colour: Colour, scale: float = 6.0) -> None:
    for _ in range(count):
        angle, size = site.between(0, 2 * np.pi), site.between(14, 26)
        own = site.vary(colour)
        hill = Paint(colour=own, second=scaled(own, 0.78), pattern="mottled", scale=scale)
        place = (away * float(np.cos(angle)), away * float(np.sin(angle)), -2.0)
        site.things.add(ELLIPSOID, place, (size, size, site.between(6, 11)), hill)


def fence(
    site: Site, start: tuple[float, float], end: tuple[float, float], paint: Paint, *, tall: float = 1.2,
    gap: float = 2.6, rails: tuple[float, ...] = (0.42, 0.80),
) -> None:  # fmt: skip
    """Posts from start to end, and rails at shares of their height."""
    along = np.array(end) - np.array(start)
    length, turn = float(np.hypot(*along)), float(np.arctan2(along[1], along[0]))
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    for share in rails:
        block(site, middle, (length / 2, 0.04), (share * tall - 0.07, share * tall + 0.07), paint, turn)
    for step in np.arange(0, length, gap):
        x, y = np.array(start) + along * (step / length)
        block(site, (float(x), float(y)), (0.08, 0.08), (0.0, tall), paint, turn)


def mound(site: Site, x: float, y: float, size: tuple[float, float, float], paint: Paint) -> None:
    """A low hill whose middle is level with the ground."""
    ball(site, x, y, 0.0, size, paint, site.between(0, 3.1))


def fresh(site: Site, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, a little changed."""
    return site.vary(site.pick(colours))
