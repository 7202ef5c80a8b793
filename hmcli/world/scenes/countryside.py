"""Grown places: a meadow, a winter forest, an autumn park, a bamboo grove."""

from __future__ import annotations

import numpy as np

from hmcli.world.scenes.paints import WHITE, glowing, mixed, scaled, shaded, solid, strip
from hmcli.world.scenes.scene import Family, Site
from hmcli.world.scenes.things import (
    BARK,
    ball,
    bench,
    block,
    bush,
    conifer,
    far_hills,
    fence,
    gable,
    green_needles,
    lamp_post,
    mound,
    post,
    rock,
    round_tree,
    spike,
)  # fmt: skip
from hmcli.world.space.shapes import Ground, Paint, Patch

_FAR = 90.0  # metres: half the length of paths


def meadow(site: Site) -> Ground:
    """Grass with a footpath, trees, rocks, bushes, a fence and a barn; hills far away."""
    leaf, pine = site.vary((0.30, 0.50, 0.16), 0.2), site.vary((0.12, 0.33, 0.20), 0.2)
    barn = site.side() * site.between(6, 16), site.between(17, 23)
    _barn(site, *barn)
    site.take(*barn, 4.2)
    fence_y = site.between(9.0, 11.0)
    wood = mixed("mottled", site.vary((0.72, 0.62, 0.48)), (0.55, 0.46, 0.34), 0.2)
    fence(site, (site.between(-26, -12), fence_y), (site.between(12, 26), fence_y), wood)

    def tree(x: float, y: float) -> None:
        if abs(y - fence_y) < 1.6:
            return
        big = site.between(0.8, 1.35)
        if site.rng.random() < 0.5:
            round_tree(site, x, y, big, leaf)
        else:
            conifer(site, x, y, big, green_needles(site, pine))

    def small(x: float, y: float) -> None:
        if site.rng.random() < 0.45:
            rock(site, x, y, (0.56, 0.55, 0.52), site.between(0.3, 0.8))
        else:
            bush(site, x, y, leaf, site.between(0.45, 0.9))

    site.scatter(26, 8, 30, 1.5, tree)
    site.scatter(18, 8, 24, 0.9, small)
    far_hills(site, 9, 75.0, (0.34, 0.46, 0.28))
    return _grown(site)


def _grown(site: Site) -> Ground:
    """Grass with patches of flowers and a path along x."""
    grass, earth = site.vary((0.38, 0.56, 0.22), 0.15), site.vary((0.66, 0.53, 0.37))
    flowers = mixed("spots", scaled(grass, 1.15), (0.80, 0.78, 0.36), 0.5)
    patches = [
        Patch(
            centre=(site.between(-25, 25), site.between(-10, 25)), half=(site.between(1.5, 4), site.between(0.8, 2)),
            paint=flowers, round=True,
        )
        for _ in range(5)
    ]  # fmt: skip
    middle, half = site.between(-2.5, 5.0), site.between(0.8, 1.3)
    path = Patch(centre=(0.0, middle), half=(_FAR, half), paint=shaded("mottled", earth, 0.78, 0.6))
    return Ground(paint=shaded("mottled", grass, 0.68, site.between(1.0, 1.8)), patches=(*patches, path))


def _barn(site: Site, x: float, y: float) -> None:
    red = site.vary((0.62, 0.20, 0.15), 0.2)
    boards = shaded("planks", red, 0.6, 0.5)
    block(site, (x, y), (3.4, 2.6), (0.0, 3.8), boards)
    gable(site, (x, y), (3.4, 2.6), 3.8, 1.7, (solid(site.vary((0.36, 0.33, 0.33), 0.2)), boards))
    block(site, (x, y - 2.62), (1.0, 0.06), (0.0, 2.4), solid((0.90, 0.88, 0.82)))


def _slim_tree(site: Site, x: float, y: float) -> float:
    round_tree(site, x, y, 1.15, site.vary((0.30, 0.50, 0.16), 0.2))
    return 0.25


# --- snow ----------------------------------------------------------------------------------------------------------

_SNOW = (0.93, 0.95, 0.98)


