"""Four-legged animals: families told apart by proportions, coats, horns, humps, manes and tails."""

from __future__ import annotations

from typing import Any

from hmcli.world.bodies import Part, Quadruped
from hmcli.world.bodies.quadruped import HOP
from hmcli.world.space.shapes import CONE, ELLIPSOID, Colour, Paint
from hmcli.world.subjects.look import Look
from hmcli.world.subjects.palette import BLACK, FUR, WHITE, Shades
from hmcli.world.subjects.wardrobe import ball, balls, disc, rod

NOSE = (0.12, 0.09, 0.08)
Range = tuple[float, float]


def beast(
    s: Shades, *, coat: Paint, height: Range, length: Range, girth: Range, neck: Range, slope: Range, head: Range,
    snout: Range, tail: Range, tail_slope: Range, parts: tuple[Part, ...] = (), tail_radius: float = 0.05,
    neck_coat: Paint | None = None, face: Paint | None = None, thighs: Paint | None = None, legs: Paint | None = None,
    muzzle: Paint | None = None, nose: Paint | None = None, dark: Colour = NOSE, **build: Any,
) -> Quadruped:  # fmt: skip
    """An animal of drawn proportions; paints left out are those of the coat."""
    return Quadruped(
        height=s.between(*height), length=s.between(*length), girth=s.between(*girth), neck=s.between(*neck),
        neck_slope=s.between(*slope), head=s.between(*head), snout=s.between(*snout), tail=s.between(*tail),
        tail_slope=s.between(*tail_slope), tail_radius=tail_radius, coat=coat,
        neck_coat=neck_coat or coat, face=face or coat, thighs=thighs or coat, legs=legs or coat,
        muzzle=muzzle or face or coat, nose=nose or Paint(colour=dark), dark=Paint(colour=dark), parts=parts, **build,
    )  # fmt: skip


def ears(paint: Paint, length: float, radius: float = 0.38, lean: float = -0.2, aside: float = 0.5) -> Part:
    """Pointed ears; lengths in heads."""
    tip = (-0.3 + lean, 0.6 + aside * length, 0.6 + length)
    return rod("head", (-0.3, 0.6, 0.6), tip, (radius, radius * 0.42), paint, both=True)


def round_ears(paint: Paint, size: float = 0.4) -> Part:
    return balls("head", (-0.25, 0.72, 0.80), (size * 0.5, size, size), paint)


def antlers(s: Shades, r: float) -> tuple[Part, ...]:
    """Two forked beams; `r` is the head's radius in heights."""
    horn, size = Paint(colour=(0.80, 0.71, 0.55)), s.between(0.8, 1.15) / r
    beam = (-0.06 / r, 0.4, 0.9 - 0.02 / r)
    fork = (beam[0] - 0.06 * size, beam[1] + 0.14 * size, beam[2] + 0.30 * size)
    tines = [(0.16, 0.02, 0.14), (-0.10, 0.10, 0.22)]
    ends = [(fork[0] + x * size, fork[1] + y * size, fork[2] + z * size) for x, y, z in tines]
    return (
        rod("head", beam, fork, (0.035 / r, 0.028 / r), horn, both=True),
        *(rod("head", fork, end, (0.028 / r, 0.016 / r), horn, both=True) for end in ends),
    )


def dog(s: Shades) -> Look:
    """A large dog with a raised tail, often in two colours."""
    fur, colour = s.pick(FUR, "black")
    other = s.near((0.93, 0.90, 0.84) if fur != "cream" else (0.50, 0.32, 0.18))
    coat = Paint(colour=colour, second=other, pattern="spots", scale=s.between(0.22, 0.34))
    figure = beast(
        s, coat=coat, legs=Paint(colour=other), muzzle=Paint(colour=other), height=(0.66, 0.84), length=(0.88, 1.05),
        girth=(0.19, 0.225), neck=(0.22, 0.30), slope=(0.75, 1.0), head=(0.165, 0.19), snout=(0.12, 0.18),
        tail=(0.42, 0.55), tail_slope=(0.7, 1.1), tail_radius=0.055,
        parts=(ears(Paint(colour=NOSE), s.between(0.7, 1.0)),),
    )  # fmt: skip
    return Look(figure, s.between(0.8, 1.15), f"a {fur} spotted dog")


