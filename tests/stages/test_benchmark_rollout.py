"""The benchmark of rollouts runs, on a few chunks, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch
from benchmark_files import load_benchmark


def test_it_times_every_chunk_but_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "rollout.json"
    load_benchmark("rollout").main(
        ["--chunks", "3", "--steps", "1", "--affinity", "spatial", "--threads", str(torch.get_num_threads()), "--json",
         str(out)]
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert (found["chunks"], len(found["seconds"]), len(found["resident_mib"])) == (3, 2, 3)
    assert found["ratio"] == pytest.approx(found["late_seconds"] / found["early_seconds"])
    assert found["late_seconds"] == median(found["seconds"])
    assert "spatial: 3 chunks of 21 frames" in capsys.readouterr().out
