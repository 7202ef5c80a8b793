"""Training states on disk: no pickle, equal states are equal files, and going on from one is exact."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from warm import WarmCommand, ok

from hmcli.errors import DataError
from hmcli.recipe.reading import load_recipe
from hmcli.recipe.sections import TrainConfig
from hmcli.runtime import Silent
from hmcli.stages.models.folders import find_model
from hmcli.stages.training import checkpoints, train
from hmcli.stages.training.learning import make_average
from hmcli.stages.training.muon import is_inner_kernel, make_optimizers
from hmcli.stages.training.state import FILES, NUMBERS, PICKLED, TENSORS, put_state, read_state, take_state, write_state
from hmcli.store.manifest import read_manifest

TRAIN = TrainConfig(part="codec", lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, ema=0.9)


class Learner:
    """A small network under AdamW and Muon with an average, trained on batches that follow from the step."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Conv2d(12, 40, 3), nn.Conv2d(40, 10, 3), nn.Flatten(), nn.Linear(90, 2))
        self.model[0].requires_grad_(False)
        self.optimizers = make_optimizers(self.model, TRAIN, is_inner_kernel, 2.0)
        self.average = make_average([p for p in self.model.parameters() if p.requires_grad], TRAIN.ema)

    def train(self, steps: range) -> None:
        for step in steps:
            batch = torch.randn(3, 12, 7, 7, generator=torch.Generator().manual_seed(step))
            for optimizer in self.optimizers:
                optimizer.zero_grad()
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 / (step + 1) * group["scale"]
            self.model(batch).square().sum().backward()
            for optimizer in self.optimizers:
                optimizer.step()
            assert self.average is not None
            self.average.step([p for p in self.model.parameters() if p.requires_grad])

    def save(self, folder: Path, step: int) -> Path:
        folder.mkdir()
        write_state(folder, take_state(self.model, self.optimizers, self.average, step=step, seed=4))
        return folder

    def load(self, folder: Path) -> int:
        state = read_state(folder, seed=4, instead="")
        put_state(state, self.model, self.optimizers, self.average)
        return state.step

    def tensors(self) -> list[Tensor]:
        assert self.average is not None
        states = [parts[name] for o in self.optimizers for parts in o.state.values() for name in sorted(parts)]
        return [*self.model.parameters(), *self.average.shadow_params, *states]


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def test_training_goes_on_from_a_state_as_if_it_had_never_stopped(tmp_path: Path):
    whole, first, second = Learner(0), Learner(0), Learner(0)
    assert [type(optimizer).__name__ for optimizer in whole.optimizers] == ["AdamW", "Muon"]
    whole.train(range(6))
    first.train(range(3))
    start = second.load(first.save(tmp_path / "3", 3))
    second.train(range(start, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.tensors(), second.tensors(), strict=True))
    assert contents(whole.save(tmp_path / "a", 6)) == contents(second.save(tmp_path / "b", 6))


def test_a_state_is_all_that_going_on_needs(tmp_path: Path):
    """Whatever the weights, averages and moments were before, a state replaces them all."""
    saved, other = Learner(0), Learner(0)
    saved.train(range(3))
    other.train(range(7, 9))
    other.load(saved.save(tmp_path / "3", 3))
    assert all(torch.equal(a, b) for a, b in zip(saved.tensors(), other.tensors(), strict=True))
    assert contents(tmp_path / "3") == contents(other.save(tmp_path / "again", 3))


def test_a_state_of_other_weights_another_seed_or_a_newer_format_is_refused(tmp_path: Path):
    learner = Learner(0)
    learner.train(range(1))
    folder = learner.save(tmp_path / "1", 1)
    with pytest.raises(DataError, match="seed 4, not 1 and 5"):
        read_state(folder, seed=5, instead="")
    numbers = json.loads((folder / NUMBERS).read_text())
    (folder / NUMBERS).write_text(json.dumps(numbers | {"format": 2}))
    with pytest.raises(DataError, match="format 2"):
        read_state(folder, seed=4, instead="")
    numbers["optimizers"][0]["groups"][0]["params"].reverse()
    (folder / NUMBERS).write_text(json.dumps(numbers))
    with pytest.raises(DataError, match="state is that of AdamW"):
        learner.load(folder)


@pytest.mark.parametrize(("ema", "lora"), [(0.0, False), (0.9, False), (0.9, True)])
def test_a_run_that_was_stopped_ends_with_the_same_files(latents: Path, nano: Path, tmp_path: Path, ema, lora):
    changes = ["train.steps=3", "train.checkpoint_every=1", "train.keep=9", f"train.ema={ema}"]
    recipe = load_recipe(str(nano), [*changes, *(["train.lora={rank: 2}"] if lora else [])])
    whole = train.run(recipe, out=tmp_path / "whole", **arguments(latents)).path
    with pytest.raises(KeyboardInterrupt):
        train.run(recipe, out=tmp_path / "parts", **arguments(latents) | {"reporter": Stopping()})
    parts = train.run(recipe, out=tmp_path / "parts", **arguments(latents)).path
    for step in ("000001", "000002", "000003"):
        folders = [run / "checkpoints" / step for run in (whole, parts)]
        names = [sorted(p.relative_to(folder) for p in folder.rglob("*")) for folder in folders]
        assert names[0] == names[1]
        assert {TENSORS, NUMBERS} <= {str(name) for name in names[0]}
        files = [name for name in names[0] if (folders[0] / name).is_file() and str(name) != "manifest.json"]
        assert [n for n in files if (folders[0] / n).read_bytes() != (folders[1] / n).read_bytes()] == []
    assert read_manifest(whole).fingerprint == read_manifest(parts).fingerprint


class Stopping(Silent):
    """Ctrl-C in the third step."""

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        steps = iter((None, None))

        def advance(n: int) -> None:
            if next(steps, "third"):
                raise KeyboardInterrupt

        yield advance


def arguments(latents: Path) -> dict[str, Any]:
    return {"latents": latents, "force": False, "device": "cpu", "reporter": Silent()}


class Trap:
    """Unpickled, it would say so."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("a pickle was opened",)


def test_a_run_of_an_older_hm_is_not_opened_but_its_weights_are_used(
    hm: WarmCommand, latents: Path, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def as_before(folder: Path, state: Any) -> None:
        torch.save({"step": state.step, "optimizer": Trap()}, folder / PICKLED)

    monkeypatch.setattr(checkpoints, "write_state", as_before)
    old = train.run(load_recipe(str(nano)), out=tmp_path / "old", **arguments(latents)).path
    before = (old / "manifest.json").read_bytes()
    longer = hm("train", nano, "--latents", latents, "--out", old, "--set", "train.steps=6")
    assert longer.returncode == 3
    assert "is a pickle, written by an older hm, and is not opened" in longer.stderr
    assert f"--set model.base={old}" in longer.stderr
    assert "a pickle was opened" not in longer.stderr + longer.stdout
    assert (old / "manifest.json").read_bytes() == before, "it is still the finished run it was"
    assert "already trained" in hm("train", nano, "--latents", latents, "--out", old).stderr
    find_model(old).load(torch.float32, "cpu")
    base = old / "checkpoints" / "000004"
    onward = hm("train", nano, "--latents", latents, "--out", tmp_path / "new", "--set", f"model.base={base}")
    assert read_manifest(ok(onward)).counts == {"steps": 4}
