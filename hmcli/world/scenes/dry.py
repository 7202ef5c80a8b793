"""Dry places: a desert, a canyon, temple ruins, the Moon."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hmcli.world.scenes.paints import WHITE, glowing, mixed, oval, scaled, shaded, solid, strip
from hmcli.world.scenes.scene import Family, Site
from hmcli.world.scenes.things import (
    ALONG_X,
    ball,
    block,
    bush,
    column,
    far_hills,
    gable,
    mound,
    post,
    rock,
    round_tree,
    spike,
    tilted,
    turned,
)  # fmt: skip
from hmcli.world.space.shapes import BOX, CYLINDER, Colour, Ground, Paint, Patch, turn_about_z


def _around(x: float, y: float, away: float, angle: float) -> tuple[float, float]:
    return x + away * float(np.cos(angle)), y + away * float(np.sin(angle))


def desert(site: Site) -> Ground:
    """Dunes and table mountains; cacti, boulders, dry bushes and bones."""
    sand, stone = site.vary((0.90, 0.66, 0.36), 0.08), site.vary((0.74, 0.40, 0.24))
    for i in range(12):
        dune = shaded("ripples", site.vary(sand, 0.05), 0.86, 2.4)
        place = _around(0, -6, site.between(40, 58), 2 * np.pi * (i + site.between(0, 0.8)) / 12)
        mound(site, *place, (site.between(12, 20), site.between(8, 12), site.between(2.5, 6.0)), dune)
    for i in range(5):
        _table_mountain(site, *_around(0, 0, site.between(75, 100), 2 * np.pi * (i + site.between(0, 0.9)) / 5), stone)
    cactus = site.vary((0.26, 0.46, 0.24), 0.2)

    def plant(x: float, y: float) -> None:
        which = site.rng.integers(5)
        if which <= 1:
            _cactus(site, x, y, cactus)
        elif which == 2:
            rock(site, x, y, stone, site.between(0.6, 1.5))
        elif which == 3:
            _barrel_cactus(site, x, y, cactus)
        else:
            bush(site, x, y, (0.60, 0.54, 0.30), site.between(0.4, 0.7))

    site.scatter(26, 8, 16, 1.4, plant)
    site.scatter(26, 15, 34, 1.4, plant)
    _bones(site)
    hard, patches = mixed("mottled", scaled(sand, 0.9), scaled(sand, 0.72), 1.3), []
    for _ in range(4):
        x, y = _around(0, 2, site.between(0, 16), site.between(0, 6.3))
        patches.append(oval(x, y, (site.between(3, 8), site.between(1.5, 3)), hard))
    return Ground(paint=shaded("ripples", sand, 0.82, site.between(0.8, 1.3)), patches=tuple(patches))


def _cactus(site: Site, x: float, y: float, colour: Colour) -> None:
    skin = shaded("ribs", site.vary(colour), 0.7, 0.16)
    tall, turn = site.between(2.2, 4.2), site.between(0, np.pi)
    site.things.limb((x, y, 0), (x, y, tall), 0.28, 0.24, skin)
    for side in (-1, 1):
        if site.rng.random() < 0.85:
            low, up = tall * site.between(0.35, 0.55), site.between(0.8, 1.4)
            out = (*turned(x, y, side * 0.75, 0, turn), low)
            site.things.limb((x, y, low - 0.1), out, 0.15, 0.17, skin)
            site.things.limb(out, (out[0], out[1], low + up), 0.17, 0.14, skin)


def _barrel_cactus(site: Site, x: float, y: float, colour: Colour) -> None:
    skin = shaded("ribs", site.vary(scaled(colour, 1.2)), 0.6, 0.2)
    for aside, big in ((0.0, 0.5), (0.6, 0.34), (-0.5, 0.28)):
        ball(site, x + aside, y + aside * 0.5, big * 0.8, (big, big, big), skin)
        ball(site, x + aside, y + aside * 0.5, big * 1.75, (big * 0.3, big * 0.3, 0.1), solid((0.88, 0.30, 0.40)))


def _table_mountain(site: Site, x: float, y: float, stone: Colour) -> None:
    rockface = mixed("strata", stone, scaled(stone, 1.35), 2.4)
    wide, tall = site.between(8, 15), site.between(11, 19)
    post(site, x, y, wide, (0.0, tall), rockface)
    spike(site, x, y, wide * 2.0, (-1.0, tall * 0.75), rockface)


def _bones(site: Site) -> None:
    x, y = site.side() * site.between(8.6, 10.5), site.between(2.0, 6.0)
    if site.claim(x + 0.6, y, 1.2):
        bone = solid((0.94, 0.90, 0.80))
        for i in range(4):
            site.things.limb((x + i * 0.4, y - 0.4, 0.0), (x + i * 0.4, y - 0.25, 0.75), 0.06, 0.04, bone)
            site.things.limb((x + i * 0.4, y - 0.25, 0.75), (x + i * 0.4, y + 0.2, 0.95), 0.04, 0.03, bone)
        site.things.limb((x - 0.2, y + 0.2, 0.95), (x + 1.4, y + 0.2, 0.95), 0.07, 0.05, bone)
        site.things.limb((x + 1.4, y - 0.1, 0.0), (x + 1.4, y + 0.2, 0.95), 0.06, 0.05, bone)


def _slim_cactus(site: Site, x: float, y: float) -> float:
    skin = shaded("ribs", site.vary((0.26, 0.46, 0.24)), 0.7, 0.16)
    site.things.limb((x, y, 0), (x, y, 2.9), 0.27, 0.22, skin)
    return 0.28


# --- canyon --------------------------------------------------------------------------------------------------------


def canyon(site: Site) -> Ground:
    """Red walls in layers on all sides, pillars of rock, an arch, boulders, a turquoise stream."""
    red = site.vary((0.66, 0.25, 0.15), 0.12)
    pale = site.vary((0.93, 0.66, 0.44), 0.08)
    layers = site.between(0.7, 1.1)

    def face() -> Paint:
        return mixed("strata", site.vary(red, 0.08), site.vary(pale, 0.08), layers)

    for ring, count, away, tall in ((0, 15, 28.0, 5.0), (1, 12, 42.0, 12.0)):
        for i in range(count):
            x, y = _around(0, -6, away + site.between(-3, 3), 2 * np.pi * (i + site.between(0, 0.5)) / count)
            wide, high = site.between(5.5, 8.0) * (1 + ring * 0.7), tall * site.between(0.6, 1.25)
            post(site, x, y, wide, (0.0, high), face())
            post(site, x, y, wide * 1.12, (0.0, high * site.between(0.3, 0.6)), face())
    _arch(site, site.side() * site.between(5, 11), site.between(13.0, 16.0), face())

    def pillar(x: float, y: float) -> None:
        high, wide = site.between(2.2, 5.0), site.between(0.5, 0.9)
        site.things.limb((x, y, 0), (x, y, high), wide, wide * 0.6, face())
        ball(site, x, y, high + 0.25, (wide * 1.1, wide, 0.45), solid(scaled(red, 0.75)), site.between(0, 3))

    def small(x: float, y: float) -> None:
        if site.rng.random() < 0.6:
            rock(site, x, y, red, site.between(0.5, 1.4))
        else:
            bush(site, x, y, (0.46, 0.52, 0.30), site.between(0.35, 0.7))

    site.scatter(9, 9, 18, 1.3, pillar)
    site.scatter(34, 8, 19, 1.0, small)
    floor = mixed("mottled", site.vary((0.76, 0.46, 0.30), 0.06), scaled(red, 0.9), 1.4)
    stream_y, wide = site.between(7.6, 9.5), site.between(0.8, 1.5)
    water = mixed("waves", site.vary((0.12, 0.52, 0.50)), (0.40, 0.74, 0.70), 0.5, gloss=0.6)
    return Ground(paint=floor, patches=(
        strip(stream_y, wide + 0.6, mixed("spots", (0.70, 0.52, 0.38), (0.58, 0.44, 0.36), 0.4)),
        strip(stream_y, wide, water),
    ))  # fmt: skip


def _arch(site: Site, x: float, y: float, paint: Paint) -> None:
    steps = np.linspace(0, np.pi, 8)
    points = [(x + 3.4 * float(np.cos(a)), y, -0.2 + 4.4 * float(np.sin(a))) for a in steps]
    for start, end in pairwise(points):
        site.things.limb(start, end, 1.0, 1.0, paint)
    site.take(x, y, 4.5)


def _slim_pillar(site: Site, x: float, y: float) -> float:
    site.things.limb((x, y, 0), (x, y, 2.6), 0.36, 0.24, mixed("strata", (0.72, 0.30, 0.17), (0.93, 0.66, 0.44), 0.5))
    ball(site, x, y, 2.8, (0.42, 0.38, 0.22), solid((0.52, 0.24, 0.15)))
    return 0.4


# --- temple ruins --------------------------------------------------------------------------------------------------


def temple(site: Site) -> Ground:
    """Ruins: a temple front with a gable, rows of whole and broken columns, blocks, cypresses, olive trees."""
    stone = site.vary((0.88, 0.82, 0.68), 0.07)
    shaft, cut = shaded("ribs", stone, 0.82, 0.17), shaded("tiles", scaled(stone, 0.95), 0.78, 1.2)
    front = site.between(-5, 5), site.between(13, 16)
    _temple_front(site, *front, shaft, cut)
    _colonnades(site, shaft, cut)

    def fallen(x: float, y: float) -> None:
        if site.rng.random() < 0.5:
            turn = site.between(0, np.pi)
            site.things.add(CYLINDER, (x, y, 0.45), (0.45, 0.45, 0.6), shaft, turn_about_z(turn) @ ALONG_X)
        else:
            block(
                site, (x, y), (site.between(0.4, 0.8), 0.45), (0.0, site.between(0.4, 0.8)), cut, site.between(0, 1.5)
            )

    def tree(x: float, y: float) -> None:
        if site.rng.random() < 0.6:
            green = shaded("mottled", site.vary((0.13, 0.26, 0.14), 0.2), 1.5, 0.5)
            tall = site.between(2.2, 3.4)
            ball(site, x, y, tall, (0.75, 0.75, tall), green)
        else:
            round_tree(site, x, y, site.between(0.8, 1.0), (0.46, 0.50, 0.34))

    site.scatter(14, 8, 18, 0.9, fallen)
    site.scatter(22, 16, 34, 1.6, tree)
    far_hills(site, 8, 80.0, (0.58, 0.56, 0.38))
    return _old_floor(site, stone)


def _colonnades(site: Site, shaft: Paint, cut: Paint) -> None:
    """Rows of columns left, right and behind, and what is left of the walls beyond them."""
    for side in (-1.0, 1.0):
        x, gap = side * site.between(8.2, 9.5), site.between(3.4, 4.4)
        for y in np.arange(-19, 9, gap):
            _old_column(site, x, float(y), shaft, cut)
        x += side * site.between(9, 12)
        block(site, (x, -6), (0.6, 13.0), (0.0, site.between(1.6, 3.0)), cut)
        site.take(x, -6, 1.0)
    for x in np.arange(-12, 14, 6.0):
        _old_column(site, float(x), -24.0, shaft, cut)
    block(site, (0.0, -29.0), (20.0, 0.7), (0.0, site.between(2, 3.5)), cut)


def _old_floor(site: Site, stone: Colour) -> Ground:
    """Slabs that grass grows through."""
    grass = mixed("mottled", site.vary((0.62, 0.58, 0.34)), (0.50, 0.50, 0.28), 1.4)
    dry = [
        Patch(centre=(site.between(-22, 22), site.between(-18, 12)), half=(site.between(1.5, 4), site.between(1, 2.2)),
              paint=grass, round=True)
        for _ in range(7)
    ]  # fmt: skip
    floor = Patch(
        centre=(0.0, -4.0), half=(21.0, 26.0), paint=shaded("tiles", scaled(stone, 0.92), 0.7, site.between(1.2, 1.8))
    )
    return Ground(paint=grass, patches=(floor, *dry))


def _temple_front(site: Site, x: float, y: float, shaft: Paint, cut: Paint) -> None:
    for step in range(3):
        block(site, (x, y + 3), (7.6 - 0.4 * step, 4.6 - 0.4 * step), (0.3 * step, 0.3 * step + 0.3), cut)
    stones = solid(scaled(shaft.colour, 0.92))
    for column_x in np.linspace(-5.6, 5.6, 6):
        post(site, x + float(column_x), y, 0.62, (0.9, 1.15), stones)
        site.things.limb((x + float(column_x), y, 1.1), (x + float(column_x), y, 4.9), 0.52, 0.44, shaft)
        block(site, (x + float(column_x), y), (0.66, 0.66), (4.9, 5.3), stones)
    block(site, (x, y + 2.6), (6.6, 3.2), (5.3, 6.1), cut)
    gable(site, (x, y + 2.6), (3.2, 6.6), 6.1, 1.9, (solid((0.74, 0.46, 0.34)), stones), np.pi / 2)
    block(site, (x, y + 4.8), (5.6, 1.0), (0.9, 5.3), solid(scaled(shaft.colour, 0.6)))
    site.take(x, y + 3, 8.0)


def _old_column(site: Site, x: float, y: float, shaft: Paint, foot: Paint) -> None:
    whole = site.rng.random() < 0.55
    site.take(x, y, 0.8)
    if whole:
        column(site, x, y, 0.46, 4.8, shaft, foot)
    else:
        block(site, (x, y), (0.62, 0.62), (0.0, 0.32), foot)
        post(site, x, y, 0.45, (0.32, site.between(0.9, 3.2)), shaft)


def _slim_column(site: Site, x: float, y: float) -> float:
    column(site, x, y, 0.26, 3.4, shaded("ribs", (0.88, 0.82, 0.68), 0.82, 0.12), solid((0.80, 0.74, 0.60)))
    return 0.36


# --- the Moon ------------------------------------------------------------------------------------------------------


def lunar(site: Site) -> Ground:
    """Grey dust full of craters: domes and tubes of a base, a lander, rovers, solar panels, a dish."""
    dust = site.vary((0.50, 0.49, 0.48), 0.08)
    stone = mixed("craters", scaled(dust, 0.6), scaled(dust, 1.25), 3.0)
    for i in range(12):
        place = _around(0, -6, site.between(50, 80), 2 * np.pi * (i + site.between(0, 0.8)) / 12)
        mound(site, *place, (site.between(10, 22), site.between(9, 16), site.between(4, 10)), stone)
    side = site.side()
    _base(site, side * site.between(3, 9), site.between(15, 19))
    for place in (
        (-side * site.between(11, 15), site.between(6, 10)),
        (side * site.between(14, 18), site.between(-20, -12)),
    ):
        _lander(site, *place)
        site.take(*place, 2.6)
    for place in (
        (side * site.between(9, 12), site.between(4, 8)),
        (-side * site.between(12, 15), site.between(-16, -6)),
    ):
        _rover(site, *place, site.between(0, 3))
        site.take(*place, 1.8)
    for x in (-16.0, -9.0, 9.0, 16.0):
        _solar_panel(site, x + site.between(-1, 1), -27.0)
    _dish(site, -side * site.between(16, 20), site.between(-3, 2))
    _dome(site, side * site.between(19, 23), site.between(-4, 3), site.between(2.5, 4))

    def boulder(x: float, y: float) -> None:
        rock(site, x, y, dust, site.between(0.3, 1.1))

    def crater(x: float, y: float) -> None:
        wide = site.between(0.8, 1.6)
        rim = shaded("mottled", scaled(dust, 1.08), 0.8, 0.7)
        for angle in np.arange(7) * 2 * np.pi / 7 + site.between(0, 1):
            ball(site, *_around(x, y, wide, float(angle)), 0.0, (wide * 0.52, wide * 0.52, 0.26 * wide), rim)

    site.scatter(7, 9, 20, 2.2, crater)
    site.scatter(34, 8, 30, 0.8, boulder)
    paint = mixed("craters", scaled(dust, 0.72), scaled(dust, 1.25), site.between(2.6, 3.6))
    return Ground(paint=paint)


def _dome(site: Site, x: float, y: float, big: float) -> None:
    post(site, x, y, big * 1.04, (0.0, 0.5), solid((0.52, 0.54, 0.56)))
    ball(site, x, y, 0.4, (big, big, big * 0.85), mixed("panels", (0.66, 0.68, 0.70), WHITE, 1.2))
    block(site, (x, y - big), (0.6, 0.5), (0.0, 1.7), solid((0.80, 0.42, 0.12)))


def _base(site: Site, x: float, y: float) -> None:
    big = site.between(3.2, 4.2)
    _dome(site, x, y, big)
    tube = mixed("stripes", WHITE, (0.70, 0.72, 0.74), 1.6)
    for side in (-1, 1):
        _dome(site, x + side * 9.0, y + 0.5, site.between(1.8, 2.8))
        site.things.add(CYLINDER, (x + side * 5.5, y + 0.2, 0.95), (0.95, 0.95, 2.4), tube, ALONG_X)
    block(site, (x - 0.4 * big, y - 0.86 * big), (0.45, 0.25), (0.6, 1.1), glowing((1.0, 0.80, 0.40)))
    site.take(x, y, 9.0)


def _lander(site: Site, x: float, y: float) -> None:
    foil = mixed("picture", (0.84, 0.60, 0.18), (0.98, 0.82, 0.42), 0.5)
    for angle in np.arange(4) * np.pi / 2 + 0.7:
        foot = _around(x, y, 2.1, float(angle))
        site.things.limb((*foot, 0.06), (*_around(x, y, 1.0, float(angle)), 1.6), 0.07, 0.09, solid((0.62, 0.62, 0.62)))
        post(site, *foot, 0.35, (0.0, 0.1), solid((0.62, 0.62, 0.62)))
    post(site, x, y, 1.35, (1.0, 2.2), foil)
    block(site, (x, y), (0.95, 0.85), (2.2, 3.6), mixed("panels", (0.58, 0.60, 0.62), WHITE, 0.9))
    ball(site, x, y - 0.75, 2.9, (0.5, 0.4, 0.5), solid((0.20, 0.22, 0.26)))
    site.things.limb((x, y, 3.6), (x + 0.4, y, 4.9), 0.05, 0.03, solid(WHITE))


def _rover(site: Site, x: float, y: float, turn: float) -> None:
    block(site, (x, y), (1.3, 0.7), (0.55, 0.85), solid((0.86, 0.86, 0.84)), turn)
    block(
        site,
        turned(x, y, -0.7, 0, turn),
        (0.4, 0.6),
        (0.85, 1.5),
        mixed("picture", (0.84, 0.60, 0.18), (0.98, 0.82, 0.42), 0.4),
        turn,
    )
    axle = turn_about_z(turn) @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    for ahead in (-1.1, 0.0, 1.1):
        for aside in (-0.85, 0.85):
            place = (*turned(x, y, ahead, aside, turn), 0.36)
            site.things.add(CYLINDER, place, (0.36, 0.36, 0.16), solid((0.16, 0.16, 0.17)), axle)
    mast = turned(x, y, 0.9, 0, turn)
    site.things.limb((*mast, 0.8), (*mast, 1.8), 0.05, 0.05, solid(WHITE))
    block(site, mast, (0.14, 0.22), (1.75, 2.0), solid((0.25, 0.26, 0.28)), turn)


def _solar_panel(site: Site, x: float, y: float) -> None:
    post(site, x, y, 0.1, (0.0, 1.6), solid(WHITE))
    cell = mixed("panels", WHITE, (0.08, 0.16, 0.42), 0.6)
    site.things.add(BOX, (x, y, 1.8), (2.6, 1.3, 0.06), cell, tilted(-0.7))


def _dish(site: Site, x: float, y: float) -> None:
    post(site, x, y, 0.25, (0.0, 2.2), solid((0.6, 0.6, 0.6)))
    ball(site, x, y, 3.2, (1.7, 0.5, 1.7), solid(WHITE), 0.8)
    site.take(x, y, 2.0)


def _mast(site: Site, x: float, y: float) -> float:
    post(site, x, y, 0.12, (0.0, 3.4), mixed("stripes", WHITE, (0.86, 0.36, 0.10), 1.0))
    block(site, (x + 0.62, y), (0.55, 0.02), (2.6, 3.3), mixed("stripes", (0.16, 0.36, 0.76), WHITE, 0.28))
    post(site, x, y, 0.3, (0.0, 0.12), solid((0.4, 0.4, 0.4)))
    return 0.3


DESERT = Family(
    name="desert", preposition="in", words="a sandy desert with dunes and cacti", plain="an outdoor place",
    moods=("noon", "dust", "evening"), build=desert, occluder=_slim_cactus,
)  # fmt: skip

CANYON = Family(
    name="canyon", preposition="in", words="a red rock canyon with a stream", plain="an outdoor place",
    moods=("noon", "morning", "dust"), build=canyon, occluder=_slim_pillar,
)  # fmt: skip

TEMPLE = Family(
    name="temple", preposition="among", words="temple ruins with tall stone columns", plain="an outdoor place",
    moods=("noon", "morning", "evening"), build=temple, occluder=_slim_column,
)  # fmt: skip

LUNAR = Family(
    name="lunar", preposition="on", words="the grey surface of the Moon by a domed base", plain="an outdoor place",
    moods=("space",), build=lunar, occluder=_mast,
)  # fmt: skip
