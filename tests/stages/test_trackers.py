"""What is shown of a training: TensorBoard's events, other trackers, and how fast steps are."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from training_runs import rows, sets
from warm import WarmCommand, ok

from hmcli import registry
from hmcli.errors import MissingPartError
from hmcli.recipe.reading import load_recipe
from hmcli.stages.models.layout import Step
from hmcli.stages.planning.effort import step_flop
from hmcli.stages.shared.devices import device_called
from hmcli.stages.training.logbook import open_logbook
from hmcli.stages.training.pace import Pace
from hmcli.stages.training.trackers import Shown, flat, showing


def events(run: Path) -> list[tuple[str, int, float, float]]:
    """(tag, step, value, time) of every number in the event files of a run, in their order."""
    found = []
    for file in sorted((run / "events").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            of = [value for value in event.summary.value if value.HasField("simple_value")]
            found += [(value.tag, event.step, value.simple_value, event.wall_time) for value in of]
            at += 16 + size
    return found


def test_events_are_those_of_the_log_once_each_also_when_a_run_goes_on(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run", *sets("train.held_out=1", "train.batch=1")]
    run = ok(hm(*line, *sets("train.steps=3")))
    for log in ("steps.jsonl", "pace.jsonl"):  # as if it had been killed before the next checkpoint
        lines = (run / log).read_text().splitlines()
        (run / log).write_text("\n".join([*lines, json.dumps({**json.loads(lines[-1]), "step": 4}), '{"step": 5, "']))
    ok(hm(*line, *sets("train.steps=5")))
    pace = [json.loads(line) for line in (run / "pace.jsonl").read_text().splitlines()]
    assert [row["step"] for row in pace] == [1, 2, 3, 4, 5]
    assert all(row["samples_per_s"] > 0 and row["memory_gb"] > 0 and "mfu" not in row for row in pace)
    at = {row["step"]: row["at"] for row in pace}
    wanted = {}
    for row, timed in zip(rows(run), pace, strict=True):
        for tag, value in flat({**row, "pace": {k: v for k, v in timed.items() if k != "at"}}).items():
            wanted[tag, row["step"]] = (np.float32(value), at[row["step"]])
    found = events(run)
    assert {(tag, step): (np.float32(value), time) for tag, step, value, time in found} == wanted
    assert len(found) == len(wanted)
    assert {"loss", "grad_norm", "lr", "held_out_errors/0.9", "pace/samples_per_s"} <= {tag for tag, *_ in found}
    assert [step for tag, step, *_ in found if tag == "loss"] == [1, 2, 3, 4, 5]


def test_a_run_without_trackers_is_the_same_run(hm: WarmCommand, nano: Path, latents: Path, run: Path, tmp_path: Path):
    line = ["train", nano, "--latents", latents, "--out", tmp_path / "run"]
    bare = ok(hm(*line, *sets("train.steps=2", "train.trackers=[]")))
    assert not (bare / "events").exists()
    assert "going on from step 2" in hm(*line).stderr, "who is told makes no other run"
    assert rows(bare) == rows(run)
    assert len(events(bare)) == len(events(run)), "what was not told before is told now"


@dataclass
class Listener:
    """A tracker that writes down what it is told."""

    shown: Shown
    anew: bool = False

    def numbers(self, step: int, values: dict[str, float], at: float) -> None:
        HEARD.append((self.shown.id, step, values["loss"]))

    def picture(self, step: int, name: str, pixels: np.ndarray, at: float) -> None: ...

    def close(self) -> None:
        HEARD.append("closed")


HEARD: list[Any] = []


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    HEARD.clear()
    monkeypatch.setitem(registry.BUILT_IN["tracker"], "listener", f"{__name__}:Listener")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Listener.__module__])
    return HEARD


def test_a_tracker_that_remembers_is_told_of_no_step_twice(nano: Path, tmp_path: Path, listening: list[Any]):
    def train(first: int, last: int, key: str = "sha256:one", names: str = "[listener]") -> list[Any]:
        recipe = load_recipe(str(nano), [f"train.trackers={names}"])
        pace = Pace(samples=1, device="cpu")
        with open_logbook(tmp_path, recipe, key, first, pace, print) as logs:
            for step in range(first + 1, last + 1):
                logs.step(Step(step=step, loss=float(step), grad_norm=1.0, lr=0.1))
        told = [step for said in listening if said != "closed" for _, step, _ in [said]]
        assert ("closed" in listening) == bool(told)
        listening.clear()
        return told

    assert train(0, 2, names="[]") == []
    assert train(2, 5) == [1, 2, 3, 4, 5], "named later, it is told of what was before"
    assert train(4, 7) == [6, 7], "5 it knows"
    assert train(7, 8, key="sha256:another") == [1, 2, 3, 4, 5, 6, 7, 8], "another run to it"
    assert train(0, 1) == [1], "begun again"


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        shown = Shown(folder=tmp_path, key="sha256:1", recipe=load_recipe(str(nano)), note=print)
        with pytest.raises(MissingPartError, match=rf"pip install 'hmcli\[{name}\]'"), showing([name], shown, [], {}):
            pass


def test_the_share_of_the_stated_rate_is_operations_over_time_and_rate(monkeypatch: pytest.MonkeyPatch):
    clock = [10.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    pace = Pace(samples=6, device="cpu", flop=8e12, rate=20e12)
    pace.restart()
    clock[0] += 0.5
    taken = pace.taken(1)
    assert (taken.samples_per_s, taken.mfu) == (12.0, 0.8)
    clock[0] += 100
    pace.restart()
    clock[0] += 1.5
    assert pace.taken(2).mfu == pytest.approx(0.2667)
    said = pace.said(Step(step=2, loss=1.0, grad_norm=2.0, lr=0.1))
    assert "6 samples/s, MFU 40.0%, " in said, "12 samples in 2 s"
    pace.rate = None
    assert "MFU" not in pace.said(Step(step=2, loss=1.0, grad_norm=2.0, lr=0.1))


def test_a_device_is_known_by_the_name_its_driver_gives():
    names = {
        "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100", "NVIDIA A100-PCIE-40GB": "a100",
        "NVIDIA H200": "h200", "NVIDIA L40S": "l40s", "NVIDIA GeForce RTX 4090": "rtx4090",
        "NVIDIA H100 PCIe": None, "NVIDIA GH200 480GB": None, "NVIDIA GeForce RTX 4090 Laptop GPU": None,
    }  # fmt: skip
    for name, known in names.items():
        assert (None if (found := device_called(name)) is None else found.name) == known, name


def test_what_checkpointing_computes_again_is_no_work(nano: Path, latents: Path):
    one = step_flop(load_recipe(str(nano), ["train.batch=1"]), latents)
    assert one > 1e6
    assert step_flop(load_recipe(str(nano), ["train.batch=1", "train.gradient_checkpointing=true"]), latents) == one
    assert step_flop(load_recipe(str(nano), ["train.batch=2"]), latents) == 2 * one
