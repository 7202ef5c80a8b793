"""Numbers that enter or leave an artifact are finite: what is not a number, or infinite, is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from hmcli.errors import NotFiniteError
from hmcli.store.names import listed

if TYPE_CHECKING:
    from torch import Tensor


_BFLOAT16_EXPONENT = np.uint16(0x7F80)  # all ones in NaN and infinity
_FLOAT16_EXPONENT = np.uint16(0x7C00)  # as well; numpy's isfinite takes three times as long


def require_finite(
    arrays: Mapping[str, np.ndarray], *, where: Mapping[str, object], undefined: Collection[str] = (),
    bfloat16: Collection[str] = (),
) -> None:  # fmt: skip
    """Raise NotFiniteError for the first array that holds NaN or infinity.

    NaN means something in those named by `undefined` (the box of a subject that is not seen), infinity in none.
    `bfloat16` names those that are the bits of such numbers, as uint16.
    """
    for name, values in arrays.items():
        if name in bfloat16 and values.dtype == np.uint16:
            wrong = (values & _BFLOAT16_EXPONENT) == _BFLOAT16_EXPONENT
        elif values.dtype == np.float16 and name not in undefined:
            wrong = (values.view(np.uint16) & _FLOAT16_EXPONENT) == _FLOAT16_EXPONENT
        elif values.dtype.kind == "f":
            wrong = np.isinf(values) if name in undefined else ~np.isfinite(values)
        else:
            continue
        if wrong.any():
            raise NotFiniteError(f"{name}: {int(wrong.sum())} of {values.size} numbers are not finite", where=where)


def narrowed(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """The values in a narrower dtype. Raises NotFiniteError for those that are beyond it."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if np.isfinite(values).all() and not np.isfinite(narrow).all():
        raise NotFiniteError(f"{name} reaches {np.abs(values).max():.4g}, {dtype} ends at {np.finfo(dtype).max:.5g}")
    return narrow


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
