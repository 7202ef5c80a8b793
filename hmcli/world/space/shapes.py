"""Shapes: everything that is drawn is a box, ellipsoid, round cone, cylinder or cone, plus one ground plane.

Pure data in numpy. Units are metres in the world frame (right-handed, Z up); colours are display RGB in [0, 1].
Shape letters: T frames (1 for things that stand still), N shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

BOX, ELLIPSOID, ROUND_CONE, CYLINDER, CONE = range(5)
PATTERNS = (
    "plain", "stripes", "spots", "bricks", "windows", "planks", "mottled", "tiles", "face", "checks",
    "front", "tips", "segments", "net", "plaid",
    "ribs", "rings", "waves", "ripples", "strata", "lit_windows", "craters", "cobbles", "litter", "cells", "dusted",
    "marble", "panels", "picture",
)  # fmt: skip

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Paint:
    """How a surface looks: `pattern` mixes `colour` with `second`; `scale` is its period in metres.

    `glow` times its colour is light of its own: all over a plain surface, elsewhere where it shows `second`. `gloss` is
    how much of the sky wet or polished ground mirrors at a grazing angle.
    """

    colour: Colour
    second: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"
    scale: float = 1.0
    glow: float = 0.0
    gloss: float = 0.0
    shadow: bool = True  # does it keep the sun off other things?


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A piece of ground with its own paint: a rectangle, or an ellipse when `round`."""

    centre: tuple[float, float]
    half: tuple[float, float]
    paint: Paint
    round: bool = False


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The plane z = 0; later patches lie on top of earlier ones."""

    paint: Paint
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """N shapes over T frames.

    `axes` (T, N, 3, 3) holds each shape's own axes as columns, `centre` (T, N, 3) its origin, `size` (T, N, 3): half
    extents of a box, semi-axes of an ellipsoid; radius, radius, half height of a cylinder and of a cone (apex at +z);
    radius at the origin, radius at the other end, length along +z of a round cone. `owner` (N,) is the number of the
    subject a shape belongs to, 0 for the scene.
    """

    kind: np.ndarray
    axes: np.ndarray
    centre: np.ndarray
    size: np.ndarray
    paints: tuple[Paint, ...]
    owner: np.ndarray

    @property
    def frames(self) -> int:
        return self.centre.shape[0]

    def placed(self, position_T3: np.ndarray, heading_T: np.ndarray) -> Shapes:
        """The same shapes turned about Z by `heading_T` (radians) and moved to `position_T3`."""
        turn_T33 = turns_about_z(heading_T)
        centre = np.einsum("tij,tnj->tni", turn_T33, self.centre) + position_T3[:, None]
        return replace(self, centre=centre, axes=np.einsum("tij,tnjk->tnik", turn_T33, self.axes))


class ShapeList:
    """Collects shapes whose pose may differ in each of `frames` frames; points are (3,) or (frames, 3)."""

    def __init__(self, frames: int = 1, owner: int = 0) -> None:
        self.frames, self.owner = frames, owner
        self._rows: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, Paint]] = []

    def add(self, kind: int, centre: Any, size: Any, paint: Paint, axes: Any = None) -> None:
        """One shape; `axes` are its own axes as columns, (3, 3) or (frames, 3, 3), the world's when left out."""
        axes = np.eye(3) if axes is None else np.asarray(axes, np.float64)
        row = (np.broadcast_to(axes, (self.frames, 3, 3)), self._points(centre), self._points(size))
        self._rows.append((kind, *row, paint))

    def limb(self, start: Any, end: Any, start_radius: float, end_radius: float, paint: Paint) -> None:
        """A round cone from `start` to `end`."""
        start_T3, end_T3 = self._points(start), self._points(end)
        along = end_T3 - start_T3
        length = np.linalg.norm(along, axis=-1, keepdims=True)
        shortest = abs(start_radius - end_radius) + 1e-3  # a shorter one would be a plain sphere
        long_enough = np.maximum(length, shortest)
        axes = axes_along(np.where(length > 1e-9, along / np.maximum(length, 1e-9), np.array([0.0, 0.0, 1.0])))
        radii = np.broadcast_to([start_radius, end_radius], (self.frames, 2))
        self.add(ROUND_CONE, start_T3, np.concatenate([radii, long_enough], axis=1), paint, axes)

    def shapes(self) -> Shapes:
        if not self._rows:
            raise ValueError("there are no shapes to draw")
        kind, axes, centre, size, paints = zip(*self._rows, strict=True)
        return Shapes(
            kind=np.array(kind, np.int64),
            axes=np.stack(axes, 1),
            centre=np.stack(centre, 1),
            size=np.stack(size, 1),
            paints=tuple(paints),
            owner=np.full(len(kind), self.owner, np.int64),
        )

    def _points(self, values: Any) -> np.ndarray:
        points = np.asarray(values, np.float64)
        return points if points.shape == (self.frames, 3) else np.broadcast_to(points, (self.frames, 3))


