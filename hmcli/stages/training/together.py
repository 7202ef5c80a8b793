"""The loss of a piece of a batch as a module, so that torch can exchange its gradients, or divide its weights.

`train.parallel=ddp`: every rank holds the model (DistributedDataParallel). `fsdp`: every rank holds a share of every
weight, gradient, moment and average (FSDP2, a block at a time); a block's weights are whole only while it computes.

accelerate is left out here on purpose: it takes precision, device and world size from the environment.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.runtime import pick_dtype
from hmcli.stages.training.objective import Question, errors_of, loss_of

if TYPE_CHECKING:
    from hmcli.core.transformer import HydraTransformer3DModel
    from hmcli.stages.training.ranks import Ranks
    from hmcli.stages.training.trainer import Prepared


class Objective(torch.nn.Module):
    """Prepared -> the mean loss of its samples; with a question of its own, the error of each (see errors_of)."""

    def __init__(self, model: HydraTransformer3DModel, recipe: Recipe, device: str) -> None:
        super().__init__()
        self.model, self.recipe, self.device = model, recipe, device

    def forward(
        self, prepared: Prepared, asked: Question | None = None, where: torch.Tensor | None = None
    ) -> torch.Tensor:
        batch, retrieval = prepared.batch, prepared.retrieval
        with autocast(self.device, self.recipe.train):
            if asked is not None:
                return errors_of(self.model, batch, asked, device=self.device, retrieval=retrieval, where=where)
            flow = self.recipe.flow
            return loss_of(self.model, batch, prepared.question, flow, device=self.device, retrieval=retrieval)


def autocast(device: str, train: TrainConfig) -> AbstractContextManager[Any]:
    """Compute in `train.dtype`; weights stay float32."""
    if train.dtype == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=pick_dtype(train.dtype))


def together(objective: Objective, ranks: Ranks, device: str) -> torch.nn.Module:
    """The objective whose backward pass leaves the mean of all ranks' gradients at every parameter.

    With fsdp the parameters are replaced by shares of theirs: optimizers are made afterwards.
    """
    if ranks.count == 1:
        return objective
    if objective.recipe.train.parallel == "fsdp":
        return _sharded(objective, ranks.count, device)
    from hmcli.core.retrieval import SLOTS
    from hmcli.stages.memory.policy_inputs import needs_of_policy

    ids = None if device == "cpu" else [torch.device(device).index or 0]
    some_rest = SLOTS not in needs_of_policy(objective.recipe.model.memory.policy)  # then no tokenizer has a gradient
    return DistributedDataParallel(objective, device_ids=ids, find_unused_parameters=some_rest)


def _sharded(objective: Objective, ranks: int, device: str) -> torch.nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
    from torch.utils import _pytree

    from hmcli.core.memory import BlockMemory, Held

    for kind in (BlockMemory, Held):  # else gradients that reach a block through its memory go unseen
        if kind not in _pytree.SUPPORTED_NODES:
            _pytree.register_dataclass(kind)
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing changes one in place
    mesh = init_device_mesh(torch.device(device).type, (ranks,))
    offloads = objective.recipe.train.offload
    where = CPUOffloadPolicy(pin_memory=device != "cpu") if offloads else OffloadPolicy()
    blocks: Any = objective.model.blocks
    for block in blocks:
        fully_shard(block, mesh=mesh, offload_policy=where)
    fully_shard(
        objective, mesh=mesh, reshard_after_forward=True, offload_policy=where
    )  # also where no backward pass follows
    return objective


@contextmanager
def unsynchronised(objective: torch.nn.Module) -> Iterator[None]:
    """Add up gradients on this rank, without exchange."""
    if isinstance(objective, DistributedDataParallel):
        with objective.no_sync():
            yield
    elif isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(False)
        yield
        objective.set_requires_gradient_sync(True)
    else:
        yield
