"""Towns: a street of houses, a market square, a city at night."""

from __future__ import annotations

import numpy as np

from hmcli.world.scenes.paints import STRONG, WHITE, blend, glowing, mixed, scaled, shaded, solid
from hmcli.world.scenes.scene import Family, Site
from hmcli.world.scenes.things import (
    ball,
    barrel,
    bench,
    block,
    car,
    crate,
    fresh,
    gable,
    lamp_post,
    post,
    round_tree,
    spike,
    tilted,
    turned,
)  # fmt: skip
from hmcli.world.space.light import Lamp
from hmcli.world.space.shapes import BOX, Colour, Ground, Paint, Patch

_FAR = 90.0  # metres: half the length of roads
_WALLS = ((0.66, 0.36, 0.26), (0.76, 0.66, 0.52), (0.55, 0.58, 0.62), (0.84, 0.80, 0.72), (0.45, 0.52, 0.58),
          (0.78, 0.55, 0.40))  # fmt: skip
_CARS = ((0.72, 0.12, 0.10), (0.13, 0.27, 0.58), (0.86, 0.86, 0.84), (0.16, 0.42, 0.30), (0.88, 0.66, 0.16))


def street(site: Site) -> Ground:
    """Houses across a road, parked cars, street trees and lamps; paved ground in front."""
    kerb, width = site.between(7.5, 9.0), site.between(5.0, 7.0)
    walls = [site.vary(colour) for colour in _WALLS]
    for side in (1, -1):  # behind the road, and far behind the camera
        x, front = -62.0, kerb + width + site.between(3.5, 5.0) if side > 0 else -34.0
        while x < 62:
            half = site.between(3.2, 5.5) * (1 if side > 0 else 1.8)
            tall = site.between(4.0, 8.5) if side > 0 else site.between(3.0, 4.5)
            _house(site, (x + half, front), half, tall, side, site.pick(walls))
            x += 2 * half + site.pick([0.0, 0.0, 1.5])
    for end in (-1, 1):
        for y in (-24.0, -12.0):
            _house(site, (end * site.between(30, 36), y), 5.0, 4.0, 1, site.pick(walls))
    gap, leaf = site.between(7.0, 10.0), site.vary((0.24, 0.46, 0.14), 0.2)
    for x in np.arange(-40 + site.between(0, gap), 40, gap):
        round_tree(site, float(x) + site.between(-1, 1), kerb + width + 1.8, site.between(0.75, 1.0), leaf)
    for x in np.arange(-36 + site.between(0, 12), 36, 12.0):
        lamp_post(site, float(x), kerb - 0.5)
        site.take(float(x), kerb - 0.5, 0.3)
    for x in np.arange(-34, 34, site.between(8.0, 12.0)):
        if site.rng.random() < 0.75:
            car(site, float(x) + site.between(-1.5, 1.5), kerb + 1.2, fresh(site, _CARS))
    for _ in range(14):
        x, y = site.between(-24, 24), site.between(-18, kerb - 1.5)
        if site.claim(x, y, 1.0):
            _street_thing(site, x, y)
    return _paved(site, kerb, width)


def _paved(site: Site, kerb: float, width: float) -> Ground:
    """Paving with a road along x between two kerbs and a line in its middle."""
    paving = site.vary((0.66, 0.62, 0.57))
    asphalt = mixed("mottled", site.vary((0.33, 0.33, 0.35)), (0.40, 0.40, 0.41), 0.7)
    strips = (
        (width / 2 + 0.2, solid(scaled(paving, 1.12))), (width / 2 - 0.05, asphalt), (0.08, solid((0.86, 0.84, 0.76)))
    )  # fmt: skip
    middle = (0.0, kerb + width / 2)
    return Ground(
        paint=shaded("tiles", paving, 0.62, site.between(0.8, 1.3)),
        patches=tuple(Patch(centre=middle, half=(_FAR, half), paint=paint) for half, paint in strips),
    )


def _house(site: Site, place: tuple[float, float], half: float, height: float, side: int, wall: Colour) -> None:
    """`place` is the middle of the front, which faces -y when `side` is 1; `half` and `height` are half sizes."""
    (x, front), deep = place, 4.0
    y = front + side * deep
    panes = mixed("windows", wall, site.vary((0.24, 0.32, 0.42), 0.2), site.between(1.7, 2.6))
    block(site, (x, y), (half, deep), (0.0, 2 * height), panes)
    block(site, (x, front), (half * 0.995, 0.12), (0.0, 1.2), solid(scaled(wall, 0.6)))
    if site.rng.random() < 0.6:
        roof = solid(site.vary((0.42, 0.24, 0.20), 0.3))
        block(site, (x, y), (half + 0.25, deep + 0.3), (2 * height, 2 * height + 0.5), roof)
    if site.rng.random() < 0.7:
        shade = mixed("checks", fresh(site, _CARS), (0.93, 0.92, 0.88), 0.9)
        block(site, (x + site.between(-1, 1), front - side * 0.6), (half * 0.45, 0.6), (2.62, 2.78), shade)


