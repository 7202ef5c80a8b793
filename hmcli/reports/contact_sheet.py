"""Contact sheets: videos side by side as rows of evenly spaced frames, for a person to look at.

A row is a label and a video, uint8 (T, H, W, 3) RGB. No frame is shown twice: a video shorter than the sheet is wide
fills fewer cells. Every cell names the frame it shows.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    return lay_out([cut_strip(label, video, columns, cell_width=cell_width) for label, video in rows])


@dataclass(frozen=True)
class Strip:
    """A row of a sheet: its label, the frames that it shows, by number, and their cells, uint8 (N, H, W, 3)."""

    label: str
    frames: tuple[int, ...]
    cells: np.ndarray


def cut_strip(
    label: str, video: np.ndarray, columns: int = 8, *, cell_width: int = 224, numbers: Sequence[int] = ()
) -> Strip:
    """What a sheet shows of a video, or of frames that were chosen of one (`spaced_frames`): then their `numbers`."""
    from PIL import Image

    if numbers and len(numbers) != len(video):
        raise ValueError(f"row {label!r} has {len(video)} frames for {len(numbers)} numbers")
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise ValueError(f"row {label!r} must be (T, H, W, 3) uint8 and not empty, got {video.shape} {video.dtype}")
    height, width = video.shape[1:3]
    size = (cell_width, max(1, round(height * cell_width / width))) if width > cell_width else (width, height)
    shown = range(len(video)) if numbers else spaced_frames(len(video), columns)
    frames = tuple(numbers) or tuple(shown)
    images = (Image.fromarray(video[index]) for index in shown)
    cells = [image if image.size == size else image.resize(size, Image.Resampling.LANCZOS) for image in images]
    return Strip(label, frames, np.stack([np.asarray(cell) for cell in cells]))


def lay_out(strips: Sequence[Strip]) -> np.ndarray:
    """The sheet, uint8 (H, W, 3), of its strips from top to bottom."""
    from PIL import Image, ImageDraw, ImageFont

    if not strips:
        raise ValueError("a contact sheet needs at least one row")
    wide = max(len(strip.frames) * (strip.cells.shape[2] + MARGIN) for strip in strips) + MARGIN
    high = sum(2 * LINE + strip.cells.shape[1] + 2 * MARGIN for strip in strips)
    sheet = Image.new("RGB", (wide, high), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=TEXT)
    top = 0
    for strip in strips:
        draw.text((MARGIN, top + 2), _fitted(strip.label, wide - 2 * MARGIN, font), fill=INK, font=font)
        left, (height, width) = MARGIN, strip.cells.shape[1:3]
        for index, cell in zip(strip.frames, strip.cells, strict=True):
            sheet.paste(Image.fromarray(cell), (left, top + LINE))
            draw.text((left, top + LINE + height + 1), str(index), fill=INK, font=font)
            left += width + MARGIN
        top += 2 * LINE + height + 2 * MARGIN
    return np.asarray(sheet).copy()


def save_strips(strips: Mapping[str, Sequence[Strip]], path: Path) -> None:
    """Keep strips by name (of a clip), so that a sheet can be laid out of several files; equal strips, equal bytes."""
    flat = [(name, strip) for name, of in strips.items() for strip in of]
    arrays: dict[str, Any] = {f"cells {number}": strip.cells for number, (_, strip) in enumerate(flat)}
    said = [[name, strip.label, strip.frames] for name, strip in flat]
    with path.open("wb") as file:
        np.savez_compressed(file, said=np.array(json.dumps(said)), **arrays)


def load_strips(data: bytes) -> dict[str, list[Strip]]:
    """What `save_strips` wrote, in its order. Raises ValueError for anything else."""
    strips: dict[str, list[Strip]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for number, (name, label, frames) in enumerate(json.loads(str(arrays["said"]))):
                cells = arrays[f"cells {number}"]
                if cells.ndim != 4 or cells.shape[-1] != 3 or cells.dtype != np.uint8 or len(cells) != len(frames):
                    raise ValueError(f"row {label!r} has cells {cells.shape} {cells.dtype} for {len(frames)} frames")
                strips.setdefault(name, []).append(Strip(label, tuple(frames), cells))
    except (KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"these are no rows of a contact sheet: {error}") from error
    return strips


def save_png(image: np.ndarray, path: Path) -> None:
    """Write a uint8 (H, W, 3) image as PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format="PNG")


def _fitted(label: str, width: int, font: Any) -> str:
    """The label on one line of at most `width` pixels, shortened with dots."""
    text = " ".join(label.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