def snow(site: Site) -> Ground:
    """Deep snow between snowy firs: drifts, a log cabin, a snowman, a frozen pond."""
    cabin = site.side() * site.between(5, 15), site.between(14, 19)
    _cabin(site, *cabin)
    site.take(*cabin, 4.5)
    pond = -np.sign(cabin[0]) * site.between(9, 15), site.between(9, 14)
    site.take(*pond, 3.5)
    pine = site.vary((0.07, 0.27, 0.19), 0.25)

    def fir(x: float, y: float) -> None:
        own = site.vary(pine, 0.2)
        snowy = mixed("dusted", own, _SNOW, 0.5)
        conifer(site, x, y, site.between(0.9, 1.9), (snowy, snowy, snowy))

    def small(x: float, y: float) -> None:
        which, size = site.rng.integers(4), site.between(0.5, 1.1)
        if which == 0:
            stone = mixed("dusted", site.vary((0.42, 0.44, 0.48)), _SNOW, 0.4)
            ball(site, x, y, size * 0.3, (size, size * 0.8, size * 0.7), stone, site.between(0, 3))
        elif which == 1:
            log = mixed("dusted", (0.36, 0.26, 0.18), _SNOW, 0.6)
            block(site, (x, y), (size, 0.18), (0.0, 0.34), log, site.between(0, 3))
        elif which == 2:
            post(site, x, y, 0.24 * size, (0.0, 0.6), BARK)
            ball(site, x, y, 0.62, (0.30 * size, 0.30 * size, 0.13), solid(_SNOW))
        else:
            mound(site, x, y, (1.1, 0.9, 0.4 * size), solid(_SNOW))

    site.scatter(9, 8, 16, 2.3, fir)
    _snowman(site)
    site.scatter(30, 15, 38, 2.2, fir)
    site.scatter(22, 8, 24, 1.1, small)
    _drifts(site)
    ice = Patch(
        centre=pond, half=(3.4, 2.2), paint=mixed("marble", (0.58, 0.72, 0.82), _SNOW, 1.5, gloss=0.5), round=True
    )
    return Ground(paint=mixed("mottled", _SNOW, site.vary((0.80, 0.85, 0.92), 0.04), 2.2), patches=(ice,))


def _drifts(site: Site) -> None:
    white = mixed("mottled", _SNOW, (0.84, 0.88, 0.94), 3.0)
    for _ in range(9):
        angle, away = site.between(0, 2 * np.pi), site.between(38, 64)
        place = away * float(np.cos(angle)), away * float(np.sin(angle)) - 6.0
        mound(site, *place, (site.between(9, 16), site.between(7, 11), site.between(1.2, 3.5)), white)


def _cabin(site: Site, x: float, y: float) -> None:
    logs = shaded("stripes", site.vary((0.45, 0.29, 0.17)), 0.72, 0.5)
    block(site, (x, y), (3.2, 2.4), (0.0, 2.6), logs)
    gable(site, (x, y), (3.2, 2.4), 2.6, 1.9, (solid(_SNOW), logs))
    block(site, (x - 1.2, y - 2.42), (0.5, 0.06), (0.0, 1.9), solid((0.30, 0.18, 0.12)))
    for aside in (0.4, 1.9):
        block(site, (x + aside, y - 2.42), (0.42, 0.05), (1.0, 1.8), glowing((1.0, 0.78, 0.42), 0.9))
    block(site, (x + 1.8, y + 0.8), (0.35, 0.35), (2.6, 5.0), shaded("bricks", (0.48, 0.34, 0.30), 0.7, 0.5))


def _snowman(site: Site) -> None:
    x, y = site.side() * site.between(6.5, 10), site.between(6.5, 11)
    if site.claim(x, y, 0.7):
        for z, size in ((0.42, 0.55), (1.12, 0.40), (1.66, 0.28)):
            ball(site, x, y, z, (size, size, size * 0.92), solid(_SNOW))
        post(site, x, y, 0.26, (1.85, 2.2), solid((0.10, 0.10, 0.12)))
        site.things.limb((x, y - 0.2, 1.68), (x, y - 0.6, 1.64), 0.07, 0.01, solid((0.92, 0.46, 0.12)))


def _fir_trunk(site: Site, x: float, y: float) -> float:
    site.things.limb((x, y, 0), (x, y, 5.5), 0.24, 0.16, mixed("dusted", (0.34, 0.26, 0.20), _SNOW, 0.5))
    mound(site, x, y, (0.7, 0.7, 0.16), solid(_SNOW))
    return 0.3


# --- autumn park ---------------------------------------------------------------------------------------------------

_TURNED = ((0.80, 0.30, 0.08), (0.88, 0.56, 0.10), (0.66, 0.16, 0.10), (0.86, 0.70, 0.20), (0.60, 0.34, 0.12))


