"""A model's denoising step as a graph of ONNX: one small export in every run, other kinds of model in the slow ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from small_model import no_rows, small
from torch import Tensor

from hmcli.core import onnx
from hmcli.core.onnx import FLOW, OnnxTransformer, Step, step_inputs, stretch_of, write_graph
from hmcli.core.retrieval import RetrievalInputs
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.stages.exporting.layout import BESIDE, STEP
from hmcli.stages.exporting.running import WRITES, Graph

MISSING = [name for name in WRITES if importlib.util.find_spec(name) is None]
needs_them = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (hmcli[onnx])")
A, F, HEIGHT, WIDTH, ROWS = 6, 5, 4, 8, 7


class Given:
    """Arguments of a model's forward, drawn from a seed."""

    def __init__(self, model: HydraTransformer3DModel, seed: int, level: float) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        whole, camera = normal(1, 16, A + F, HEIGHT, WIDTH), torch.eye(3, 4).flatten() + 0.1 * normal(1, A + F, 12)
        self.text, self.timestep = normal(1, ROWS, 10), torch.tensor([level])
        self.inputs = RetrievalInputs(
            intrinsics_B4=torch.tensor([[40.0 + seed, 40.0, 32.0, 16.0]], dtype=torch.float64), image_size=(32, 64)
        )
        if model.config.context == "frozen":
            with torch.no_grad():
                self.memory = model.encode_context(whole[:, :, :A], camera[:, :A], self.inputs)
            self.latents, self.camera, self.context = whole[:, :, A:], camera[:, A:], 0
        else:
            self.latents, self.camera, self.context, self.memory = whole, camera, A, None
            if model.config.flow_noise == "per-frame":
                self.timestep = torch.cat([torch.zeros(A), self.timestep.expand(F)])[None]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.latents, self.timestep, self.text, self.camera, self.context, self.inputs, self.memory


def exported(model: HydraTransformer3DModel, file: Path) -> OnnxTransformer:
    """The model with its step as a graph, made from other numbers than it is asked with."""
    given = Given(model, 1, 1000.0)
    stretch = stretch_of(model, given.latents, given.camera, given.context, given.memory, given.inputs)
    model.set_attention("sdpa")
    inputs = step_inputs(model, given.latents, given.timestep, given.text, stretch)
    write_graph(Step(model, stretch), inputs, [FLOW], file)
    model.set_attention("auto")
    graph = Graph(file)
    return OnnxTransformer(model, graph.run, graph.names)


def apart(model: HydraTransformer3DModel, graph: OnnxTransformer, given: Given) -> float:
    with torch.no_grad():
        wanted = model(*given.arguments, return_dict=False)[0]
        found = graph(*given.arguments)[0]
    assert wanted.std() > 0.1
    return float((found - wanted).abs().max())


@needs_them
def test_a_step_as_a_graph_is_the_models_own(tmp_path: Path):
    model = small()
    graph = exported(model, tmp_path / "step.onnx")
    assert no_rows(tmp_path / "step.onnx") == []
    given = Given(model, 2, 700.0)
    assert apart(model, graph, given) < 1e-4
    given.timestep = torch.tensor([300.0])  # the same memory, asked again
    assert apart(model, graph, given) < 1e-4
    assert given.memory is not None
    other = Given(model, 3, 300.0)
    given.memory, given.camera = other.memory, other.camera
    assert apart(model, graph, given) < 1e-4


@needs_them
@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"context": "joint", "num_layers": 2},
        {"context": "joint", "flow_noise": "per-frame", "policy": "recent", "top_k": 3},
        {"affinity": "spatial", "num_layers": 2},
        {"positions": "rays"},
        {"policy": "none"},
        {"policy": "all", "num_layers": 2},
        {"window": 1},
        {"flow_target": "clean"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_so_is_that_of_every_kind_of_model(tmp_path: Path, changes: dict[str, Any]):
    model = small(**changes)
    graph = exported(model, tmp_path / "step.onnx")
    for seed, level in ((2, 1000.0), (3, 600.0)):
        assert apart(model, graph, Given(model, seed, level)) < 1e-4


@needs_them
@pytest.mark.slow
def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx, "EXTERNAL_BYTES", 0)
    model = small()
    assert apart(model, exported(model, tmp_path / STEP), Given(model, 2, 700.0)) < 1e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == [STEP, f"{STEP}{BESIDE}"]


def test_written_out_rotation_is_that_of_complex_numbers():
    from hmcli.core.rope import _rotate_real, full_table, rotate

    x, table = torch.randn(2, 24, 3, 12), full_table(torch.arange(3.0), (2, 4), 12, torch.float32)
    assert torch.allclose(_rotate_real(x, table.unsqueeze(-3)), rotate(x, table), atol=1e-6)