def deer(s: Shades) -> Look:
    """A deer with a long neck, antlers and a short tail."""
    colour = s.near(((0.60, 0.36, 0.18), (0.46, 0.30, 0.18), (0.70, 0.50, 0.30))[s.rng.integers(3)])
    head = s.between(0.10, 0.12)
    figure = beast(
        s, coat=Paint(colour=colour), legs=s.plain((0.26, 0.17, 0.11)), muzzle=s.plain((0.90, 0.84, 0.74)),
        height=(1.05, 1.3), length=(0.78, 0.9), girth=(0.155, 0.185), neck=(0.36, 0.45), slope=(0.95, 1.2),
        head=(head, head), snout=(0.12, 0.16), tail=(0.14, 0.14), tail_slope=(-0.6, 0.2), dark=(0.16, 0.11, 0.08),
        parts=(ears(Paint(colour=(0.16, 0.11, 0.08)), s.between(0.9, 1.3)), *antlers(s, head)), stride=1.1,
    )  # fmt: skip
    return Look(figure, s.between(0.95, 1.4), "a deer with antlers")


def horse(s: Shades) -> Look:
    """A chestnut horse with a black mane and a long black tail."""
    bay, black = s.plain((0.52, 0.22, 0.10)), s.plain((0.08, 0.07, 0.07))
    mane = (
        rod("head", (-0.6, 0, 0.9), (-3.6, 0, -1.9), (0.42, 0.75), black),
        rod("tail", (0.05, 0, 0.02), (-0.10, 0, -0.50), (0.065, 0.045), black),
        ball("head", (1.1, 0, 0.55), (0.55, 0.22, 0.25), s.plain(WHITE)),
    )
    figure = beast(
        s, coat=bay, legs=black, height=(1.35, 1.5), length=(0.86, 0.96), girth=(0.20, 0.225), neck=(0.46, 0.54),
        slope=(0.85, 1.0), head=(0.115, 0.128), snout=(0.22, 0.26), tail=(0.14, 0.16), tail_slope=(-0.3, 0.0),
        dark=(0.10, 0.08, 0.08), parts=(ears(bay, 0.9), *mane), neck_radius=0.72, stride=1.1,
    )  # fmt: skip
    return Look(figure, s.between(1.1, 1.5), "a chestnut horse with a black mane")


def cow(s: Shades) -> Look:
    """White with large black patches, short horns, a pink muzzle and udder."""
    white, black = s.plain(WHITE), s.plain(BLACK)
    patches = (
        balls("middle", (s.between(0.18, 0.28), 0.15, 0.06), (0.22, 0.14, s.between(0.16, 0.22)), black),
        balls("middle", (s.between(-0.34, -0.22), 0.17, s.between(0.0, 0.06)), (0.17, 0.13, 0.20), black),
        ball("rump", (-0.14, s.between(-0.1, 0.1), 0.12), (0.18, 0.16, 0.16), black),
    )
    pink = s.plain((0.93, 0.62, 0.60))
    horns = rod("head", (-0.1, 0.5, 0.85), (0.1, 1.25, 1.6), (0.22, 0.08), s.plain((0.85, 0.80, 0.66)), both=True)
    ear = rod("head", (-0.35, 0.8, 0.45), (-0.5, 1.7, 0.25), (0.24, 0.2), black, both=True)
    udder = ball("rump", (0.12, 0, -0.24), (0.12, 0.10, 0.10), pink)
    tail = rod("tail", (0, 0, 0), (-0.06, 0, -0.44), (0.026, 0.02), white)
    figure = beast(
        s, coat=white, muzzle=pink, face=black, height=(1.05, 1.2), length=(1.02, 1.12), girth=(0.25, 0.28),
        neck=(0.22, 0.28), slope=(0.35, 0.55), head=(0.145, 0.16), snout=(0.14, 0.17), tail=(0.06, 0.08),
        tail_slope=(-0.4, 0.0), tail_radius=0.03, parts=(horns, ear, udder, tail, *patches), back=0.82, rump=1.02,
        stride=0.9,
    )  # fmt: skip
    return Look(figure, s.between(0.8, 1.1), "a white cow with black patches")


