"""The benchmark of hm play runs, on a tiny model and a few chunks, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmark_files import load_benchmark


def test_it_counts_distinct_frames_and_says_where_the_time_goes(
    run: Path, latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "play.json"
    load_benchmark("play").main(
        ["--model", str(run), "--source", str(latents), "--chunks", "3", "--set", "sample.steps=1",
         "--threads", str(torch.get_num_threads()), "--json", str(out)]
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert (found["chunks"], len(found["seconds"]), found["distinct_frames"]) == (3, 3, 3 * found["chunk"])
    assert found["rate"] == pytest.approx(2 * found["chunk"] / sum(found["seconds"][1:]))
    assert set(found["parts"]) == {"context", "denoising", "decoding"}
    assert "frames a second" in capsys.readouterr().out
