"""Contact sheets: videos side by side as rows of evenly spaced frames, for a person to look at.

A row is a label and a video, uint8 (T, H, W, 3) RGB. No frame is shown twice: a video shorter than the sheet is wide
fills fewer cells. Every cell names the frame it shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MARGIN = 4  # pixels around every cell
TEXT = 12  # pixels: font size
LINE = TEXT + 4  # pixels: height of a line of text
PAPER, INK = (255, 255, 255), (20, 20, 20)


def spaced_frames(frames: int, columns: int) -> list[int]:
    """At most `columns` different frame numbers, evenly spaced, the first and the last among them."""
    if frames < 1 or columns < 1:
        raise ValueError(f"a contact sheet needs at least one frame and one column, got {frames} and {columns}")
    return [int(index) for index in np.linspace(0, frames - 1, min(frames, columns)).round()]


def contact_sheet(rows: list[tuple[str, np.ndarray]], columns: int = 8, *, cell_width: int = 224) -> np.ndarray:
    """One uint8 image (H, W, 3): a labelled strip per row, frames wider than `cell_width` pixels scaled down to it."""
    from PIL import Image, ImageDraw, ImageFont

    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    strips = [(label, _cells(label, video, columns, cell_width)) for label, video in rows]
    wide = max(sum(cell.width + MARGIN for _, cell in cells) for _, cells in strips) + MARGIN
    high = sum(2 * LINE + cells[0][1].height + 2 * MARGIN for _, cells in strips)
    sheet = Image.new("RGB", (wide, high), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=TEXT)
    top = 0
    for label, cells in strips:
        draw.text((MARGIN, top + 2), _fitted(label, wide - 2 * MARGIN, font), fill=INK, font=font)
        left, height = MARGIN, cells[0][1].height
        for index, cell in cells:
            sheet.paste(cell, (left, top + LINE))
            draw.text((left, top + LINE + height + 1), str(index), fill=INK, font=font)
            left += cell.width + MARGIN
        top += 2 * LINE + height + 2 * MARGIN
    return np.asarray(sheet).copy()


def save_png(image: np.ndarray, path: Path) -> None:
    """Write a uint8 (H, W, 3) image as PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format="PNG")


def _cells(label: str, video: np.ndarray, columns: int, cell_width: int) -> list[tuple[int, Any]]:
    """(frame number, PIL image) of the frames that a row shows."""
    from PIL import Image

    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise ValueError(f"row {label!r} must be (T, H, W, 3) uint8 and not empty, got {video.shape} {video.dtype}")
    height, width = video.shape[1:3]
    size = (cell_width, max(1, round(height * cell_width / width))) if width > cell_width else (width, height)
    images = ((index, Image.fromarray(video[index])) for index in spaced_frames(len(video), columns))
    return [(i, image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)) for i, image in images]


def _fitted(label: str, width: int, font: Any) -> str:
    """The label on one line of at most `width` pixels, shortened with dots."""
    text = " ".join(label.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
