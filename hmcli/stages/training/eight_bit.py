"""AdamW with moments of 8 bits (`train.optimizer: adamw8bit`), by torchao: a quarter of their memory.

A moment is kept as codes of a table of 256 numbers, in blocks of 256 values that share a scale (Dettmers et al.,
arXiv:2110.02861); those of parameters below 4096 values, or of no whole blocks, stay float32. Updates are computed in
float32.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from hmcli.errors import MissingPartError
from hmcli.recipe.sections import TrainConfig

BLOCK, SMALLEST = 256, 4096  # values
_PACKED = {"exp_avg": True, "exp_avg_sq": False}  # moments, and whether they have a sign
_CODES, _SCALE = "codes", "scale"


def check_package() -> None:
    """Raise MissingPartError unless torchao is installed."""
    if importlib.util.find_spec("torchao") is None:
        raise MissingPartError(
            "train.optimizer=adamw8bit needs the package torchao", where={"recipe": "train.optimizer"},
            fix="pip install 'hmcli[8bit]', or set train.optimizer=adamw",
        )  # fmt: skip


def is_packed(parameter: Tensor) -> bool:
    """Are the moments of this parameter kept in 8 bits?"""
    return parameter.numel() >= SMALLEST and parameter.numel() % BLOCK == 0


def adamw_8bit(parameters: list[nn.Parameter], train: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer; raises MissingPartError without its package."""
    check_package()
    made: torch.optim.Optimizer = _kind()(parameters, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)
    return made


@cache
def _kind() -> Any:
    """torchao's class, with learning rates as numbers and a state of plain tensors, as those of torch have."""
    with _quiet():
        from torchao.optim import AdamW8bit as Theirs
        from torchao.optim.subclass_8bit import OptimState8bit

    class AdamW8bit(Theirs):
        """torchao's AdamW8bit. On a CPU it is not compiled: that would take minutes for every new shape."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._as_numbers()

        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                group["lr"] = torch.tensor(group["lr"], dtype=torch.float32)
            on_cpu = all(p.device.type == "cpu" for group in self.param_groups for p in group["params"])
            with torch.compiler.set_stance("force_eager") if on_cpu else nullcontext():
                found = super().step(closure)
            self._as_numbers()
            return found

        def _as_numbers(self) -> None:
            for group in self.param_groups:
                group["lr"] = float(group["lr"])

        def state_dict(self) -> dict[str, Any]:
            held = super().state_dict()
            return {**held, "state": {number: _unpacked(parts) for number, parts in held["state"].items()}}

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
            packed = {number: _packed(parts, OptimState8bit) for number, parts in state_dict["state"].items()}
            super().load_state_dict({**state_dict, "state": packed})
            self._as_numbers()

    return AdamW8bit


def _unpacked(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Moments in 8 bits as the tensors they are made of, which safetensors can hold."""
    found: dict[str, Any] = {}
    for name, value in parts.items():
        if name in _PACKED and hasattr(value, _CODES):
            found |= {f"{name}_{_CODES}": value.codes, f"{name}_{_SCALE}": value.scale}
        else:
            found[name] = value
    return found


def _packed(parts: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The other way round; the table of numbers is always the same."""
    found = dict(parts)
    for name, signed in _PACKED.items():
        if (codes := found.pop(f"{name}_{_CODES}", None)) is not None:
            found[name] = kind.zeros(codes.shape, signed, BLOCK, codes.device, dtype=torch.float32)
            found[name].codes.copy_(codes)
            found[name].scale.copy_(found.pop(f"{name}_{_SCALE}"))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """torchao's import speaks of kernels for other devices."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
