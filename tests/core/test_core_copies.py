"""Blocks neither copy between host and device nor wait for the device, whatever the policy.

Without a GPU the model runs on torch's `meta` device: what a block asks of the host is then seen (a tensor of the CPU
in any of its operations) or raises (numbers that only the device knows).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference.small import CONTEXT, small_clip, small_inputs, small_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hmcli import registry
from hmcli.core.memory import BlockMemory, ContextMemory, Held
from hmcli.core.transformer import HydraTransformer3DModel

OF_SLOTS = ("affinity", "fov", "random", "oracle")
every_policy = pytest.mark.parametrize("policy", sorted(registry.BUILT_IN["policy"]))
LONG = 24  # context frames that make more slots than the target's frames choose


class HostWork(TorchDispatchMode):
    """Notes operations that a tensor of the CPU takes part in, and times that the device is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.on_host: list[str] = []
        self.stops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and torch.device(kwargs.get("device", "meta")).type == "cpu":
            self.stops += 1
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype", args[0].dtype))
        out = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        if any(leaf.device.type == "cpu" for leaf in leaves):
            self.on_host.append(str(func))
        return out


@contextmanager
def watched(model: HydraTransformer3DModel) -> Iterator[list[HostWork]]:
    """What every block does on the host while it runs, in the order of running."""
    seen: list[HostWork] = []

    def enter(*_: Any) -> None:
        seen.append(HostWork())
        seen[-1].__enter__()

    def leave(*_: Any) -> None:
        seen[-1].__exit__(None, None, None)

    hooks = [hook for block in model.blocks for hook in (
        block.register_forward_pre_hook(enter), block.register_forward_hook(leave))]  # fmt: skip
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def on_meta(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same shapes on the device that only knows shapes; cameras stay where geometry is computed."""
    return {name: value if name == "camera" else value.to("meta") for name, value in clip.items()}


def target_of(clip: dict[str, Tensor], context: int) -> dict[str, Tensor]:
    frames = {name: clip[name][:, context:] for name in ("timestep", "camera")}
    return clip | frames | {"hidden_states": clip["hidden_states"][:, :, context:]}


class Away:
    """Keys and values that have to be asked for by numbers on the CPU, as those of an artifact on disk."""

    def __init__(self, held: Held) -> None:
        self.held = held

    @property
    def count(self) -> int:
        return self.held.count

    def read(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        assert numbers.device.type == "cpu"
        return self.held.read(numbers.to("meta"))

    def read_keys(self, start: int, stop: int) -> Tensor:
        return self.held.read_keys(start, stop)


def away(memory: ContextMemory) -> ContextMemory:
    blocks = [BlockMemory(slots=Away(b.slots), descriptors_BMC=b.descriptors_BMC, tail=Away(b.tail))
              for b in memory.blocks]  # fmt: skip
    return replace(memory, blocks=tuple(blocks))


@every_policy
@pytest.mark.parametrize("how", ["joint", "frozen"])
@pytest.mark.parametrize(("affinity", "positions"), [("pooled", "screen"), ("spatial", "rays")])
def test_no_block_touches_the_host(policy: str, how: str, affinity: str, positions: str):
    model = small_model(policy=policy, context=how, affinity=affinity, positions=positions).to("meta")
    with torch.no_grad(), watched(model) as seen:
        model(**on_meta(small_clip()), num_context_frames=CONTEXT, retrieval=small_inputs())
    assert len(seen) == (2 if how == "joint" else 4)
    assert [work.on_host for work in seen] == [[]] * len(seen)
    assert [work.stops for work in seen] == [0] * len(seen)


@every_policy
def test_no_block_touches_the_host_in_training(policy: str):
    model = small_model(policy=policy).to("meta").train()
    model.enable_gradient_checkpointing()
    with watched(model) as seen:
        flow = model(**on_meta(small_clip()), num_context_frames=CONTEXT, retrieval=small_inputs()).sample
        flow.sum().backward()
    assert len(seen) == 4  # each block once more, for its gradients
    assert [work.on_host for work in seen] == [[]] * len(seen)


@every_policy
def test_long_memory_is_read_without_the_host_and_from_elsewhere_with_one_stop(policy: str):
    model = small_model(policy=policy, context="frozen", positions="rays").to("meta")
    clip = on_meta(small_clip(context=LONG))
    inputs = small_inputs(context=LONG)
    with torch.no_grad():
        memory = model.encode_context(clip["hidden_states"][:, :, :LONG], clip["camera"][:, :LONG], inputs)
        assert len(memory.blocks[0].slots.keys_BNQC[0]) == (12 if policy in OF_SLOTS else 0)
        with watched(model) as seen:
            model(**target_of(clip, LONG), num_context_frames=0, retrieval=inputs, memory=memory)
        with watched(model) as elsewhere:
            model(**target_of(clip, LONG), num_context_frames=0, retrieval=inputs, memory=away(memory))
    assert [(work.on_host, work.stops) for work in seen] == [([], 0)] * 2
    assert [work.stops for work in elsewhere] == [int(policy in OF_SLOTS)] * 2


@pytest.mark.gpu
@every_policy
@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_no_block_waits_for_the_gpu(policy: str, how: str):
    model = small_model(policy=policy, context=how).to("cuda", torch.float32)
    clip = {name: value.to("cuda", torch.float32) for name, value in small_clip(context=LONG).items()}
    with torch.no_grad():
        model(**clip, num_context_frames=LONG, retrieval=small_inputs(context=LONG))  # loads kernels
        for block in model.blocks:
            block.register_forward_pre_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))
            block.register_forward_hook(lambda *_: torch.cuda.set_sync_debug_mode("default"))
        try:
            model(**clip, num_context_frames=LONG, retrieval=small_inputs(context=LONG))
        finally:
            torch.cuda.set_sync_debug_mode("default")
