"""Bodies of two-legged animals: birds that walk and kangaroos that hop; wings, crests and tails are `Part`s."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.bodies.gait import Lift, foot_path, reach
from hmcli.world.bodies.parts import Part, anchor, attach
from hmcli.world.space.shapes import ELLIPSOID, ROUND_CONE, Paint, ShapeList, Shapes, axes_along


@dataclass(frozen=True, kw_only=True)
class Biped:
    """Two legs with the knee behind, a trunk above them, a neck and a beak. Lengths are multiples of `height`.

    Anchors of parts: `trunk` (its x axis runs along the trunk, z out of the back; unit: height), `neck`, half way up
    (unit: height), `head` (unit: height x head).
    """

    height: float  # metres, about to the top of the head
    hip: float  # height of the hips
    trunk: float  # length
    girth: float  # radius of the trunk
    slope: float  # of the trunk, radians above level
    forward: float  # of the trunk's middle from the hips, along the trunk
    neck: float
    neck_slope: float  # radians above level
    neck_radius: float
    head: float  # radius
    beak: float  # length, in heads
    beak_radius: float  # in heads
    beak_slope: float
    coat: Paint
    neck_coat: Paint
    face: Paint
    thigh: Paint
    legs: Paint
    feet: Paint
    beak_paint: Paint
    dark: Paint
    parts: tuple[Part, ...] = ()
    thigh_radius: float = 0.06
    leg_radius: float = 0.02
    foot: float = 0.10  # length
    bent: float = 1.03  # length of the legs over the longest stretch asked of them
    apart: float = 0.5  # of the feet from the middle, in girths
    stride: float = 0.6
    hop: float = 0.0  # height of a hop; 0 walks
    duty: float = 0.58

    @property
    def stride_metres(self) -> float:
        return self.stride * self.height


def biped(who: Biped, phase_T: np.ndarray, owner: int, lift: Lift = 1.0) -> Shapes:
    """The animal's shapes in the body frame, (T, N)."""
    tall, frames = who.height, len(phase_T)
    body = ShapeList(frames, owner)
    hips = np.zeros((frames, 3))
    hips[:, 2] = tall * (who.hip + lift * _rise(who, phase_T))
    for side, shift in ((1, 0.0), (-1, 0.0 if who.hop else 0.5)):
        _leg(body, who, phase_T + shift, lift, hips + np.array([0.0, side * who.apart * who.girth * tall, 0.0]))
    ahead = np.array([np.cos(who.slope), 0.0, np.sin(who.slope)])
    trunk = anchor(hips + who.forward * tall * ahead, tall, -who.slope)
    long_axes = axes_along(np.broadcast_to(ahead, (frames, 3)))
    size = np.array([who.girth, who.girth * 0.92, who.trunk / 2]) * tall
    body.add(ELLIPSOID, trunk.origin, size, who.coat, long_axes)
    base = trunk.origin + ahead * who.trunk * 0.38 * tall
    upward = np.array([np.cos(who.neck_slope), 0.0, np.sin(who.neck_slope)])
    nod = np.zeros((frames, 3))
    nod[:, 0] = 0.02 * tall * np.cos(4 * np.pi * phase_T)  # birds nod as they walk
    poll = base + upward * who.neck * tall + nod
    body.limb(base, poll, who.neck_radius * 1.25 * tall, who.neck_radius * tall, who.neck_coat)
    head = anchor(poll + tall * who.head * np.array([0.25, 0.0, 0.35]), tall * who.head)
    places = {"trunk": trunk, "neck": anchor((base + poll) / 2, tall), "head": head}
    attach(body, places, _face(who) + who.parts)
    return body.shapes()


def _rise(who: Biped, phase_T: np.ndarray) -> np.ndarray:
    """How far the hips are above their resting height, in heights: a bob of walkers, the flight of hoppers."""
    if not who.hop:
        return 0.008 * np.cos(4 * np.pi * (phase_T - who.duty / 2))
    cycle = np.mod(phase_T, 1.0)
    flight = np.clip((cycle - who.duty) / (1 - who.duty), 0.0, 1.0)
    landed = np.clip(cycle / who.duty, 0.0, 1.0)
    return np.where(cycle > who.duty, who.hop * 4 * flight * (1 - flight), -0.2 * who.hop * np.sin(np.pi * landed))


def _leg(body: ShapeList, who: Biped, phase_T: np.ndarray, lift: Lift, hip_T3: np.ndarray) -> None:
    tall = who.height
    thin, ankle = who.leg_radius * tall, who.leg_radius * 1.1 * tall
    x, rise = foot_path(phase_T, who.stride_metres, who.duty, (0.06 * tall + 0.6 * who.hop * tall) * lift)
    foot = np.stack([hip_T3[:, 0] + x, hip_T3[:, 1], ankle + rise], -1)
    half = who.bent * np.hypot((who.hip + 0.008) * tall - ankle, who.stride_metres * who.duty / 2) / 2
    knee, end = reach(hip_T3, foot, half, half, bend=-1.0)
    body.limb(hip_T3, knee, who.thigh_radius * tall, thin * 1.1, who.thigh)
    body.limb(knee, end, thin * 1.1, thin * 0.8, who.legs)
    heel = end + np.array([-0.2 * who.foot * tall, 0, -0.1 * thin])
    body.limb(heel, end + np.array([0.8 * who.foot * tall, 0.0, -0.2 * thin]), thin, thin * 0.85, who.feet)


def _face(who: Biped) -> tuple[Part, ...]:
    """Skull, beak and eyes."""
    tip = (0.6 + who.beak * np.cos(who.beak_slope), 0.0, -0.1 + who.beak * np.sin(who.beak_slope))
    return (
        Part(on="head", kind=ELLIPSOID, at=(0, 0, 0), size=(1.15, 0.95, 1.0), paint=who.face),
        Part(
            on="head", kind=ROUND_CONE, at=(0.6, 0, -0.1), to=tip, size=(who.beak_radius, who.beak_radius * 0.45, 0),
            paint=who.beak_paint,
        ),
        Part(on="head", kind=ELLIPSOID, at=(0.62, 0.66, 0.3), size=(0.2, 0.2, 0.2), paint=who.dark, both=True),
    )  # fmt: skip
