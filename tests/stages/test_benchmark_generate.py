"""The benchmark of generation runs, on next to nothing, and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmark_files import load_benchmark

THREADS = ["--threads", str(torch.get_num_threads())]


def test_it_compares_frozen_with_joint_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, sizes = tmp_path / "g.json", ["--frames", "6", "--layers", "1", "--dim", "24", "--heads", "2", "--size", "4x8"]
    load_benchmark("generate").main(
        ["--steps", "2", "--rounds", "2", "--top-k", "2", *sizes, *THREADS, "--json", str(out)]
    )
    found = json.loads(out.read_text())
    assert found["limit"] == pytest.approx(4 / 3)
    assert found["times_faster"] == pytest.approx(found["joint_seconds"] / found["frozen_seconds"])
    assert all(len(values) == 2 for values in found["seconds"].values())
    assert "times faster; 1.33 is the limit of 2 steps" in capsys.readouterr().out


def test_it_names_the_parts_of_a_video_and_what_options_cost_in_pixels(tmp_path: Path):
    out = tmp_path / "g.json"
    words = ["--steps", "2", "--rounds", "1", "--parts", "--options", "together,disk,first-block:9,1,unipc"]
    load_benchmark("generate").main([*words, *THREADS, "--json", str(out)])
    found = json.loads(out.read_text())
    assert set(found["parts"]) == {"loading weights", "context", "denoising", "decoding", "writing"}
    costs = {name: of["psnr_to_plain"] for name, of in found["options"].items()}
    assert costs["together"] > 55  # it rounds otherwise
    assert costs["disk"] == float("inf")  # the same bits
    assert costs["first-block:9"] < 55
    assert costs["1"] < 40
    assert all(of["times_faster"] == pytest.approx(found["plain_seconds"] / of["seconds"])
               for of in found["options"].values())  # fmt: skip


def test_it_compares_videos_together_with_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "g.json"
    load_benchmark("generate").main(["--steps", "1", "--rounds", "1", "--batch", "2", *THREADS, "--json", str(out)])
    found = json.loads(out.read_text())["batch"]
    assert found["videos"] == 2
    assert 0 < found["latents_apart"] < 2e-5  # sums round otherwise
    assert found["times_faster"] == pytest.approx(found["alone_seconds"] / found["together_seconds"])
    assert "2 videos: " in capsys.readouterr().out
