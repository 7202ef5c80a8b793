"""The denoising step as an ONNX graph: plain tensors in, the flow out, the shapes of one chunk.

What depends on a clip, and not on the noise, is computed by torch and handed in: rotary tables, cameras, the memory of
frozen context. What depends on shapes alone (which frames a window holds, which slots lie inside it) is part of the
graph. Shape letters here: B batch, A context frames, F target frames.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hmcli.core.memory import BlockMemory, ContextMemory, Held, KeyValues
from hmcli.core.retrieval import SLOTS, RetrievalInputs, needs_of
from hmcli.core.stretch import Stretch
from hmcli.core.transformer import HydraTransformer3DModel

OPSET = 18  # the oldest that torch's exporter writes by itself
EXTERNAL_BYTES = 3 * 2**29  # a file of ONNX holds less than 2 GiB: larger weights lie beside it
FLOW = "flow"
Runner = Callable[[Mapping[str, Tensor]], Tensor]  # inputs of the graph by name -> its output


class Step(nn.Module):
    """One run of a model on inputs of fixed shapes, as `step_inputs` names them."""

    def __init__(self, model: HydraTransformer3DModel, stretch: Stretch) -> None:
        """`stretch` is of a run with these shapes; whatever of it is an input is taken from there."""
        super().__init__()
        self.model, self.stretch = model, stretch
        first: Any = model.blocks[0]
        first.attn1.plan(stretch)  # what depends on shapes alone is computed now, and stands in the graph

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor, camera: Tensor, *rest: Tensor) -> Tensor:
        rows = iter(rest)
        tables: dict[str, Any] = {name: next(rows) for name in _tables(self.model)}
        stretch = replace(self.stretch, camera_BFR=camera, **tables)
        if stretch.memory is not None:
            stretch = replace(stretch, memory=_with_tensors(stretch.memory, takes_slots(self.model), rows))
        return self.model._run(latents, timestep, self.model.condition_embedder.text_embedder(text), stretch)[0]


def takes_slots(model: HydraTransformer3DModel) -> bool:
    """Does the model read memory slots?"""
    return SLOTS in needs_of(model.policy)


def _tables(model: HydraTransformer3DModel) -> tuple[str, ...]:
    return ("key_table", "slot_table") if takes_slots(model) else ("key_table",)


def step_inputs(
    model: HydraTransformer3DModel, latents: Tensor, timestep: Tensor, text: Tensor, stretch: Stretch
) -> dict[str, Tensor]:
    """Inputs of the graph, in their order."""
    return _moving_inputs(latents, timestep, text) | still_inputs(model, stretch)


def _moving_inputs(latents: Tensor, timestep: Tensor, text: Tensor) -> dict[str, Tensor]:
    given = {"latents": latents, "timestep": timestep, "text": text}
    return {name: value.to(torch.float32) for name, value in given.items()}


def still_inputs(model: HydraTransformer3DModel, stretch: Stretch) -> dict[str, Tensor]:
    """Those that stay the same through all steps of a video."""
    given = {"camera": stretch.camera_BFR} | {name: getattr(stretch, name) for name in _tables(model)}
    for number, block in enumerate(() if stretch.memory is None else stretch.memory.blocks):
        if takes_slots(model):
            keys, values = whole(block.slots)
            given |= {f"slot_keys.{number}": keys, f"slot_values.{number}": values}
            given[f"slot_means.{number}"] = block.descriptors_BMC
        if block.tail.count:
            keys, values = whole(block.tail)
            given |= {f"tail_keys.{number}": keys, f"tail_values.{number}": values}
    return {name: value.to(torch.float32).contiguous() for name, value in given.items()}


def whole(rows: KeyValues) -> tuple[Tensor, Tensor]:
    """All keys and values, (B, N, Q, C) each."""
    return rows.read(torch.arange(rows.count))


def _with_tensors(memory: ContextMemory, slotted: bool, rows: Iterator[Tensor]) -> ContextMemory:
    """The same memory, its blocks made of the inputs that follow."""
    blocks = []
    for block in memory.blocks:
        slots, means, tail = block.slots, block.descriptors_BMC, block.tail
        if slotted:
            slots, means = Held(keys_BNQC=next(rows), values_BNQC=next(rows)), next(rows)
        if tail.count:
            tail = Held(keys_BNQC=next(rows), values_BNQC=next(rows))
        blocks.append(BlockMemory(slots=slots, descriptors_BMC=means, tail=tail))
    return replace(memory, blocks=tuple(blocks))


def stretch_of(
    model: HydraTransformer3DModel,
    latents: Tensor,
    camera: Tensor,
    num_context: int,
    memory: ContextMemory | None,
    inputs: RetrievalInputs | None,
) -> Stretch:
    """What the model would run on these arguments of its `forward`; a frozen model has its memory already."""
    return model._stretch("target" if memory is not None else "joint", latents, camera, num_context, memory, inputs)


@torch.no_grad()
def write_graph(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], file: Path, opset: int = OPSET
) -> None:
    """Trace a module on these inputs (in their order) and write its graph, weights and all.

    It is written as it was traced: runtimes simplify a graph themselves, and the exporter would take minutes.
    """
    weights = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(), tuple(inputs.values()), input_names=list(inputs), output_names=list(outputs),
            opset_version=opset, dynamo=True, optimize=False, verbose=False,
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
        )  # fmt: skip
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # lines of this code, and where it lies here
        program.save(str(file), external_data=weights > EXTERNAL_BYTES)


def _stable_sort(self: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """What the exporter has no translation for: TopK of all, which puts the earlier one first on a tie too."""
    from onnxscript import opset18

    op: Any = opset18
    size = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
    return op.TopK(self, size, axis=dim, largest=int(descending), sorted=1)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own future, and of packages that are not there."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class OnnxTransformer(nn.Module):
    """Stands where a model samples: its context runs in torch, its denoising steps in a graph."""

    def __init__(self, model: HydraTransformer3DModel, run: Runner, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.run, self.names = model, run, tuple(names)
        self._still: tuple[tuple[Any, ...], dict[str, Tensor]] = ((), {})

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def is_cache_enabled(self) -> bool:
        return False

    def encode_context(self, *args: Any, **named: Any) -> ContextMemory:
        return self.model.encode_context(*args, **named)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        camera: Tensor,
        num_context_frames: int,
        retrieval: RetrievalInputs | None = None,
        memory: ContextMemory | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """As the model's own, always a tuple. Raises ValueError for arguments of other shapes than the graph's."""
        about = (hidden_states.shape, camera, num_context_frames, retrieval, memory)
        if not _same(about, self._still[0]):
            self.model._check_call(hidden_states, timestep, camera, num_context_frames, retrieval, memory)
            stretch = stretch_of(self.model, hidden_states, camera, num_context_frames, memory, retrieval)
            self._still = (about, still_inputs(self.model, stretch))
        given = _moving_inputs(hidden_states, timestep, encoder_hidden_states) | self._still[1]
        return (self.run({name: given[name] for name in self.names}).to(hidden_states.dtype),)


def _same(now: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    """The very same tensors and memory, not equal ones."""
    return len(now) == len(before) and all(
        a == b if isinstance(a, (int, torch.Size)) else a is b for a, b in zip(now, before, strict=True)
    )
