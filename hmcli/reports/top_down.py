"""Top-down plot: where the camera and the subjects of a clip went, what the camera saw, and when each was out of sight.

The plane is the ground seen from above: X to the right, Y up, metres. Shapes: T frames over context and target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.reports.canvas import FAINT, Canvas, Colour
from hmcli.reports.contact_sheet import INK, LINE, MARGIN, TEXT

SUBJECT_COLOURS: tuple[Colour, ...] = ((0, 114, 178), (0, 158, 115), (204, 121, 167), (86, 180, 233))  # Okabe and Ito
CONTEXT, TARGET = (213, 94, 0), (230, 159, 0)  # the camera's way, and its wedges, in either part
WEDGES = 7  # fields of view drawn along the way
_SIDE = 420  # pixels of the square plot
_APART = 8  # pixels between two dots of a dotted way
_STEPS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # metres a scale bar may stand for


@dataclass(frozen=True, kw_only=True)
class Walked:
    """One subject: its place on the ground (T, 2) in metres, and in which frames it is out of sight (T,) bool."""

    name: str
    place: np.ndarray
    hidden: np.ndarray


def top_down(
    world_from_camera: np.ndarray, subjects: Sequence[Walked], *, context: int, field_of_view: float | None
) -> np.ndarray:
    """A uint8 (H, W, 3) picture. `field_of_view` is horizontal, in radians; None draws the directions of view alone.

    `world_from_camera` is (T, 4, 4), of which the first `context` frames are context. A subject's way is solid where
    it is seen and dotted where it is not; a ring marks where it starts.
    """
    eye, forward = world_from_camera[:, :2, 3], world_from_camera[:, :2, 2]
    reach = _reach(eye, subjects)
    view = _View.around([eye, *(one.place for one in subjects)], margin=0.35 * reach)
    canvas = Canvas(_SIDE + 2 * MARGIN, _SIDE + LINE * (2 + len(subjects)) + 2 * MARGIN)
    for frame in np.linspace(0, len(eye) - 1, min(WEDGES, len(eye))).round().astype(int):
        colour = CONTEXT if frame < context else TARGET
        _wedge(canvas, view, eye[frame], forward[frame], reach, field_of_view, colour)
    _way(canvas, view, eye[: context + 1], CONTEXT, np.zeros(len(eye[: context + 1]), bool), width=3)
    _way(canvas, view, eye[context:], TARGET, np.zeros(len(eye[context:]), bool), width=3)
    _disc(canvas, view(eye[0]), CONTEXT, 5)
    for number, one in enumerate(subjects):
        colour = SUBJECT_COLOURS[number % len(SUBJECT_COLOURS)]
        _way(canvas, view, one.place, colour, one.hidden, width=2)
        _disc(canvas, view(one.place[0]), colour, 4, ring=True)
    _scale_bar(canvas, view)
    _legend(canvas, subjects)
    return canvas.pixels()


@dataclass(frozen=True, kw_only=True)
class _View:
    """Metres on the ground to pixels."""

    corner: tuple[float, float]  # metres: left, top
    per_metre: float

    @classmethod
    def around(cls, tracks: Sequence[np.ndarray], margin: float) -> _View:
        points = np.concatenate(tracks)
        low, high = points.min(0) - margin, points.max(0) + margin
        side = float(max(high - low))
        middle = (low + high) / 2
        return cls(corner=(middle[0] - side / 2, middle[1] + side / 2), per_metre=_SIDE / side)

    def __call__(self, point: np.ndarray) -> tuple[int, int]:
        x = (float(point[0]) - self.corner[0]) * self.per_metre
        y = (self.corner[1] - float(point[1])) * self.per_metre
        return MARGIN + round(x), MARGIN + round(y)


def _reach(eye: np.ndarray, subjects: Sequence[Walked]) -> float:
    """How far wedges are drawn, metres: past the farthest subject, a little less far without any."""
    if not subjects:
        return max(2.0, float(np.ptp(eye, axis=0).max()))
    away = [np.linalg.norm(one.place - eye, axis=1).max() for one in subjects]
    return 1.15 * float(max(away))


def _wedge(
    canvas: Canvas, view: _View, eye: np.ndarray, forward: np.ndarray, reach: float, angle: float | None, colour: Colour
) -> None:
    """The two edges of a field of view and its arc; a single line when the angle is not known."""
    pale = tuple(int(255 - (255 - value) * 0.45) for value in colour)
    middle = np.arctan2(forward[1], forward[0])
    if angle is None:
        canvas.draw.line([view(eye), view(eye + 0.3 * reach * _unit(middle))], fill=pale, width=1)
        return
    arc = [eye + reach * _unit(middle + turn) for turn in np.linspace(-angle / 2, angle / 2, 13)]
    canvas.draw.line([view(point) for point in (eye, *arc, eye)], fill=pale, width=1)


def _unit(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _way(canvas: Canvas, view: _View, track: np.ndarray, colour: Colour, hidden: np.ndarray, width: int) -> None:
    """A polyline, dotted where hidden."""
    dot = (-_APART, -_APART)
    for frame in range(len(track) - 1):
        start, end = view(track[frame]), view(track[frame + 1])
        if hidden[frame]:
            if np.hypot(start[0] - dot[0], start[1] - dot[1]) >= _APART:
                _disc(canvas, start, colour, 2)
                dot = start
        elif start != end:
            canvas.draw.line([start, end], fill=colour, width=width)


def _disc(canvas: Canvas, at: tuple[int, int], colour: Colour, radius: int, ring: bool = False) -> None:
    box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
    canvas.draw.ellipse(box, fill=None if ring else colour, outline=colour, width=2)


def _scale_bar(canvas: Canvas, view: _View) -> None:
    metres = max([step for step in _STEPS if step * view.per_metre <= _SIDE / 4], default=_STEPS[0])
    left, base = MARGIN + 8, MARGIN + _SIDE - 8
    canvas.draw.line([(left, base), (left + round(metres * view.per_metre), base)], fill=INK, width=2)
    canvas.text(left, base - TEXT - 6, f"{metres:g} m")


def _legend(canvas: Canvas, subjects: Sequence[Walked]) -> None:
    top = MARGIN + _SIDE + 4
    canvas.text(MARGIN, top, "camera and its views: ", INK)
    left = MARGIN + round(canvas.font.getlength("camera and its views:  "))
    for word, colour in (("context", CONTEXT), ("target", TARGET)):
        canvas.text(left, top, word, colour)
        left += round(canvas.font.getlength(word + "  "))
    for number, one in enumerate(subjects):
        colour = SUBJECT_COLOURS[number % len(SUBJECT_COLOURS)]
        canvas.text(
            MARGIN, top + LINE * (1 + number), f"{one.name}: dotted while out of sight, ring at its start", colour
        )
    if not subjects:
        canvas.text(MARGIN, top + LINE, "where the subjects are is not known", FAINT)
