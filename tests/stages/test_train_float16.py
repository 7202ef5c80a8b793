"""Training in float16: the factor on the loss changes no gradient, and steps that overflow change no weight."""

from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from hmcli.errors import NotFiniteError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.training import scaling, train
from hmcli.stages.training.ranks import ALONE, Ranks
from hmcli.stages.training.scaling import PATIENCE, LossScale
from hmcli.stages.training.trainer import Prepared, Training, prepare_training

FLOAT16 = ["train.dtype=float16", "train.warmup=0", "train.ema=0.5"]
TOO_LARGE = 2.0**40  # float16 ends at 65504


def asked(nano: Path, *more: str) -> Recipe:
    return load_recipe(str(nano), [*FLOAT16, *more])


def ready(latents: Path, recipe: Recipe, ranks: Ranks = ALONE) -> tuple[Training, Prepared]:
    view = open_latents(latents)
    training = prepare_training(train.as_encoded(recipe, view, Silent()), view, "cpu", None, Silent(), ranks)
    clips = [view.clip(clip) for clip in view.ids()[: recipe.train.batch]]
    return training, training.prepare(0, clips)


def everything(training: Training) -> dict[str, Any]:
    assert training.average is not None
    return {
        **{name: value.clone() for name, value in training.model.state_dict().items()},
        **{f"average {n}": value.clone() for n, value in enumerate(training.average.shadow_params)},
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.mark.parametrize("pieces", [1, 2])
def test_gradients_are_those_of_float32_whatever_the_factor(latents: Path, nano: Path, pieces: int):
    found = []
    for more in ("train.dtype=float32", "train.dtype=float16"):
        training, prepared = ready(latents, asked(nano, more, f"train.accumulate={pieces}"))
        found.append(training.step(prepared))
    wide, narrow = found
    assert wide.grad_norm is not None
    assert narrow.grad_norm == pytest.approx(wide.grad_norm, rel=0.01)
    assert narrow.loss == pytest.approx(wide.loss, rel=0.01)
    assert (wide.loss_scale, wide.skipped) == (None, None)
    assert (narrow.loss_scale, narrow.skipped) == (scaling.START, 0)


def test_a_step_that_overflows_changes_nothing_and_the_next_ones_find_the_factor(latents: Path, nano: Path):
    training, prepared = ready(latents, asked(nano))
    assert training.scale is not None
    training.scale.factor = TOO_LARGE
    before = everything(training)
    row = training.step(prepared)
    assert (row.grad_norm, row.skipped, row.loss_scale) == (None, 1, TOO_LARGE / 2)
    assert changed(before, everything(training)) == []
    assert not any(optimizer.state for optimizer in training.optimizers)
    while row.grad_norm is None:
        row = training.step(prepared)
    assert row.skipped is not None
    assert row.loss_scale == TOO_LARGE / 2**row.skipped < TOO_LARGE / 2
    assert changed(before, everything(training))


def test_gradients_that_stay_not_finite_end_the_run_by_name(latents: Path, nano: Path):
    training, prepared = ready(latents, asked(nano))
    training.parameters[0].register_hook(lambda gradient: gradient * float("nan"))
    before = everything(training)
    for _ in range(16):
        assert training.step(prepared).grad_norm is None
    with pytest.raises(NotFiniteError, match="nan in float16, however small the loss is made in step 1") as refused:
        training.step(prepared)
    assert prepared.clips[0].id in str(refused.value.where["clips"])
    assert training.scale is not None
    assert (training.scale.factor, training.scale.skipped) == (1, 16)
    assert changed(before, everything(training)) == []


def test_a_factor_that_did_well_for_long_doubles():
    scale = LossScale(factor=4.0)
    assert all(scale.settle(1.0) for _ in range(PATIENCE - 1))
    assert scale.factor == 4
    assert scale.settle(1.0)
    assert (scale.factor, scale.calm) == (8, 0)
    assert not scale.settle(float("inf"))
    assert (scale.factor, scale.calm, scale.skipped) == (4, 0, 1)


def test_a_run_goes_on_with_the_factor_and_count_it_had(
    latents: Path, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scaling, "START", TOO_LARGE)

    def to(steps: int, out: str) -> list[dict[str, Any]]:
        recipe = asked(nano, f"train.steps={steps}", "train.checkpoint_every=4")
        made = train.run(recipe, latents=latents, out=tmp_path / out, force=False, device="cpu", reporter=Silent())
        return [json.loads(line) for line in (made.path / "steps.jsonl").read_text().splitlines()]

    to(4, "parts")
    parts, whole = to(6, "parts"), to(6, "whole")
    assert parts == whole
    assert [row["skipped"] for row in whole] == [1, 2, 3, 4, 5, 6]
    assert all("grad_norm" not in row for row in whole)


def _of_two(rank: int, meeting: Path, latents: Path, recipe: Recipe, out: Path) -> None:
    """Two steps as one of two ranks; in the first one, gradients of the second rank's samples overflow."""
    dist.init_process_group("gloo", store=dist.FileStore(str(meeting), 2), rank=rank, world_size=2)
    training, prepared = ready(latents, recipe, Ranks(rank, 2))
    steps = [held(training)]
    with training.model.proj_out.register_forward_hook(_overflowing if rank == 1 else _as_it_is):
        rows = [training.step(prepared)]
    steps.append(held(training))
    rows.append(training.step(prepared))
    steps.append(held(training))
    for number, tensors in enumerate(steps):
        save_file(tensors, out / f"{rank}-{number}.safetensors")
    (out / f"{rank}.json").write_text(json.dumps([[row.grad_norm, row.skipped, row.loss_scale] for row in rows]))
    dist.destroy_process_group()


def _overflowing(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
    """Of the first channel alone: where models are divided, in the first rank's share of the weights alone."""
    large = torch.ones(output.shape[-1])
    large[0] = TOO_LARGE
    output.register_hook(lambda gradient: (gradient * large).to(gradient.dtype))


def _as_it_is(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
    pass


def held(training: Training) -> dict[str, torch.Tensor]:
    """What this rank holds of weights and averages."""
    found = everything(training).items()
    return {name: (value.to_local() if isinstance(value, DTensor) else value).clone() for name, value in found}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_an_overflow_of_one_rank_makes_both_skip_the_step(latents: Path, nano: Path, tmp_path: Path, parallel: str):
    recipe = asked(nano, "train.batch=2", f"train.parallel={parallel}", "train.train_only=[proj_out]")
    arguments = (tmp_path / "meeting", latents, recipe, tmp_path)
    ranks = [get_context("fork").Process(target=_of_two, args=(rank, *arguments), daemon=True) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    (skipped, taken) = first
    assert skipped == [None, 1, scaling.START / 2]
    assert taken[0] > 0
    assert taken[1:] == [1, scaling.START / 2]
    steps = [[load_file(tmp_path / f"{rank}-{number}.safetensors") for number in range(3)] for rank in range(2)]
    for start, after_overflow, end in steps:
        assert changed(start, after_overflow) == []
        assert changed(after_overflow, end)
    if parallel == "ddp":
        assert changed(steps[0][2], steps[1][2]) == []