def pig(s: Shades) -> Look:
    """Pink and round on short legs, a flat snout, a curly tail."""
    pink, dark = s.plain((0.94, 0.62, 0.62)), s.plain((0.85, 0.46, 0.48))
    disk = disc("nose", (0.35, 0, 0.0), 0.50, 0.22, dark, (0.0, 1.57))
    flaps = rod("head", (-0.1, 0.55, 0.75), (0.45, 0.85, 0.95), (0.30, 0.14), dark, both=True)
    curl = (
        rod("tail", (0, 0, 0), (-0.05, 0.05, 0.07), (0.028, 0.025), dark),
        rod("tail", (-0.05, 0.05, 0.07), (-0.02, -0.04, 0.12), (0.025, 0.02), dark),
    )
    figure = beast(
        s, coat=pink, height=(0.95, 1.1), length=(0.82, 0.95), girth=(0.32, 0.36), neck=(0.10, 0.14), slope=(0.1, 0.3),
        head=(0.235, 0.26), snout=(0.13, 0.16), tail=(0.06, 0.08), tail_slope=(0.2, 0.5), tail_radius=0.03, legs=pink,
        parts=(disk, flaps, *curl), back=0.62, thigh=0.36, leg=1.35, rump=1.0, stride=0.6, dark=(0.30, 0.16, 0.16),
    )  # fmt: skip
    return Look(figure, s.between(0.6, 0.85), "a pink pig with a curly tail")


def sheep(s: Shades) -> Look:
    """A cloud of cream wool with a black face and thin black legs."""
    wool, black = s.mixed("mottled", (0.95, 0.93, 0.86), (0.78, 0.74, 0.64), 0.14), s.plain((0.12, 0.11, 0.11))
    tufts = [(-0.42, 0.0, 0.06, 0.30), (-0.14, 0.10, 0.18, 0.28), (0.14, -0.08, 0.18, 0.28), (0.40, 0.0, 0.10, 0.29)]
    fleece = tuple(ball("middle", (x, y, z), (r, r, r * 0.9), wool) for x, y, z, r in tufts)
    sides = balls("middle", (0.0, 0.16, 0.0), (0.50, 0.24, 0.28), wool)
    curls = ball("head", (-0.25, 0, 0.75), (0.75, 0.80, 0.55), wool)
    flaps = rod("head", (-0.1, 0.8, 0.3), (-0.2, 1.75, -0.1), (0.26, 0.16), black, both=True)
    figure = beast(
        s, coat=wool, legs=black, face=black, muzzle=black, neck_coat=wool, height=(0.95, 1.1), length=(0.78, 0.88),
        girth=(0.30, 0.33), neck=(0.20, 0.25), slope=(0.5, 0.7), head=(0.15, 0.165), snout=(0.10, 0.13),
        tail=(0.10, 0.12), tail_slope=(-0.9, -0.5), tail_radius=0.09, parts=(*fleece, sides, curls, flaps), back=0.76,
        thigh=0.3, leg=0.95, stride=0.85,
    )  # fmt: skip
    return Look(figure, s.between(0.6, 0.9), "a cream woolly sheep with a black face")


