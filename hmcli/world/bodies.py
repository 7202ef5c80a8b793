"""Bodies: people-like and four-legged figures made of round cones, posed for every frame at once.

Body frame: x forward, y left, z up, the origin on the ground below the hips; metres. A figure is a set of proportions
(dataclass), so families of subjects are data, not code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hmcli.world.gait import foot_path, reach
from hmcli.world.shapes import CYLINDER, ELLIPSOID, Paint, ShapeList, Shapes


@dataclass(frozen=True, kw_only=True)
class Person:
    """Two legs, two arms. Lengths other than `height` are multiples of it."""

    height: float  # metres
    build: float  # 1 is average, larger is stouter
    head: float  # 1 is average
    top: Paint
    bottom: Paint
    skin: Paint
    hair: Paint  # a `face` pattern: colour is skin, second is hair
    shoes: Paint
    sleeve: Paint
    hat: Paint | None
    pack: Paint | None
    skirt: float  # length of a coat or dress below the waist, 0 for none
    stride: float = 0.76

    @property
    def stride_metres(self) -> float:
        return self.stride * self.height


@dataclass(frozen=True, kw_only=True)
class Quadruped:
    """Four legs, neck, tail. Lengths other than `height` are multiples of it."""

    height: float  # metres, at the shoulder
    length: float  # hips to shoulders
    girth: float  # radius of the trunk
    neck: float  # length
    neck_slope: float  # radians above level
    head: float  # radius
    snout: float
    ear: float
    tail: float
    tail_slope: float  # radians above level
    tail_radius: float
    antlers: float  # 0 for none
    coat: Paint
    legs: Paint
    muzzle: Paint
    dark: Paint
    stride: float = 1.25

    @property
    def stride_metres(self) -> float:
        return self.stride * self.height


Figure = Person | Quadruped


def posed(figure: Figure, phase_T: np.ndarray, owner: int) -> Shapes:
    """The figure's shapes in its own frame, (T, N), at each phase (strides walked since the start)."""
    return person(figure, phase_T, owner) if isinstance(figure, Person) else quadruped(figure, phase_T, owner)


def person(who: Person, phase_T: np.ndarray, owner: int) -> Shapes:
    tall, wide, frames = who.height, who.height * who.build, len(phase_T)
    body = ShapeList(frames, owner)
    sway = 0.010 * np.cos(4 * np.pi * (phase_T - 0.275))  # highest when a leg is upright

    def at(x: float | np.ndarray, y: float, z: float | np.ndarray) -> np.ndarray:
        return tall * np.stack([np.broadcast_to(v, (frames,)) for v in (x, y, z)], -1)

    hips, shoulders = 0.478 + sway, 0.80 + sway
    for side, shift in ((1, 0.0), (-1, 0.5)):
        _leg(body, who, phase_T + shift, at(0.0, 0.052 * side * who.build, hips))
        _arm(body, who, phase_T + shift + 0.5, at(0.01, 0.112 * side * who.build, shoulders - 0.02), side)
    body.limb(at(0, 0, hips + 0.03), at(0.015, 0, shoulders - 0.09), 0.078 * wide, 0.094 * wide, who.top)
    across = 0.085 * who.build
    body.limb(
        at(0.012, across, shoulders - 0.035), at(0.012, -across, shoulders - 0.035), 0.052 * wide, 0.052 * wide, who.top
    )
    body.add(ELLIPSOID, at(0, 0, hips - 0.005), np.array([0.080, 0.096, 0.07]) * wide, who.bottom)
    body.limb(at(0.015, 0, shoulders), at(0.02, 0, shoulders + 0.05), 0.034 * tall, 0.032 * tall, who.skin)
    _head(body, who, at(0.03, 0, shoulders + 0.075 + 0.045 * who.head))
    if who.skirt:
        low = at(0.0, 0, hips + 0.03 - who.skirt)
        body.limb(at(0, 0, hips + 0.06), low, 0.09 * wide, (0.09 + 0.22 * who.skirt) * wide, who.top)
    if who.pack:
        size = np.array([0.062, 0.085, 0.125]) * tall
        body.add(ELLIPSOID, at(-0.105 * who.build, 0, shoulders - 0.12), size, who.pack)
    return body.shapes()


