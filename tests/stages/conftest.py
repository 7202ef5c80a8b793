"""Small clips and latents made once per test process; tests that change them copy them first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_bench as tiny
from warm import WarmCommand, ok

from hmcli.recipe.reading import load_recipe
from hmcli.stages.inspecting import memory as inspecting
from hmcli.stages.latents import encode
from hmcli.stages.memory import tokenize
from hmcli.stages.rendering import render
from hmcli.stages.sampling import generate
from hmcli.stages.scoring import evaluate

NANO = """
format: 1
seed: 5
world:
  {clips: 3, context_frames: 21, target_frames: 21, fps: 10, size: [32, 48], antialias: false, visible_seconds: 0.8,
   hidden_seconds: 0.6}
data: {size: [32, 48]}
codec: {name: mini}
text: {name: mini, length: 12}
model:
  layers: 2
  dim: 24
  heads: 2
  ffn_dim: 40
  freq_dim: 16
  memory: {policy: affinity, context: frozen, top_k: 1, window: 3, kernel: [2, 2, 2]}
train: {steps: 4, batch: 2, lr: 1.0e-3, warmup: 2, checkpoint_every: 2}
sample: {steps: 2, guidance: 1.5}
eval: {backbone: hog}
"""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="session")
def nano(place: Path) -> Path:
    """A recipe of the smallest useful scale."""
    (place / "nano.yaml").write_text(NANO, encoding="utf-8")
    return place / "nano.yaml"


@pytest.fixture(scope="session")
def clips(hm: WarmCommand, nano: Path, place: Path) -> Path:
    return ok(hm("render", nano, "--out", place / "clips"))


@pytest.fixture(scope="session")
def latents(hm: WarmCommand, nano: Path, clips: Path, place: Path) -> Path:
    return ok(hm("encode", clips, "--recipe", nano, "--out", place / "latents.zarr"))


@pytest.fixture(scope="session")
def run(hm: WarmCommand, nano: Path, latents: Path, place: Path) -> Path:
    """A trained run with frozen context."""
    return ok(hm("train", nano, "--latents", latents, "--out", place / "run"))


@pytest.fixture(scope="session")
def joint_run(hm: WarmCommand, nano: Path, latents: Path, place: Path) -> Path:
    return ok(hm("train", nano, "--latents", latents, "--out", place / "joint", "--set", "model.memory.context=joint"))


@pytest.fixture(scope="session")
def generation(hm: WarmCommand, run: Path, latents: Path, place: Path) -> Path:
    return ok(hm("generate", latents, "--model", run, "--out", place / "gen"))


@pytest.fixture(scope="session")
def tiny_bench(tmp_path_factory: pytest.TempPathFactory) -> tiny.TinyBench:
    """A frozen benchmark and its clips."""
    return tiny.make(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def stages(nano: Path, clips: Path, latents: Path, run: Path, generation: Path) -> dict[str, Callable[..., Any]]:
    """Every stage that works clip by clip, as a function of `out`, `reporter` and what else its `run` takes."""
    recipe = load_recipe(nano)
    common: dict[str, Any] = {"force": False, "device": "cpu"}
    model = {"latents": latents, "model": run, "clips": ()}
    return {
        "render": lambda **o: render.run(recipe, **common, **o),
        "encode": lambda **o: encode.run(recipe, data=clips, **common, **o),
        "slots": lambda **o: tokenize.run(recipe, latents=latents, model=None, clips=(), **common, **o),
        "memory": lambda **o: tokenize.run(recipe, **model, **common, **o),
        "generate": lambda **o: generate.run(
            recipe, source=latents, model=run, memory=(), clips=(), **common, **o
        ),
        "eval": lambda **o: evaluate.run(recipe, generation=generation, reference=clips, metrics=(), **common, **o),
        "inspect": lambda **o: inspecting.run(recipe, **model, memory=(), **common, **o),
    }  # fmt: skip
