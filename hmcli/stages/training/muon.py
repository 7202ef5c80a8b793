"""Muon: momentum whose update is made orthogonal, for inner matrices and kernels; AdamW for everything else.

After Keller Jordan's Muon (2024), here on flattened convolution kernels too: on the same clips and for the same time a
VAE ended 2.3 dB above AdamW. Vectors, norms and the layers that read pixels or latents stay with AdamW.
torch.optim.Muon takes matrices alone and computes in bfloat16; on a matrix the two are one algorithm
(tests/stages/test_muon.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hmcli.recipe.sections import TrainConfig

MOMENTUM = 0.95
VAE_RATE = 2.0  # of a VAE's kernels: times the recipe's learning rate, which AdamW uses as it is
SMALLEST_KERNEL = 2000  # values; smaller kernels are left to AdamW
_SERIES = (3.4445, -4.7750, 2.0315)  # Newton-Schulz coefficients that bring singular values near 1 in five rounds
_ROUNDS = 5
_RMS = 0.2  # size of an update, like a typical AdamW update


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Nesterov) with decoupled weight decay; every parameter has at least two axes."""

    def __init__(self, parameters: list[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1.0 - MOMENTUM)
                update = orthogonal(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * _RMS * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values moved to about 1 (0.7 to 1.2), by a Newton-Schulz iteration."""
    a, b, c = _SERIES
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _adamw(parameters: list[nn.Parameter], train: TrainConfig) -> torch.optim.Optimizer:
    if train.optimizer == "adamw8bit":
        from hmcli.stages.training.eight_bit import adamw_8bit

        return adamw_8bit(parameters, train)
    return torch.optim.AdamW(parameters, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)


Inner = Callable[[str, nn.Parameter], bool]


def is_inner_kernel(name: str, parameter: nn.Parameter) -> bool:
    """Is this a convolution of a VAE that neither reads pixels nor is small?"""
    return parameter.ndim >= 4 and parameter.numel() >= SMALLEST_KERNEL and "conv_in" not in name


def is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Is this a matrix of a transformer's attention or feed-forward layers? Adapters are not."""
    layer = any(part in name for part in (".attn1.", ".attn2.", ".ffn.", ".projector."))
    return layer and parameter.ndim == 2 and ".lora_" not in name


def make_optimizers(
    model: nn.Module, train: TrainConfig, inner: Inner | None, rate: float = 1.0
) -> list[torch.optim.Optimizer]:
    """AdamW for what trains, and Muon for what is `inner` of it, at `rate` times the recipe's learning rate.

    A group knows its `scale` of that rate.
    """
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (kernels if inner is not None and inner(name, parameter) else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if others:
        optimizers.append(_adamw(others, train))
    if kernels:
        optimizers.append(Muon(kernels, lr=train.lr, weight_decay=train.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["scale"] = rate if isinstance(optimizer, Muon) else 1.0
    return optimizers
