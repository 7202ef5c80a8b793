"""`hm plan` of trainings on videos: a VAE, the segmenter, the code of blocks, against what they really take."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from hmcli.errors import UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Silent
from hmcli.stages.planning import pixel_plans, plan
from hmcli.stages.planning.pixels import kinds_of_steps, pixel_account, real_pixel_step, rehearsed
from hmcli.stages.planning.shapes import shape_of
from hmcli.stages.shared.devices import CONTEXT, Device
from hmcli.stages.training.state import flat, take_state

SMALL = ["train.batch=1", "train.frames=5", "data.size=[32, 48]", "train.ema=0.9", "train.steps=10", "world.clips=3",
         "world.context_frames=9", "world.target_frames=5"]  # fmt: skip
PARTS = ("codec", "segmenter")


def small(part: str, *more: str) -> Recipe:
    unread = ["train.frames=5"] if part != "codec" else []
    unread += ["train.batch=1", "train.ema=0.9", "train.steps=10"] if part == "blocks" else []
    return load_recipe(None, [f"train.part={part}", *[text for text in SMALL if text not in unread], *more])


def planned(*recipes: Recipe, latents: Path | None = None, world: int = 1, timed: bool = False) -> Any:
    named = [(recipe.train.part, recipe) for recipe in recipes]
    return plan.run(named, latents=latents, world=world, on_device="here", timed=timed, reporter=Silent())


@pytest.mark.parametrize("part", PARTS)
def test_activations_of_a_step_on_videos_are_what_autograd_saves(part: str):
    recipe = small(part)
    stage = rehearsed(recipe, (32, 48), kinds_of_steps(recipe)[-1][1], on_cpu=True)
    known = {tensor.untyped_storage().data_ptr() for tensor in (*stage.model.parameters(), *stage.given)}
    saved: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage] = 0 if storage.data_ptr() in known else storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = stage.loss()
    account = pixel_account(recipe, shape_of(recipe), on_cpu=True)
    assert loss.isfinite()
    assert account.step.activations == pytest.approx(sum(saved.values()), rel=0.02)
    assert account.step.activations > 100_000


@pytest.mark.parametrize("part", PARTS)
def test_a_checkpoint_of_a_training_on_videos_is_as_large_as_its_tensors(part: str):
    recipe = small(part)
    stage = rehearsed(recipe, (32, 48), kinds_of_steps(recipe)[-1][1], on_cpu=True)
    real_pixel_step(recipe, stage)
    state = take_state(stage.model, stage.optimizers, stage.average, step=1, seed=0)
    account = pixel_account(recipe, shape_of(recipe), on_cpu=True)
    assert account.checkpoint == sum(tensor.nbytes for tensor in flat(state).values())
    assert account.exported == 2 * sum(parameter.numel() for parameter in stage.model.parameters())
    assert account.step.gradients == 4 * sum(parameter.numel() for parameter in stage.trained)


def test_a_new_vae_learns_from_pictures_first_and_another_from_clips_alone():
    recipe = small("codec")
    assert kinds_of_steps(recipe) == [(6, 0), (4, 6)]
    assert kinds_of_steps(small("codec", "codec.path=somewhere")) == [(10, 0)]
    pictures, clips = pixel_account(recipe, shape_of(recipe), on_cpu=True).phases
    assert clips.account.flop > pictures.account.flop > 0  # five frames, and four pictures
    only = small("codec", "train.train_only=[decoder]")
    assert pixel_account(only, shape_of(only), on_cpu=True).step.trained < clips.account.trained


def test_flop_of_the_code_are_its_products_and_its_clips_come_one_by_one():
    recipe = small("blocks", "codec.channels=8", "codec.stride=4")
    account = pixel_account(recipe, shape_of(recipe), on_cpu=True)
    numbers = 3 * 4 * 4
    blocks = sum((frames + 3) // 4 * 8 * 12 for frames in (9, 5))
    waves = 2 * 4 * 4 * blocks * numbers
    outer = 2 * 4 * blocks * numbers**2
    assert account.step.flop == pytest.approx(waves + outer, rel=0.02)
    assert account.step.parameters == numbers + 8 * numbers + 8
    more = small("blocks", "codec.channels=8", "codec.stride=4", "world.clips=300")
    grown = pixel_account(more, shape_of(more), on_cpu=True).videos - account.videos
    assert grown < 4 * 32 * 48 * 14 * 310  # starts; and few whole clips


def test_plans_of_all_parts_are_told_and_summed():
    told = planned(*(small(part) for part in (*PARTS, "blocks")))
    codec, segmenter, blocks = told.data["plans"]
    area = 32 * 48 * 14 * 3
    assert codec["memory"]["videos"] == segmenter["memory"]["videos"] == 4 * area
    assert codec["memory"]["peak"] > codec["memory"]["activations"] + codec["memory"]["videos"]
    assert blocks["disk"]["checkpoint"] == 0
    reading = pixel_plans.READ * area
    assert codec["times"]["train"] == pytest.approx(10 * codec["times"]["step"] + reading)
    assert blocks["times"]["train"] == pytest.approx(3 * blocks["times"]["step"] + reading)
    assert told.data["sum"]["disk.run"] == pytest.approx(sum(each["disk"]["run"] for each in told.data["plans"]))
    for word in ("train.part=segmenter", "3 of 9 + 5 frames of 32 x 48", "sums of products", "a checkpoint"):
        assert word in told.text


def test_a_timed_plan_takes_a_step_of_each_kind():
    times = planned(small("codec"), timed=True).data["plans"][0]["times"]
    assert times["timed"] is True
    assert times["step"] > 0.001


def test_a_step_on_videos_that_does_not_fit_is_told_with_a_smaller_batch():
    recipe = small("segmenter", "train.batch=8")
    shape = shape_of(recipe)
    two = pixel_account(small("segmenter", "train.batch=2"), shape, on_cpu=False).step.peak
    device = Device(name="small", memory=two + CONTEXT, rates={"float32": 1e9})
    made = pixel_plans.pixel_plan("mine", recipe, shape, device, timed=False)
    assert [(each.change, each.fits) for each in made.remedies] == [("train.batch=4", False), ("train.batch=2", True)]
    assert not made.memory.fits


def test_latents_say_nothing_of_a_training_on_videos(tmp_path: Path):
    with pytest.raises(UsageError, match="describes what a transformer trains on"):
        planned(small("codec"), latents=tmp_path)
