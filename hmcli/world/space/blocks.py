"""Blocks: a figure as upright boxes, one that holds all of it and one that its largest part fills."""

from __future__ import annotations

from dataclasses import dataclass

from hmcli.world.space.extent import reach_along
from hmcli.world.space.shapes import BOX, CONE, CYLINDER, ELLIPSOID, ROUND_CONE, Shapes

FILLS = {
    BOX: 0.8,
    ELLIPSOID: 0.68,
    ROUND_CONE: 0.75,
    CYLINDER: 0.8,
    CONE: 0.45,
}  # of its box, what a shape fills


@dataclass(frozen=True, kw_only=True)
class Block:
    """An upright box in a figure's own frame: half its length and half its width, from `low` to `high`, metres."""

    length: float
    width: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """`whole` holds the figure in every frame, `core` is filled by its largest part, about where that mostly is."""

    whole: Block
    core: Block


def blocks_of(figure: Shapes) -> Blocks:
    """The blocks of a figure in its own frame (x forward, y left) over some frames."""
    ahead, behind = reach_along(figure, (1.0, 0.0, 0.0)), reach_along(figure, (-1.0, 0.0, 0.0))
    left, right = reach_along(figure, (0.0, 1.0, 0.0)), reach_along(figure, (0.0, -1.0, 0.0))
    top, bottom = reach_along(figure, (0.0, 0.0, 1.0)), -reach_along(figure, (0.0, 0.0, -1.0))
    whole = Block(
        length=float(max(ahead.max(), behind.max())), width=float(max(left.max(), right.max())), low=0.0,
        high=float(top.max()),
    )  # fmt: skip
    part = int(((ahead + behind) * (top - bottom)).mean(0).argmax())
    fills = FILLS[int(figure.kind[part])] / 2
    middle, tall = (top + bottom)[:, part].mean() / 2, fills * (top - bottom)[:, part].mean()
    core = Block(
        length=float(fills * (ahead + behind)[:, part].mean()), width=float(fills * (left + right)[:, part].mean()),
        low=float(middle - tall), high=float(middle + tall),
    )  # fmt: skip
    return Blocks(whole=whole, core=core)
