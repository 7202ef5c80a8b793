"""Parts: what a figure wears, carries or grows, each a shape that moves with one place of the skeleton.

Hats, capes, horns and humps are rows of data: where they sit, how large they are, how they are painted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.space.shapes import ROUND_CONE, Paint, ShapeList

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One shape at an anchor; lengths are multiples of the anchor's unit, directions those of its axes."""

    on: str
    kind: int
    at: Triple
    size: Triple  # as `Shapes.size`; of a round cone only the two radii count
    paint: Paint
    to: Triple = (0.0, 0.0, 0.0)  # the other end of a round cone
    turn: tuple[float, float] = (0.0, 0.0)  # radians about x, then about y
    both: bool = False  # once more on the other side


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A place of a posed skeleton: `origin` (T, 3) metres, `axes` (T, 3, 3) forward, left, up, `unit` metres."""

    origin: np.ndarray
    axes: np.ndarray
    unit: float


def anchor(origin_T3: np.ndarray, unit: float, pitch: float = 0.0) -> Anchor:
    """An anchor whose axes are those of the body, leaning forward by `pitch` radians."""
    return Anchor(origin=origin_T3, axes=np.broadcast_to(turned(0.0, pitch), (len(origin_T3), 3, 3)), unit=unit)


def turned(about_x: float, about_y: float) -> np.ndarray:
    """(3, 3) rotation about x, then about y; a positive turn about y tips z forward."""
    cos, sin = np.cos([about_x, about_y]), np.sin([about_x, about_y])
    first = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    return np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]]) @ first


def attach(body: ShapeList, anchors: dict[str, Anchor], parts: tuple[Part, ...]) -> None:
    """Add every part at its anchor."""
    for part in parts:
        for side in (1, -1) if part.both else (1,):
            _attach(body, anchors[part.on], part, np.array([1.0, side, 1.0]))


def _attach(body: ShapeList, place: Anchor, part: Part, mirror: np.ndarray) -> None:
    def point(own: Triple) -> np.ndarray:
        return place.origin + place.axes @ (mirror * own * place.unit)

    if part.kind == ROUND_CONE:
        body.limb(point(part.at), point(part.to), part.size[0] * place.unit, part.size[1] * place.unit, part.paint)
    else:
        turn = turned(part.turn[0] * float(mirror[1]), part.turn[1])
        body.add(part.kind, point(part.at), np.array(part.size) * place.unit, part.paint, place.axes @ turn)
