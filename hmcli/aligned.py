"""Numbers from disk in memory of their own: what was loaded computes, to the last bit, as what was in memory.

A tensor mapped from a file starts where the file's header happens to end, a numpy array where malloc puts it. At such
addresses some CPUs' kernels take another path and round the last bit another way, so a result would hang on the length
of a header. torch's own allocations start at multiples of 64 bytes, the widest a CPU reads at once; whatever a model
computes with is copied there once. What only passes from file to file (`hm convert`) stays in the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

ALIGNMENT = 64  # bytes


def own(tensor: Tensor) -> Tensor:
    """The same numbers, contiguous, in memory that torch allocated for them alone."""
    import torch

    return tensor.detach().clone(memory_format=torch.contiguous_format)


def tensor_of(array: np.ndarray) -> Tensor:
    """The same numbers as a tensor on the CPU; never shares the array's memory."""
    import torch

    return torch.tensor(np.asarray(array, order="C"))


def own_weights(module: nn.Module, part: str = "") -> None:
    """Move each parameter and buffer on the CPU whose name contains `part` into memory of its own, one at a time."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if part in name and tensor.device.type == "cpu":
            tensor.data = own(tensor.data)
