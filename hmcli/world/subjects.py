"""Subjects: families of figures. Every draw of a family has its own proportions and colours.

A family gives a figure and the words a caption uses for it; `SUBJECTS` lists them by name.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hmcli.world.bodies import Figure, Person, Quadruped, face
from hmcli.world.shapes import Colour, Paint


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One drawn member of a family."""

    family: str
    figure: Figure
    speed: float  # metres per second
    words: str  # "a hiker in a red jacket ..."

    @property
    def tall(self) -> float:
        """Height of the whole figure, metres."""
        if isinstance(self.figure, Person):
            return self.figure.height * (1.08 if self.figure.hat else 0.98)
        who = self.figure
        head = 0.96 + who.neck * float(np.sin(who.neck_slope)) + who.head
        return who.height * (head + max(0.45 * who.antlers, who.ear))


CLOTHES: dict[str, Colour] = {
    "red": (0.80, 0.14, 0.12), "orange": (0.92, 0.48, 0.10), "yellow": (0.93, 0.78, 0.16), "blue": (0.14, 0.30, 0.74),
    "teal": (0.08, 0.55, 0.55), "purple": (0.46, 0.20, 0.62), "white": (0.92, 0.91, 0.88), "pink": (0.90, 0.45, 0.60),
}  # fmt: skip
TROUSERS: dict[str, Colour] = {
    "navy": (0.12, 0.16, 0.34), "grey": (0.36, 0.37, 0.40), "brown": (0.36, 0.24, 0.15), "black": (0.10, 0.10, 0.12),
}  # fmt: skip
SKIN = ((0.91, 0.73, 0.60), (0.80, 0.58, 0.43), (0.62, 0.41, 0.28), (0.42, 0.27, 0.19))
HAIR = ((0.10, 0.08, 0.07), (0.26, 0.16, 0.09), (0.52, 0.34, 0.16), (0.70, 0.56, 0.30), (0.42, 0.41, 0.40))
FUR: dict[str, Colour] = {
    "brown": (0.46, 0.28, 0.14), "black": (0.13, 0.12, 0.12), "cream": (0.86, 0.77, 0.60), "ginger": (0.74, 0.40, 0.14),
}  # fmt: skip


def _near(colour: Colour, rng: np.random.Generator) -> Colour:
    """The same colour to the eye, never twice the same number."""
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    hue, saturation, value = np.clip(
        [hue % 1.0, saturation * rng.uniform(0.85, 1.15), value * rng.uniform(0.88, 1.1)], 0, 1
    )
    return colorsys.hsv_to_rgb(float((hue + rng.uniform(-0.015, 0.015)) % 1.0), float(saturation), float(value))


def _pick(table: dict[str, Colour], rng: np.random.Generator, but: str = "") -> tuple[str, Colour]:
    name = str(rng.choice([name for name in table if name != but]))
    return name, _near(table[name], rng)


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _face(rng: np.random.Generator) -> tuple[Colour, Paint]:
    skin = _near(SKIN[rng.integers(len(SKIN))], rng)
    return skin, face(skin, _near(HAIR[rng.integers(len(HAIR))], rng))


def walker(rng: np.random.Generator) -> Subject:
    """A person in a striped shirt and trousers."""
    (shirt, colour), (trousers, legs), (skin, head) = _pick(CLOTHES, rng, "white"), _pick(TROUSERS, rng), _face(rng)
    stripes = Paint(colour=colour, second=(0.94, 0.93, 0.90), pattern="stripes", scale=rng.uniform(0.13, 0.17))
    figure = Person(
        height=rng.uniform(1.62, 1.85), build=rng.uniform(0.95, 1.15), head=rng.uniform(1.1, 1.25),
        top=stripes, bottom=Paint(colour=legs), skin=Paint(colour=skin), hair=head, sleeve=Paint(colour=skin),
        shoes=Paint(colour=(0.88, 0.88, 0.86)), hat=None, pack=None, skirt=0.0,
    )  # fmt: skip
    words = f"a person in {_a(shirt)} striped shirt and {trousers} trousers"
    return Subject(family="walker", figure=figure, speed=rng.uniform(1.0, 1.35), words=words)


