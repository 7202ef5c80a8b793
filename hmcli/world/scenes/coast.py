"""Places by the water: a beach and a harbour. The water lies behind the stage, beyond a shore along x."""

from __future__ import annotations

import numpy as np

from hmcli.world.scenes.paints import IRON, STRONG, WHITE, beyond, mixed, scaled, shaded, solid, strip
from hmcli.world.scenes.scene import Family, Site
from hmcli.world.scenes.things import (
    WOOD,
    ball,
    barrel,
    block,
    crate,
    far_hills,
    fresh,
    gable,
    mound,
    post,
    rock,
    spike,
    turned,
)  # fmt: skip
from hmcli.world.space.shapes import CONE, Colour, Ground, Paint, turn_about_z


def beach(site: Site) -> Ground:
    """Sand and sea: parasols, towels, palms, beach huts, rocks, sails and a lighthouse on its island."""
    shore = site.between(6.8, 8.2)
    end = site.side()
    _lighthouse(site, end * site.between(9, 20), shore + site.between(16, 26))
    for _ in range(3):
        _sailing_boat(site, site.between(-34, 34), shore + site.between(6, 40))
    for _ in range(12):
        x, y = -end * site.between(12, 34), shore + site.between(-3, 8)
        rock(site, x, y, (0.50, 0.46, 0.42), site.between(0.8, 2.4))
    _palms_and_huts(site)
    _sunshades(site, shore)
    far_hills(site, 4, 110.0, (0.36, 0.48, 0.46))
    sand = site.vary((0.90, 0.78, 0.55), 0.06)
    sea = site.vary((0.10, 0.46, 0.58), 0.15)
    dune = mixed("mottled", sand, (0.56, 0.62, 0.34), 2.0)
    for _ in range(8):
        mound(site, site.between(-60, 60), site.between(-58, -36), (site.between(9, 16), 7.0, site.between(2, 4)), dune)
    return Ground(paint=shaded("ripples", sand, 0.86, site.between(0.7, 1.1)), patches=(
        beyond(shore, shaded("mottled", scaled(sand, 0.72), 0.92, 2.0)),
        beyond(shore + 1.0, mixed("spots", (0.86, 0.92, 0.92), sea, 1.6)),
        beyond(shore + 1.9, mixed("waves", scaled(sea, 1.35), WHITE, 1.5, gloss=0.25)),
        beyond(shore + 5.0, mixed("waves", sea, scaled(sea, 1.5), 1.6, gloss=0.45)),
    ))  # fmt: skip


def _palms_and_huts(site: Site) -> None:
    for i, x in enumerate(np.arange(-22, 24, 4.4)):
        _hut(site, float(x) + site.between(-0.4, 0.4), -25.0, STRONG[i % len(STRONG)])
        site.take(float(x), -25.0, 2.4)

    def palm(x: float, y: float) -> None:
        if y < 5.0:
            _palm(site, x, y)

    site.scatter(15, 9, 18, 1.2, palm)


def _sunshades(site: Site, shore: float) -> None:
    def sunshade(x: float, y: float) -> None:
        if y > shore - 1.5:
            return
        post(site, x, y, 0.05, (0.0, 2.3), solid(WHITE))
        spike(site, x, y, 1.5, (1.95, 2.6), mixed("segments", fresh(site, STRONG), WHITE, 1.0))
        towel = mixed("ribs", fresh(site, STRONG), WHITE, 0.3)
        block(site, (x + 1.3, y - 0.4), (0.45, 0.95), (0.0, 0.04), towel, 0.3)

    site.scatter(18, 8, 17, 1.6, sunshade)


def _palm(site: Site, x: float, y: float) -> None:
    bend, tall = site.between(-1.0, 1.0), site.between(3.4, 5.2)
    bark = Paint(colour=(0.56, 0.44, 0.30), second=(0.34, 0.26, 0.18), pattern="rings", scale=0.35)
    site.things.limb((x, y, 0), (x + bend * 0.4, y, tall * 0.55), 0.20, 0.15, bark)
    site.things.limb((x + bend * 0.4, y, tall * 0.55), (x + bend, y, tall), 0.15, 0.12, bark)
    leaf = shaded("mottled", site.vary((0.22, 0.50, 0.18), 0.2), 1.5, 0.4)
    start = site.between(0, 1)
    for angle in start + np.arange(7) * 2 * np.pi / 7:
        ahead = np.array([float(np.cos(angle)), float(np.sin(angle)), 0.0])
        top = np.array([x + bend, y, tall])
        site.things.limb(
            top, top + ahead * 1.9 + np.array([0, 0, -0.55 + 0.3 * float(np.cos(3 * angle))]), 0.26, 0.05, leaf
        )


