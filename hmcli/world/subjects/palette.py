"""Palette: colours of clothes, skin, hair and fur, and how a family draws shades of them."""

from __future__ import annotations

import colorsys

import numpy as np

from hmcli.world.bodies import face
from hmcli.world.space.shapes import Colour, Paint

CLOTHES: dict[str, Colour] = {
    "red": (0.80, 0.14, 0.12), "orange": (0.92, 0.48, 0.10), "yellow": (0.93, 0.78, 0.16), "blue": (0.14, 0.30, 0.74),
    "teal": (0.08, 0.55, 0.55), "purple": (0.46, 0.20, 0.62), "white": (0.92, 0.91, 0.88), "pink": (0.90, 0.45, 0.60),
}  # fmt: skip
TROUSERS: dict[str, Colour] = {
    "navy": (0.12, 0.16, 0.34), "grey": (0.36, 0.37, 0.40), "brown": (0.36, 0.24, 0.15), "black": (0.10, 0.10, 0.12),
}  # fmt: skip
FUR: dict[str, Colour] = {
    "brown": (0.46, 0.28, 0.14), "black": (0.13, 0.12, 0.12), "cream": (0.86, 0.77, 0.60), "ginger": (0.74, 0.40, 0.14),
}  # fmt: skip
SKIN = ((0.91, 0.73, 0.60), (0.80, 0.58, 0.43), (0.62, 0.41, 0.28), (0.42, 0.27, 0.19))
HAIR = ((0.10, 0.08, 0.07), (0.26, 0.16, 0.09), (0.52, 0.34, 0.16), (0.70, 0.56, 0.30), (0.42, 0.41, 0.40))

BLACK, WHITE, CREAM = (0.10, 0.10, 0.11), (0.94, 0.93, 0.90), (0.90, 0.84, 0.70)
GOLD, STEEL, WOOD = (0.93, 0.72, 0.20), (0.66, 0.69, 0.74), (0.48, 0.31, 0.17)


class Shades:
    """Draws shades of given colours: the same colour to the eye, never twice the same number."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def near(self, colour: Colour) -> Colour:
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        saturation, value = saturation * self.rng.uniform(0.85, 1.15), value * self.rng.uniform(0.88, 1.1)
        hue = (hue + self.rng.uniform(-0.015, 0.015)) % 1.0
        return colorsys.hsv_to_rgb(float(hue), float(min(saturation, 1.0)), float(min(value, 1.0)))

    def plain(self, colour: Colour) -> Paint:
        return Paint(colour=self.near(colour))

    def mixed(self, pattern: str, colour: Colour, second: Colour, scale: float) -> Paint:
        """A pattern of two colours, its period within a tenth of `scale` metres."""
        period = scale * self.rng.uniform(0.9, 1.1)
        return Paint(colour=self.near(colour), second=self.near(second), pattern=pattern, scale=float(period))

    def pick(self, table: dict[str, Colour], but: str = "") -> tuple[str, Colour]:
        """A name of the table, other than `but`, and a shade of its colour."""
        name = str(self.rng.choice([name for name in table if name != but]))
        return name, self.near(table[name])

    def skin(self) -> Colour:
        return self.near(SKIN[self.rng.integers(len(SKIN))])

    def hair(self) -> Colour:
        return self.near(HAIR[self.rng.integers(len(HAIR))])

    def head(self, skin: Colour, hair: Colour) -> Paint:
        return face(skin, hair)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def a(word: str) -> str:
    """The word with its article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