def autumn(site: Site) -> Ground:
    """A park of red and yellow trees: fallen leaves, gravel paths, benches, a pavilion, a pond."""
    pavilion = site.side() * site.between(5, 13), site.between(13, 18)
    _pavilion(site, *pavilion)
    site.take(*pavilion, 3.4)
    pond = -np.sign(pavilion[0]) * site.between(8, 14), site.between(12, 17)
    site.take(*pond, 4.0)
    gravel, path_y = site.vary((0.74, 0.66, 0.54)), site.between(5.0, 8.0)
    for x in np.arange(-24 + site.between(0, 8), 26, 8.0):
        if site.claim(float(x), path_y + 3.4, 1.0):
            bench(site, float(x), path_y + 3.4)
        lamp_post(site, float(x) + 4.0, path_y + 3.4, 3.2)
        site.take(float(x) + 4.0, path_y + 3.4, 0.3)

    def tree(x: float, y: float) -> None:
        round_tree(site, x, y, site.between(0.9, 1.5), site.pick(_TURNED))

    def heap(x: float, y: float) -> None:
        leaves = mixed("litter", site.vary(site.pick(_TURNED)), (0.90, 0.66, 0.16), 0.2)
        size = site.between(0.6, 1.1)
        mound(site, x, y, (size, size * 0.9, size * 0.55), leaves)

    site.scatter(10, 8, 16, 1.5, tree)
    site.scatter(16, 15, 34, 1.8, tree)
    site.scatter(12, 8, 20, 1.0, heap)
    iron = solid((0.14, 0.16, 0.15))
    fence(site, (-34, 27), (34, 27), iron, tall=1.5, gap=3.4, rails=(0.25, 0.92))
    far_hills(site, 7, 70.0, (0.52, 0.36, 0.18), 3.0)
    water = Patch(
        centre=pond,
        half=(4.2, 2.6),
        paint=mixed("waves", (0.18, 0.26, 0.26), (0.30, 0.38, 0.38), 0.5, gloss=0.9),
        round=True,
    )
    rim = Patch(centre=pond, half=(4.6, 3.0), paint=solid((0.56, 0.54, 0.50)), round=True)
    fallen = mixed("litter", site.vary((0.50, 0.42, 0.16)), site.vary((0.84, 0.42, 0.10)), 0.34)
    walk = Patch(centre=(0.0, path_y), half=(_FAR, 1.4), paint=shaded("mottled", gravel, 0.82, 0.5))
    cross_x = site.side() * site.between(9, 12)
    cross = Patch(centre=(cross_x, 0.0), half=(1.2, _FAR), paint=shaded("mottled", gravel, 0.82, 0.5))
    return Ground(paint=fallen, patches=(cross, walk, rim, water))


def _pavilion(site: Site, x: float, y: float) -> None:
    stone, white = shaded("tiles", (0.62, 0.60, 0.56), 0.7, 0.8), solid(WHITE)
    post(site, x, y, 3.0, (0.0, 0.4), stone)
    for angle in np.arange(6) * np.pi / 3 + 0.5:
        post(site, x + 2.5 * float(np.cos(angle)), y + 2.5 * float(np.sin(angle)), 0.14, (0.4, 3.2), white)
    post(site, x, y, 2.8, (3.2, 3.45), white)
    spike(site, x, y, 3.2, (3.45, 5.2), shaded("stripes", site.vary((0.24, 0.42, 0.40)), 0.75, 0.4))


def _autumn_tree(site: Site, x: float, y: float) -> float:
    round_tree(site, x, y, 1.2, site.pick(_TURNED))
    return 0.25


# --- bamboo grove --------------------------------------------------------------------------------------------------


