"""Training in float16: the factor on the loss changes no gradient, and steps that overflow change no weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hmcli.errors import NotFiniteError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.training import scaling, train
from hmcli.stages.training.scaling import PATIENCE, LossScale
from hmcli.stages.training.trainer import Prepared, Training, prepare_training

FLOAT16 = ["train.dtype=float16", "train.warmup=0", "train.ema=0.5"]
TOO_LARGE = 2.0**40  # float16 ends at 65504


def asked(nano: Path, *more: str) -> Recipe:
    return load_recipe(str(nano), [*FLOAT16, *more])


def ready(latents: Path, recipe: Recipe) -> tuple[Training, Prepared]:
    view = open_latents(latents)
    training = prepare_training(train.as_encoded(recipe, view, Silent()), view, "cpu", None, Silent())
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
