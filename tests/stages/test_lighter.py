"""sample.quantize and sample.offload: weights that take less room. Fetched ones make the same bits, rounded ones nearly
the same latents."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from warm import WarmCommand, ok

from hmcli.core.lighter import FILES, check_torchao
from hmcli.errors import MissingPartError, RecipeError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.models.folders import find_model
from hmcli.stages.sampling import fits
from hmcli.stages.sampling.job import Job, generate_latents, open_job
from hmcli.stages.sampling.rollout import roll_out
from hmcli.store.video import read_video

TORCHAO = importlib.util.find_spec("torchao") is not None


def opened(model: Path, latents: Path, *changes: str, device: str = "cpu") -> Job:
    recipe = load_recipe(None, list(changes), dict(find_model(model).manifest.recipe))
    return open_job(recipe, find_model(model), latents, [], None, (), device, Silent())[0]


def latents_of(job: Job) -> np.ndarray:
    return generate_latents(job, job.view.clip(job.view.ids()[0]))


def test_weights_that_are_fetched_from_disk_make_the_same_video(
    hm: WarmCommand, run: Path, latents: Path, generation: Path, tmp_path: Path
):
    made = ok(hm("generate", latents, "--model", run, "--out", tmp_path / "gen", "--set", "sample.offload=disk"))
    for video in sorted((made / "videos").iterdir()):
        assert np.array_equal(read_video(video), read_video(generation / "videos" / video.name))


@pytest.mark.parametrize("more", ["sample.cache=first-block:9", "sample.chunk=9", "sample.dtype=bfloat16"])
def test_blocks_hold_no_weights_but_while_they_run(
    run: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def made(*changes: str) -> tuple[Job, list[np.ndarray]]:
        job = opened(run, latents, "sample.steps=3", more, *changes)
        if not job.sample.chunk:
            return job, [latents_of(job)]
        return job, list(roll_out(job, job.view.clip(job.view.ids()[0]), 1, tmp_path / "-".join(changes)))

    job, fetched = made("sample.offload=disk")
    assert list(tmp_path.glob(f"{FILES}*/**/*.safetensors"))
    weights = job.network.blocks[0].ffn.net[2].weight  # type: ignore[index, union-attr]
    weights.data.fill_(float("nan"))  # they come from the file anew
    if not job.sample.chunk:
        fetched += [latents_of(job)]
    assert all(np.array_equal(*pair) for pair in zip(fetched, made()[1] * len(fetched), strict=False))
    del job, weights
    gc.collect()
    assert not list(tmp_path.glob(f"{FILES}*"))


@pytest.mark.skipif(not TORCHAO, reason="torchao is not installed")
def test_rounded_weights_take_a_byte_and_make_nearly_the_same_latents(run: Path, latents: Path):
    plain, rounded = (opened(run, latents, *changes) for changes in ((), ("sample.quantize=int8",)))
    error = latents_of(rounded) - latents_of(plain)
    assert 0 < np.sqrt(np.square(error).mean()) < 0.02  # of unit variance
    layer = rounded.network.blocks[0].ffn.net[2]  # type: ignore[index, union-attr]
    assert layer.weight.qdata.dtype == torch.int8


def test_without_torchao_it_is_said_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="needs torchao") as refused:
        check_torchao("sample.quantize")
    assert "pip install 'hmcli[8bit]'" in refused.value.fix
    assert refused.value.exit_code == 5


def test_what_has_no_effect_or_was_not_tried_together_is_refused(run: Path, latents: Path):
    with pytest.raises(UsageError, match="no effect on a CPU") as refused:
        opened(run, latents, "sample.offload=memory")
    assert "sample.offload=disk" in refused.value.fix
    for words, said in (
        (("sample.offload=disk", "sample.quantize=int8"), "cannot be written to disk"),
        (("sample.offload=disk", "sample.compile=blocks"), "sample.offload=disk with sample.compile=blocks"),
        (("sample.quantize=int8", "sample.compile=blocks"), "sample.quantize=int8 with sample.compile=blocks"),
    ):
        with pytest.raises(RecipeError) as many:
            load_recipe(None, list(words))
        assert said in str(many.value)


def test_weights_that_lie_elsewhere_are_not_counted_on_a_gpu_and_are_proposed(run: Path, latents: Path):
    job = dataclasses.replace(opened(run, latents), device="cuda")
    fetched = dataclasses.replace(opened(run, latents, "sample.offload=disk"), device="cuda")
    least = fits.least_bytes(fetched, 6, 1, "float32")
    assert least < fits.least_bytes(job, 6, 1, "bfloat16")
    with pytest.raises(UsageError) as refused:
        fits.check_bytes(job, 6, 1, least)
    assert refused.value.fix == "set sample.offload=memory"
