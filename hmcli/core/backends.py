"""Attention kernels by name: one plain attention call, computed by the kernel that was asked for.

`auto` leaves the choice to torch (and to the fast paths of hmcli.core.attention). `sdpa` is torch's
scaled_dot_product_attention with torch's choice among its kernels; `flash`, `efficient`, `cudnn` and `math` insist on
one of them; `flex` and `varlen` are torch's compiled and variable-length kernels (CUDA only). Every other name is one
of diffusers' attention backends. A kernel that was asked for is used, or the name is refused; nothing falls back.
Shape letters here: B batch, H heads, N queries, M keys, D channels of a head.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    dispatch_attention_fn,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from hmcli.core.precision import computed
from hmcli.errors import UsageError

_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
NAMES = ("auto", "sdpa", *_KERNELS, "flex", "varlen")
# What cross-attention runs under each of our names: diffusers' names for the same kernels. Flex and varlen are for
# the reading of memory; the few hundred rows of text go through torch's own choice then.
_CROSS = {"auto": None, "sdpa": "native", "flex": "native", "varlen": "native"} | {k: f"_native_{k}" for k in _KERNELS}
_PROBE_TOKENS = 16


def attend(query_BHND: Tensor, key_BHMD: Tensor, value_BHMD: Tensor, backend: str = "auto") -> Tensor:
    """softmax(q k / sqrt(D)) v of every query over every key, (B, H, N, D), by the kernel named.

    Raises what the kernel raises where it cannot compute this (`check_backend` tells beforehand).
    """
    if backend in ("auto", "sdpa"):
        return scaled_dot_product_attention(query_BHND, key_BHMD, value_BHMD)
    if backend in _KERNELS:
        with sdpa_kernel(_KERNELS[backend]):
            return scaled_dot_product_attention(query_BHND, key_BHMD, value_BHMD)
    if backend == "flex":
        return _compiled_flex()(query_BHND, key_BHMD, value_BHMD)
    if backend == "varlen":
        return _varlen(query_BHND, key_BHMD, value_BHMD)
    query, key, value = (part.transpose(1, 2) for part in (query_BHND, key_BHMD, value_BHMD))
    attended: Tensor = dispatch_attention_fn(query, key, value, backend=AttentionBackendName(backend))
    return attended.transpose(1, 2)


def cross_attention_backend(name: str) -> AttentionBackendName | None:
    """The diffusers backend of cross-attention under one of our names."""
    found = _CROSS.get(name, name)
    return None if found is None else AttentionBackendName(found)


def described(name: str, device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Which kernel computes attention, for a log: under `auto` the one torch chooses on its own."""
    if name != "auto":
        return f"attention: {name}"
    dtype = computed(device, dtype)
    query = torch.zeros(1, 1, _PROBE_TOKENS, head_dim, device=device, dtype=dtype)
    chosen = SDPBackend(torch._fused_sdp_choice(query, query, query)).name.lower().removesuffix("_attention")
    return f"attention: {chosen}, chosen for {device.type} and {str(dtype).removeprefix('torch.')}"


def check_backend(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int, *, backward: bool = False
) -> None:
    """Raise UsageError unless the kernel computes attention of this kind here (with `backward`, gradients too).

    It is tried on a few tokens, because what a kernel takes depends on device, type, head size and torch's version.
    """
    if name not in known_backends():
        raise UsageError(f"unknown attention backend {name!r}", fix=f"known: {', '.join(known_backends())}")
    if (reason := _refusal(name, device, dtype, head_dim, backward)) is None:
        return
    works = [other for other in NAMES if _refusal(other, device, dtype, head_dim, backward) is None]
    raise UsageError(
        f"the attention backend {name!r} is not available here",
        where={"asked on": f"{device}, {dtype}, heads of {head_dim} channels", "because": reason},
        fix=f"available here: {', '.join(works)}",
    )


@functools.cache
def known_backends() -> tuple[str, ...]:
    """Our names, then diffusers'; not those that fetch a kernel from a hub, nor those ours stand for already."""
    theirs = (str(backend.value) for backend in AttentionBackendName)
    shadowed = {value for value in _CROSS.values() if value} | set(NAMES)
    return (*NAMES, *(name for name in theirs if not name.endswith("_hub") and name not in shadowed))


def _refusal(name: str, device: torch.device, dtype: torch.dtype, head_dim: int, backward: bool) -> str | None:
    """Why the kernel does not compute this; None when it does."""
    if name in ("flex", "varlen") and device.type != "cuda":
        return f"{name} runs on CUDA only"
    if name not in NAMES:
        try:
            _check_attention_backend_requirements(AttentionBackendName(name))
        except RuntimeError as error:
            return str(error)
    shape = (1, 2, _PROBE_TOKENS, head_dim)
    query, key, value = (
        torch.zeros(shape, device=device, dtype=dtype, requires_grad=backward) for _ in range(3)
    )  # fmt: skip
    try:
        with warnings.catch_warnings(record=True) as said, torch.set_grad_enabled(backward):
            warnings.simplefilter("always")
            out = attend(query, key, value, name)
            if backward:
                out.sum().backward()
    except (RuntimeError, ValueError, ImportError, TypeError, AssertionError, NameError, AttributeError) as error:
        reasons = [str(error), *(str(warning.message).partition(" (Trigger")[0] for warning in said)]
        lines = [reason.strip().partition("\n")[0] for reason in reasons]
        return "; ".join(dict.fromkeys(line for line in lines if line)) or type(error).__name__
    return None


@functools.cache
def _compiled_flex() -> Any:
    """torch's flex attention, compiled: without that it holds every score in memory."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _varlen(query_BHND: Tensor, key_BHMD: Tensor, value_BHMD: Tensor) -> Tensor:
    """The batch as one packed sequence of B parts of equal length."""
    from torch.nn.attention.varlen import varlen_attn

    B, _, N, _ = query_BHND.shape
    M = key_BHMD.shape[2]
    starts = torch.arange(B + 1, device=query_BHND.device, dtype=torch.int32)
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query_BHND, key_BHMD, value_BHMD))
    packed: Any = varlen_attn(query, key, value, starts * N, starts * M, N, M)
    return packed.unflatten(0, (B, N)).transpose(1, 2)
