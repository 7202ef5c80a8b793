"""The benchmark of attention runs, at a tiny grid, and counts what it says it counts."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmark_files import load_benchmark

PROJECT = Path(__file__).resolve().parents[2]
NAME = "python benchmarks/attention.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("attention")


def test_it_measures_everything_and_writes_it_down(benchmark, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "speed.json"
    benchmark.main(
        ["--grids", "22x2x4x24/2", "--repeats", "1", "--kernels", "auto,math,flex", "--growth", "20,24",
         "--json", str(out)]
    )  # fmt: skip
    written = json.loads(out.read_text())
    (grid,) = written["grids"]
    for direction in ("forward", "forward+backward"):
        rows = grid[direction]
        assert set(rows) == {"fast", "fast, math", "plain", "dense", "pre-gathered", "layer", "dense layer"}
        assert all(row["seconds"] > 0 and row["gflops"] > 0 for row in rows.values())
        assert rows["dense"]["over_share"] == pytest.approx(1 / grid["share"])
        assert rows["pre-gathered"]["over_pre_gathered"] == 1
        ratio = rows["fast"]["seconds"] / rows["pre-gathered"]["seconds"]
        assert rows["fast"]["over_pre_gathered"] == pytest.approx(ratio)
        assert math.isfinite(written["growth"][direction]["exponent"])
    assert list(grid["skipped"]) == ["flex"]
    assert "CUDA only" in grid["skipped"]["flex"]
    assert written["machine"]["threads"] == torch.get_num_threads()
    printed = capsys.readouterr().out
    assert "22x2x4x24/2" in printed
    assert "| forward+backward | fast |" in printed


def test_what_is_possible_at_the_published_grids_is_known(benchmark):
    large, small = (benchmark.Grid.parse(text) for text in ("40x30x52x96/4", "40x8x14x384/4"))
    assert large.share == small.share == 0.1875
    for grid, possible in ((large, 5.2), (small, 2.8)):
        assert round(grid.layer_flop(dense=True) / grid.layer_flop(dense=False), 1) == possible


def test_the_exponent_of_a_power_law_is_found(benchmark):
    frames = (40, 80, 160, 320)
    seconds = [3e-3 * many**1.25 for many in frames]
    found = benchmark.slope([math.log(many) for many in frames], [math.log(spent) for spent in seconds])
    assert found == pytest.approx(1.25)


def test_memory_that_a_call_takes_is_seen(benchmark):
    size = 64 * 2**20
    seen = benchmark.extra_bytes(lambda: torch.ones(size, dtype=torch.uint8), torch.device("cpu"))
    if seen is None:
        pytest.skip("resident memory is measured on Linux with glibc only")
    assert 0.9 * size < seen < 1.5 * size


def test_what_is_no_grid_is_refused_with_an_example(benchmark):
    with pytest.raises(SystemExit, match="40x8x14x384/4"):
        benchmark.Grid.parse("40x8x14")


def test_the_commands_of_the_docs_are_understood(benchmark):
    lines = (PROJECT / "docs" / "performance.md").read_text(encoding="utf-8").splitlines()
    commands = [line.strip().split("  #")[0] for line in lines if line.startswith(f"    {NAME}")]
    assert commands
    for command in commands:
        given = benchmark.options().parse_args(shlex.split(command.removeprefix(NAME)))
        for text in (given.grids or benchmark.CPU_GRIDS).split(","):
            benchmark.Grid.parse(text)