def _leg(body: ShapeList, who: Person, phase_T: np.ndarray, hip_T3: np.ndarray) -> None:
    tall, ankle = who.height, 0.042 * who.height
    x, lift = foot_path(phase_T, who.stride_metres, duty=0.55, lift=0.045 * tall)
    foot = np.stack([x, hip_T3[:, 1], ankle + lift], -1)
    knee, end = reach(hip_T3, foot, 0.243 * tall, 0.238 * tall, bend=1.0)
    body.limb(hip_T3, knee, 0.052 * tall * who.build, 0.037 * tall, who.bottom)
    body.limb(knee, end, 0.037 * tall, 0.028 * tall, who.bottom)
    tip = end + np.array([0.085 * tall, 0.0, -0.018 * tall])
    tip[:, 2] = np.maximum(tip[:, 2] - 0.4 * (end[:, 2] - ankle), 0.022 * tall)
    sole = end + np.array([0.0, 0.0, -0.010 * tall])
    body.limb(sole, tip, 0.031 * tall, 0.022 * tall, who.shoes)


def _arm(body: ShapeList, who: Person, phase_T: np.ndarray, shoulder_T3: np.ndarray, side: int) -> None:
    tall = who.height
    swing = 0.5 * np.cos(2 * np.pi * phase_T)
    aside = np.full_like(swing, 0.13 * side)
    elbow = shoulder_T3 + 0.155 * tall * np.stack([np.sin(swing), aside, -np.cos(swing)], -1)
    bent = swing + 0.35
    wrist = elbow + 0.14 * tall * np.stack([np.sin(bent), aside * 0, -np.cos(bent)], -1)
    body.limb(shoulder_T3, elbow, 0.037 * tall * who.build, 0.029 * tall, who.top)
    body.limb(elbow, wrist, 0.028 * tall, 0.022 * tall, who.sleeve)
    hand = wrist + 0.03 * tall * np.stack([np.sin(bent), aside * 0, -np.cos(bent)], -1)
    body.add(ELLIPSOID, hand, 0.030 * tall * np.ones(3), who.skin)


def _head(body: ShapeList, who: Person, centre_T3: np.ndarray) -> None:
    size = who.height * who.head
    body.add(ELLIPSOID, centre_T3, np.array([0.066, 0.056, 0.078]) * size, who.hair)
    if who.hat:
        up = np.array([0.0, 0.0, 1.0]) * size
        body.add(CYLINDER, centre_T3 + 0.045 * up, np.array([0.115, 0.115, 0.009]) * size, who.hat)
        body.add(CYLINDER, centre_T3 + 0.080 * up, np.array([0.066, 0.066, 0.036]) * size, who.hat)


def quadruped(who: Quadruped, phase_T: np.ndarray, owner: int) -> Shapes:
    tall, frames = who.height, len(phase_T)
    body = ShapeList(frames, owner)
    bob = 0.012 * np.cos(4 * np.pi * phase_T)

    def at(x: float, y: float, z: float) -> np.ndarray:
        flat = np.broadcast_to([x, y, z], (frames, 3)).copy()
        flat[:, 2] += bob
        return tall * flat

    half, back, round_ = who.length / 2, 0.88, who.girth
    body.limb(at(-half, 0, back), at(half, 0, back + 0.01), round_ * 0.92 * tall, round_ * 1.06 * tall, who.coat)
    for x, gait, bend in ((half * 0.95, 0.0, -1.0), (-half, 0.6, -1.0)):
        for side, shift in ((1, 0.0), (-1, 0.5)):
            hip = at(x, side * round_ * 0.55, back - 0.06)
            _animal_leg(body, who, phase_T + gait + shift, hip, bend)
    rise = np.array([np.cos(who.neck_slope), 0.0, np.sin(who.neck_slope)])
    poll = np.array([half + 0.03, 0.0, back + 0.08]) + who.neck * rise
    body.limb(at(half, 0, back + 0.05), at(*poll), round_ * 0.78 * tall, who.head * 0.85 * tall, who.coat)
    _animal_head(body, who, at, poll)
    root = np.array([-half - round_ * 0.6, 0.0, back + 0.06])
    wag = 0.25 * np.sin(4 * np.pi * phase_T)
    tip = at(*root) + who.tail * tall * np.stack(
        [-np.cos(who.tail_slope) * np.cos(wag), np.sin(wag), np.full(frames, np.sin(who.tail_slope))], -1
    )  # fmt: skip
    body.limb(at(*root), tip, who.tail_radius * tall, who.tail_radius * 0.6 * tall, who.coat)
    return body.shapes()


