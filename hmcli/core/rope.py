"""Rotary positions on three axes: time, rows, columns.

Paper: "rotary" row of docs/paper-map.md. Known differences: docs/parity.md, "rotary".
Shape letters here: B batch, N tokens, T time steps, R rows, K columns, H heads, D channels of one head.

Here positions are those of the screen (`model.positions: screen`); hmcli.core.rays has those of the world.
Full-resolution tokens sit at integer positions. A memory slot that covers `kernel = (kt, kh, kw)` tokens sits in the
middle of its frames, `kt * t + (kt - 1) / 2`, but at the first of its rows and columns, `kh * row` and `kw * column`:
that is what released weights were trained with. Positions may be negative: frozen memory lies before the target.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

BASE = 10000.0  # the slowest pair of an axis turns about 1 / BASE radians per position
KEPT_TABLES = 8  # full and slot tables of a few shapes


def axis_split(head_dim: int) -> tuple[int, int, int]:
    """Channels of one head given to (time, rows, columns): rows and columns 2 * floor(D / 6) each, time the rest.

    Wherever the released rule (D // 3 for rows and columns) is legal, that is D // 3 even, both give the same split.
    """
    if head_dim < 6 or head_dim % 2:
        raise ValueError(f"rotary positions on three axes need an even head dimension of at least 6, got {head_dim}")
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def frequencies(channels: int, device: torch.device | None = None) -> Tensor:
    """Radians per position of each channel pair, (channels / 2,) float64: BASE ** (-2 i / channels) of pair i."""
    pair = torch.arange(0, channels, 2, dtype=torch.float64, device=device)
    return BASE ** (-pair / channels)


def angles(position: Tensor, channels: int) -> Tensor:
    """Angles in radians of every channel pair at positions (...): (..., channels / 2) float64."""
    return position.double()[..., None] * frequencies(channels, position.device)


@functools.lru_cache(maxsize=KEPT_TABLES)
def _table(
    times: tuple[float, ...],
    rows: tuple[float, ...],
    columns: tuple[float, ...],
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """(cos, sin) of every token of a grid, token order (time, row, column): (T * R * K, D / 2, 2).

    Kept from call to call, so nobody may write to it; a plain tensor even when first asked for in inference mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        time, row, column = (
            angles(torch.tensor(position, dtype=torch.float64), channels)
            for position, channels in zip((times, rows, columns), axis_split(head_dim), strict=True)
        )
        T, R, K = len(times), len(rows), len(columns)
        table = torch.empty(T, R, K, head_dim // 2, 2, dtype=dtype)
        axes = (time[:, None, None], row[None, :, None], column[None, None, :])
        for part, angle in zip(table.split([axis.shape[-1] for axis in axes], dim=-2), axes, strict=True):
            part.copy_(torch.stack([angle.cos(), angle.sin()], dim=-1))
        return table.flatten(0, 2).to(device)


def rotary_table(
    time_T: Tensor,
    row_R: Tensor,
    column_K: Tensor,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Tensor:
    """(cos, sin) of every token of a T x R x K grid, token order (time, row, column): (T * R * K, D / 2, 2).

    Computed in float64, kept as float64 when `dtype` is, else as float32: bfloat16 cannot hold the angles of a
    position beyond 256. The last few tables are kept and returned again: read only. `device` defaults to that of
    the times; positions on the CPU spare a wait for the device.
    """
    places = (tuple(position.tolist()) for position in (time_T, row_R, column_K))
    return _table(*places, head_dim, table_dtype(dtype), device or time_T.device)


def _token_axis(table: Tensor) -> int:
    """Where the tokens of a table are: (N, D / 2, 2), (B, N, D / 2, 2) where every sample has its own, or
    (B, N, H, D / 2, 2) where every head has."""
    return 0 if table.ndim == 3 else 1


def table_part(table: Tensor, first: int, count: int) -> Tensor:
    """Rows of `count` tokens from the `first` one on, a view."""
    return table.narrow(_token_axis(table), first, count)


def table_rows(table: Tensor, numbers: Tensor | None, tokens: int) -> Tensor:
    """Rows of the numbered frames or slots, of `tokens` each, one after another; None: all of them, without a copy.

    Numbers are (U,), or (B, U) where every sample has its own; then, too, what is returned has a row of every sample.
    """
    if numbers is None:
        return table
    axis = _token_axis(table)
    frames = table.unflatten(axis, (-1, tokens))
    if axis == 0:
        return frames[numbers].flatten(numbers.ndim - 1, numbers.ndim)
    if numbers.ndim == 1:
        return frames[:, numbers].flatten(1, 2)
    return frames[torch.arange(len(table), device=table.device)[:, None], numbers].flatten(1, 2)


def table_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a tensor of this type is rotated."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def full_table(
    time_T: Tensor, grid: tuple[int, int], head_dim: int, dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Table of full-resolution frames at the given times; `grid` is (rows, columns) in tokens."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
    return rotary_table(time_T, rows, columns, head_dim, dtype, device)


def slot_table(
    time_M: Tensor,
    grid: tuple[int, int],
    kernel: tuple[int, int, int],
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Tensor:
    """Table of memory slots at the given times; `grid` is (rows, columns) of a slot, `kernel` in tokens."""
    rows, columns = (
        step * torch.arange(side, dtype=torch.float64) for side, step in zip(grid, kernel[1:], strict=True)
    )
    return rotary_table(time_M, rows, columns, head_dim, dtype, device)


def slot_times(slots: int, kernel_time: int, device: torch.device | str = "cpu") -> Tensor:
    """Time of each slot in frames since the first one, (M,) float64: the middle of the frames it covers."""
    return kernel_time * torch.arange(slots, dtype=torch.float64, device=device) + (kernel_time - 1) / 2


def rotate(x_BNHD: Tensor, table: Tensor, *, back: bool = False) -> Tensor:
    """Turn neighbouring channel pairs of every head by the token's angles, or `back`; shape and type of the input."""
    if table.ndim < x_BNHD.ndim + 1:  # one for all heads
        table = table.unsqueeze(-3)
    if torch.compiler.is_exporting():  # graphs of ONNX hold no complex numbers
        return _rotate_real(x_BNHD, table * table.new_tensor([1, -1]) if back else table)
    pairs = torch.view_as_complex(x_BNHD.to(table.dtype).unflatten(-1, (-1, 2)))
    turn = torch.view_as_complex(table)
    turned = pairs * (turn.conj() if back else turn)  # one pass: (a + ib) (cos + i sin)
    return torch.view_as_real(turned).flatten(-2).to(x_BNHD.dtype)


def _rotate_real(x_BNHD: Tensor, table: Tensor) -> Tensor:
    """`rotate`, written out; the table has an axis of heads."""
    a, b = x_BNHD.to(table.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table.unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x_BNHD.dtype)