def _hut(site: Site, x: float, y: float, colour: Colour) -> None:
    boards = mixed("ribs", site.vary(colour), WHITE, 0.7)
    block(site, (x, y), (1.5, 1.4), (0.0, 2.3), boards)
    gable(site, (x, y), (1.4, 1.5), 2.3, 1.1, (solid(WHITE), solid(colour)), np.pi / 2)
    block(site, (x, y + 1.42), (0.5, 0.05), (0.0, 1.9), solid(WHITE))


def _lighthouse(site: Site, x: float, y: float) -> None:
    stone = shaded("mottled", (0.46, 0.43, 0.40), 0.7, 0.8)
    for aside, big in ((0.0, 4.5), (-3.5, 2.6), (3.2, 3.0)):
        ball(site, x + aside, y + aside * 0.2, 0.0, (big, big * 0.8, big * 0.36), stone)
    tower = mixed("stripes", WHITE, site.vary((0.80, 0.14, 0.12)), 2.6)
    site.things.limb((x, y, 0.8), (x, y, 8.0), 1.2, 0.8, tower)
    post(site, x, y, 1.1, (8.3, 8.6), solid(IRON))
    post(site, x, y, 0.6, (8.6, 9.6), Paint(colour=(1.0, 0.92, 0.66), glow=0.8))
    spike(site, x, y, 0.85, (9.6, 10.5), solid((0.70, 0.14, 0.12)))


def _sailing_boat(site: Site, x: float, y: float) -> None:
    turn = site.between(-0.5, 0.5)
    hull = solid(fresh(site, STRONG))
    ball(site, x, y, 0.15, (2.2, 0.75, 0.6), hull, turn)
    post(site, x, y, 0.06, (0.4, 5.4), WOOD)
    sail = solid(site.pick([WHITE, WHITE, (0.90, 0.50, 0.20), (0.80, 0.20, 0.20)]))
    mast = turn_about_z(turn)
    for ahead, wide, tall in ((-0.85, 0.85, 2.3), (0.7, 0.6, 1.7)):
        place = (*turned(x, y, ahead, 0, turn), 0.75 + tall)
        site.things.add(CONE, place, (wide, 0.3 * wide, tall), sail, mast)


def harbour(site: Site) -> Ground:
    """A quay: stacked containers, cranes, a freighter, bollards, sheds; water beyond."""
    quay = site.between(9.5, 11.5)
    _freighter(site, site.between(-8, 8), quay + 8.0)
    for x in (site.side() * site.between(11, 16), site.side() * site.between(24, 32)):
        _crane(site, x, quay - 1.8, site.pick(STRONG[:3]))
        site.take(x, quay - 1.8, 3.4)
    for x in np.arange(-30, 31, 5.0):
        barrel(site, float(x), quay - 0.6, (0.16, 0.16, 0.18), 0.24)
    for x, y, turn in _yard(site):
        _stack(site, x, y, turn)
    for x in np.arange(-26, 27, 13.0):
        _shed(site, float(x), -42.0)

    def small(x: float, y: float) -> None:
        if y > quay - 1.5:
            return
        which = site.rng.integers(3)
        if which == 0:
            barrel(site, x, y, fresh(site, STRONG))
        elif which == 1:
            crate(site, x, y, site.between(0.4, 0.6), site.between(0, 1))
        else:
            spike(site, x, y, 0.25, (0.0, 0.75), mixed("stripes", (0.95, 0.42, 0.08), WHITE, 0.5))

    site.scatter(16, 8, 17, 0.7, small)
    far_hills(site, 5, 120.0, (0.34, 0.42, 0.50))
    concrete = site.vary((0.56, 0.57, 0.57), 0.08)
    line = solid((0.90, 0.72, 0.16))
    sea = site.vary((0.08, 0.27, 0.34), 0.2)
    return Ground(paint=shaded("tiles", concrete, 0.82, 3.4), patches=(
        strip(site.between(3.5, 5.5), 0.12, line),
        strip(quay - 2.6, 0.10, solid((0.26, 0.25, 0.25))),
        strip(quay - 1.0, 0.10, solid((0.26, 0.25, 0.25))),
        strip(quay + 0.15, 0.35, mixed("ribs", (0.92, 0.76, 0.14), (0.12, 0.12, 0.12), 1.2)),
        beyond(quay + 0.5, mixed("waves", sea, scaled(sea, 1.7), 1.2, gloss=0.55)),
    ))  # fmt: skip


