"""Graphs of ONNX with which a walk goes on where there is no torch: one writes memory, the other reads it.

Shapes are fixed, so memory has room for a fixed number of slots; a mask says which of them are there. Slots lie in
order of time, the empty places after them: an empty place counts as one inside the window, which is taken only when
fewer others are left than a frame reads (`enough_slots`).
Shape letters here: L blocks, N places for slots of the past, M slots (of the past and own), Q tokens of a slot, T tail
frames, P tokens of a frame, F frames, C channels, D channels of one head. The batch of memory is 1 and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hmcli.core.inspection import recorded
from hmcli.core.memory import BlockMemory, ContextMemory, Held
from hmcli.core.onnx import FLOW, takes_slots, whole
from hmcli.core.reading import inside_window, local_window
from hmcli.core.retrieval import NEAR_SLOTS
from hmcli.core.rope import angles, axis_split
from hmcli.core.stretch import Stretch, in_trained_range
from hmcli.core.transformer import HydraTransformer3DModel

READS = "reads"
TIMES, THERE = "slot_times", "slot_there"
SLOT_PARTS = ("slot_keys", "slot_values", "slot_means")
TAIL_PARTS = ("tail_keys", "tail_values")


def memory_parts(model: HydraTransformer3DModel) -> tuple[str, ...]:
    """Names of what memory consists of, in the graphs' order."""
    return (*SLOT_PARTS, *TAIL_PARTS) if takes_slots(model) else TAIL_PARTS


def packed(blocks: Sequence[BlockMemory], slots: bool) -> dict[str, Tensor]:
    """One sample's memory, all blocks of a part in one tensor: slot keys and values (L, N, Q, C), means (L, N, C), tail
    keys and values (L, T, P, C)."""

    def both(name: str, rows: list[Any]) -> dict[str, Tensor]:
        keys, values = zip(*map(whole, rows), strict=True)
        return {f"{name}_keys": torch.cat(keys), f"{name}_values": torch.cat(values)}

    parts = both("tail", [block.tail for block in blocks])
    if slots:
        parts |= both("slot", [block.slots for block in blocks])
        parts["slot_means"] = torch.cat([block.descriptors_BMC for block in blocks])
    return parts


def latest_tail(memory: ContextMemory, model: HydraTransformer3DModel) -> ContextMemory:
    """The same memory with no more full-resolution frames than windows reach back: short parts, joined, keep more."""
    frames = model.config.window - 1

    def cut(block: BlockMemory) -> BlockMemory:
        keys, values = whole(block.tail)
        return replace(block, tail=Held(keys_BNQC=keys[:, -frames:], values_BNQC=values[:, -frames:]))

    return replace(memory, blocks=tuple(cut(block) for block in memory.blocks))


class Remember(nn.Module):
    """What a frozen model keeps of clean frames: latents (1, C, F, h, w) and cameras (1, F, 12) -> `memory_parts`."""

    def __init__(self, model: HydraTransformer3DModel, latents: Tensor, camera: Tensor) -> None:
        """For frames of the shapes of these."""
        super().__init__()
        self.model = model
        self.stretch = model._stretch("context", latents, camera, latents.shape[2], None, None)
        first: Any = model.blocks[0]
        first.attn1.plan(self.stretch)

    def forward(self, latents: Tensor, camera: Tensor) -> tuple[Tensor, ...]:
        stretch = replace(self.stretch, camera_BFR=camera, memo=dict(self.stretch.memo))
        _, blocks = self.model._run(latents, torch.zeros(1), None, stretch)
        parts = packed(blocks, takes_slots(self.model))
        return tuple(parts[name] for name in memory_parts(self.model))


