"""Numbers that enter or leave an artifact are finite: what is not a number, or infinite, is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hmcli.errors import NotFiniteError
from hmcli.store.names import listed

if TYPE_CHECKING:
    from torch import Tensor


def require_finite_weights(weights: Mapping[str, Tensor], *, where: Mapping[str, object] | None = None) -> None:
    """Raise NotFiniteError listing the tensors that hold NaN or infinity. Reads each once and copies none."""
    if wrong := [name for name, tensor in weights.items() if not _is_finite(tensor)]:
        raise NotFiniteError(
            f"{len(wrong)} of {len(weights)} weights are not finite", where={**(where or {}), "weights": listed(wrong)}
        )


def _is_finite(tensor: Tensor) -> bool:
    import torch

    if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()  # no kernel compares 8-bit floats
    return all(bool(end.isfinite()) for end in torch.aminmax(tensor.detach()))  # NaN is carried into both ends
