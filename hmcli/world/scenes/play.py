"""Places for play: a playground and a sports ground."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hmcli.world.scenes.paints import IRON, STRONG, WHITE, blend, mixed, oval, shaded, solid
from hmcli.world.scenes.scene import Family, Site
from hmcli.world.scenes.things import ball, bench, block, fresh, post, round_tree, spike, tilted, turned
from hmcli.world.space.shapes import BOX, Colour, Ground, Patch

_PASTEL = ((0.96, 0.80, 0.62), (0.72, 0.84, 0.90), (0.95, 0.74, 0.74), (0.80, 0.90, 0.72), (0.94, 0.90, 0.66))
_RUBBER = ((0.90, 0.42, 0.34), (0.20, 0.62, 0.66), (0.94, 0.66, 0.26), (0.36, 0.48, 0.80))


def playground(site: Site) -> Ground:
    """Bright rubber ground with circles: a slide, swings, a dome to climb, seesaws, blocks; pastel houses around."""
    places = [(x, y) for x in (-11.0, 11.0) for y in (-13.0, -5.0, 3.5)] + [(-4.5, 12.5), (4.5, 12.5), (0.0, -26.0)]
    makers = [_slide, _swings, _dome, _seesaw, _sandbox, _rings]
    order = site.rng.permutation(len(makers))
    for i, (x, y) in enumerate(places):
        at = x + site.between(-0.8, 0.8), y + site.between(-0.8, 0.8)
        makers[order[i % len(makers)]](site, *at)
        site.take(*at, 2.6)
    for i in range(14):
        angle = 2 * np.pi * (i + site.between(0, 0.3)) / 14
        x, y = 30 * float(np.cos(angle)), -5 + 30 * float(np.sin(angle))
        wall = mixed("windows", site.vary(_PASTEL[i % len(_PASTEL)], 0.06), (0.46, 0.60, 0.72), 2.2)
        block(site, (x, y), (4.6, 3.0), (0.0, site.between(5, 9)), wall, float(angle + np.pi / 2))
    _coloured_fence(site)

    def toy(x: float, y: float) -> None:
        which, own = site.rng.integers(4), fresh(site, STRONG)
        if which == 0:
            ball(site, x, y, 0.4, (0.4, 0.4, 0.4), mixed("segments", own, WHITE, 1.0))
        elif which == 1:
            post(site, x, y, 0.14, (0.0, 0.5), solid(WHITE))
            ball(site, x, y, 0.55, (0.5, 0.5, 0.22), mixed("spots", own, WHITE, 0.3))
        elif which == 2:
            block(
                site, (x, y), (0.4, 0.4), (0.0, 0.8), mixed("checks", own, fresh(site, STRONG), 0.8), site.between(0, 1)
            )
        else:
            round_tree(site, x, y, 0.85, (0.36, 0.60, 0.20))

    site.scatter(24, 8, 20, 0.9, toy)
    return _rubber(site)


def _rubber(site: Site) -> Ground:
    base = site.pick(_RUBBER)
    others = [colour for colour in _RUBBER if colour != base]
    circles = [
        oval(site.between(-15, 15), site.between(-14, 14), (size, size), solid(site.vary(site.pick(others))))
        for size in site.rng.uniform(1.2, 3.4, 9)
    ]  # fmt: skip
    path = Patch(centre=(0.0, site.between(4, 7)), half=(60.0, 0.5), paint=mixed("ribs", WHITE, site.pick(others), 1.6))
    return Ground(paint=shaded("mottled", site.vary(base, 0.06), 0.9, 1.2), patches=(*circles, path))


def _coloured_fence(site: Site) -> None:
    for i, angle in enumerate(np.arange(0, 2 * np.pi, 2 * np.pi / 40)):
        x, y = 21.5 * float(np.cos(angle)), -5 + 21.5 * float(np.sin(angle))
        paint = mixed("ribs", STRONG[i % len(STRONG)], WHITE, 0.8)
        block(site, (x, y), (1.70, 0.06), (0.0, 0.9), paint, float(angle + np.pi / 2))


def _slide(site: Site, x: float, y: float) -> None:
    frame, roof, chute = (solid(fresh(site, STRONG)) for _ in range(3))
    for ahead in (-0.7, 0.7):
        for aside in (-0.7, 0.7):
            post(site, x + ahead, y + aside, 0.09, (0.0, 2.9), frame)
    block(site, (x, y), (0.8, 0.8), (1.5, 1.65), solid((0.70, 0.52, 0.32)))
    spike(site, x, y, 1.2, (2.85, 3.9), roof)
    side = -float(np.sign(x)) or 1.0
    site.things.add(BOX, (x + side * 1.85, y, 0.84), (0.42, 1.35, 0.06), chute, tilted(-0.62, -side * np.pi / 2))
    block(site, (x + side * 3.1, y), (0.3, 0.42), (0.0, 0.16), chute)
    site.things.add(BOX, (x - side * 1.2, y, 0.78), (0.4, 0.95, 0.06), frame, tilted(-0.95, side * np.pi / 2))


def _swings(site: Site, x: float, y: float) -> None:
    paint, seat = solid(fresh(site, STRONG)), solid((0.12, 0.12, 0.14))
    for aside in (-1.8, 1.8):
        for ahead in (-0.9, 0.9):
            site.things.limb((x + ahead, y + aside, 0.05), (x, y + aside, 2.5), 0.07, 0.07, paint)
    site.things.limb((x, y - 1.8, 2.5), (x, y + 1.8, 2.5), 0.07, 0.07, paint)
    for aside in (-0.8, 0.8):
        swing = site.between(-0.3, 0.3)
        for rope in (-0.2, 0.2):
            site.things.limb((x, y + aside + rope, 2.5), (x + swing, y + aside + rope, 0.55), 0.025, 0.025, solid(IRON))
        block(site, (x + swing, y + aside), (0.14, 0.26), (0.50, 0.56), seat)


def _dome(site: Site, x: float, y: float) -> None:
    first, second = solid(fresh(site, STRONG)), solid(fresh(site, STRONG))
    angles = np.arange(6) * np.pi / 3
    low = [(x + 1.7 * float(np.cos(a)), y + 1.7 * float(np.sin(a)), 0.05) for a in angles]
    high = [(x + 1.1 * float(np.cos(a + 0.5)), y + 1.1 * float(np.sin(a + 0.5)), 1.25) for a in angles]
    for i in range(6):
        site.things.limb(low[i], high[i], 0.06, 0.06, first)
        site.things.limb(low[i], high[i - 1], 0.06, 0.06, first)
        site.things.limb(high[i], high[i - 1], 0.06, 0.06, second)
        site.things.limb(high[i], (x, y, 1.75), 0.06, 0.06, second)


def _seesaw(site: Site, x: float, y: float) -> None:
    spike(site, x, y, 0.4, (0.0, 0.7), solid(fresh(site, STRONG)))
    turn, tip = site.between(0, 3), site.pick([-0.2, 0.2])
    site.things.add(
        BOX, (x, y, 0.62), (0.2, 2.1, 0.06), mixed("checks", fresh(site, STRONG), WHITE, 1.0), tilted(tip, turn)
    )


def _sandbox(site: Site, x: float, y: float) -> None:
    wood, sand = solid(fresh(site, STRONG)), shaded("mottled", (0.92, 0.80, 0.56), 0.86, 0.5)
    for side in (-1, 1):
        block(site, (x + side * 1.8, y), (0.14, 1.9), (0.0, 0.34), wood)
        block(site, (x, y + side * 1.8), (1.7, 0.14), (0.0, 0.34), wood)
    block(site, (x, y), (1.7, 1.7), (0.0, 0.2), sand)
    spike(site, x + 0.5, y + 0.3, 0.6, (0.2, 0.8), sand)
    post(site, x - 0.6, y - 0.5, 0.2, (0.2, 0.5), solid(fresh(site, STRONG)))


def _rings(site: Site, x: float, y: float) -> None:
    """A row of tall arches to climb, each of its own colour."""
    for i in range(3):
        paint, ahead = solid(STRONG[(i + int(site.rng.integers(7))) % 7]), -1.2 + 1.2 * i
        steps = np.linspace(0, np.pi, 6)
        points = [(x + ahead, y + 1.2 * float(np.cos(a)), 0.05 + 2.1 * float(np.sin(a))) for a in steps]
        for start, end in pairwise(points):
            site.things.limb(start, end, 0.10, 0.10, paint)


def _striped_post(site: Site, x: float, y: float) -> float:
    post(site, x, y, 0.24, (0.0, 2.7), mixed("stripes", fresh(site, STRONG), WHITE, 0.6))
    ball(site, x, y, 2.8, (0.32, 0.32, 0.32), solid(fresh(site, STRONG)))
    return 0.32


# --- stadium -------------------------------------------------------------------------------------------------------


def stadium(site: Site) -> Ground:
    """A mown pitch with white lines inside a red track: crowded stands on all sides, masts, flags, boards."""
    home, away = site.pick(STRONG), site.pick(STRONG)
    track_y = site.between(10.5, 12.0)
    for turn, out, half in (
        (0.0, track_y + 8.0, 34.0),
        (np.pi, 34.0, 34.0),
        (np.pi / 2, 25.0, 22.0),
        (-np.pi / 2, 25.0, 22.0),
    ):
        _stand(site, turn, out, half, home if abs(turn) < 2 else away)
    for x in (-26.0, 26.0):
        for y in (track_y + 6.5, -31.0):
            _floodlight(site, x, y)
    for x in np.arange(-30, 31, 6.0):
        _board(site, float(x), track_y - 2.0, 0.0)
        _board(site, float(x), -27.0, 0.0)
    for y in np.arange(-22, 8, 6.0):
        _board(site, -18.0, float(y), np.pi / 2)
        _board(site, 18.0, float(y), np.pi / 2)
    _goal(site, site.side() * site.between(11, 14), site.between(-8, 3))
    for x in (-9.5, 9.5):
        for y in (6.5, -19.0):
            post(site, x, y, 0.05, (0.0, 1.8), solid(WHITE))
            block(site, (x + 0.36, y), (0.32, 0.02), (1.3, 1.8), solid(fresh(site, STRONG)))
    for x, y in ((8.6, 7.6), (-8.9, 7.4), (-8.6, -10.0), (9.2, -13.0)):
        bench(site, x + site.between(-1, 1), y, 0.0 if y > 0 else np.pi / 2, solid(home))
    block(
        site,
        (site.between(-9, 9), track_y + 5.0),
        (3.0, 0.25),
        (0.0, 5.0),
        mixed("cells", (0.06, 0.07, 0.09), (0.98, 0.72, 0.20), 0.3, glow=0.5),
    )
    return _pitch(site, track_y)


def _pitch(site: Site, track_y: float) -> Ground:
    grass, red = site.vary((0.26, 0.56, 0.20), 0.1), site.vary((0.74, 0.28, 0.18), 0.08)
    white, lanes = solid(WHITE), []
    for y in (track_y - 0.5, track_y + 0.8, track_y + 2.1, track_y + 3.4):
        lanes.append(Patch(centre=(0.0, y), half=(60.0, 0.06), paint=white))
    side = site.side() * site.between(4.0, 6.0)
    return Ground(paint=shaded("ribs", grass, 0.84, site.between(4.0, 6.0)), patches=(
        Patch(centre=(0.0, track_y + 1.5), half=(60.0, 2.6), paint=shaded("mottled", red, 0.92, 1.0)), *lanes,
        Patch(centre=(0.0, 7.2), half=(60.0, 0.09), paint=white),
        Patch(centre=(side, -6.0), half=(0.09, 13.2), paint=white),
        Patch(centre=(side, -2.0), half=(3.6, 3.6), paint=white, round=True),
        Patch(centre=(side, -2.0), half=(3.43, 3.43), paint=shaded("ribs", grass, 0.84, 5.0), round=True),
        Patch(centre=(side, -6.0), half=(0.09, 13.2), paint=white),
    ))  # fmt: skip


def _stand(site: Site, turn: float, out: float, half: float, seats: Colour) -> None:
    """Four rows of seats, `out` metres in front of the middle (0, -6 when aside), and a roof on posts."""
    middle_y = 0.0 if abs(np.sin(turn)) < 0.5 else -6.0

    def at(back: float, along: float = 0.0) -> tuple[float, float]:
        return turned(0.0, middle_y, along, out + back, turn)

    crowd = mixed("cells", site.vary(seats), blend(seats, (0.96, 0.88, 0.76), 0.5), 0.6)
    for row in range(5):
        block(site, at(1.6 * row), (half, 0.8), (0.0, 1.2 + 1.0 * row), crowd, turn)
    block(site, at(8.3), (half, 0.3), (0.0, 9.0), solid((0.72, 0.74, 0.77)), turn)
    block(site, at(5.2), (half, 3.4), (9.0, 9.35), solid((0.90, 0.91, 0.93)), turn)
    for along in (-half * 0.66, 0.0, half * 0.66):
        post(site, *at(2.4, along), 0.16, (0.0, 9.0), solid((0.72, 0.74, 0.77)))


def _floodlight(site: Site, x: float, y: float) -> None:
    site.things.limb((x, y, 0), (x, y, 13.0), 0.35, 0.2, solid((0.55, 0.58, 0.60)))
    block(site, (x, y), (1.8, 0.2), (13.0, 15.4), mixed("panels", (0.30, 0.32, 0.34), (1.0, 0.98, 0.92), 0.8, glow=0.8))


def _board(site: Site, x: float, y: float, turn: float) -> None:
    paint = mixed("ribs", fresh(site, STRONG), site.pick([WHITE, *STRONG]), site.between(0.8, 2.6))
    block(site, (x, y), (2.9, 0.08), (0.0, 0.95), paint, turn)


def _goal(site: Site, x: float, y: float) -> None:
    white = solid(WHITE)
    for aside in (-3.0, 3.0):
        post(site, x, y + aside, 0.08, (0.0, 2.44), white)
        site.things.limb((x, y + aside, 2.4), (x + np.sign(x) * 1.4, y + aside, 0.05), 0.04, 0.04, white)
    site.things.limb((x, y - 3.0, 2.44), (x, y + 3.0, 2.44), 0.08, 0.08, white)


def _pole(site: Site, x: float, y: float) -> float:
    post(site, x, y, 0.13, (0.0, 3.6), solid(WHITE))
    block(site, (x, y), (0.22, 0.22), (0.0, 1.7), solid(fresh(site, STRONG)))
    return 0.31


PLAYGROUND = Family(
    name="playground", preposition="on", words="a colourful playground with slides and swings",
    plain="an outdoor place", moods=("noon", "morning", "hazy"), build=playground, occluder=_striped_post,
)  # fmt: skip

STADIUM = Family(
    name="stadium", preposition="in", words="a stadium with a green pitch and crowded stands",
    plain="an outdoor place", moods=("noon", "morning", "overcast"), build=stadium, occluder=_pole,
)  # fmt: skip