class WalkStep(nn.Module):
    """One denoising step that reads packed memory: the inputs of `walk_inputs` -> flow and, with slots, how many blocks
    chose each slot, (F, M)."""

    def __init__(self, model: HydraTransformer3DModel, stretch: Stretch) -> None:
        """`stretch` is of a run whose memory fills all places for slots, and has the `latest_tail` alone."""
        super().__init__()
        self.model, self.stretch = model, stretch
        first: Any = model.blocks[0]
        first.attn1.plan(stretch)  # what depends on shapes alone is computed now, and stands in the graph

    @property
    def outputs(self) -> tuple[str, ...]:
        return (FLOW, READS) if takes_slots(self.model) else (FLOW,)

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, camera: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        given = dict(zip(_beside(self.model), rest, strict=True))
        assert self.stretch.memory is not None
        memo, slot_table = dict(self.stretch.memo), self.stretch.slot_table
        if takes_slots(self.model):
            memo[NEAR_SLOTS] = self._near(given[TIMES], given[THERE])
            slot_table = self._slot_table(given[TIMES])
        memory = replace(
            self.stretch.memory, blocks=tuple(self._block(given, n) for n in range(len(self.model.blocks)))
        )
        stretch = replace(self.stretch, camera_BFR=camera, slot_table=slot_table, memory=memory, memo=memo)
        text_BLC = self.model.condition_embedder.text_embedder(text)
        with recorded() as heard:
            flow = self.model._run(latents, timestep, text_BLC, stretch)[0]
        if not takes_slots(self.model):
            return (flow,)
        number_M = torch.arange(len(stretch.span_M2))
        chosen = [one.slots_BFK[0] for one in heard if one.slots_BFK is not None]
        return flow, torch.stack([(of[..., None] == number_M).float().sum(dim=1) for of in chosen]).sum(dim=0)

    def _block(self, given: Mapping[str, Tensor], number: int) -> BlockMemory:
        assert self.stretch.memory is not None
        traced = self.stretch.memory.blocks[number]
        own = {name: given[name][number : number + 1] for name in memory_parts(self.model)}
        tail = Held(keys_BNQC=own["tail_keys"], values_BNQC=own["tail_values"])
        if not takes_slots(self.model):
            return replace(traced, tail=tail)
        slots = Held(keys_BNQC=own["slot_keys"], values_BNQC=own["slot_values"])
        return BlockMemory(slots=slots, descriptors_BMC=own["slot_means"], tail=tail)

    def _near(self, times_N: Tensor, there_N: Tensor) -> Tensor:
        """(F, M) bool: slots inside the window of each frame, and empty places."""
        first, frames = self.stretch.first_frame, self.stretch.camera_BFR.shape[1]
        window = local_window(first, frames, first + frames, self.model.config.window)
        half = (self.model.kernel_tokens[0] - 1) / 2
        span_N2 = torch.stack([times_N - half, times_N + half], dim=1)
        past_FN = inside_window(span_N2, window[0] - first, window[1] - first) | (there_N < 0.5)
        own_FM: Tensor = self.stretch.memo[NEAR_SLOTS][:, len(times_N) :]
        return torch.cat([past_FN, own_FM], dim=1)

    def _slot_table(self, times_N: Tensor) -> Tensor:
        """The rotary table of the run, the past at other times: (M * Q, D / 2, 2)."""
        table, places = self.stretch.slot_table, len(times_N)
        of_time = axis_split(self.model.config.attention_head_dim)[0]
        tokens = len(table) // len(self.stretch.span_M2)
        past, own = table[: places * tokens].unflatten(0, (places, tokens)), table[places * tokens :]
        turn = angles(in_trained_range(self.model.config, times_N), of_time).to(table.dtype)
        time = torch.stack([turn.cos(), turn.sin()], dim=-1)[:, None].expand(-1, tokens, -1, -1)
        return torch.cat([torch.cat([time, past[:, :, of_time // 2 :]], dim=2).flatten(0, 1), own])


def _beside(model: HydraTransformer3DModel) -> tuple[str, ...]:
    """Names of the inputs that stay the same through all steps, but for the cameras."""
    return (TIMES, THERE, *memory_parts(model)) if takes_slots(model) else memory_parts(model)


def walk_inputs(
    model: HydraTransformer3DModel,
    latents: Tensor,
    timestep: Tensor,
    text: Tensor,
    camera: Tensor,
    memory: ContextMemory,
    places: int,
) -> dict[str, Tensor]:
    """Inputs of `WalkStep`, in their order: memory, however many slots it has, in so many places.

    `slot_times` are the middles of what each slot covers, in latent frames after the first of the target.
    """
    parts = packed(latest_tail(memory, model).blocks, takes_slots(model))
    given = {"latents": latents, "timestep": timestep, "text": text, "camera": camera}
    if takes_slots(model):
        empty = places - len(memory.time_M)
        given[TIMES] = _padded(memory.time_M - memory.num_context_frames, empty, 0)
        given[THERE] = _padded(torch.ones(len(memory.time_M)), empty, 0)
        parts |= {name: _padded(parts[name], empty, 1) for name in SLOT_PARTS}
    given |= {name: parts[name] for name in memory_parts(model)}
    return {name: value.to(torch.float32).contiguous() for name, value in given.items()}


def _padded(values: Tensor, places: int, dim: int) -> Tensor:
    shape = list(values.shape)
    shape[dim] = places
    return torch.cat([values, values.new_zeros(shape)], dim=dim)


def enough_slots(model: HydraTransformer3DModel, context: int, frames: int) -> bool:
    """After `context` frames, has each of `frames` more as many slots outside of its window as it reads?

    Then no empty place is ever read, however long the past is.
    """
    config, time = model.config, model.kernel_tokens[0]
    first_F, last_F = local_window(context, frames, context + frames, config.window)
    own = torch.arange(frames // time) * time + context
    first_M = torch.cat([torch.arange(context // time) * time, own])
    near_FM = inside_window(torch.stack([first_M, first_M + time - 1], dim=1), first_F, last_F)
    return bool(((~near_FM).sum(dim=1) >= config.top_k).all())