def bamboo(site: Site) -> Ground:
    """A dense grove of bamboo: stone lanterns, red gates, a path of stepping stones, a bamboo fence."""
    gate_x = site.between(-4, 4)
    red = solid(site.vary((0.82, 0.20, 0.10)))
    for i in range(3):
        _gate(site, gate_x + i * site.between(-0.8, 0.8), 10.0 + 4.0 * i, red)
    site.take(gate_x, 14.0, 5.0)
    green = site.vary((0.42, 0.62, 0.20), 0.15)

    def stem(x: float, y: float) -> None:
        own, lean = site.vary(green, 0.25), site.between(-0.5, 0.5)
        cane = mixed("rings", own, scaled(own, 0.45), site.between(0.45, 0.7))
        radius = site.between(0.09, 0.17)
        site.things.limb((x, y, 0), (x + lean, y + lean * 0.3, site.between(9, 12)), radius, radius * 0.8, cane)

    def low(x: float, y: float) -> None:
        which = site.rng.integers(3)
        if which == 0:
            _stone_lantern(site, x, y)
        elif which == 1:
            rock(site, x, y, (0.40, 0.46, 0.36), site.between(0.5, 1.0))
        else:
            bush(site, x, y, (0.22, 0.44, 0.14), site.between(0.5, 0.9))

    site.scatter(22, 8, 15, 0.9, low)
    site.scatter(46, 8, 17, 0.35, stem)
    site.scatter(80, 14, 30, 0.35, stem)
    for i in range(10):  # the grove goes on, dark and green
        angle = 2 * np.pi * i / 10
        place = (38 * float(np.cos(angle)), -4 + 38 * float(np.sin(angle)))
        wall = shaded("ribs", site.vary((0.20, 0.34, 0.12)), 0.45, 0.6)
        block(site, place, (14, 0.5), (0.0, 14), wall, float(angle + np.pi / 2))
    fence_x = -np.sign(gate_x) * site.between(8.5, 11)
    fence(site, (fence_x, -4), (fence_x + site.between(-2, 2), 9), solid((0.70, 0.62, 0.34)), tall=1.1, gap=1.0)
    moss = mixed("mottled", site.vary((0.24, 0.36, 0.12)), (0.36, 0.30, 0.16), 1.1)
    stones = mixed("spots", (0.52, 0.46, 0.32), (0.66, 0.65, 0.58), 0.8)
    return Ground(paint=moss, patches=(
        Patch(centre=(gate_x, 0.0), half=(1.3, _FAR), paint=stones),
        strip(site.between(-1, 1), 2.2, shaded("mottled", (0.58, 0.50, 0.36), 0.8, 0.6)),
    ))  # fmt: skip


def _gate(site: Site, x: float, y: float, red: Paint) -> None:
    for aside in (-1.6, 1.6):
        post(site, x + aside, y, 0.18, (0.0, 3.6), red)
    block(site, (x, y), (2.0, 0.10), (2.75, 3.0), red)
    block(site, (x, y), (2.4, 0.18), (3.5, 3.75), red)
    block(site, (x, y), (2.6, 0.26), (3.75, 3.92), solid((0.12, 0.12, 0.13)))


def _stone_lantern(site: Site, x: float, y: float) -> None:
    stone = mixed("dusted", (0.58, 0.58, 0.55), (0.40, 0.48, 0.28), 0.4)
    post(site, x, y, 0.38, (0.0, 0.25), stone)
    post(site, x, y, 0.14, (0.25, 1.0), stone)
    block(site, (x, y), (0.28, 0.28), (1.0, 1.45), glowing((0.95, 0.75, 0.40), 0.35))
    spike(site, x, y, 0.52, (1.45, 1.95), stone)


def _canes(site: Site, x: float, y: float) -> float:
    cane = mixed("rings", (0.50, 0.64, 0.22), (0.24, 0.32, 0.10), 0.5)
    for aside in (-0.2, 0.05, 0.25):
        site.things.limb((x + aside, y + aside * 0.4, 0), (x + aside * 1.6, y, 9.0), 0.10, 0.08, cane)
    return 0.4


MEADOW = Family(
    name="meadow", preposition="on", words="a green meadow with trees and a footpath", plain="an outdoor place",
    moods=("noon", "morning", "evening", "hazy"), build=meadow, occluder=_slim_tree,
)  # fmt: skip

SNOW = Family(
    name="snow", preposition="in", words="a snowy forest with firs and a log cabin", plain="an outdoor place",
    moods=("snowfall", "snowfall", "frost"), build=snow, occluder=_fir_trunk,
)  # fmt: skip

AUTUMN = Family(
    name="autumn", preposition="in", words="an autumn park with fallen leaves and a pavilion",
    plain="an outdoor place", moods=("evening", "morning", "hazy"), build=autumn, occluder=_autumn_tree,
)  # fmt: skip

BAMBOO = Family(
    name="bamboo", preposition="in", words="a bamboo grove with red gates and stone lanterns",
    plain="an outdoor place", moods=("forest",), build=bamboo, occluder=_canes,
)  # fmt: skip