def _yard(site: Site) -> list[tuple[float, float, float]]:
    """Places of container stacks left, right and behind, each with its turn."""
    places = [(side * site.between(12.5, 14), y, np.pi / 2) for side in (-1.0, 1.0) for y in (-14.0, -7.2, -0.4)]
    places += [(side * site.between(18, 21), y, np.pi / 2) for side in (-1.0, 1.0) for y in (-10.5, -3.6, 3.2)]
    places += [(x + site.between(-0.5, 0.5), -27.0, 0.0) for x in (-13.5, -6.5, 0.5, 7.5, 14.5)]
    return [place for place in places if site.rng.random() < 0.9]


def _stack(site: Site, x: float, y: float, turn: float) -> None:
    for level in range(int(site.rng.integers(1, 4))):
        own = fresh(site, STRONG)
        block(site, (x, y), (3.05, 1.22), (2.6 * level, 2.6 * level + 2.58), shaded("ribs", own, 0.72, 0.55), turn)
        door = turned(x, y, 3.06, 0, turn)
        block(site, door, (0.03, 1.0), (2.6 * level + 0.2, 2.6 * level + 2.3), solid(scaled(own, 0.6)), turn)
    site.take(x, y, 3.0)


def _crane(site: Site, x: float, y: float, colour: Colour) -> None:
    paint = solid(site.vary(colour))
    for aside in (-2.6, 2.6):
        for ahead in (-1.0, 1.0):
            block(site, (x + aside, y + ahead), (0.22, 0.22), (0.0, 9.0), paint)
        block(site, (x + aside, y), (0.2, 1.0), (4.2, 4.7), paint)
    block(site, (x, y + 1.0), (2.6, 0.2), (4.2, 4.7), paint)
    block(site, (x, y), (3.0, 1.4), (9.0, 9.6), paint)
    block(site, (x, y + 4.5), (0.45, 11.0), (9.6, 10.2), mixed("stripes", scaled(colour, 0.8), WHITE, 2.0))
    block(site, (x, y - 1.0), (1.2, 1.4), (10.2, 12.0), solid(WHITE))


def _freighter(site: Site, x: float, y: float) -> None:
    hull = site.vary(site.pick([(0.16, 0.18, 0.24), (0.60, 0.14, 0.12), (0.12, 0.30, 0.26)]))
    block(site, (x, y), (16.0, 3.2), (0.0, 2.6), solid(hull))
    block(site, (x, y), (16.05, 3.25), (0.0, 0.7), solid((0.56, 0.16, 0.12)))
    ball(site, x + 16.0, y, 1.3, (4.0, 3.2, 1.3), solid(hull))
    side = site.side()
    block(site, (x - side * 11, y), (2.6, 2.6), (2.6, 7.5), mixed("windows", WHITE, (0.20, 0.28, 0.36), 1.4))
    post(site, x - side * 13, y, 0.7, (7.5, 10.0), solid(fresh(site, STRONG)))
    for row in range(4):
        for level in range(int(site.rng.integers(1, 3))):
            place = (x - 7.0 * side + (row * 4.4 + 1.0) * side, y)
            block(
                site,
                place,
                (2.1, 2.4),
                (2.6 + 2.0 * level, 4.58 + 2.0 * level),
                shaded("ribs", fresh(site, STRONG), 0.72, 0.5),
            )


def _shed(site: Site, x: float, y: float) -> None:
    wall = shaded("ribs", site.vary((0.52, 0.58, 0.62)), 0.8, 0.9)
    block(site, (x, y), (6.0, 5.0), (0.0, 5.0), wall)
    block(site, (x, y + 5.02), (2.0, 0.06), (0.0, 3.6), solid(fresh(site, STRONG)))


def _pile(site: Site, x: float, y: float) -> float:
    post(site, x, y, 0.28, (0.0, 2.6), mixed("stripes", (0.94, 0.76, 0.12), (0.12, 0.12, 0.13), 0.8))
    return 0.28


def _shower(site: Site, x: float, y: float) -> float:
    post(site, x, y, 0.14, (0.0, 3.0), mixed("stripes", (0.86, 0.20, 0.16), WHITE, 0.7))
    block(site, (x, y), (0.45, 0.06), (2.2, 2.8), mixed("checks", (0.94, 0.78, 0.16), (0.86, 0.20, 0.16), 0.45))
    return 0.16


BEACH = Family(
    name="beach", preposition="on", words="a sandy beach by the sea with parasols and palms",
    plain="an outdoor place", moods=("noon", "morning", "sunset"), build=beach, occluder=_shower,
)  # fmt: skip

HARBOUR = Family(
    name="harbour", preposition="at", words="a harbour with stacked containers and cranes",
    plain="an outdoor place", moods=("noon", "overcast", "morning"), build=harbour, occluder=_pile,
)  # fmt: skip
