"""`make test-gpu`: its checks run, notice what is wrong, and say so where there is no GPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def gpu(project: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_gpu", project / "benchmarks" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_all_checks_pass_at_a_small_size_and_make_one_line(gpu: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert gpu.main(["--device", "cpu", "--small"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["failed"] == []
    assert set(gpu.CHECKS) <= set(found)
    assert found["kernels"]["auto"]["off"] < 1e-4
    assert found["step"]["planned_gib"] > 0


def test_a_kernel_that_is_wrong_fails_its_check(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gpu, "fast_attention", lambda query, *rest, backend: torch.zeros_like(query))
    assert gpu.main(["--device", "cpu", "--small", "--only", "kernels"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == ["kernels"]
    assert "differ from the equation: auto" in found["kernels"]["error"]


def test_without_a_gpu_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]):
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    assert gpu.main([]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == "there is no CUDA device here"
