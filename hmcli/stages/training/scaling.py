"""The factor on a loss whose gradients would vanish in float16: halved where they overflow, doubled after a calm time.

As torch's GradScaler, with its numbers. But the norm of all gradients decides, which every rank knows alike, also where
each holds a share of them, and a factor that falls below 1 is an error: gradients overflow there without its help.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hmcli.errors import NotFiniteError
from hmcli.recipe.sections import TrainConfig

if TYPE_CHECKING:
    import torch

START = 2.0**16
PATIENCE = 2000  # steps without overflow, after which the factor doubles


@dataclass(kw_only=True)
class LossScale:
    """The factor now, a power of two, so that dividing by it changes no digit."""

    factor: float
    calm: int = 0  # steps since it last changed
    skipped: int = 0  # steps that changed no weight, since the start of the run

    def take_off(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make gradients of the scaled loss those of the loss."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(self.factor)

    def settle(self, norm: float) -> bool:
        """Is the norm of a step's gradients finite, so that the step is taken? Choose the factor of the next one.

        Raises NotFiniteError where it is not, and was not with smaller factors either.
        """
        finite = math.isfinite(norm)
        if finite:
            self.calm += 1
            if self.calm == PATIENCE:
                self.factor, self.calm = 2 * self.factor, 0
        elif self.factor <= 1:
            raise NotFiniteError(f"the gradient's norm is {norm} in float16, however small the loss is made")
        else:
            self.factor, self.calm, self.skipped = self.factor / 2, 0, self.skipped + 1
        return finite


def loss_scale(train: TrainConfig) -> LossScale | None:
    """At the start of a run; None where no gradient vanishes."""
    return LossScale(factor=START) if train.dtype == "float16" else None
