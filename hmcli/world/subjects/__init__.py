"""Subjects: families of figures. Every draw of a family has its own proportions and colours.

A family gives a figure and the words a caption uses for it; `SUBJECTS` lists those of this package by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hmcli import registry
from hmcli.world.bodies import Figure, Person, posed
from hmcli.world.space import extent
from hmcli.world.space.blocks import Blocks, blocks_of
from hmcli.world.space.shapes import Shapes
from hmcli.world.subjects.palette import Shades

__all__ = ["SUBJECTS", "Family", "Subject", "subject_family"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One drawn member of a family."""

    family: str
    figure: Figure
    speed: float  # metres per second
    words: str  # "a hiker in a red jacket ..."

    @property
    def kind(self) -> Literal["person", "animal"]:
        return "person" if isinstance(self.figure, Person) else "animal"

    @property
    def plain(self) -> str:
        """Words without colours and names."""
        return "a person" if self.kind == "person" else "an animal"

    @cached_property
    def stride(self) -> Shapes:
        """Its shapes in its own frame at twelve phases of a stride."""
        return posed(self.figure, np.arange(12) / 12, owner=0)

    @cached_property
    def tall(self) -> float:
        """Height of the whole figure, metres."""
        return extent.top(self.stride)

    @cached_property
    def radius(self) -> float:
        """Of the circle on the ground, about the subject's position, that holds the whole body, metres."""
        return extent.ground_radius(self.stride)

    @cached_property
    def body_length(self) -> float:
        """Longest extent of the body: a person's height, an animal's length or, if larger, height; metres."""
        return self.tall if self.kind == "person" else max(self.tall, extent.length(self.stride))

    @cached_property
    def blocks(self) -> Blocks:
        """Upright boxes that hold the figure, and that it fills."""
        return blocks_of(self.stride)


Family = Callable[[np.random.Generator], Subject]


def subject_family(name: str) -> Family:
    """The family of this name, of this or another package: a function (Shades) -> Look that is given its name."""
    draw = registry.find("subject", name)

    def family(rng: np.random.Generator) -> Subject:
        figure, speed, words = draw(Shades(rng))
        return Subject(family=name, figure=figure, speed=speed, words=words)

    return family


SUBJECTS: dict[str, Family] = {  # others are drawn only when a recipe names them
    name: subject_family(name) for name in (key.replace("-", "_") for key in registry.BUILT_IN["subject"])
}