def _street_thing(site: Site, x: float, y: float) -> None:
    """A bench, a bollard or a planter."""
    which = site.rng.integers(3)
    if which == 0:
        bench(site, x, y)
    elif which == 1:
        paint = solid(fresh(site, _CARS))
        post(site, x, y, 0.22, (0.0, 0.84), paint)
        ball(site, x, y, 0.84, (0.22, 0.22, 0.14), paint)
    else:
        block(site, (x, y), (0.7, 0.7), (0.0, 0.6), solid((0.62, 0.58, 0.54)))
        ball(site, x, y, 0.85, (0.62, 0.62, 0.45), mixed("mottled", (0.18, 0.36, 0.12), (0.40, 0.58, 0.22), 0.4))


def _column(site: Site, x: float, y: float) -> float:
    """An advertising column: a lamp post is too thin for anybody to be out of sight behind it."""
    return _advertising(site, x, y, mixed("checks", fresh(site, STRONG), WHITE, 0.7))


def _advertising(site: Site, x: float, y: float, poster: Paint) -> float:
    radius = site.between(0.26, 0.34)
    post(site, x, y, radius, (0.0, 2.7), poster)
    post(site, x, y, radius + 0.04, (2.7, 2.85), solid((0.20, 0.26, 0.24)))
    return radius + 0.04


# --- market --------------------------------------------------------------------------------------------------------

_PLASTER = ((0.93, 0.87, 0.72), (0.90, 0.72, 0.50), (0.80, 0.52, 0.40), (0.88, 0.82, 0.80), (0.76, 0.78, 0.62))
_FRUIT = ((0.86, 0.18, 0.12), (0.96, 0.60, 0.10), (0.92, 0.82, 0.20), (0.34, 0.58, 0.16), (0.50, 0.20, 0.42))


def market(site: Site) -> Ground:
    """Stalls with striped awnings on a cobbled square, a fountain, gabled houses, a church tower."""
    for i in range(18):
        angle = 2 * np.pi * (i + site.between(-0.15, 0.15)) / 18
        x, y = 27 * float(np.cos(angle)), -5 + 25 * float(np.sin(angle))
        _gabled_house(site, x, y, float(angle - np.pi / 2))
    tower = site.side() * site.between(5, 12)
    _church_tower(site, tower, 24.0)
    _fountain(site, -np.sign(tower) * site.between(5.5, 9), site.between(11.5, 13))

    def stall(x: float, y: float) -> None:
        _stall(site, x, y, float(np.arctan2(y + 5, x) - np.pi / 2))

    def goods(x: float, y: float) -> None:
        if site.rng.random() < 0.5:
            barrel(site, x, y, (0.46, 0.30, 0.17), 0.3)
        else:
            crate(site, x, y, 0.3, site.between(0, 1))
            ball(site, x, y, 0.62, (0.27, 0.27, 0.18), mixed("spots", fresh(site, _FRUIT), (0.98, 0.92, 0.70), 0.15))

    site.scatter(10, 9.5, 15, 1.9, stall)
    for x in (-4.2, 0.0, 4.2):
        if site.claim(x + site.between(-0.8, 0.8), y := site.between(10.2, 11.5), 1.8):
            stall(x, y)
    site.scatter(12, 8, 17, 0.6, goods)
    stone = site.vary((0.62, 0.54, 0.46), 0.1)
    return Ground(paint=shaded("cobbles", stone, 0.55, site.between(0.55, 0.75)))


def _gabled_house(site: Site, x: float, y: float, turn: float) -> None:
    plaster, tall = fresh(site, _PLASTER), site.between(3.6, 5.2)
    wall = mixed("windows", plaster, site.vary((0.30, 0.20, 0.14), 0.2), site.between(1.5, 1.9))
    block(site, (x, y), (3.6, 3.2), (0.0, tall), wall, turn)
    roof = shaded("tiles", site.vary((0.66, 0.30, 0.20), 0.2), 0.75, 0.8)
    ridge = turn if site.rng.random() < 0.5 else turn + np.pi / 2
    half = (3.6, 3.2) if ridge == turn else (3.2, 3.6)
    gable(site, (x, y), half, tall, 2.6, (roof, solid(plaster)), ridge)
    block(site, turned(x, y, 0, -3.2, turn), (3.62, 0.12), (2.5, 2.75), solid((0.34, 0.23, 0.16)), turn)


