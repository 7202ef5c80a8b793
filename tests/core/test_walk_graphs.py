"""Graphs that write and read memory of a fixed size are the model's own, however much of it is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from small_model import no_rows, small
from torch import Tensor

from hmcli.core.memory import ContextMemory
from hmcli.core.onnx import stretch_of, write_graph
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.core.walk_graphs import Remember, WalkStep, enough_slots, memory_parts, packed, walk_inputs
from hmcli.stages.exporting.running import WRITES, Graph

MISSING = [name for name in WRITES if importlib.util.find_spec(name) is None]
needs_them = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (hmcli[onnx])")
A, F, HEIGHT, WIDTH, ROWS, PLACES = 7, 4, 4, 8, 7, 7  # 3 slots, then 2 and 2 more


class Drawn:
    """Latents, cameras and text from a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def frames(self, frames: int) -> tuple[Tensor, Tensor]:
        camera = torch.eye(3, 4).flatten() + 0.1 * self.normal(1, frames, 12)
        return self.normal(1, 16, frames, HEIGHT, WIDTH), camera

    @torch.no_grad()
    def past(self, model: HydraTransformer3DModel, stretches: int, gap: int = 0) -> ContextMemory:
        """A first stretch, `gap` frames out of reach after it, and others."""
        memory = model.encode_context(*self.frames(A))
        memory = memory.older_by(gap) if gap else memory
        for _ in range(stretches - 1):
            memory = memory.then(model.encode_context(*self.frames(F)).starting_at(memory.num_context_frames))
        return memory


def step_graph(model: HydraTransformer3DModel, file: Path) -> Graph:
    drawn = Drawn(0)
    latents, camera = drawn.frames(F)
    memory, text = drawn.past(model, 3), drawn.normal(1, ROWS, 10)
    stretch = stretch_of(model, latents, camera, 0, memory, None)
    model.set_attention("sdpa")
    step = WalkStep(model, stretch)
    inputs = walk_inputs(model, latents, torch.tensor([1000.0]), text, camera, memory, PLACES)
    write_graph(step, inputs, step.outputs, file)
    model.set_attention("auto")
    return Graph(file)


@needs_them
@pytest.mark.parametrize(("policy", "limit"), [("affinity", 6), pytest.param("none", 0, marks=pytest.mark.slow)])
def test_a_step_reads_as_much_memory_as_there_is(tmp_path: Path, policy: str, limit: int):
    model = small(policy=policy, num_layers=2, max_history=limit)
    graph = step_graph(model, tmp_path / "step.onnx")
    assert no_rows(tmp_path / "step.onnx") == []
    for seed, (stretches, gap) in enumerate([(1, 0), (2, 0), (3, 0), (2, 5)]):
        drawn = Drawn(seed + 1)
        memory, (latents, camera) = drawn.past(model, stretches, gap), drawn.frames(F)
        timestep, text = torch.tensor([300.0 + 200 * seed]), drawn.normal(1, ROWS, 10)
        with torch.no_grad():
            wanted = model(latents, timestep, text, camera, 0, None, memory, return_dict=False)[0]
        found = graph.outputs(walk_inputs(model, latents, timestep, text, camera, memory, PLACES))
        assert wanted.std() > 0.1
        assert float((found["flow"] - wanted).abs().max()) < 1e-4
        if policy == "affinity":
            reads, there = found["reads"], len(memory.time_M)
            assert reads.shape == (F, PLACES + F // 2)
            assert (reads.sum(dim=1) == 2 * model.config.top_k).all(), "of two blocks"
            assert reads[:, there:PLACES].sum() == 0, "an empty place is never read"


@needs_them
@pytest.mark.parametrize("policy", ["affinity", pytest.param("none", marks=pytest.mark.slow)])
def test_a_graph_writes_the_memory_that_torch_writes(tmp_path: Path, policy: str):
    model, drawn = small(policy=policy, num_layers=2), Drawn(0)
    latents, camera = drawn.frames(F)
    model.set_attention("sdpa")
    write_graph(
        Remember(model, latents, camera),
        {"latents": latents, "camera": camera},
        memory_parts(model),
        tmp_path / "past.onnx",
    )
    model.set_attention("auto")
    assert no_rows(tmp_path / "past.onnx") == []
    latents, camera = Drawn(1).frames(F)
    found = Graph(tmp_path / "past.onnx").outputs({"latents": latents, "camera": camera})
    with torch.no_grad():
        wanted = packed(model.encode_context(latents, camera).blocks, policy == "affinity")
    assert set(found) == set(wanted) == set(memory_parts(model))
    for name, part in wanted.items():
        assert found[name].shape == part.shape
        assert part.abs().max() > 0
        assert float((found[name] - part).abs().max()) < 1e-4


def test_where_a_frame_could_run_out_of_slots_is_known_before():
    model = small(top_k=3, window=5)
    assert enough_slots(model, 8, 6)
    assert not enough_slots(model, 4, 4), "2 slots of the past, one of them in the window, and 2 own"
