"""A strip: the context, the truth and what models made of it, side by side, as one animation that loops.

First the context plays alone, then the targets play beside each other, then the last frames stand for a moment.
Shape letters: N context frames, T target frames, H rows, W columns of a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmcli.reports.canvas import Canvas
from hmcli.reports.contact_sheet import LINE, PAPER

GAP = 4  # pixels between videos
STAND = 0.8  # seconds that the last frames stand
DIM = 0.35  # how much of its light a video keeps that is not playing
QUALITIES = (90, 80, 70, 60, 50, 40, 30)  # of WebP, tried in turn
FORMATS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}
STILLS = 5  # target frames that a still strip shows


@dataclass(frozen=True, kw_only=True, eq=False)
class StripRow:
    """One clip: its context (N, H, W, 3), and the targets of truth and models, each (T, H, W, 3), all uint8."""

    context: np.ndarray
    targets: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        for video in (self.context, *self.targets):
            if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
                raise ValueError(f"a video must be (T, H, W, 3) uint8 and not empty, got {video.shape} {video.dtype}")
            if video.shape[1:] != self.context.shape[1:]:
                raise ValueError(f"videos of one clip differ in size: {video.shape[1:3]} and {self.context.shape[1:3]}")
        if len({len(target) for target in self.targets}) != 1:
            raise ValueError(f"targets of one clip differ in length: {[len(target) for target in self.targets]}")


def animate(rows: Sequence[StripRow], labels: Sequence[str], fps: float, scale: int = 1) -> np.ndarray:
    """(frames, height, width, 3) uint8: the rows below each other under `labels`, one for each column of videos.

    The longest context and the longest target set the length; shorter ones wait at their last frame.
    """
    _check(rows, labels)
    context = max(len(row.context) for row in rows)
    target = max(len(row.targets[0]) for row in rows)
    order = [*range(context + target), *[context + target - 1] * round(STAND * fps)]
    page = _page(rows, labels, scale)
    frames = np.repeat(page[None], len(order), 0)
    for at, time in enumerate(order):
        playing = time >= context
        for cell, video, plays in _cells(rows, scale):
            number = (time - context if playing else 0) if plays else time
            picture = video[min(number, len(video) - 1)]
            frames[(at, *cell)] = _shown(picture, plays == playing, scale)
    return frames


def stills(rows: Sequence[StripRow], labels: Sequence[str], scale: int = 1) -> np.ndarray:
    """(height, width, 3) uint8: for every clip a line of context frames, and one for each target, at equal times."""
    _check(rows, labels)
    lines: list[np.ndarray] = []
    for row in rows:
        height, width = (side * scale for side in row.context.shape[1:3])
        canvas = Canvas(STILLS * (width + GAP) - GAP, len(labels) * (height + LINE + GAP))
        for line, (label, video) in enumerate(zip(labels, (row.context, *row.targets), strict=True)):
            top = line * (height + LINE + GAP)
            canvas.text(0, top, label)
            for column, number in enumerate(np.linspace(0, len(video) - 1, STILLS).round().astype(int)):
                canvas.paste(_shown(video[number], True, scale), column * (width + GAP), top + LINE)
        lines.append(canvas.pixels())
    wide = max(line.shape[1] for line in lines)
    padded = [np.pad(x, ((0, 0), (0, wide - x.shape[1]), (0, 0)), constant_values=PAPER[0]) for x in lines]
    return np.concatenate(padded)


def save_animation(frames: np.ndarray, fps: float, path: Path, most_bytes: int) -> int:
    """Write (T, H, W, 3) uint8 as a loop (.webp or .gif); returns its bytes, of the best quality that fits.

    Raises ValueError, with the size reached, when none does; nothing is written then.
    """
    from PIL import Image

    kind = FORMATS[path.suffix.lower()]
    first, *others = (Image.fromarray(frame) for frame in frames)
    part = path.with_name(f".{path.name}.part")
    try:
        for quality in QUALITIES if kind == "WEBP" else (0,):
            options = {"quality": quality, "method": 4} if kind == "WEBP" else {"optimize": True}
            first.save(
                part, format=kind, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, **options
            )
            if (size := part.stat().st_size) <= most_bytes:
                part.replace(path)
                return size
    finally:
        part.unlink(missing_ok=True)
    raise ValueError(f"{size / 2**20:.1f} MiB, at most {most_bytes / 2**20:.2g} MiB are asked for")


Cell = tuple[slice, slice]


def _cells(rows: Sequence[StripRow], scale: int) -> list[tuple[Cell, np.ndarray, bool]]:
    """Where on the page each video is, and whether it is a target."""
    cells: list[tuple[Cell, np.ndarray, bool]] = []
    top = LINE
    for row in rows:
        height, width = (side * scale for side in row.context.shape[1:3])
        for column, video in enumerate((row.context, *row.targets)):
            left = column * (width + GAP)
            cells.append(((slice(top, top + height), slice(left, left + width)), video, column > 0))
        top += height + GAP
    return cells


def _page(rows: Sequence[StripRow], labels: Sequence[str], scale: int) -> np.ndarray:
    """(height, width, 3) uint8: the labels over empty cells."""
    cells = [cell for cell, _, _ in _cells(rows, scale)]
    high, wide = (max(cell[axis].stop for cell in cells) for axis in (0, 1))
    canvas = Canvas(wide, high)
    for label, cell in zip(labels, cells, strict=False):
        canvas.text(cell[1].start, 0, label)
    return canvas.pixels()


def _shown(picture: np.ndarray, bright: bool, scale: int) -> np.ndarray:
    large = picture.repeat(scale, 0).repeat(scale, 1)
    return large if bright else (large * DIM).astype(np.uint8)


def _check(rows: Sequence[StripRow], labels: Sequence[str]) -> None:
    """Raise ValueError unless every column has its label."""
    if not rows or any(len(labels) != 1 + len(row.targets) for row in rows):
        raise ValueError(f"{len(labels)} labels for rows of {[1 + len(row.targets) for row in rows]} videos")
    if len({row.context.shape[1:] for row in rows}) != 1:
        raise ValueError(f"clips differ in size: {sorted({row.context.shape[1:3] for row in rows})}")