def fox(s: Shades) -> Look:
    """Orange and slender with a white chest, black stockings and a huge white-tipped tail."""
    orange = (0.93, 0.38, 0.06)
    coat, black, white = s.plain(orange), s.plain((0.10, 0.08, 0.08)), s.plain(WHITE)
    brush = (
        rod("tail", (0.10, 0, 0.03), (-0.40, 0, -0.02), (0.085, 0.150), coat),
        rod("tail", (-0.43, 0, -0.02), (-0.68, 0, 0.03), (0.142, 0.03), white),
    )
    chest = ball("chest", (0.10, 0, -0.04), (0.13, 0.12, 0.17), white)
    figure = beast(
        s, coat=coat, legs=black, muzzle=white, height=(0.72, 0.85), length=(0.90, 1.0), girth=(0.145, 0.165),
        neck=(0.18, 0.23), slope=(0.55, 0.75), head=(0.15, 0.165), snout=(0.20, 0.24), tail=(0.22, 0.26),
        tail_slope=(-0.35, 0.0), tail_radius=0.06, parts=(ears(black, 1.15, 0.42), *brush, chest), back=0.80,
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.3), "an orange fox with a bushy tail")


def bear(s: Shades) -> Look:
    """A huge dark brown bear, high at the shoulders."""
    coat = s.mixed("mottled", (0.27, 0.16, 0.09), (0.20, 0.11, 0.06), 0.2)
    hump = ball("chest", (-0.05, 0, 0.18), (0.28, 0.24, 0.26), coat)
    figure = beast(
        s, coat=coat, muzzle=s.plain((0.55, 0.38, 0.22)), height=(1.15, 1.35), length=(0.76, 0.86), girth=(0.33, 0.36),
        neck=(0.16, 0.2), slope=(0.15, 0.35), head=(0.20, 0.22), snout=(0.13, 0.16), tail=(0.06, 0.07),
        tail_slope=(-0.3, 0.0), parts=(hump, round_ears(coat)), back=0.72, thigh=0.62, leg=2.0, rump=1.05, stride=0.85,
    )  # fmt: skip
    return Look(figure, s.between(0.8, 1.1), "a dark brown bear")


def panda(s: Shades) -> Look:
    """White trunk and face, black legs, shoulders, ears and eyes."""
    white, black = s.plain((0.95, 0.94, 0.92)), s.plain((0.09, 0.09, 0.10))
    yoke = rod("chest", (-0.07, 0, 0), (0.0, 0, 0.01), (0.415, 0.420), black)
    patches = balls("head", (0.78, 0.52, 0.25), (0.32, 0.30, 0.36), black)
    figure = beast(
        s, coat=white, thighs=black, legs=black, neck_coat=white, height=(1.0, 1.15), length=(0.72, 0.8),
        girth=(0.36, 0.385), neck=(0.13, 0.16), slope=(0.4, 0.6), head=(0.27, 0.29), snout=(0.08, 0.10),
        tail=(0.06, 0.07), tail_slope=(0, 0.2), parts=(yoke, patches, round_ears(black, 0.42)), back=0.70, thigh=0.5,
        leg=2.0, rump=1.0, stride=0.7, dark=(0.08, 0.08, 0.08),
    )  # fmt: skip
    return Look(figure, s.between(0.6, 0.85), "a black and white panda")


def elephant(s: Shades) -> Look:
    """Grey on pillars, a trunk, tusks and large flat ears."""
    grey, ivory = s.plain((0.55, 0.56, 0.60)), s.plain((0.94, 0.90, 0.80))
    parts = (
        rod("nose", (-0.2, 0, -0.1), (0.55, 0, -2.2), (0.46, 0.30), grey),
        rod("nose", (0.55, 0, -2.2), (0.95, 0, -3.0), (0.30, 0.22), grey),
        rod("nose", (-0.2, 0.45, -0.45), (1.0, 0.65, -1.15), (0.17, 0.06), ivory, both=True),
        balls("head", (-0.55, 1.15, -0.05), (0.32, 0.80, 1.25), s.plain((0.62, 0.58, 0.62)), (0.35, 0.0)),
        rod("tail", (0, 0, 0), (-0.05, 0, -0.30), (0.03, 0.02), grey),
    )
    figure = beast(
        s, coat=grey, nose=grey, height=(1.6, 1.85), length=(0.72, 0.82), girth=(0.34, 0.37), neck=(0.18, 0.22),
        slope=(0.5, 0.7), head=(0.205, 0.225), snout=(0.06, 0.08), tail=(0.05, 0.06), tail_slope=(-0.5, -0.2),
        tail_radius=0.04, parts=parts, back=0.82, thigh=0.44, leg=2.1, rump=1.0, stride=0.75,
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.2), "a grey elephant")


