"""The loss of a piece of a batch as a module, so that torch's DistributedDataParallel can exchange its gradients.

accelerate is left out here on purpose: it takes precision, device and world size from the environment.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.runtime import pick_dtype
from hmcli.stages.training.objective import loss_of

if TYPE_CHECKING:
    from hmcli.core.transformer import HydraTransformer3DModel
    from hmcli.stages.training.ranks import Ranks
    from hmcli.stages.training.trainer import Prepared


class Objective(torch.nn.Module):
    """Prepared -> the mean loss of its samples."""

    def __init__(self, model: HydraTransformer3DModel, recipe: Recipe, device: str) -> None:
        super().__init__()
        self.model, self.recipe, self.device = model, recipe, device

    def forward(self, prepared: Prepared) -> torch.Tensor:
        with autocast(self.device, self.recipe.train):
            return loss_of(
                self.model, prepared.batch, prepared.question, self.recipe.flow, device=self.device,
                retrieval=prepared.retrieval,
            )  # fmt: skip


def autocast(device: str, train: TrainConfig) -> AbstractContextManager[Any]:
    """Compute in `train.dtype`; weights stay float32."""
    if train.dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=pick_dtype(train.dtype))


def together(objective: Objective, ranks: Ranks, device: str) -> torch.nn.Module:
    """The objective whose backward pass leaves the mean of all ranks' gradients at every parameter."""
    if ranks.count == 1:
        return objective
    from hmcli.core.retrieval import SLOTS
    from hmcli.stages.memory.policy_inputs import needs_of_policy

    ids = None if device == "cpu" else [torch.device(device).index or 0]
    some_rest = SLOTS not in needs_of_policy(objective.recipe.model.memory.policy)  # then no tokenizer has a gradient
    return DistributedDataParallel(objective, device_ids=ids, find_unused_parameters=some_rest)


def unsynchronised(objective: torch.nn.Module) -> AbstractContextManager[Any]:
    """Add up gradients on this rank, without exchange."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else nullcontext()
