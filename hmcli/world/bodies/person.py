"""Bodies of people: a skeleton with a face, clothed limbs and hands; everything else a person has is a `Part`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.bodies.gait import Lift, foot_path, reach
from hmcli.world.bodies.parts import Anchor, Part, anchor, attach, turned
from hmcli.world.space.shapes import ELLIPSOID, Colour, Paint, ShapeList, Shapes

_EYES, _LIPS = Paint(colour=(0.07, 0.06, 0.06)), Paint(colour=(0.45, 0.16, 0.15))
_LEG, _ANKLE = 0.481, 0.042  # length of a leg above the ankle, height of the ankle above the ground, in heights


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How an arm is held; radians."""

    swing: float = 0.5  # of the upper arm, to either side of `raised`
    raised: float = 0.0  # of the upper arm, forward
    bend: float = 0.35  # of the elbow
    aside: float = 0.13  # of the upper arm, away from the body
    out: float = 0.0  # of the forearm, away from the body


@dataclass(frozen=True, kw_only=True)
class Person:
    """Two legs, two arms. Lengths other than `height` are multiples of it.

    Anchors of parts, and their units: `head` (height x head), `chest` between the shoulders (height x build), `hips`,
    `left_hand` and `right_hand` (height).
    """

    height: float  # metres, without a hat
    build: float  # 1 is average, larger is stouter
    head: float  # 1 is average
    top: Paint
    upper: Paint  # upper arms
    sleeve: Paint  # forearms
    bottom: Paint
    shins: Paint
    shoes: Paint
    skin: Paint
    hands: Paint
    hair: Paint  # a `face` pattern: colour is skin, second is hair
    parts: tuple[Part, ...] = ()
    left: Arm = Arm()
    right: Arm = Arm()
    lean: float = 0.0  # radians forward
    bulk: float = 1.0  # thickness of arms and legs, as clothed
    shoe: float = 1.0  # length of a shoe; 1 is average
    stride: float = 0.76
    duty: float = 0.55  # share of a stride a foot stands; below a half it runs

    @property
    def stride_metres(self) -> float:
        return self.stride * self.height