def giraffe(s: Shades) -> Look:
    """A very long upright neck; brown patches on cream."""
    coat = s.mixed("net", (0.68, 0.38, 0.12), (0.97, 0.86, 0.60), 0.30)
    cream, brown = s.plain((0.95, 0.82, 0.55)), s.plain((0.42, 0.24, 0.10))
    horns = rod("head", (-0.3, 0.4, 0.8), (-0.4, 0.5, 1.9), (0.16, 0.24), brown, both=True)
    mane = rod("head", (-0.8, 0, 0.3), (-3.9, 0, -7.2), (0.25, 0.3), brown)
    tuft = rod("tail", (0, 0, 0), (-0.03, 0, -0.26), (0.02, 0.035), brown)
    figure = beast(
        s, coat=coat, legs=cream, face=cream, height=(1.55, 1.75), length=(0.62, 0.7), girth=(0.185, 0.205),
        neck=(0.98, 1.12), slope=(1.12, 1.25), head=(0.105, 0.115), snout=(0.16, 0.19), tail=(0.08, 0.1),
        tail_slope=(-0.6, -0.3), tail_radius=0.025, parts=(horns, ears(cream, 0.8, 0.3, aside=1.0), mane, tuft),
        neck_radius=0.70, stride=1.05, back=0.9,
    )  # fmt: skip
    return Look(figure, s.between(1.1, 1.5), "a giraffe with brown patches")


def zebra(s: Shades) -> Look:
    """Black and white stripes all over, a bristling mane."""
    coat = s.mixed("stripes", (0.95, 0.94, 0.92), (0.07, 0.07, 0.08), 0.185)
    black = s.plain((0.07, 0.07, 0.08))
    mane = rod("head", (-0.4, 0, 1.0), (-3.1, 0, -1.5), (0.30, 0.55), black)
    tail = rod("tail", (0, 0, 0), (-0.06, 0, -0.36), (0.025, 0.045), black)
    figure = beast(
        s, coat=coat, legs=coat, muzzle=black, height=(1.2, 1.35), length=(0.82, 0.92), girth=(0.205, 0.23),
        neck=(0.40, 0.46), slope=(0.75, 0.95), head=(0.125, 0.138), snout=(0.18, 0.21), tail=(0.08, 0.1),
        tail_slope=(-0.4, -0.1), tail_radius=0.03, parts=(mane, tail, ears(coat, 0.9)), stride=1.05,
    )  # fmt: skip
    return Look(figure, s.between(0.95, 1.3), "a black and white striped zebra")


def camel(s: Shades) -> Look:
    """Sandy, two humps, a low-slung curved neck, long legs."""
    sand, dark = s.plain((0.84, 0.64, 0.36)), s.plain((0.60, 0.40, 0.18))
    humps = tuple(ball("middle", (x, 0, 0.22), (0.15, 0.13, 0.27), dark) for x in (-0.22, 0.18))
    blanket = ball("middle", (-0.02, 0, 0.03), (0.085, 0.235, 0.235), s.plain((0.75, 0.12, 0.30)))
    bib = rod("chest", (0.10, 0, 0.0), (0.24, 0, -0.06), (0.15, 0.11), sand)
    figure = beast(
        s, coat=sand, height=(1.35, 1.5), length=(0.78, 0.88), girth=(0.20, 0.22), neck=(0.46, 0.52), slope=(0.65, 0.8),
        head=(0.105, 0.115), snout=(0.16, 0.19), tail=(0.26, 0.3), tail_slope=(-1.2, -1.0), tail_radius=0.03,
        parts=(*humps, blanket, bib, ears(dark, 0.6, 0.3), ball("head", (-0.1, 0, 0.9), (0.7, 0.6, 0.5), dark)),
        neck_radius=0.62, stride=1.1, back=0.92, leg=1.1,
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.2), "a sandy camel with two humps")


