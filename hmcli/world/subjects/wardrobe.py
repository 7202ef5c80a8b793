"""Wardrobe: hats, hair, robes and things to carry, as tuples of parts for `Person`."""

from __future__ import annotations

import numpy as np

from hmcli.world.bodies import Part
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, ROUND_CONE, Paint

Parts = tuple[Part, ...]
Triple = tuple[float, float, float]
FLAT = float(np.pi / 2)
GROUND = -0.458  # of a `hips` anchor: about the height of the ground when the hips are lowest


def ball(on: str, at: Triple, size: Triple, paint: Paint, turn: tuple[float, float] = (0.0, 0.0)) -> Part:
    return Part(on=on, kind=ELLIPSOID, at=at, size=size, paint=paint, turn=turn)


def balls(on: str, at: Triple, size: Triple, paint: Paint, turn: tuple[float, float] = (0.0, 0.0)) -> Part:
    """One on either side."""
    return Part(on=on, kind=ELLIPSOID, at=at, size=size, paint=paint, turn=turn, both=True)


def box(on: str, at: Triple, size: Triple, paint: Paint, turn: tuple[float, float] = (0.0, 0.0)) -> Part:
    return Part(on=on, kind=BOX, at=at, size=size, paint=paint, turn=turn)


def disc(on: str, at: Triple, radius: float, half: float, paint: Paint, turn: tuple[float, float] = (0, 0)) -> Part:
    return Part(on=on, kind=CYLINDER, at=at, size=(radius, radius, half), paint=paint, turn=turn)


def cone(on: str, at: Triple, radius: float, half: float, paint: Paint, turn: tuple[float, float] = (0, 0)) -> Part:
    return Part(on=on, kind=CONE, at=at, size=(radius, radius, half), paint=paint, turn=turn)


def rod(on: str, start: Triple, end: Triple, radii: tuple[float, float], paint: Paint, both: bool = False) -> Part:
    return Part(on=on, kind=ROUND_CONE, at=start, to=end, size=(*radii, 0.0), paint=paint, both=both)


def brimmed_hat(paint: Paint, brim: float = 0.115, crown: float = 0.036, band: Paint | None = None) -> Parts:
    hat = (
        disc("head", (0, 0, 0.045), brim, 0.009, paint),
        disc("head", (0, 0, 0.044 + crown), 0.066, crown, paint),
    )
    return hat if band is None else (*hat, disc("head", (0, 0, 0.062), 0.069, 0.012, band))


def helmet(paint: Paint, brim: float = 0.0) -> Parts:
    dome = ball("head", (-0.006, 0, 0.028), (0.082, 0.072, 0.076), paint)
    return (dome, disc("head", (0.012, 0, 0.040), brim, 0.008, paint)) if brim else (dome,)


def peaked_cap(paint: Paint, peak: Paint) -> Parts:
    top = ball("head", (-0.008, 0, 0.038), (0.074, 0.066, 0.056), paint)
    return (top, ball("head", (0.078, 0, 0.044), (0.045, 0.050, 0.009), peak))


def pointed_hat(paint: Paint, band: Paint, tall: float = 0.15) -> Parts:
    return (
        disc("head", (0, 0, 0.045), 0.13, 0.008, paint),
        disc("head", (0, 0, 0.060), 0.072, 0.012, band),
        cone("head", (-0.01, 0, 0.045 + tall), 0.074, tall, paint, (0.0, -0.10)),
    )


def crown(paint: Paint) -> Parts:
    rim = disc("head", (0, 0, 0.062), 0.064, 0.024, paint)
    points = [(0.055, 0.0), (0.018, 0.052), (-0.042, 0.034), (0.018, -0.052), (-0.042, -0.034)]
    return (rim, *(cone("head", (x, y, 0.110), 0.018, 0.028, paint) for x, y in points))


def toque(paint: Paint) -> Parts:
    band = disc("head", (0, 0, 0.075), 0.060, 0.042, paint)
    return (band, ball("head", (0, 0, 0.150), (0.095, 0.095, 0.055), paint))


def hood(paint: Paint) -> Parts:
    return (ball("head", (-0.024, 0, 0.004), (0.082, 0.073, 0.096), paint),)


def long_hair(paint: Paint, length: float = 0.10) -> Parts:
    fall = rod("head", (-0.032, 0, 0.01), (-0.040, 0, -length), (0.054, 0.046), paint)
    return (ball("head", (-0.012, 0, 0.022), (0.066, 0.062, 0.066), paint), fall)


def bun(paint: Paint) -> Parts:
    return (
        ball("head", (-0.010, 0, 0.018), (0.064, 0.060, 0.066), paint),
        ball("head", (-0.045, 0, 0.082), (0.032, 0.032, 0.030), paint),
    )


def ponytail(paint: Paint) -> Parts:
    cap = ball("head", (-0.010, 0, 0.018), (0.064, 0.060, 0.066), paint)
    return (cap, rod("head", (-0.065, 0, 0.03), (-0.13, 0, -0.07), (0.024, 0.016), paint))


def beard(paint: Paint, length: float = 0.05) -> Parts:
    return (rod("head", (0.040, 0, -0.050), (0.052, 0, -0.050 - length), (0.036, 0.018), paint),)


def skirt(paint: Paint, hem: float, radius: float, top: float = 0.30) -> Parts:
    """A cone about the legs; `hem` and `top` are heights above the hips, the tip hidden in the trunk."""
    return (cone("hips", (0, 0, (top + hem) / 2), radius, (top - hem) / 2, paint),)


def robe(paint: Paint, radius: float = 0.17) -> Parts:
    return skirt(paint, GROUND + 0.035, radius, top=0.36)


def belt(paint: Paint, radius: float = 0.102, z: float = 0.045, half: float = 0.014) -> Parts:
    return (disc("hips", (0.002, 0, z), radius, half, paint),)


def backpack(paint: Paint, size: Triple = (0.062, 0.085, 0.125)) -> Parts:
    return (ball("chest", (-0.117, 0, -0.085), size, paint),)


def tails(paint: Paint, hem: float, radius: float) -> Parts:
    """The rounded lower edge of a jacket; `hem` is a height above the hips."""
    return (rod("hips", (0, 0, 0.05), (0, 0, hem + 0.6 * radius), (0.100, radius), paint),)


def umbrella(cloth: Paint, stick: Paint) -> Parts:
    shaft = rod("right_hand", (0, 0, -0.06), (0.0, 0.06, 0.42), (0.010, 0.010), stick)
    return (shaft, cone("right_hand", (0, 0.06, 0.385), 0.30, 0.075, cloth))


def staff(paint: Paint, low: float, high: float, radius: float = 0.012) -> Parts:
    return (rod("right_hand", (0.01, 0, low), (0.01, 0, high), (radius, radius), paint),)
