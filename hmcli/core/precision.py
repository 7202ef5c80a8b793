"""In which type what is computed, where that is not the type given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def computed(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type in which attention of `dtype` is computed, unless a kernel is asked for by name.

    Products of matrices gain by narrow types where a CPU has them; the kernels of attention lose by them there, most
    of all in their backward pass.
    """
    return torch.float32 if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) else dtype


def wide_on_cpu(attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`attention(query, ...)`, computed in the type that `computed` names; the answer is in the query's.

    A kernel asked for by name (`backend`) is given what there is.
    """

    @functools.wraps(attention)
    def widened(query: Tensor, *rest: Any, backend: str = "auto") -> Tensor:
        if backend != "auto" or computed(query.device, query.dtype) == query.dtype:
            return attention(query, *rest, backend=backend)
        wide = [part.float() if isinstance(part, Tensor) and part.is_floating_point() else part for part in rest]
        with without_autocast(query.device):
            return attention(query.float(), *wide, backend=backend).to(query.dtype)

    return widened


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """In here operations compute in the type of what they are given, also where training runs under autocast."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
