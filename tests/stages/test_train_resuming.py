"""hm train --resume-with: a run goes on under another learning rate, with all it had, and says so."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from warm import WarmCommand, ok, wait_for

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.training.checkpoints import read_checkpoint
from hmcli.stages.training.learning import batches
from hmcli.stages.training.train import as_encoded
from hmcli.stages.training.trainer import prepare_training
from hmcli.store.manifest import read_manifest
from hmcli.store.weights import load_state_dict

OTHER = ["--resume-with", "train.lr=5e-5", "--resume-with", "train.decay=cosine", "--resume-with", "train.steps=12"]
SAID = {
    "train.lr": "0.001 then, 5e-05 now",
    "train.decay": "'constant' then, 'cosine' now",
    "train.steps": "4 then, 12 now",
}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def test_a_run_goes_on_under_another_rate_with_its_weights_and_moments(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, copy: Path
):
    done = hm("train", nano, "--latents", latents, "--out", copy, *OTHER)
    assert "going on from step 4" in done.stderr
    manifest = read_manifest(ok(done))
    assert manifest.attributes["resumed"] == [{"step": 4, "changed": SAID}]
    assert manifest.recipe["train"]["lr"] == 5e-5
    assert manifest.fingerprint != read_manifest(run).fingerprint
    view = open_latents(latents)
    plain = ["train.lr=5e-5", "train.decay=cosine", "train.steps=12"]
    recipe = as_encoded(load_recipe(str(nano), plain), view, Silent())
    training = prepare_training(recipe, view, "cpu", None, Silent())
    assert read_checkpoint(run / "checkpoints/000004", training.model, training.optimizers, None, recipe.seed) == 4
    order, log = batches([list(group.ids) for group in view.groups], recipe.train.batch, recipe.seed), rows(run)
    for step, chosen in zip(range(12), order, strict=False):
        if step >= 4:
            row = training.step(training.prepare(step, [view.clip(clip) for clip in chosen]))
            log.append({"step": row.step, "loss": row.loss, "grad_norm": row.grad_norm, "lr": row.lr})
    assert rows(copy) == log
    found = load_state_dict(copy / "checkpoints/000012/transformer")
    assert [n for n, value in training.model.state_dict().items() if not torch.equal(value, found[n])] == []


def test_killed_after_that_the_same_command_goes_on_and_the_change_is_told_once(
    hm: WarmCommand, nano: Path, latents: Path, run: Path, copy: Path, tmp_path: Path
):
    whole = shutil.copytree(copy, tmp_path / "whole")
    line = ["train", nano, "--latents", latents, *OTHER]
    ok(hm(*line, "--out", whole))
    running = hm.start(*line, "--out", copy)
    wait_for(lambda: (copy / "checkpoints" / "000006").is_dir())
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert (copy / "checkpoints" / "000004").is_dir(), "what it went on from stays until the run is whole"
    again = hm(*line, "--out", copy)
    assert rows(ok(again)) == rows(whole)
    assert read_manifest(copy).attributes == read_manifest(whole).attributes
    assert read_manifest(copy).fingerprint == read_manifest(whole).fingerprint
    then = hm(
        *line[:4], "--out", copy, "--resume-with", "train.lr=1e-5", *OTHER[2:4], "--resume-with", "train.steps=14"
    )
    assert [change["step"] for change in read_manifest(ok(then)).attributes["resumed"]] == [4, 12]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--resume-with", "train.batch=1"], "changes a learning rate or schedule, not train.batch"),
        ([*OTHER[:2], "--set", "model.layers=3"], "model.layers"),
        ([*OTHER[:2], "--set", "train.decay=cosine"], "train.decay"),
        ([*OTHER[:2], "--set", "seed=3"], "seed"),
        ([*OTHER[:2], "--force"], "--force starts again"),
        ([*OTHER[:2], "--set", "train.lr=1e-4"], "train.lr"),
        (["--resume-with", "train.nothing=1"], "train.nothing"),
    ],
)
def test_anything_else_is_refused_with_what_differs(
    hm: WarmCommand, nano: Path, latents: Path, copy: Path, changes: list[str], said: str
):
    before = (copy / "manifest.json").read_bytes()
    refused = hm("train", nano, "--latents", latents, "--out", copy, *changes)
    assert refused.returncode == 2, refused.stderr
    assert said in refused.stderr
    assert (copy / "manifest.json").read_bytes() == before


def test_there_must_be_a_run_and_it_goes_on_only_so(
    hm: WarmCommand, nano: Path, latents: Path, clips: Path, copy: Path, tmp_path: Path
):
    nothing = hm("train", nano, "--latents", latents, "--out", tmp_path / "new", *OTHER)
    assert nothing.returncode == 2
    assert "there is no checkpoint to go on from" in nothing.stderr
    ok(hm("train", nano, "--latents", latents, "--out", copy, *OTHER))
    plain = ["train.lr=5e-5", "train.decay=cosine", "train.steps=12"]
    refused = hm("train", nano, "--latents", latents, "--out", copy, *(w for p in plain for w in ("--set", p)))
    assert refused.returncode == 2
    assert "it went on with --resume-with, and does only so" in refused.stderr
    codec = hm("train", nano, "--latents", clips, "--out", tmp_path / "c", *OTHER[:2], "--set", "train.part=codec")
    assert codec.returncode == 2
    assert "--resume-with has no effect" in codec.stderr
