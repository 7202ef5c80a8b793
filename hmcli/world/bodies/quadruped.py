"""Bodies of four-legged animals: trunk, legs, neck, head and tail; ears, horns, humps and manes are `Part`s."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.bodies.gait import Lift, foot_path, reach
from hmcli.world.bodies.parts import Anchor, Part, anchor, attach
from hmcli.world.space.shapes import ELLIPSOID, Paint, ShapeList, Shapes

WALK = (0.0, 0.5, 0.6, 0.1)  # shift of the phase of the left and right fore leg and the left and right hind leg
HOP = (0.0, 0.06, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Quadruped:
    """Four legs, neck, tail. Lengths other than `height` are multiples of it.

    Anchors of parts: `head` and `nose` (unit: height x head), `chest`, `middle` and `rump` along the trunk and `tail`,
    the tail's tip (unit: height).
    """

    height: float  # metres, at the shoulder of a slender animal
    length: float  # hips to shoulders
    girth: float  # radius of the trunk
    neck: float  # length
    neck_slope: float  # radians above level
    head: float  # radius
    snout: float
    tail: float
    tail_slope: float  # radians above level
    tail_radius: float
    coat: Paint
    neck_coat: Paint
    face: Paint
    thighs: Paint
    legs: Paint  # below the knee
    muzzle: Paint
    nose: Paint
    dark: Paint  # eyes, hoofs
    parts: tuple[Part, ...] = ()
    back: float = 0.88  # height of the trunk's middle line
    rump: float = 0.92  # radius of the trunk behind, in girths
    thigh: float = 0.52  # radius, in girths
    leg: float = 1.0  # thickness below the knee
    bent: float = 1.015  # length of the legs over the longest stretch asked of them
    neck_radius: float = 0.78  # at the trunk, in girths
    stride: float = 1.25
    gait: tuple[float, float, float, float] = WALK
    bob: float = 0.012

    @property
    def stride_metres(self) -> float:
        return self.stride * self.height


def quadruped(who: Quadruped, phase_T: np.ndarray, owner: int, lift: Lift = 1.0) -> Shapes:
    """The animal's shapes in the body frame, (T, N)."""
    tall, frames = who.height, len(phase_T)
    body = ShapeList(frames, owner)
    beats = 2 if who.gait == WALK else 1

    def at(x: float, y: float, z: float) -> np.ndarray:
        flat = np.broadcast_to([x, y, z], (frames, 3)).copy()
        flat[:, 2] += who.bob * np.cos(2 * np.pi * beats * phase_T)
        return tall * flat

    half, back, round_ = who.length / 2, who.back, who.girth
    body.limb(at(-half, 0, back), at(half, 0, back + 0.01), round_ * who.rump * tall, round_ * 1.06 * tall, who.coat)
    corners = ((half * 0.95, 1), (half * 0.95, -1), (-half, 1), (-half, -1))
    for (x, side), shift in zip(corners, who.gait, strict=True):
        hip = at(x, side * round_ * 0.55, back - 0.06)
        _leg(body, who, phase_T + shift, lift, hip, bend=1.0 if x > 0 else -1.0)
    rise = np.array([np.cos(who.neck_slope), 0.0, np.sin(who.neck_slope)])
    poll = np.array([half + 0.03, 0.0, back + 0.08]) + who.neck * rise
    body.limb(
        at(half, 0, back + 0.05), at(*poll), round_ * who.neck_radius * tall, who.head * 0.85 * tall, who.neck_coat
    )
    skull = anchor(at(*(poll + np.array([0.05, 0.0, 0.02]))), who.head * tall)
    nose = _head(body, who, skull)
    tip = _tail(body, who, phase_T, at(-half - round_ * 0.6, 0.0, back + 0.06))
    trunk = {"chest": half, "middle": 0.0, "rump": -half}
    places = {name: anchor(at(x, 0, back), tall) for name, x in trunk.items()}
    attach(body, places | {"head": skull, "nose": nose, "tail": anchor(tip, tall)}, who.parts)
    return body.shapes()


def _leg(body: ShapeList, who: Quadruped, phase_T: np.ndarray, lift: Lift, hip_T3: np.ndarray, bend: float) -> None:
    """A leg that is long enough for its steps; fore legs bend forward, hind legs back."""
    tall, thick = who.height, who.leg * who.height
    ankle, carried = 0.043 * thick, (who.back - 0.06) * tall
    x, rise = foot_path(phase_T, who.stride_metres, duty=0.5, lift=0.085 * carried * lift)
    foot = np.stack([hip_T3[:, 0] + x, hip_T3[:, 1], ankle + rise], -1)
    length = who.bent * np.hypot(carried + who.bob * tall - ankle, who.stride_metres / 4)
    knee, end = reach(hip_T3, foot, 0.506 * length, 0.494 * length, bend)
    body.limb(hip_T3, knee, who.girth * who.thigh * tall, 0.058 * thick, who.thighs)
    body.limb(knee, end, 0.055 * thick, 0.042 * thick, who.legs)
    body.limb(end, end + np.array([0.05 * thick, 0.0, -0.006 * thick]), 0.042 * thick, 0.036 * thick, who.dark)


def _head(body: ShapeList, who: Quadruped, skull: Anchor) -> Anchor:
    """Skull, muzzle, nose and eyes; returns the anchor of the nose."""
    r = who.head
    down = -0.06 / r - who.snout / r * 0.25
    nose = Anchor(
        origin=skull.origin + skull.unit * np.array([1 + who.snout / r, 0.0, down]), axes=skull.axes, unit=skull.unit
    )

    def bit(at: tuple[float, float, float], size: tuple[float, float, float], paint: Paint, both: bool) -> Part:
        return Part(on="head", kind=ELLIPSOID, at=at, size=size, paint=paint, both=both)

    start = skull.origin + skull.unit * np.array([0.5 + 0.01 / r, 0.0, -0.02 / r])
    body.limb(start, nose.origin, 0.72 * skull.unit, 0.45 * skull.unit, who.muzzle)
    attach(
        body,
        {"head": skull},
        (
            bit((0, 0, 0), (1.25, 0.95, 1.0), who.face, False),
            bit((1.38 + who.snout / r, 0, 0.02 / r + down), (0.25, 0.25, 0.25), who.nose, False),
            bit((0.75, 0.68, 0.35 - 0.02 / r), (0.22, 0.22, 0.22), who.dark, True),
        ),
    )
    return nose


def _tail(body: ShapeList, who: Quadruped, phase_T: np.ndarray, root_T3: np.ndarray) -> np.ndarray:
    """Adds a wagging tail; returns its tip."""
    wag = 0.25 * np.sin(4 * np.pi * phase_T)
    flat, rise = np.cos(who.tail_slope), np.full(len(wag), np.sin(who.tail_slope))
    tip = root_T3 + who.tail * who.height * np.stack([-flat * np.cos(wag), np.sin(wag) * flat, rise], -1)
    body.limb(root_T3, tip, who.tail_radius * who.height, who.tail_radius * 0.6 * who.height, who.coat)
    return tip
