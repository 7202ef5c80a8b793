"""diffusers' caches on this model: which of them can be right here, and what they have to know of a denoising loop.

A cache skips blocks at steps where it expects little to change. Frozen context runs whole, once and outside of every
cache; the two guidance branches keep states of their own (`branch`), and every denoising starts from an empty one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from diffusers.hooks import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    TextKVCacheConfig,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from torch import Tensor, nn

_REFUSED = {
    PyramidAttentionBroadcastConfig: "it keeps one state for both guidance branches, here one called after the other",
    FasterCacheConfig: "it needs both guidance branches in one batch, here one is called after the other",
    TextKVCacheConfig: "it is written for the blocks of other models",
}


class _BlockMetadata(TransformerBlockMetadata):
    """Tells the hooks of diffusers, which ask for `hidden_states`, how the block calls its frames."""

    def _get_parameter_from_args_kwargs(self, identifier: str, args: Any = (), kwargs: Any = None) -> Any:
        name = "x_BFPC" if identifier == "hidden_states" else identifier
        return super()._get_parameter_from_args_kwargs(name, args, kwargs)


def fitting_config(model: nn.Module, config: Any) -> Any:
    """The configuration as diffusers can apply it to this model. Raises ValueError for a cache that cannot be right."""
    name = type(config).__name__
    if (reason := _REFUSED.get(type(config))) is not None:
        raise ValueError(f"{name} does not work with this model: {reason}")
    blocks: Any = model.get_submodule("blocks")
    if isinstance(config, TaylorSeerCacheConfig):
        _check_patterns(model, config)
    elif len(blocks) < 2:
        raise ValueError(f"{name} needs at least two blocks, the model has {len(blocks)}")
    elif isinstance(config, SeaCacheConfig) and config.raw_vision_callback is None:
        config = replace(config, raw_vision_callback=_target_latents)
    elif not isinstance(config, (FirstBlockCacheConfig, MagCacheConfig, SeaCacheConfig)):
        raise ValueError(f"{name} is no cache known here")
    TransformerBlockRegistry.register(type(blocks[0]), _BlockMetadata(return_hidden_states_index=0))
    return config


def named_config(text: str) -> Any:
    """A cache by name, `first-block`, `sea` or `taylor`, with its number after a colon (`first-block:0.1`).

    The number is how much may change before blocks run again (first-block, sea), or every how many steps they run
    (taylor); without one it is diffusers' own. Raises ValueError.
    """
    name, _, value = text.partition(":")
    try:
        number = float(value) if value else None
    except ValueError:
        number = -1.0
    if name not in NAMED or (number is not None and not number > 0):
        known = ", ".join(sorted(NAMED))
        raise ValueError(f"sample.cache={text!r}: known are none, {known}, each alone or with a number above 0 "
                         "(first-block:0.1)")  # fmt: skip
    return NAMED[name](number)


def _first_block(threshold: float | None) -> Any:
    return FirstBlockCacheConfig() if threshold is None else FirstBlockCacheConfig(threshold=threshold)


def _sea(threshold: float | None) -> Any:
    return SeaCacheConfig() if threshold is None else SeaCacheConfig(threshold=threshold)


def _taylor(interval: float | None) -> Any:
    every: dict[str, Any] = {} if interval is None else {"cache_interval": max(1, round(interval))}
    return TaylorSeerCacheConfig(cache_identifiers=[r"blocks\.\d+"], taylor_factors_dtype=torch.float32, **every)


NAMED = {"first-block": _first_block, "sea": _sea, "taylor": _taylor}


def branch(model: Any, name: str, step: int, steps: int, sigma: Tensor) -> AbstractContextManager[None]:
    """Around one call of the model in a denoising loop: which guidance branch and which step a cache sees."""
    if not model.is_cache_enabled:
        return nullcontext()
    context: AbstractContextManager[None] = model.cache_context(
        name, step_index=step, num_inference_steps=steps, sigma=float(sigma)
    )
    return context


def start(model: Any) -> None:
    """Before a denoising loop: forget what a cache kept of another one."""
    if model.is_cache_enabled:
        model._reset_stateful_cache()


@contextmanager
def whole_run(model: Any) -> Iterator[None]:
    """For a run beside `forward`: no cache skips a block of it, and offloaded weights are fetched as for a call."""
    if (cache := model._cache_config) is not None:
        model.disable_cache()
    registered = getattr(model, "_diffusers_hook", None)
    offloading = None if registered is None else registered.get_hook("group_offloading")
    if offloading is not None:
        offloading.pre_forward(model)
    fetch(model)
    try:
        yield
    finally:
        if offloading is not None:
            offloading.post_forward(model, None)
        if cache is not None:
            model.enable_cache(cache)


def fetch(part: Any) -> None:
    """Before a run beside `forward`: a part that `enable_model_cpu_offload` keeps elsewhere comes to its device."""
    if (hook := getattr(part, "_hf_hook", None)) is not None:
        hook.pre_forward(part)


def _check_patterns(model: nn.Module, config: TaylorSeerCacheConfig) -> None:
    """Its patterns must name parts of this model, and only parts whose output is one tensor."""
    patterns = [*(config.cache_identifiers or ()), *(config.skip_predict_identifiers or ())]
    if not config.cache_identifiers and not config.use_lite_mode:
        raise ValueError(
            "TaylorSeerCacheConfig's own patterns name no part of this model: set use_lite_mode=True, or "
            r"cache_identifiers such as [r'blocks\.\d+\.attn2', r'blocks\.\d+\.ffn']"
        )
    names = [name for name, _ in model.named_modules()]
    for pattern in patterns:
        matched = [name for name in names if re.fullmatch(pattern, name)]
        if not matched:
            raise ValueError(f"TaylorSeerCacheConfig: the pattern {pattern!r} names no part of this model")
        if any(name.endswith(".attn1") for name in matched):
            raise ValueError(f"TaylorSeerCacheConfig: {pattern!r} names attn1, which also returns memory; name blocks")


def _target_latents(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The noisy frames of each sample of a call, (C, F, h, w) each: what SeaCache compares from step to step."""
    given = inspect.signature(type(model).forward).bind(model, *args, **kwargs).arguments
    latents: torch.Tensor = given["hidden_states"]
    return list(latents[:, :, given["num_context_frames"] :].unbind())
