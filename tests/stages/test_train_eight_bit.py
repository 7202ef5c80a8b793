"""train.optimizer=adamw8bit: AdamW with moments in 8 bits, from a package that may be missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from training_runs import rows, sets, state
from warm import WarmCommand, ok

from hmcli.errors import RecipeError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe, TrainConfig
from hmcli.stages.planning.rehearsal import set_up, training_account
from hmcli.stages.planning.shapes import shape_of
from hmcli.stages.training.eight_bit import adamw_8bit, is_packed

INSTALLED = importlib.util.find_spec("torchao") is not None
needs_it = pytest.mark.skipif(not INSTALLED, reason="needs torchao (hmcli[8bit])")
EIGHT = sets("train.optimizer=adamw8bit", "train.checkpoint_every=2", "train.ema=0.9")
WIDE = sets("model.dim=48", "model.heads=2", "model.ffn_dim=256")  # some layers hold 4096 values and more


def planned(*more: str) -> Recipe:
    return load_recipe(None, ["model.layers=1", "model.dim=96", "model.heads=2", "model.ffn_dim=384", *more])


@pytest.mark.skipif(INSTALLED, reason="torchao is installed")
def test_without_its_package_training_ends_with_the_fix(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    done = hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *EIGHT)
    assert done.returncode == 5
    assert "pip install 'hmcli[8bit]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_shares_of_a_model_have_no_moments_in_eight_bits():
    with pytest.raises(RecipeError, match="adamw8bit"):
        load_recipe(None, ["train.optimizer=adamw8bit", "train.parallel=fsdp"])


def test_a_plan_counts_a_byte_for_each_moment_of_a_value_and_what_blocks_share():
    recipe = planned("train.optimizer=adamw8bit")
    shape = shape_of(recipe)
    sizes = [(p.numel(), is_packed(p)) for p in set_up(planned(), shape, on_cpu=True).trained]
    assert {packed for _, packed in sizes} == {True, False}
    bytes_of = [2 * (n + 4 * n // 256 + 4 * 256) if packed else 2 * 4 * n for n, packed in sizes]
    assert training_account(recipe, shape, on_cpu=True).optimizer == sum(bytes_of) + 4 * len(sizes)


@needs_it
def test_what_the_package_keeps_is_what_a_plan_counts():
    recipe = planned()
    trained = set_up(recipe, shape_of(recipe), on_cpu=True).trained
    optimizer = adamw_8bit(trained, TrainConfig())
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    held = optimizer.state_dict()["state"].values()
    tables = 2 * 4 * 256 * sum(is_packed(parameter) for parameter in trained)
    found = sum(tensor.nbytes for parts in held for tensor in parts.values()) + tables
    counted = training_account(planned("train.optimizer=adamw8bit"), shape_of(recipe), on_cpu=True).optimizer
    assert found == counted


@needs_it
def test_updates_are_near_those_of_adamw():
    train = TrainConfig(lr=1e-2)
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 8192).view(64, 128)) for _ in range(2)]
    start = weights[0].detach().clone()
    eight = adamw_8bit([weights[0]], train)
    wide = torch.optim.AdamW([weights[1]], lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)
    noise = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient = torch.randn(64, 128, generator=noise)
        for weight, optimizer in zip(weights, (eight, wide), strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    moved = [(weight.detach() - start).flatten() for weight in weights]
    assert torch.nn.functional.cosine_similarity(*moved, dim=0) > 0.99
    assert not torch.equal(*moved)


@needs_it
def test_a_run_with_moments_in_eight_bits_goes_on_exactly(hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path):
    line = ["train", nano, "--latents", latents, *EIGHT, *WIDE]
    whole = hm(*line, "--set", "train.steps=4", "--out", tmp_path / "whole")
    begun = ["--out", tmp_path / "begun"]
    ok(hm(*line, "--set", "train.steps=2", *begun))
    again = hm(*line, "--set", "train.steps=4", *begun)
    assert "going on from step 2" in again.stderr
    assert rows(ok(again)) == rows(ok(whole))
    found, wanted = (state(tmp_path / name, "000004") for name in ("begun", "whole"))
    assert found.keys() == wanted.keys()
    assert any(value.dtype == torch.uint8 and value.any() for value in wanted.values())
    assert [name for name in found if not torch.equal(found[name], wanted[name])] == []
    other = hm(*line, "--set", "train.optimizer=adamw", *begun)
    assert other.returncode == 2
    assert "train.optimizer" in other.stderr
