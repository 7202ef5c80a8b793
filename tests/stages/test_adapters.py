"""hm train with train.lora: only adapters move, a run resumes exactly, and what it made generates at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from warm import WarmCommand, ok

from hmcli.core.lora import FILE
from hmcli.stages.models.folders import find_model
from hmcli.store.weights import load_state_dict

LORA = ["--set", "train.lora={rank: 2, alpha: 4, targets: [to_q, ffn.net.2]}", "--set", "train.lr=1e-2"]


@pytest.fixture(scope="module")
def lora_run(hm: WarmCommand, nano: Path, latents: Path, run: Path, place: Path) -> Path:
    more = ["--set", f"model.base={run}", "--set", "train.train_only=[camera]", "--set", "train.ema=0.5"]
    return ok(hm("train", nano, "--latents", latents, "--out", place / "lora", *LORA, *more))


def test_a_run_with_adapters_moves_only_what_they_sit_on(run: Path, lora_run: Path):
    base, made = (load_state_dict(find_model(place).path / "transformer") for place in (run, lora_run))
    moved = {name for name in made if not torch.equal(made[name], base[name])}
    assert base.keys() == made.keys()
    assert {name.split(".", 2)[2] for name in moved} == {
        "attn1.to_q.weight", "attn2.to_q.weight", "ffn.net.2.weight", "camera.context.weight", "camera.context.bias",
        "camera.target.weight", "camera.target.bias",
    }  # fmt: skip
    product = made["blocks.0.attn1.to_q.weight"] - base["blocks.0.attn1.to_q.weight"]
    assert torch.linalg.matrix_rank(product.double(), rtol=1e-3) <= 2
    assert (find_model(lora_run).path / "lora" / FILE).is_file()


def test_a_run_with_adapters_generates_at_once(hm: WarmCommand, lora_run: Path, latents: Path, tmp_path: Path):
    done = hm("generate", latents, "--model", lora_run, "--out", tmp_path / "gen")
    assert len(list((ok(done) / "videos").iterdir())) == 3
    assert done.stderr.count("attention: ") == 1
    refused = hm("generate", latents, "--model", lora_run, "--out", tmp_path / "no", "--set", "sample.attention=flex")
    assert refused.returncode == 2
    assert "available here: auto, sdpa, flash, math" in refused.stderr


def test_its_adapter_on_the_base_is_the_run(hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path):
    made = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "l", *LORA, "--set", f"model.base={run}"))
    adapter = find_model(made).path / "lora" / FILE
    fused = ok(hm("convert", run, "--lora", adapter, "--out", tmp_path / "fused"))
    got, wanted = (load_state_dict(find_model(place).path / "transformer") for place in (fused, made))
    assert all(torch.allclose(got[name], wanted[name], atol=1e-6) for name in wanted)


def test_a_longer_run_ends_where_one_that_never_stopped_ends(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, lora_run: Path, tmp_path: Path
):
    copy = tmp_path / "run"
    shutil.copytree(lora_run, copy)
    more = [*LORA, "--set", f"model.base={run}", "--set", "train.train_only=[camera]", "--set", "train.ema=0.5"]
    more += ["--set", "train.steps=6"]
    longer = hm("train", nano, "--latents", latents, "--out", copy, *more)
    assert "going on from step 4" in longer.stderr
    whole = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "whole", *more))
    for file in ("transformer/diffusion_pytorch_model.safetensors", f"lora/{FILE}"):
        ended, straight = (find_model(place).path / file for place in (ok(longer), whole))
        assert ended.read_bytes() == straight.read_bytes()


def test_a_target_that_names_no_layer_is_refused(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    done = hm("train", nano, "--latents", latents, "--out", tmp_path / "r", "--set", "train.lora={targets: [to_x]}")
    assert done.returncode == 2
    assert "to_x" in done.stderr
