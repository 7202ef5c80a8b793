"""The benchmark of drift runs, on next to nothing, and measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_files import load_benchmark


def test_lengths_are_powers_of_two_chunks_and_the_whole():
    drift = load_benchmark("drift")
    assert drift.lengths_of(257, 33) == [33, 66, 132, 257]
    assert drift.lengths_of(25, 21) == [21, 25]
    assert drift.lengths_of(5, 9) == [5]


def test_scores_are_of_all_frames_and_of_the_last_chunk_alone():
    drift, truth = load_benchmark("drift"), np.full((10, 16, 16, 3), 100, np.uint8)
    made = truth.copy()
    made[9:] += 10
    found = drift.scores("plain", "a", made, truth, 9)
    assert found["late_psnr"] == pytest.approx(10 * np.log10(255**2 / 100))
    assert (found["frames"], found["psnr"]) == (10, float("inf"))
    assert found["drift_error"] == pytest.approx(np.sqrt(100 / 2))  # two frames are 15 % of ten, one of them is off
    assert (found["drift_colour"], found["true_colour"]) == (pytest.approx(5 * 3**0.5), 0)


@pytest.mark.slow
def test_it_measures_every_length_setting_and_distance(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    drift, out = load_benchmark("drift"), tmp_path / "drift.json"
    words = ["--clips", "1", "--frames", "25", "--chunk", "21", "--steps", "1"]
    drift.main([*words, "--threads", str(torch.get_num_threads()), "--json", str(out)])
    found = json.loads(out.read_text())
    rows = {(row["setting"], row["frames"]): row for row in found["by_length"]}
    assert set(rows) == {(name, frames) for name in (*drift.SETTINGS, "held") for frames in (21, 25)}
    assert rows["held", 25]["drift_sharpness"] == 0
    near, *far = [row["psnr"] for row in found["by_distance"]]
    assert len(far) == len(drift.METRES) - 1
    assert near == pytest.approx(rows["plain", 21]["psnr"])  # the clip's own anchor
    assert len({near, *far}) == len(drift.METRES)
    assert "m from the anchor" in capsys.readouterr().out