def lion(s: Shades) -> Look:
    """Golden, with a great dark mane and a tufted tail."""
    gold, mane = s.plain((0.88, 0.62, 0.22)), s.plain((0.45, 0.20, 0.07))
    parts = (
        ball("head", (-0.75, 0, -0.15), (0.95, 1.75, 1.85), mane),
        ball("chest", (0.06, 0, 0.0), (0.24, 0.27, 0.36), mane),
        rod("tail", (0.02, 0, 0), (-0.16, 0, 0.16), (0.03, 0.03), gold),
        ball("tail", (-0.18, 0, 0.19), (0.065, 0.055, 0.075), mane),
        balls("head", (-0.05, 0.85, 0.85), (0.2, 0.35, 0.35), gold),
    )
    figure = beast(
        s, coat=gold, muzzle=s.plain((0.96, 0.84, 0.62)), height=(0.95, 1.08), length=(0.88, 0.98), girth=(0.205, 0.23),
        neck=(0.20, 0.24), slope=(0.55, 0.75), head=(0.175, 0.19), snout=(0.11, 0.13), tail=(0.40, 0.46),
        tail_slope=(-0.5, -0.2), tail_radius=0.035, parts=parts, back=0.78, leg=1.5, bent=1.03,
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.2), "a golden lion with a dark mane")


def tiger(s: Shades) -> Look:
    """Orange with black stripes and a white belly and face, low and long."""
    coat = s.mixed("stripes", (0.96, 0.50, 0.10), (0.09, 0.07, 0.06), 0.17)
    white, orange = s.plain(WHITE), s.plain((0.96, 0.50, 0.10))
    parts = (
        rod("middle", (-0.42, 0, -0.075), (0.42, 0, -0.085), (0.150, 0.160), white),
        balls("head", (0.25, 0.60, -0.25), (0.55, 0.55, 0.60), white),
        round_ears(orange, 0.36),
        rod("tail", (0.02, 0, 0), (-0.20, 0, 0.14), (0.050, 0.045), s.plain(BLACK)),
    )
    figure = beast(
        s, coat=coat, face=orange, muzzle=white, height=(0.9, 1.0), length=(1.08, 1.18), girth=(0.195, 0.215),
        neck=(0.16, 0.2), slope=(0.3, 0.5), head=(0.185, 0.20), snout=(0.09, 0.11), tail=(0.45, 0.5),
        tail_slope=(-0.35, -0.1), tail_radius=0.055, parts=parts, back=0.72, leg=1.6, bent=1.03, stride=1.0,
    )  # fmt: skip
    return Look(figure, s.between(0.9, 1.25), "an orange tiger with black stripes")


def tortoise(s: Shades) -> Look:
    """A high patterned shell on stumpy legs."""
    shell, skin = s.mixed("net", (0.30, 0.34, 0.12), (0.80, 0.70, 0.28), 0.20), s.plain((0.52, 0.62, 0.30))
    dome = Part(on="middle", kind=ELLIPSOID, at=(0.0, 0, 0.06), size=(0.62, 0.48, 0.40), paint=shell)
    rim = Part(
        on="middle", kind=ELLIPSOID, at=(0.0, 0, 0.0), size=(0.67, 0.52, 0.09), paint=s.plain((0.80, 0.70, 0.28))
    )
    figure = beast(
        s, coat=skin, height=(0.85, 0.95), length=(0.80, 0.88), girth=(0.21, 0.23), neck=(0.24, 0.3), slope=(0.45, 0.7),
        head=(0.14, 0.155), snout=(0.03, 0.04), tail=(0.14, 0.16), tail_slope=(-0.5, -0.3), parts=(dome, rim),
        back=0.42, thigh=0.62, leg=2.0, neck_radius=0.45, stride=0.5, bob=0.006, dark=(0.24, 0.28, 0.12),
    )  # fmt: skip
    return Look(figure, s.between(0.3, 0.42), "a tortoise with a green and yellow shell")