def _animal_leg(body: ShapeList, who: Quadruped, phase_T: np.ndarray, hip_T3: np.ndarray, bend: float) -> None:
    tall, ankle = who.height, 0.045 * who.height
    x, lift = foot_path(phase_T, who.stride_metres, duty=0.5, lift=0.07 * tall)
    foot = np.stack([hip_T3[:, 0] + x, hip_T3[:, 1], ankle + lift], -1)
    knee, end = reach(hip_T3, foot, 0.43 * tall, 0.42 * tall, bend)
    body.limb(hip_T3, knee, who.girth * 0.52 * tall, 0.058 * tall, who.coat)
    body.limb(knee, end, 0.055 * tall, 0.042 * tall, who.legs)
    body.limb(end, end + np.array([0.05 * tall, 0.0, -0.008 * tall]), 0.042 * tall, 0.036 * tall, who.dark)


def _animal_head(body: ShapeList, who: Quadruped, at: Callable[..., np.ndarray], poll: np.ndarray) -> None:
    """Skull, muzzle, nose, ears, eyes and antlers; `poll` is where the neck ends."""
    tall, r = who.height, who.head

    def off(x: float, y: float, z: float, start: np.ndarray = poll) -> np.ndarray:
        return start + np.array([x, y, z])

    body.add(ELLIPSOID, at(*off(0.05, 0, 0.02)), np.array([1.25, 0.95, 1.0]) * r * tall, who.coat)
    nose = off(0.05 + r + who.snout, 0, -0.04 - who.snout * 0.25)
    body.limb(at(*off(0.06 + r * 0.5, 0, 0)), at(*nose), r * 0.72 * tall, r * 0.45 * tall, who.muzzle)
    body.add(ELLIPSOID, at(*off(r * 0.38, 0, 0.02, nose)), np.ones(3) * r * 0.25 * tall, who.dark)
    for side in (1, -1):
        root = off(0.0, side * r * 0.6, r * 0.7)
        tip = off(-0.04, side * who.ear * 0.5, who.ear, root)
        body.limb(at(*root), at(*tip), r * 0.38 * tall, r * 0.16 * tall, who.dark)
        body.add(
            ELLIPSOID, at(*off(0.05 + r * 0.75, side * r * 0.68, r * 0.35)), np.ones(3) * r * 0.22 * tall, who.dark
        )
        if who.antlers:
            beam = off(-0.01, side * r * 0.4, r * 0.9)
            fork = beam + np.array([-0.06, side * 0.14, 0.30]) * who.antlers
            horn = Paint(colour=(0.80, 0.71, 0.55))
            body.limb(at(*beam), at(*fork), 0.035 * tall, 0.028 * tall, horn)
            for tine in ([0.16, side * 0.02, 0.14], [-0.10, side * 0.10, 0.22]):
                body.limb(at(*fork), at(*(fork + np.array(tine) * who.antlers)), 0.028 * tall, 0.016 * tall, horn)


def face(skin: tuple[float, float, float], hair: tuple[float, float, float]) -> Paint:
    """Paint of a head: hair on top and behind."""
    return Paint(colour=skin, second=hair, pattern="face")