def _church_tower(site: Site, x: float, y: float) -> None:
    stone = shaded("tiles", site.vary((0.72, 0.66, 0.56)), 0.8, 1.1)
    block(site, (x, y), (2.3, 2.3), (0.0, 13.0), stone)
    block(site, (x, y), (2.5, 2.5), (9.4, 9.8), solid((0.60, 0.55, 0.47)))
    spike(site, x, y, 3.1, (13.0, 19.0), solid(site.vary((0.24, 0.42, 0.38))))
    block(site, (x, y - 2.32), (0.9, 0.05), (7.0, 8.8), solid(WHITE))
    block(site, (x, y - 2.32), (0.8, 0.05), (0.0, 2.8), solid((0.34, 0.20, 0.13)))


def _fountain(site: Site, x: float, y: float) -> None:
    stone = solid(site.vary((0.78, 0.75, 0.68)))
    post(site, x, y, 1.9, (0.0, 0.55), stone)
    post(site, x, y, 1.7, (0.5, 0.58), mixed("mottled", (0.30, 0.56, 0.64), (0.62, 0.80, 0.86), 0.4))
    post(site, x, y, 0.25, (0.55, 1.7), stone)
    post(site, x, y, 0.85, (1.7, 1.85), stone)
    ball(site, x, y, 2.2, (0.28, 0.28, 0.45), stone)
    site.take(x, y, 2.1)


def _stall(site: Site, x: float, y: float, turn: float) -> None:
    """A counter with goods below a striped awning; it faces the stage."""

    def at(along: float, back: float) -> tuple[float, float]:
        return turned(x, y, along, back, turn)

    wood = solid((0.50, 0.34, 0.20))
    for along in (-1.4, 1.4):
        for back in (-0.9, 0.9):
            block(site, at(along, back), (0.05, 0.05), (0.0, 2.35 if back < 0 else 2.75), wood, turn)
    block(site, at(0, -0.5), (1.4, 0.4), (0.0, 0.9), shaded("planks", site.vary((0.56, 0.38, 0.22)), 0.7, 0.3), turn)
    cloth = mixed("ribs", fresh(site, STRONG), WHITE, 0.7)
    site.things.add(BOX, (*at(0, -0.1), 2.60), (1.65, 1.25, 0.05), cloth, tilted(0.2, turn))
    block(site, at(0, -1.3), (1.65, 0.03), (2.02, 2.36), cloth, turn)
    for along in (-0.95, -0.32, 0.32, 0.95):
        fruit = mixed("spots", fresh(site, _FRUIT), scaled(fresh(site, _FRUIT), 0.8), 0.16)
        ball(site, *at(along, -0.5), 0.92, (0.30, 0.34, 0.2), fruit, turn)


def _bunting(site: Site, x: float, y: float) -> float:
    post(site, x, y, 0.26, (0.0, 3.3), mixed("stripes", fresh(site, STRONG), WHITE, 0.5))
    ball(site, x, y, 3.4, (0.3, 0.3, 0.3), solid((0.86, 0.68, 0.24)))
    return 0.3


# --- night city ----------------------------------------------------------------------------------------------------

_NEON = (
    (1.0, 0.20, 0.62),
    (0.16, 0.85, 1.0),
    (1.0, 0.72, 0.18),
    (0.46, 1.0, 0.42),
    (0.72, 0.36, 1.0),
    (1.0, 0.30, 0.20),
)


