"""What every drawn picture shares: colours that colour-blind readers can tell apart, heat cells, hatching, labels.

Coordinates are pixels from the top left corner. Blue means more; orange marks a choice; grey is what nobody asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hmcli.reports.contact_sheet import INK, MARGIN, PAPER, TEXT

CHOSEN = (213, 94, 0)  # vermillion of Okabe and Ito
SUBJECT = (0, 114, 178)  # their blue
FAINT = (120, 120, 120)
HATCHED, HATCH = (232, 232, 232), (165, 165, 165)
_HEAT = np.array([(247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107)], np.float64)
BAR = 120  # pixels: width of a colour bar

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside


def heat(share: float) -> Colour:
    """0 to 1 as white to dark blue, monotone in lightness."""
    place = float(np.clip(share, 0, 1)) * (len(_HEAT) - 1)
    low = min(int(place), len(_HEAT) - 2)
    red, green, blue = (_HEAT[low] + (place - low) * (_HEAT[low + 1] - _HEAT[low])).round().astype(int)
    return int(red), int(green), int(blue)


def on(colour: Colour) -> Colour:
    """Text colour that is legible on `colour`."""
    return PAPER if sum(colour) < 3 * 128 else INK


class Canvas:
    """A white picture to draw on; everything is in whole pixels."""

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(size=TEXT)

    def pixels(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        return np.asarray(self.image).copy()

    def text(self, left: int, top: int, text: str, colour: Colour = INK, *, anchor: str = "la") -> None:
        """One line of text; `anchor` as PIL has it: la left, ma middle, ra right of the point given."""
        self.draw.text((left, top), text, fill=colour, font=self.font, anchor=anchor)

    def cell(self, box: Box, colour: Colour, outline: Colour | None = None, width: int = 1) -> None:
        left, top, right, bottom = box
        self.draw.rectangle((left, top, right - 1, bottom - 1), fill=colour, outline=outline, width=width)

    def frame(self, box: Box, colour: Colour, width: int = 2) -> None:
        left, top, right, bottom = box
        self.draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)

    def hatch(self, box: Box) -> None:
        """Diagonal lines on light grey that go on from one cell to the next."""
        left, top, right, bottom = box
        y, x = np.mgrid[top:bottom, left:right]
        pattern = np.where(((x + y) % 5 == 0)[..., None], HATCH, HATCHED).astype(np.uint8)
        self.paste(pattern, left, top)

    def dot(self, box: Box, colour: Colour) -> None:
        """A small disc in the middle of a cell."""
        left, top, right, bottom = box
        radius = max(2, min(right - left, bottom - top) // 5)
        x, y = (left + right) // 2, (top + bottom) // 2
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=PAPER)

    def triangle(self, x: int, y: int, colour: Colour, *, up: bool, size: int = 5) -> None:
        """A filled triangle around a point, its tip up or down."""
        tip = -size if up else size
        self.draw.polygon([(x - size, y - tip), (x + size, y - tip), (x, y + tip)], fill=colour, outline=PAPER)

    def line(self, x0: int, y0: int, x1: int, y1: int, colour: Colour = INK, width: int = 1) -> None:
        self.draw.line((x0, y0, x1, y1), fill=colour, width=width)

    def paste(self, pixels: np.ndarray, left: int, top: int) -> None:
        from PIL import Image

        self.image.paste(Image.fromarray(pixels), (left, top))

    def colour_bar(self, left: int, top: int, low: str, high: str) -> int:
        """A bar from light to dark with the text of both ends beside it; returns where it ends."""
        self.text(left, top, low)
        start = left + self.width_of(low) + MARGIN
        for x in range(BAR):
            self.line(start + x, top + 2, start + x, top + TEXT + 1, heat(x / (BAR - 1)))
        self.text(start + BAR + MARGIN, top, high)
        return start + BAR + MARGIN + self.width_of(high)

    def width_of(self, text: str) -> int:
        return int(np.ceil(self.font.getlength(text)))


def width_of(text: str) -> int:
    """Pixels a line of text takes."""
    return Canvas(1, 1).width_of(text)


def ticks(labels: Sequence[str], step: int) -> list[int]:
    """Every n-th label, so that texts over cells of `step` pixels keep a gap between them; the first among them."""
    widest = max((width_of(label) for label in labels), default=0)
    every = max(1, -(-(widest + 6) // step))
    return list(range(0, len(labels), every))
