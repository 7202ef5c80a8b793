"""Weights in 8-bit floats, with or without the scale they are to be multiplied by: made into float32, exactly.

A scale is one number for a weight, one for each of its rows, or one for each block of a row:

    name                              what it is
    X.scale_weight, X.weight_scale    the scale of X.weight
    X.scale_input, X.input_scale      for kernels that compute in 8 bits: not a part of the weight
    scaled_fp8                        a mark that there are such scales
    X.comfy_quant                     JSON that names the format of X.weight
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hmcli.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_SCALE = re.compile(r"(.+)\.(?:scale_weight|weight_scale)")
_UNUSED = re.compile(r".+\.(?:scale_input|input_scale)|(?:.+\.)?scaled_fp8|.+\.comfy_quant")
_OTHER = re.compile(r".+\.(?:weight_scale_inv|weight_scale_2|absmax|quant_map|quant_state\..+|qweight|qzeros|scales)")
_KNOWN_FORMATS = ("float8_e4m3fn", "float8_e5m2")


def unscaled(state: Mapping[str, Tensor], file: object) -> tuple[dict[str, Tensor], str]:
    """The weights as they are meant, and what was done, in words (empty: nothing).

    Raises DataError for a scale without its weight, one of another shape, and other quantisations.
    """
    if other := [name for name in state if _OTHER.fullmatch(name)]:
        raise DataError(
            "the weights are quantised in a way that is not known", where={"file": file, "for example": other[0]},
            fix="use the file in bfloat16 or float16, or one scaled to float8 (scale_weight)",
        )  # fmt: skip
    _check_formats(state, file)
    scales = {f"{found[1]}.weight": name for name in state if (found := _SCALE.fullmatch(name))}
    if lost := [scale for weight, scale in scales.items() if weight not in state]:
        raise DataError("a scale has no weight to it", where={"file": file, "name": lost[0]}, fix="fetch it again")
    made, eight = {}, 0
    for name, tensor in state.items():
        if _SCALE.fullmatch(name) or _UNUSED.fullmatch(name):
            continue
        if name in scales:
            made[name] = _times(tensor, state[scales[name]], scales[name], file)
        else:
            made[name] = tensor.float() if _is_eight_bits(tensor) else tensor
        eight += _is_eight_bits(tensor)
    if not scales and not eight:
        return dict(state) if len(made) == len(state) else made, ""
    return made, f"{eight} weights in 8-bit floats, {len(scales)} of them scaled, are float32 now (--dtype changes it)"


def _is_eight_bits(tensor: Tensor) -> bool:
    return str(tensor.dtype).startswith("torch.float8")


def _check_formats(state: Mapping[str, Tensor], file: object) -> None:
    for name, tensor in state.items():
        if not name.endswith(".comfy_quant"):
            continue
        try:
            said = json.loads(bytes(tensor.tolist()).decode("utf-8"))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError("a quantisation mark cannot be read", where={"file": file, "name": name}) from error
        if said not in _KNOWN_FORMATS:
            raise DataError(
                f"weights quantised as {str(said)[:40]!r} cannot be read", where={"file": file, "name": name},
                fix=f"known: {', '.join(_KNOWN_FORMATS)}",
            )  # fmt: skip


def _times(weight: Tensor, scale: Tensor, name: str, file: object) -> Tensor:
    """Weight times scale in float32: a scale of one number, (rows,), (rows, 1) or (rows, blocks, 1)."""
    wide, factor = weight.float(), scale.float()
    if factor.numel() == 1:
        return wide * factor.reshape(())
    rows = len(wide) if wide.ndim else 0
    if factor.numel() == rows:
        return wide * factor.reshape(rows, *[1] * (wide.ndim - 1))
    if factor.ndim == 3 and len(factor) == rows and factor.shape[2] == 1 and wide[0].numel() % factor.shape[1] == 0:
        return (wide.reshape(rows, factor.shape[1], -1) * factor).reshape(wide.shape)
    raise DataError(
        f"a scale of shape {list(scale.shape)} does not fit its weight of {list(weight.shape)}",
        where={"file": file, "name": name}, fix="fetch it again",
    )  # fmt: skip
