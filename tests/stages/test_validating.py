"""Looking at a model while it trains: the same training with it and without, the same pictures as of a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_runs import files, rows, sets
from warm import WarmCommand, ok

from hmcli.errors import RecipeError
from hmcli.recipe.reading import load_recipe

HELD = sets("train.held_out=1", "train.ema=0.9", "train.checkpoint_every=3")
LONG = sets("train.steps=5", "train.batch=1")
EVERY = sets("train.validate_every=2", "train.validate_steps=2")
LOOKS = [*EVERY, *sets("train.validate_metrics=[psnr, subject-consistency]")]


def looks(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


def pictures(run: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(Image.open(file)) for file in sorted((run / "validation").iterdir())}


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Everything in the last checkpoint; headers of shares say the same in any order."""
    found = sorted((run / "checkpoints" / "000003").rglob("*.safetensors"))
    return {f"{file.name} {name}": value for file in found for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def line(nano: Path, latents: Path) -> list[Any]:
    return ["train", nano, "--latents", latents, *HELD]


@pytest.fixture(scope="module")
def plain(hm: WarmCommand, line: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody looked at."""
    return ok(hm(*line, "--out", tmp_path_factory.mktemp("plain") / "run", *LONG))


@pytest.fixture(scope="module")
def looked(hm: WarmCommand, line: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, looked at."""
    return ok(hm(*line, "--out", tmp_path_factory.mktemp("looked") / "run", *LONG, *LOOKS))


def test_looking_changes_neither_losses_nor_weights(plain: Path, looked: Path):
    assert rows(looked) == rows(plain)
    for step in ("000003", "000005"):
        assert files(looked, step) == files(plain, step)
    assert not (plain / "validation").exists()


def test_it_is_looked_at_before_the_first_step_every_so_many_and_at_the_end(looked: Path):
    found = looks(looked)
    assert [row["step"] for row in found] == [0, 2, 4, 5]
    assert list(pictures(looked)) == ["000000.png", "000002.png", "000004.png", "000005.png"]
    assert found[-1].keys() == {"step", "held_out_loss", "held_out_errors", "held_out_returned", "metrics"}
    metrics = [row["metrics"] for row in found]
    assert all({name.split(" ")[0] for name in of} == {"psnr", "subject-consistency"} for of in metrics)
    assert len({of["psnr"] for of in metrics}) == 4, "every look is at another model"
    last = rows(looked)[-1]  # with the checkpoint of the same step
    assert {name: found[-1][name] for name in found[-1] if name in last and name != "step"} == {
        name: value for name, value in last.items() if name.startswith("held_out")
    }


def test_a_look_shows_what_a_checkpoint_of_its_step_generates(
    hm: WarmCommand, nano: Path, latents: Path, clips: Path, looked: Path, tmp_path: Path
):
    """With the average of its weights, in the same few steps; hm eval gives the same scores."""
    clip = json.loads((clips / "clips.jsonl").read_text().splitlines()[-1])["id"]
    few = ["--clips", clip, *sets("sample.steps=2")]
    made = ok(hm("generate", latents, "--model", looked, "--out", tmp_path / "gen", *few))
    assert np.array_equal(np.asarray(Image.open(made / "contact_sheet.png")), pictures(looked)["000005.png"])
    scored = ok(hm("eval", made, "--metric", "psnr", "--out", tmp_path / "eval"))
    scores = json.loads((scored / "scores.json").read_text())["metrics"]
    assert scores["psnr"]["mean"] == looks(looked)[-1]["metrics"]["psnr"]


def test_a_run_that_goes_on_looks_at_each_step_once(hm: WarmCommand, line: list[Any], looked: Path, tmp_path: Path):
    """Killed after the checkpoint of step 3, and after a look at step 4."""
    run = shutil.copytree(looked, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "000005")
    again = hm(*line, "--out", run, *LONG, *LOOKS)
    assert "going on from step 3" in again.stderr
    assert looks(ok(again)) == looks(looked)
    shown, before = pictures(run), pictures(looked)
    assert shown.keys() == before.keys()
    assert all(np.array_equal(shown[name], before[name]) for name in shown)
    assert rows(run) == rows(looked)


def test_looks_that_were_not_taken_before_a_stop_are_taken_when_the_run_goes_on(
    hm: WarmCommand, line: list[Any], looked: Path, tmp_path: Path
):
    run = ok(hm(*line, "--out", tmp_path / "run", *sets("train.steps=2", "train.batch=1")))
    went = ok(hm(*line, "--out", run, *LONG, *LOOKS))
    assert [row["step"] for row in looks(went)] == [2, 4, 5], "nothing is known of step 0"
    assert looks(went) == looks(looked)[1:]


@pytest.mark.parametrize(
    "how",
    [["train.dtype=bfloat16", "train.lora={rank: 2}", "train.gradient_checkpointing=true"], ["train.parallel=fsdp"]],
)
def test_ranks_look_together(hm: WarmCommand, line: list[Any], tmp_path: Path, how: list[str]):
    ranks = [*line, "--num-processes", "2", *sets("train.batch=2", "train.steps=3", *how)]
    plain = ok(hm(*ranks, "--out", tmp_path / "plain"))
    looked = ok(hm(*ranks, "--out", tmp_path / "looked", *LOOKS))
    assert rows(looked) == rows(plain)
    states = [weights(run) for run in (looked, plain)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert [row["step"] for row in looks(looked)] == [0, 2, 3]
    assert list(pictures(looked)) == ["000000.png", "000002.png", "000003.png"]


def test_what_cannot_be_looked_at_is_refused(hm: WarmCommand, line: list[Any], nano: Path, tmp_path: Path):
    for settings, said in (
        (["train.validate_every=2"], "train.validate_every=2 needs train.held_out"),
        (["train.validate_metrics=[psnr]"], "train.validate_metrics needs train.validate_every"),
        (["train.validate_every=1", "train.held_out=1", "train.validate_clips=0", "train.validate_metrics=[psnr]"],
         "train.validate_metrics needs"),
    ):  # fmt: skip
        with pytest.raises(RecipeError, match=said):
            load_recipe(str(nano), settings)
    refused = hm(*line, "--out", tmp_path / "run", *LONG, *EVERY, *sets("train.validate_metrics=[lpips]"))
    assert refused.returncode == 5, "before the first step"
    assert rows(tmp_path / "run") == []
