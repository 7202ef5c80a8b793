"""The benchmark of a training step runs, at a tiny size, and counts the products that there are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmark_files import load_benchmark
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

TINY = ["data.size=[16,32]", "codec.channels=4", "model.layers=1", "model.dim=24", "model.heads=2", "model.ffn_dim=32",
        "model.patch=[1,2,2]", "model.memory.kernel=[2,2,4]", "train.batch=1"]  # fmt: skip


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_benchmark("step")
    monkeypatch.setattr(module, "FRAMES", (33, 9))
    return module


@pytest.mark.parametrize("recipe", ["nano/base", "nano/hydra", "nano/oracle"])
def test_it_measures_a_step_of_a_recipe(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str):
    out, threads = tmp_path / "step.json", torch.get_num_threads()
    sets = [part for change in TINY for part in ("--set", change)]
    benchmark.main(["--recipe", recipe, "--repeats", "1", "--threads", str(threads), "--json", str(out), *sets])
    found = json.loads(out.read_text())
    assert found["share"] == pytest.approx(found["products_seconds"] / found["step_seconds"])
    assert found["step_gflops"] == pytest.approx(found["gflop"] / found["step_seconds"])
    assert found["products"] > 50
    assert "share of a step" in capsys.readouterr().out


def test_products_of_linear_layers_and_convolutions_are_counted_forward_and_backward(benchmark):
    convolution, linear = nn.Conv3d(3, 5, (1, 2, 2), stride=(1, 2, 2)), nn.Linear(5, 7)
    video = torch.randn(2, 3, 4, 6, 8)
    with benchmark.Products() as counted:
        linear(convolution(video).flatten(2).mT.reshape(-1, 5)).sum().backward()
    positions = 2 * 4 * 3 * 4
    products = {(p.rows, p.inner, p.columns): times for p, times in counted.found.items()}
    assert products == {
        (positions, 12, 5): 1, (12, positions, 5): 1,  # the video needs no gradient
        (positions, 5, 7): 1, (positions, 7, 5): 1, (7, positions, 5): 1,
    }  # fmt: skip


def test_attention_is_two_products_forward_and_five_backward(benchmark):
    query = torch.randn(2, 3, 40, 8, requires_grad=True)
    keys, values = (torch.randn(2, 3, 50, 8, requires_grad=True) for _ in range(2))
    with benchmark.Products() as counted:
        out = scaled_dot_product_attention(query, keys, values)
    assert total(counted.found) == 2 * (2.0 * 6 * 40 * 8 * 50)
    with benchmark.Products() as counted:
        out.sum().backward()
    assert total(counted.found) == 5 * (2.0 * 6 * 40 * 8 * 50)


def total(found: Counter) -> float:
    return sum(times * product.flop for product, times in found.items())