def crocodile(s: Shades) -> Look:
    """Flat, long and green with long jaws, a heavy tail and a ridge of spikes."""
    green, pale = s.mixed("front", (0.24, 0.46, 0.16), (0.80, 0.80, 0.50), 1.0), s.plain((0.80, 0.80, 0.50))
    dark = s.plain((0.14, 0.30, 0.10))
    spikes = tuple(
        Part(on="middle", kind=CONE, at=(x, 0, 0.27), size=(0.09, 0.09, 0.09), paint=dark)
        for x in (-0.50, -0.25, 0.0, 0.25, 0.50)
    )
    jaws = (
        rod("nose", (-1.3, 0, -0.55), (1.3, 0, -0.45), (0.40, 0.26), pale),
        rod("nose", (-0.2, 0, -0.05), (1.5, 0, 0.0), (0.45, 0.34), green),
        balls("head", (0.3, 0.55, 0.75), (0.4, 0.32, 0.4), dark),
    )
    tail = (
        rod("tail", (0.1, 0, 0.0), (-0.55, 0, -0.12), (0.14, 0.08), green),
        rod("tail", (-0.55, 0, -0.12), (-0.95, 0, -0.06), (0.08, 0.03), green),
    )
    figure = beast(
        s, coat=green, height=(0.85, 0.95), length=(1.0, 1.12), girth=(0.23, 0.25), neck=(0.14, 0.18),
        slope=(0.0, 0.15), head=(0.18, 0.195), snout=(0.16, 0.2), tail=(0.28, 0.32), tail_slope=(-0.3, -0.15),
        tail_radius=0.18, parts=(*spikes, *jaws, *tail), back=0.42, thigh=0.5, leg=1.7, neck_radius=0.85, stride=0.6,
        bob=0.006, rump=1.0,
    )  # fmt: skip
    return Look(figure, s.between(0.45, 0.65), "a green crocodile with a ridge of spikes")


def rabbit(s: Shades) -> Look:
    """Grey and round, hopping, with long upright ears and a white puff of a tail."""
    grey, pink, white = s.plain((0.62, 0.60, 0.62)), s.plain((0.95, 0.66, 0.68)), s.plain(WHITE)
    long = s.between(2.3, 2.7)
    parts = (
        rod("head", (-0.3, 0.4, 0.7), (-0.8, 0.75, 0.7 + long), (0.30, 0.26), grey, both=True),
        rod("head", (-0.12, 0.42, 1.0), (-0.60, 0.78, 0.5 + long), (0.20, 0.16), pink, both=True),
        ball("tail", (-0.02, 0, 0.02), (0.13, 0.13, 0.13), white),
        balls("rump", (0.04, 0.18, -0.10), (0.24, 0.14, 0.24), grey),
    )
    figure = beast(
        s, coat=grey, muzzle=white, height=(0.72, 0.82), length=(0.56, 0.64), girth=(0.245, 0.27), neck=(0.14, 0.18),
        slope=(0.8, 1.0), head=(0.205, 0.225), snout=(0.04, 0.05), tail=(0.05, 0.06), tail_slope=(0.2, 0.5),
        parts=parts, back=0.56, rump=1.2, thigh=0.45, leg=1.2, bent=1.12, gait=HOP, bob=0.05, stride=0.8,
    )  # fmt: skip
    return Look(figure, s.between(0.7, 1.0), "a grey rabbit with long ears")
