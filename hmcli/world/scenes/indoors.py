"""Places indoors: a museum hall and a warehouse. The ceiling throws no shadow: its lights stand in for the sun."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hmcli.world.scenes.paints import IRON, RUBBER, STRONG, WHITE, blend, mixed, scaled, shaded, solid
from hmcli.world.scenes.scene import Family, Site
from hmcli.world.scenes.things import ball, barrel, block, column, fresh, post, turned
from hmcli.world.space.light import Lamp
from hmcli.world.space.shapes import Colour, Ground, Paint, Patch


@dataclass(frozen=True, kw_only=True)
class _Room:
    """Inner walls in metres: left and right, near and far, and the height of the ceiling."""

    left: float
    right: float
    near: float
    far: float
    tall: float


def _walls(site: Site, room: _Room, wall: Paint, ceiling: Paint) -> None:
    x, y = (room.left + room.right) / 2, (room.near + room.far) / 2
    half_x, half_y = (room.right - room.left) / 2, (room.far - room.near) / 2
    for side_x in (room.left - 0.2, room.right + 0.2):
        block(site, (side_x, y), (0.2, half_y + 0.4), (0.0, room.tall), wall)
    for side_y in (room.near - 0.2, room.far + 0.2):
        block(site, (x, side_y), (half_x + 0.4, 0.2), (0.0, room.tall), wall)
    above = replace(ceiling, shadow=False)
    block(site, (x, y), (half_x + 0.4, half_y + 0.4), (room.tall, room.tall + 0.2), above)


def _lights(site: Site, room: _Room, colour: Colour, strength: float) -> None:
    for x in (0.55 * room.left, 0.55 * room.right):
        for y in (room.near * 0.6, room.far * 0.6):
            site.lamps.append(Lamp(place=(x, y, room.tall - 0.4), colour=colour, strength=strength))


# --- museum --------------------------------------------------------------------------------------------------------

_GALLERY = ((0.58, 0.17, 0.15), (0.18, 0.34, 0.30), (0.20, 0.26, 0.46), (0.70, 0.56, 0.34), (0.46, 0.24, 0.38))


def museum(site: Site) -> Ground:
    """A hall with coloured walls: paintings, columns, statues and vases on plinths, benches, ropes."""
    room = _Room(left=-site.between(13, 16), right=site.between(13, 16), near=-site.between(25, 27),
                 far=site.between(11, 14), tall=site.between(5.2, 6.2))  # fmt: skip
    colour = site.vary(site.pick(_GALLERY), 0.1)
    coffers = mixed("panels", (0.74, 0.70, 0.62), (1.0, 0.97, 0.90), 2.6, glow=0.75)
    _walls(site, room, solid(colour), coffers)
    _skirting(site, room)
    _paintings(site, room)
    marble = mixed("marble", (0.86, 0.84, 0.80), (0.60, 0.58, 0.58), 0.8)
    for x in (room.left + 4.0, room.right - 4.0):
        for y in np.arange(room.near + 4.0, room.far - 1.0, site.between(6.0, 7.5)):
            column(site, x, float(y), 0.42, room.tall, marble, solid((0.78, 0.72, 0.60)))
            site.take(x, float(y), 0.7)
    for x in (-6.5, 0.0, 6.5):
        y = room.far - 2.2
        if site.claim(x, y, 0.9):
            _statue(site, x, y, marble)

    def exhibit(x: float, y: float) -> None:
        if not (room.left + 1.5 < x < room.right - 1.5 and room.near + 1.5 < y < room.far - 1.5):
            return
        which = site.rng.integers(4)
        if which <= 1:
            _statue(site, x, y, site.pick([marble, solid((0.30, 0.36, 0.32)), solid((0.52, 0.36, 0.20))]))
        elif which == 2:
            _vase(site, x, y)
        else:
            block(site, (x, y), (1.1, 0.45), (0.0, 0.45), solid((0.25, 0.16, 0.12)), site.pick([0.0, np.pi / 2]))

    site.scatter(18, 8, 20, 1.3, exhibit)
    _lights(site, room, (1.0, 0.88, 0.68), 9.0)
    return _museum_floor(site)


def _museum_floor(site: Site) -> Ground:
    first = site.pick([(0.86, 0.82, 0.74), (0.74, 0.64, 0.50), (0.80, 0.80, 0.80)])
    if site.rng.random() < 0.6:
        paint = mixed(
            "checks", site.vary(first, 0.05), site.vary(blend(first, (0.24, 0.20, 0.20), 0.75)), 2.4, gloss=0.5
        )
    else:
        paint = mixed("planks", site.vary((0.62, 0.40, 0.22)), (0.42, 0.25, 0.13), 0.45, gloss=0.5)
    rug = Patch(centre=(0.0, -4.0), half=(1.6, 26.0), paint=solid(site.vary((0.55, 0.10, 0.12))))
    hem = Patch(centre=(0.0, -4.0), half=(1.8, 26.0), paint=solid((0.80, 0.66, 0.32)))
    return Ground(paint=paint, patches=(hem, rug) if site.rng.random() < 0.5 else ())


def _skirting(site: Site, room: _Room) -> None:
    cream = solid((0.86, 0.82, 0.72))
    middle = (room.near + room.far) / 2
    for z in ((0.0, 0.5), (room.tall - 0.5, room.tall)):
        for x in (room.left, room.right):
            block(site, (x, middle), (0.08, (room.far - room.near) / 2), z, cream)
        for y in (room.near, room.far):
            block(site, ((room.left + room.right) / 2, y), ((room.right - room.left) / 2, 0.08), z, cream)


def _paintings(site: Site, room: _Room) -> None:
    spots = [(x, room.far, 0.0) for x in np.arange(room.left + 2.2, room.right - 1, 3.6)]
    spots += [(x, room.near, np.pi) for x in np.arange(room.left + 2.2, room.right - 1, 4.4)]
    spots += [(room.left, y, np.pi / 2) for y in np.arange(room.near + 2.2, room.far - 1, 4.2)]
    spots += [(room.right, y, -np.pi / 2) for y in np.arange(room.near + 2.2, room.far - 1, 4.2)]
    for x, y, turn in spots:
        wide, tall = site.between(0.7, 1.5), site.between(0.6, 1.1)
        gold = solid(site.pick([(0.80, 0.62, 0.25), (0.20, 0.15, 0.12), (0.88, 0.86, 0.80)]))
        shift = site.between(-0.3, 0.3)
        place = turned(float(x), float(y), shift, 0.0, turn)
        block(site, place, (wide + 0.12, 0.10), (2.1 - tall, 2.1 + tall + 0.24), gold, turn)
        canvas = mixed("picture", fresh(site, STRONG), site.vary(site.pick([WHITE, *STRONG])), site.between(0.5, 1.1))
        block(site, place, (wide, 0.14), (2.22 - tall, 2.12 + tall), canvas, turn)


def _statue(site: Site, x: float, y: float, stone: Paint) -> None:
    block(site, (x, y), (0.5, 0.5), (0.0, 0.9), solid((0.82, 0.80, 0.76)))
    lean = site.between(-0.15, 0.15)
    site.things.limb((x, y, 0.9), (x + lean, y, 1.9), 0.30, 0.20, stone)
    site.things.limb((x + lean, y, 1.8), (x + lean * 1.5, y, 2.35), 0.22, 0.26, stone)
    ball(site, x + lean * 1.6, y, 2.80, (0.17, 0.18, 0.22), stone)
    reach = site.side()
    site.things.limb((x + lean * 1.5, y, 2.40), (x + reach * 0.55, y, site.between(1.9, 3.0)), 0.11, 0.07, stone)


def _vase(site: Site, x: float, y: float) -> None:
    glaze = mixed("stripes", fresh(site, STRONG), WHITE, 0.22)
    block(site, (x, y), (0.4, 0.4), (0.0, 0.8), solid((0.82, 0.80, 0.76)))
    ball(site, x, y, 1.15, (0.36, 0.36, 0.40), glaze)
    post(site, x, y, 0.14, (1.40, 1.70), glaze)


def _slim_statue(site: Site, x: float, y: float) -> float:
    column(
        site, x, y, 0.24, 3.2, mixed("marble", (0.86, 0.84, 0.80), (0.60, 0.58, 0.58), 0.8), solid((0.78, 0.72, 0.60))
    )
    ball(site, x, y, 3.4, (0.26, 0.26, 0.3), solid((0.52, 0.36, 0.20)))
    return 0.34


# --- warehouse -----------------------------------------------------------------------------------------------------

_CARTONS = ((0.72, 0.54, 0.34), (0.66, 0.48, 0.28), (0.78, 0.62, 0.44), (0.60, 0.62, 0.64))


def warehouse(site: Site) -> Ground:
    """A hall of high shelves full of boxes: pallets, drums, a forklift, roller doors, yellow lines."""
    room = _Room(left=-site.between(19, 22), right=site.between(19, 22), near=-site.between(27, 30),
                 far=site.between(16, 19), tall=site.between(7.5, 8.5))  # fmt: skip
    ceiling = mixed("ribs", (0.40, 0.43, 0.46), (0.92, 0.97, 1.0), 4.2, glow=0.5)
    _walls(site, room, shaded("ribs", site.vary((0.56, 0.62, 0.66)), 0.85, 0.8), ceiling)
    steel = site.vary(site.pick([(0.10, 0.28, 0.62), (0.14, 0.42, 0.32), (0.30, 0.32, 0.36)]))
    beam = site.vary(site.pick([(0.94, 0.44, 0.08), (0.92, 0.70, 0.10), (0.80, 0.16, 0.12)]))
    far = room.far - site.between(3.0, 5.0)
    for x in (-13.2, -4.4, 4.4, 13.2):
        _rack(site, x + site.between(-0.3, 0.3), far, 0.0, steel, beam)
    for side in (-1.0, 1.0):
        for y in (-16.0, -6.6, 2.8):
            if site.rng.random() < 0.92:
                _rack(site, side * site.between(10.6, 12.4), y, np.pi / 2, steel, beam)
    for x in (-8.0, 8.0):
        _rack(site, x, room.near + 2.0, 0.0, steel, beam)
        block(site, (x * 1.9, room.far - 0.05), (1.8, 0.1), (0.0, 4.2), shaded("stripes", site.vary(beam), 0.8, 0.5))
    door = shaded("stripes", (0.80, 0.82, 0.82), 0.75, 0.4)
    block(site, (0.0, room.near + 0.05), (2.6, 0.1), (0.0, 4.6), door)
    _forklift(site, site.side() * site.between(7.8, 8.6), site.between(3.5, 6.0), site.between(-0.5, 0.5))

    def small(x: float, y: float) -> None:
        if not (room.left + 1 < x < room.right - 1 and room.near + 1 < y < room.far - 1):
            return
        if site.rng.random() < 0.35:
            barrel(site, x, y, fresh(site, STRONG))
        else:
            _pallet(site, x, y)

    site.scatter(14, 8, 20, 1.0, small)
    _lights(site, room, (0.92, 0.98, 1.0), 14.0)
    return _marked_floor(site)


def _marked_floor(site: Site) -> Ground:
    concrete = site.vary((0.52, 0.54, 0.54), 0.1)
    yellow = solid((0.94, 0.76, 0.12))
    hatched = mixed("ribs", (0.94, 0.76, 0.12), (0.14, 0.14, 0.14), 0.8)
    stripes = [Patch(centre=(x, -6.0), half=(0.10, 20.0), paint=yellow) for x in (-8.2, 8.2)]
    stripes += [Patch(centre=(0.0, y), half=(8.2, 0.10), paint=yellow) for y in (site.between(6.5, 8.5), -21.0)]
    stripes += [Patch(centre=(0.0, site.between(4.0, 5.5)), half=(2.4, 0.5), paint=hatched)]
    return Ground(paint=mixed("mottled", concrete, scaled(concrete, 0.84), 1.8, gloss=0.35), patches=tuple(stripes))


def _rack(site: Site, x: float, y: float, turn: float, steel: Colour, beam: Colour) -> None:
    """Uprights, shelves and what lies on them: 8 m long, 1.2 m deep."""
    for ahead in (-4.0, 0.0, 4.0):
        for aside in (-0.55, 0.55):
            block(site, turned(x, y, ahead, aside, turn), (0.07, 0.07), (0.0, 6.3), solid(steel), turn)
    for level in (0.1, 2.1, 4.1):
        block(site, (x, y), (4.0, 0.60), (level, level + 0.14), solid(beam), turn)
        start = -3.8
        while start < 3.0:
            wide = site.between(1.5, 3.0)
            tall = site.between(0.8, 1.6)
            if site.rng.random() < 0.9:
                own = fresh(site, _CARTONS) if site.rng.random() < 0.8 else fresh(site, STRONG)
                load = mixed("cells", scaled(own, 0.82), scaled(own, 1.08), site.between(0.4, 0.8))
                middle = min(start + wide, 3.85) / 2 + start / 2
                half = min(wide, 3.85 - start) / 2 - 0.06
                block(site, turned(x, y, middle, 0, turn), (half, 0.5), (level + 0.14, level + 0.14 + tall), load, turn)
            start += wide
    for ahead in (-2.5, 0.0, 2.5):
        site.take(*turned(x, y, ahead, 0, turn), 1.6)


def _pallet(site: Site, x: float, y: float) -> None:
    turn = site.between(-0.3, 0.3)
    block(site, (x, y), (0.6, 0.6), (0.0, 0.16), shaded("ribs", (0.70, 0.54, 0.34), 0.6, 0.24), turn)
    own = fresh(site, _CARTONS)
    load = mixed("cells", scaled(own, 0.82), scaled(own, 1.08), 0.45)
    block(site, (x, y), (0.55, 0.55), (0.16, site.between(0.7, 1.6)), load, turn)


def _forklift(site: Site, x: float, y: float, turn: float) -> None:
    def at(ahead: float, aside: float) -> tuple[float, float]:
        return turned(x, y, ahead, aside, turn)

    yellow = solid(site.vary((0.94, 0.66, 0.10)))
    block(site, (x, y), (0.95, 0.55), (0.25, 1.0), yellow, turn)
    block(site, at(-0.6, 0), (0.35, 0.5), (1.0, 1.3), solid(RUBBER), turn)
    block(site, (x, y), (0.6, 0.55), (2.05, 2.15), solid(IRON), turn)
    for ahead in (-0.5, 0.5):
        for aside in (-0.5, 0.5):
            block(site, at(ahead, aside), (0.05, 0.05), (1.0, 2.05), solid(IRON), turn)
    for aside in (-0.3, 0.3):
        block(site, at(1.05, aside), (0.06, 0.06), (0.0, 2.6), solid(IRON), turn)
        block(site, at(1.6, aside), (0.55, 0.07), (0.12, 0.2), solid(IRON), turn)
    for ahead in (-0.65, 0.65):
        for aside in (-0.5, 0.5):
            block(site, at(ahead, aside), (0.28, 0.12), (0.0, 0.56), solid(RUBBER), turn)
    site.take(x, y, 1.8)


def _girder(site: Site, x: float, y: float) -> float:
    block(site, (x, y), (0.14, 0.14), (0.0, 4.6), solid((0.94, 0.76, 0.12)))
    block(site, (x, y), (0.26, 0.26), (0.0, 0.9), mixed("stripes", (0.94, 0.76, 0.12), (0.12, 0.12, 0.12), 0.4))
    return 0.37


MUSEUM = Family(
    name="museum", preposition="in", words="a museum hall with paintings and statues", plain="an indoor hall",
    moods=("hall",), build=museum, occluder=_slim_statue,
)  # fmt: skip

WAREHOUSE = Family(
    name="warehouse", preposition="in", words="a warehouse with high shelves full of boxes", plain="an indoor hall",
    moods=("depot",), build=warehouse, occluder=_girder,
)  # fmt: skip