def hiker(rng: np.random.Generator) -> Subject:
    """A person in a long plain coat with a wide hat and a backpack."""
    coat, colour = _pick(CLOTHES, rng)
    (pack, bag), (skin, head) = _pick(CLOTHES, rng, coat), _face(rng)
    figure = Person(
        height=rng.uniform(1.60, 1.85), build=rng.uniform(1.02, 1.2), head=rng.uniform(1.1, 1.25),
        top=Paint(colour=colour), bottom=Paint(colour=_pick(TROUSERS, rng)[1]), skin=Paint(colour=skin), hair=head,
        sleeve=Paint(colour=colour), shoes=Paint(colour=(0.22, 0.15, 0.10)),
        hat=Paint(colour=_near((0.80, 0.66, 0.36), rng)), pack=Paint(colour=bag), skirt=rng.uniform(0.12, 0.17),
    )  # fmt: skip
    words = f"a hiker in {_a(coat)} coat and a straw hat with {_a(pack)} backpack"
    return Subject(family="hiker", figure=figure, speed=rng.uniform(0.9, 1.25), words=words)


def dog(rng: np.random.Generator) -> Subject:
    """A large dog with a raised tail, often in two colours."""
    fur, colour = _pick(FUR, rng)
    other = _near((0.93, 0.90, 0.84) if fur != "cream" else (0.50, 0.32, 0.18), rng)
    coat = Paint(colour=colour, second=other, pattern="spots", scale=rng.uniform(0.22, 0.34))
    figure = Quadruped(
        height=rng.uniform(0.66, 0.84), length=rng.uniform(0.88, 1.05), girth=rng.uniform(0.19, 0.225),
        neck=rng.uniform(0.22, 0.30), neck_slope=rng.uniform(0.75, 1.0), head=rng.uniform(0.165, 0.19),
        snout=rng.uniform(0.12, 0.18), ear=rng.uniform(0.12, 0.18), tail=rng.uniform(0.42, 0.55),
        tail_slope=rng.uniform(0.7, 1.1), tail_radius=0.055, antlers=0.0,
        coat=coat, legs=Paint(colour=other), muzzle=Paint(colour=other), dark=Paint(colour=(0.12, 0.09, 0.08)),
    )  # fmt: skip
    return Subject(family="dog", figure=figure, speed=rng.uniform(0.8, 1.15), words=f"a {fur} spotted dog")


def deer(rng: np.random.Generator) -> Subject:
    """A deer with a long neck, antlers and a short tail."""
    colour = _near(((0.60, 0.36, 0.18), (0.46, 0.30, 0.18), (0.70, 0.50, 0.30))[rng.integers(3)], rng)
    figure = Quadruped(
        height=rng.uniform(1.05, 1.3), length=rng.uniform(0.78, 0.9), girth=rng.uniform(0.155, 0.185),
        neck=rng.uniform(0.36, 0.45), neck_slope=rng.uniform(0.95, 1.2), head=rng.uniform(0.10, 0.12),
        snout=rng.uniform(0.12, 0.16), ear=rng.uniform(0.10, 0.14), tail=0.14, tail_slope=rng.uniform(-0.6, 0.2),
        tail_radius=0.05, antlers=rng.uniform(0.8, 1.15), coat=Paint(colour=colour),
        legs=Paint(colour=_near((0.26, 0.17, 0.11), rng)), muzzle=Paint(colour=_near((0.90, 0.84, 0.74), rng)),
        dark=Paint(colour=(0.16, 0.11, 0.08)), stride=1.1,
    )  # fmt: skip
    return Subject(family="deer", figure=figure, speed=rng.uniform(0.95, 1.4), words="a deer with antlers")


Family = Callable[[np.random.Generator], Subject]
SUBJECTS: dict[str, Family] = {"walker": walker, "dog": dog, "hiker": hiker, "deer": deer}
