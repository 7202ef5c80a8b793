"""The rows of recipes/nano differ in what they read from memory alone, and all.sh makes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from warm import WarmCommand

from hmcli.metrics.backbones.networks import file_hash
from hmcli.recipe.reading import load_recipe, to_dict
from hmcli.stages.models.folders import PACKAGED, find_model, model_arguments, read_otherwise
from hmcli.stages.models.layout import TRANSFORMER
from hmcli.store.manifest import read_manifest

ROWS = {"window-only": ("none", 0), "dense": ("all", 0), "hydra": ("affinity", 3), "oracle": ("oracle", 3)}


def without_policy(name: str) -> dict[str, Any]:
    values = to_dict(load_recipe(f"nano/{name}"))
    for key in ("policy", "top_k"):
        del values["model"]["memory"][key]
    return values


@pytest.mark.parametrize("name", ROWS)
def test_rows_differ_in_the_factor_they_are_named_after(name: str):
    memory = load_recipe(f"nano/{name}").model.memory
    assert (memory.policy, memory.top_k) == ROWS[name]
    assert without_policy(name) == without_policy("hydra")


def test_rows_start_from_a_base_of_their_own_kind():
    base, row = (to_dict(load_recipe(f"nano/{name}")) for name in ("base", "dense"))
    assert base["model"] == row["model"]
    assert {key for key in base["train"] if base["train"][key] != row["train"][key]} <= {
        "steps", "lr", "warmup", "ema", "checkpoint_every",
    }  # fmt: skip


def test_the_packaged_base_is_what_its_card_says_and_what_rows_start_from():
    place = PACKAGED.with_name("nano")
    card, base = (place / "README.md").read_text(), find_model(place)
    base.check_whole(TRANSFORMER)
    base.check_whole("vae")
    for part in (TRANSFORMER, "vae"):
        assert f"{part} sha256:{file_hash(place / part / 'diffusion_pytorch_model.safetensors')}" in card
    row = load_recipe("nano/hydra", ["codec.channels=24", f"model.base={place}"])
    wanted = model_arguments(row, channels=24, text_dim=base.config()["text_dim"])
    assert {"policy", "top_k"} == set(read_otherwise(base, wanted))
    assert "/" not in base.manifest.recipe["codec"]["path"]


def test_the_codec_is_the_one_that_the_rows_expect():
    codec, row = load_recipe("nano/blocks"), load_recipe("nano/hydra")
    assert (row.codec.name, row.codec.stride) == (codec.train.part, codec.codec.stride)
    assert codec.data == row.data


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_of_nano_is_made_by_one_line_and_resumes(hm: WarmCommand, project: Path, tmp_path: Path):
    hm.shim(tmp_path)
    short = {
        "CLIPS": "34", "SCORED": "1", "BASE_STEPS": "1", "ROW_STEPS": "1", "SAMPLE_STEPS": "1",
        "PROCESSES": "2", "ROWS": "hydra window-only", "WORLD": "world.places=1", "CODEC": "codec.channels=24",
    }  # fmt: skip
    line = ["bash", project / "recipes" / "nano" / "all.sh", tmp_path / "nano"]
    env = {**os.environ, **short, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    made = tmp_path / "nano"
    for _ in range(2):
        subprocess.run(line, env=env, check=True)
        kinds = {place.name: read_manifest(place).fingerprint for place in made.iterdir() if place.is_dir()}
        made_of = {"clips", "codec", "clips.latents", "base", "hydra", "seen-hydra", "test-window-only.scores"}
        assert made_of < set(kinds)
    assert kinds == {place.name: read_manifest(place).fingerprint for place in made.iterdir() if place.is_dir()}
    pilots = {"PILOTS": "adamw unweighted", "STEPS": "1", "SEEDS": "5", "SCORED": "1", "SAMPLE_STEPS": "1"}
    subprocess.run([line[0], line[1].with_name("pilots.sh"), line[2]], env={**env, **pilots}, check=True)
    for pilot, changed in (("adamw", ("optimizer", "adamw")), ("unweighted", ("subject_weight", 0.0))):
        run = read_manifest(made / f"pilot-{pilot}-5")
        assert (run.seed, run.recipe["train"][changed[0]]) == (5, changed[1])
        assert "psnr-returned" in read_manifest(made / f"pilot-{pilot}-5.scores").recipe["eval"]["metrics"]