def turns_about_z(angle_T: np.ndarray) -> np.ndarray:
    """(T,) radians -> (T, 3, 3) rotations, counter-clockwise seen from above."""
    cos, sin, zero = np.cos(angle_T), np.sin(angle_T), np.zeros_like(angle_T)
    rows = [cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1]
    return np.stack(rows, -1).reshape(*np.shape(angle_T), 3, 3)


def turn_about_z(angle: float) -> np.ndarray:
    return turns_about_z(np.array(float(angle)))


def axes_along(direction_T3: np.ndarray) -> np.ndarray:
    """Right-handed axes whose third column is the given unit direction; the second stays near +y."""
    helper = np.where(np.abs(direction_T3[:, 1:2]) > 0.9, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    first = _cross(helper, direction_T3)
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    return np.stack([first, _cross(direction_T3, first), direction_T3], axis=-1)


def _cross(one_T3: np.ndarray, other_T3: np.ndarray) -> np.ndarray:
    """np.cross of three-dimensional vectors, without its care for others: figures have many limbs."""
    (a, b, c), (d, e, f) = one_T3.T, other_T3.T
    return np.stack([b * f - c * e, c * d - a * f, a * e - b * d], axis=-1)


def bounding_boxes(shapes: Shapes) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around the shapes along their own axes: centres (T, N, 3) in the world, half sizes (T, N, 3)."""
    first, second, length = np.moveaxis(shapes.size, -1, 0)
    wide = np.maximum(first, second)
    is_limb = shapes.kind == ROUND_CONE
    half_limb = np.stack([wide, wide, (length + first + second) / 2], -1)
    half = np.where(is_limb[:, None], half_limb, shapes.size)
    shift = np.where(is_limb, (length + second - first) / 2, 0.0)
    return shapes.centre + shapes.axes[..., 2] * shift[..., None], half


def corners(shapes: Shapes) -> np.ndarray:
    """The eight corners (T, N, 8, 3) of each shape's oriented bounding box, in the world."""
    centre, half = bounding_boxes(shapes)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    return centre[:, :, None] + np.einsum("tnij,tnkj->tnki", shapes.axes, signs * half[:, :, None])


def nothing(frames: int) -> Shapes:
    """No shapes, over so many frames."""
    none = np.zeros(0, np.int64)
    points = np.zeros((frames, 0, 3))
    return Shapes(kind=none, axes=np.zeros((frames, 0, 3, 3)), centre=points, size=points, paints=(), owner=none)


def joined(parts: list[Shapes]) -> Shapes:
    """Several groups of shapes over the same frames as one."""
    return Shapes(
        kind=np.concatenate([part.kind for part in parts]),
        axes=np.concatenate([part.axes for part in parts], 1),
        centre=np.concatenate([part.centre for part in parts], 1),
        size=np.concatenate([part.size for part in parts], 1),
        paints=tuple(paint for part in parts for paint in part.paints),
        owner=np.concatenate([part.owner for part in parts]),
    )