def person(who: Person, phase_T: np.ndarray, owner: int, lift: Lift = 1.0) -> Shapes:
    """The person's shapes in the body frame, (T, N)."""
    tall, wide = who.height, who.height * who.build
    body = ShapeList(len(phase_T), owner)
    places = _places(who, phase_T)
    hips, chest = places["hips"].origin, places["chest"].origin
    lean = turned(0.0, who.lean)

    def above(start_T3: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
        return start_T3 + tall * (lean @ np.array([x, y, z]))

    hands = {}
    for side, shift, arm, name in ((1, 0.0, who.left, "left_hand"), (-1, 0.5, who.right, "right_hand")):
        _leg(body, who, phase_T + shift, lift, hips + np.array([0.0, 0.052 * side * wide, 0.0]))
        shoulder = above(chest, -0.002, 0.112 * side * who.build, 0.015)
        hands[name] = anchor(_arm(body, who, arm, phase_T + shift + 0.5, shoulder, side), tall)
    body.limb(above(hips, 0, 0, 0.03), above(chest, 0.003, 0, -0.055), 0.078 * wide, 0.094 * wide, who.top)
    across = 0.085 * who.build
    body.limb(above(chest, 0, across, 0), above(chest, 0, -across, 0), 0.052 * wide, 0.052 * wide, who.top)
    body.add(ELLIPSOID, above(hips, 0, 0, -0.005), np.array([0.080, 0.096, 0.07]) * wide, who.bottom)
    body.limb(above(chest, 0.003, 0, 0.035), places["head"].origin, 0.034 * tall, 0.032 * tall, who.skin)
    _head(body, who, places["head"])
    attach(body, places | hands, who.parts)
    return body.shapes()


def _places(who: Person, phase_T: np.ndarray) -> dict[str, Anchor]:
    """Anchors of the trunk and the head; the body is highest when a leg is upright."""
    tall = who.height
    hips = np.zeros((len(phase_T), 3))
    hips[:, 2] = tall * _hip_height(who, phase_T)
    lean = turned(0.0, who.lean)
    chest = hips + tall * (lean @ np.array([0.012, 0.0, 0.287]))
    skull = chest + tall * (lean @ np.array([0.018, 0.0, 0.105 + 0.045 * who.head]))
    return {
        "hips": anchor(hips, tall),
        "chest": anchor(chest, tall * who.build, who.lean),
        "head": anchor(skull, tall * who.head, 0.4 * who.lean),
    }


def _hip_height(who: Person, phase_T: np.ndarray) -> np.ndarray:
    """(T,) in heights: just low enough for the legs to reach the ground at both ends of a step."""
    high = _ANKLE + 0.998 * _LEG
    low = min(_ANKLE + float(np.sqrt((0.994 * _LEG) ** 2 - (who.stride * who.duty / 2) ** 2)), high - 0.006)
    if who.duty < 0.5:
        high, low = high - 0.012, low - 0.016  # runners land on bent legs
    return (high + low) / 2 + (high - low) / 2 * np.cos(4 * np.pi * (phase_T - who.duty / 2))


def _leg(body: ShapeList, who: Person, phase_T: np.ndarray, lift: Lift, hip_T3: np.ndarray) -> None:
    tall, ankle = who.height, _ANKLE * who.height
    lift = (0.045 if who.duty > 0.5 else 0.12) * tall * lift
    x, rise = foot_path(phase_T, who.stride_metres, who.duty, lift)
    foot = np.stack([x, hip_T3[:, 1], ankle + rise], -1)
    knee, end = reach(hip_T3, foot, 0.505 * _LEG * tall, 0.495 * _LEG * tall, bend=1.0)
    body.limb(hip_T3, knee, 0.052 * tall * who.build * who.bulk, 0.037 * tall * who.bulk, who.bottom)
    body.limb(knee, end, 0.037 * tall * who.bulk, 0.028 * tall * min(who.bulk, 1.3), who.shins)
    tip = end + np.array([0.085 * tall * who.shoe, 0.0, -0.018 * tall])
    tip[:, 2] = np.maximum(tip[:, 2] - 0.4 * (end[:, 2] - ankle), 0.022 * tall)
    sole = end + np.array([0.0, 0.0, -0.010 * tall])
    body.limb(sole, tip, 0.031 * tall, 0.022 * tall, who.shoes)


def _arm(body: ShapeList, who: Person, arm: Arm, phase_T: np.ndarray, shoulder_T3: np.ndarray, side: int) -> np.ndarray:
    """Adds an arm; returns where its hand is."""
    tall = who.height
    angle = arm.raised + arm.swing * np.cos(2 * np.pi * phase_T)

    def along(angle_T: np.ndarray, aside: float) -> np.ndarray:
        flat = np.cos(aside)
        y = np.full_like(angle_T, side * np.sin(aside))
        return np.stack([flat * np.sin(angle_T), y, -flat * np.cos(angle_T)], -1)

    elbow = shoulder_T3 + 0.155 * tall * along(angle, arm.aside)
    forearm = along(angle + arm.bend, arm.out)
    wrist = elbow + 0.14 * tall * forearm
    body.limb(shoulder_T3, elbow, 0.037 * tall * who.build * who.bulk, 0.029 * tall * who.bulk, who.upper)
    body.limb(elbow, wrist, 0.028 * tall * who.bulk, 0.022 * tall * who.bulk, who.sleeve)
    hand = wrist + 0.03 * tall * forearm
    body.limb(wrist + 0.012 * tall * forearm, wrist + 0.042 * tall * forearm, 0.024 * tall, 0.019 * tall, who.hands)
    return hand


def _head(body: ShapeList, who: Person, skull: Anchor) -> None:
    """Skull with hair, jaw, nose, mouth and eyes."""

    def bit(kind: int, at: tuple[float, float, float], size: tuple[float, float, float], paint: Paint) -> Part:
        return Part(on="head", kind=kind, at=at, size=size, paint=paint)

    nose = Paint(colour=(who.skin.colour[0] * 0.93, who.skin.colour[1] * 0.88, who.skin.colour[2] * 0.86))
    parts = (
        bit(ELLIPSOID, (0, 0, 0), (0.066, 0.056, 0.078), who.hair),
        bit(ELLIPSOID, (0.018, 0, -0.042), (0.043, 0.040, 0.040), who.skin),
        bit(ELLIPSOID, (0.064, 0, -0.012), (0.014, 0.010, 0.015), nose),
        bit(ELLIPSOID, (0.056, 0, -0.048), (0.007, 0.016, 0.006), _LIPS),
        Part(on="head", kind=ELLIPSOID, at=(0.058, 0.022, 0.010), size=(0.008, 0.009, 0.011), paint=_EYES, both=True),
    )
    attach(body, {"head": skull}, parts)


def face(skin: Colour, hair: Colour) -> Paint:
    """Paint of a head: hair on top and behind."""
    return Paint(colour=skin, second=hair, pattern="face")
