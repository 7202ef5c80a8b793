"""What `train.optimizer: adamw8bit` keeps and takes while it updates, without its package."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hmcli.stages.training.eight_bit import BLOCK, is_packed


class CountedEightBit(torch.optim.Optimizer):
    """Keeps tensors of the sizes that hmcli.stages.training.eight_bit does; its updates train nothing."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state |= {name: _moment(parameter) for name in ("exp_avg", "exp_avg_sq")}
            first, second = (torch.zeros_like(parameter).lerp(parameter.grad, 0.1) for _ in range(2))
            parameter.copy_(parameter - first / (second.sqrt() + 1.0))


def _moment(parameter: nn.Parameter) -> list[torch.Tensor]:
    """Codes, a scale for each block, and the table; or the moment itself."""
    if not is_packed(parameter):
        return [torch.zeros_like(parameter)]
    scales = parameter.detach().flatten()[: parameter.numel() // BLOCK]
    return [
        torch.zeros_like(parameter, dtype=torch.uint8), torch.zeros_like(scales),
        parameter.new_zeros(BLOCK),
    ]  # fmt: skip
