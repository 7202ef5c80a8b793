"""sample.compile and train.compile: what the commands make with compiled blocks is what they make without, but for
rounding. Compiling takes a minute and a C++ compiler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from warm import WarmCommand, ok

from hmcli.stages.models.layout import LOG
from hmcli.store.video import read_video


@pytest.mark.slow
def test_compiled_blocks_train_and_sample_what_plain_ones_do(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, generation: Path, tmp_path: Path
):
    pytest.importorskip("torch._inductor.cpp_builder").get_cpp_compiler()
    made = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "gen", "--set", "sample.compile=blocks"))
    rows = [json.loads(line) for line in (made / "generations.jsonl").read_text().splitlines()]
    assert all(row["again"]["made_of"]["sample"]["compile"] == "blocks" for row in rows)
    for row in rows:
        here, there = (read_video(place / row["video"]).astype(int) for place in (made, generation))
        assert np.abs(here - there).max() <= 2
    trained = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", "--set", "train.compile=blocks"))
    losses = [[json.loads(line)["loss"] for line in (of / LOG).read_text().splitlines()] for of in (trained, run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    again = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "run", "--set", "train.steps=5"))
    assert json.loads((again / LOG).read_text().splitlines()[-1])["step"] == 5  # a run goes on either way


def test_without_a_compiler_it_is_said_before_any_weights_load(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path
):
    bare = {"PATH": str(tmp_path), "CXX": "nowhere"}
    for words in (
        ("generate", latents, "--model", run, "--set", "sample.compile=blocks"),
        ("train", nano, "--latents", latents, "--set", "train.compile=blocks"),
    ):
        done = hm(*words, "--out", tmp_path / "out", env=bare)
        assert done.returncode == 5, done.stderr
        assert "C++ compiler" in done.stderr
        assert not (tmp_path / "out").exists()