def night_city(site: Site) -> Ground:
    """Towers with lit windows, neon signs, shop fronts, street lamps that shine, cars; wet asphalt."""
    kerb = site.between(7.0, 8.5)
    front = kerb + site.between(10.5, 12.0)
    for x in np.arange(-34, 36, site.between(7.5, 9.0)):
        _tower(site, float(x), front, 0.0)
    for y in (-18.0, -9.5, -1.0):
        for side in (-1.0, 1.0):
            _tower(site, side * site.between(18, 20), y, -side * np.pi / 2)
    for x in np.arange(-24, 26, 10.0):
        _tower(site, float(x), -30.0, np.pi)
    for x in (-13.0, -4.5, 4.5, 13.0):
        lamp_post(site, x + site.between(-1, 1), kerb - 0.6, 4.0, lit=True)
    for side in (-1.0, 1.0):
        lamp_post(site, side * site.between(8.3, 9.0), site.between(-9, -5), 4.0, lit=True)
    for x in np.arange(-30, 32, site.between(7.0, 10.0)):
        if site.rng.random() < 0.8:
            _night_car(site, float(x), kerb + 1.6)

    def small(x: float, y: float) -> None:
        if y > kerb - 1.5:
            return
        own = fresh(site, STRONG)
        if site.rng.random() < 0.5:
            block(site, (x, y), (0.45, 0.45), (0.0, 1.9), solid(scaled(own, 0.7)), site.between(0, 1))
            block(site, (x, y), (0.35, 0.47), (0.8, 1.7), glowing(site.pick(_NEON), 0.7))
        else:
            post(site, x, y, 0.2, (0.0, 0.8), solid(own))

    site.scatter(12, 8, 15, 0.8, small)
    site.lamps.append(Lamp(place=(0.0, -4.0, 6.0), colour=(1.0, 0.88, 0.72), strength=34.0))
    wet = mixed("tiles", site.vary((0.25, 0.26, 0.31)), (0.17, 0.17, 0.21), 1.2, gloss=0.9)
    asphalt = mixed("mottled", (0.15, 0.15, 0.18), (0.20, 0.20, 0.23), 0.8, gloss=1.0)
    zebra = mixed("ribs", (0.80, 0.80, 0.80), (0.15, 0.15, 0.18), 1.0)
    return Ground(paint=wet, patches=(
        Patch(centre=(0.0, kerb + 4.0), half=(_FAR, 4.0), paint=asphalt),
        Patch(centre=(0.0, kerb + 4.0), half=(_FAR, 0.08), paint=solid((0.80, 0.66, 0.20))),
        Patch(centre=(site.between(-6, 6), kerb + 4.0), half=(2.0, 3.8), paint=zebra),
    ))  # fmt: skip


def _tower(site: Site, x: float, y: float, turn: float) -> None:
    """Its front passes through (x, y) and faces -y when `turn` is 0."""
    half, tall, deep = site.between(3.2, 4.0), site.between(9, 20), 3.5
    middle = turned(x, y, 0, deep, turn)
    lit = site.pick([(1.0, 0.84, 0.50), (0.98, 0.92, 0.74), (0.62, 0.82, 1.0)])
    wall = mixed("lit_windows", site.vary((0.14, 0.15, 0.22), 0.3), lit, site.between(1.2, 1.9), glow=0.75)
    block(site, middle, (half, deep), (0.0, tall), wall, turn)
    shop = site.pick(_NEON)
    block(
        site,
        turned(x, y, 0, -0.05, turn),
        (half * 0.8, 0.08),
        (0.4, 2.3),
        mixed("panels", (0.16, 0.15, 0.2), blend(shop, (1.0, 0.9, 0.7), 0.6), 1.5, glow=0.8),
        turn,
    )
    block(site, turned(x, y, 0, -0.15, turn), (half * 0.85, 0.2), (2.5, 3.1), glowing(scaled(shop, 0.9), 1.1), turn)
    if site.rng.random() < 0.6:
        side = site.side() * half * 0.8
        block(
            site,
            turned(x, y, side, -0.5, turn),
            (0.12, 0.5),
            (3.4, 6.4),
            mixed("checks", scaled(site.pick(_NEON), 0.5), site.pick(_NEON), 0.9, glow=1.2),
            turn,
        )


def _night_car(site: Site, x: float, y: float) -> None:
    car(site, x, y, scaled(fresh(site, _CARS), 0.8))
    for aside in (-0.55, 0.55):
        block(site, (x + 2.05, y + aside), (0.03, 0.18), (0.55, 0.75), glowing((1.0, 0.95, 0.80), 1.5))
        block(site, (x - 2.05, y + aside), (0.03, 0.18), (0.55, 0.75), glowing((1.0, 0.10, 0.06), 1.3))


def _lit_column(site: Site, x: float, y: float) -> float:
    return _advertising(site, x, y, glowing(site.pick(_NEON), 0.5))


STREET = Family(
    name="street", preposition="on", words="a paved street with houses and parked cars", plain="an outdoor place",
    moods=("noon", "morning", "evening", "hazy"), build=street, occluder=_column,
)  # fmt: skip

MARKET = Family(
    name="market", preposition="on", words="a cobbled market square with striped stalls", plain="an outdoor place",
    moods=("noon", "morning", "overcast", "evening"), build=market, occluder=_bunting,
)  # fmt: skip

NIGHT_CITY = Family(
    name="night_city", preposition="in", words="a city with lit windows and neon signs", plain="an outdoor place",
    moods=("night",), build=night_city, occluder=_lit_column,
)  # fmt: skip
