"""Several processes make what one does, byte for byte, and what goes wrong in one is told as if there were one."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from contents import content
from small_makers import Writer
from warm import WarmCommand, wait_for

from hmcli.errors import DataError, HMError, StoppedEarly, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Console, Silent
from hmcli.stages.latents import encode
from hmcli.stages.latents.view import open_latents
from hmcli.stages.shared.each import each
from hmcli.stages.shared.makers import Unit
from hmcli.store.artifact import ArtifactWriter

STAGES = ("render", "encode", "slots", "memory", "generate", "eval", "inspect")
HEAVY = ["hmcli.core.transformer", "hmcli.codecs.video", "hmcli.codecs.wan_files", "hmcli.world.render"]


@pytest.fixture(scope="module", autouse=True)
def imports_once():
    """One server of processes for all tests here: what they import takes longer than what they make."""
    multiprocessing.set_forkserver_preload(HEAVY)
    if hasattr(os, "fork"):
        forkserver.ensure_running()


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


# --- every stage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_make_what_one_does(stage: str, stages: Mapping[str, Callable[..., Any]], tmp_path: Path):
    made = {}
    for processes in (1, 2):
        out = tmp_path / str(processes) / stage
        out.parent.mkdir()
        result = stages[stage](out=out, processes=processes, reporter=Console())
        assert result.counts["clips"] == 3
        made[processes] = content(out)
    assert made[1] == made[2]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("stage", ["encode", "generate"])
def test_one_process_makes_the_same_whatever_number_of_threads_torch_has(
    stage: str, stages: Mapping[str, Callable[..., Any]], tmp_path: Path
):
    before, made = torch.get_num_threads(), {}
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = tmp_path / str(threads) / stage
            out.parent.mkdir()
            stages[stage](out=out, processes=1, reporter=Silent())
            assert torch.get_num_threads() == threads
            made[threads] = content(out)
    finally:
        torch.set_num_threads(before)
    assert made[1] == made[3]


def test_a_clip_that_fails_in_a_process_is_left_out_with_its_reason(nano: Path, clips: Path, tmp_path: Path):
    broken = tmp_path / "broken"
    names = sorted(folder.name for folder in clips.iterdir() if folder.is_dir())
    for name in names:
        shutil.copytree(clips / name, broken / name)
    for name in names[1:]:
        video = broken / name / "cond.mp4"
        video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    left_out, said = {}, {}
    for processes in (1, 2):
        out, reporter = tmp_path / str(processes) / "latents", Notes()
        result = encode.run(
            load_recipe(nano), data=broken, out=out, force=False, device="cpu", reporter=reporter, processes=processes
        )
        left_out[processes], said[processes] = result.quarantined, sorted(reporter.warnings)
        assert open_latents(out).ids() == names[:1]
    assert [item.item for item in left_out[1]] == names[1:]
    assert "cut short" in left_out[1][0].reason
    assert left_out[1] == left_out[2]
    assert said[1] == said[2]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def written(
    out: Path, processes: int, reporter: Silent, wrong: Mapping[str, str], imports: tuple[str, ...] = ("torch",)
) -> tuple[list[str], dict[str, Any]]:
    """The units that `each` says are there, and what their making returned."""
    returned = {}

    def keep(unit: Unit, value: Any, made: Path) -> None:
        returned[unit.id] = value
        with writer.item_file(unit.id, unit.items[unit.id], suffix=".txt") as file:
            os.replace(made, file)

    units = [Unit(id=name, items={name: f"key of {name}"}) for name in "abcde"]
    maker = Writer(reporter=reporter, goes_wrong=wrong, imports=imports)
    with ArtifactWriter(out, "weights", recipe={}, inputs={}, seed=0, reporter=reporter) as writer:
        done = each(writer, units, maker, keep, label="writing", processes=processes)
        writer.finish(done)
    return done, returned


def test_what_is_kept_is_not_made_again_and_the_order_is_that_of_the_units(tmp_path: Path):
    done, first = written(tmp_path / "out", 2, Silent(), {"b": "data"})
    assert done == ["a", "c", "d", "e"]
    assert list((tmp_path / "out").glob(".making*")) == []
    done, second = written(tmp_path / "out", 2, Silent(), {})
    assert done == ["a", "b", "c", "d", "e"]
    assert set(first) == {"a", "c", "d", "e"}
    assert set(second) == {"b"}
    assert second["b"]["pid"] == os.getpid(), "one unit is made here: no process is started for it"


def test_workers_share_the_units_and_compute_on_one_thread_each(tmp_path: Path):
    _, made = written(tmp_path / "out", 2, Silent(), {})
    assert os.getpid() not in {value["pid"] for value in made.values()}
    assert {value["threads"] for value in made.values()} == {1}


def test_workers_tell_what_one_process_tells_and_nothing_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    reporter = Notes()
    written(tmp_path / "out", 2, reporter, {"c": "odd"})
    assert reporter.notes == ["loaded"]
    assert reporter.warnings == ["c is odd"]
    assert "this must not" not in capfd.readouterr().out


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_keeps_its_class_and_its_text(processes: int, tmp_path: Path):
    with pytest.raises(UsageError, match="nothing can be made of that") as caught:
        written(tmp_path / "out", processes, Silent(), {"d": "usage"})
    assert caught.value.where == {"clip": "d"}
    assert caught.value.fix == "ask for something else"
    assert multiprocessing.active_children() == []
    done, made = written(tmp_path / "out", processes, Silent(), {})
    assert done == ["a", "b", "c", "d", "e"]
    assert "d" in made
    assert len(made) < 5, "what was done before the error is kept"


def test_what_was_done_with_an_error_at_the_same_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The writing process may hear of several at once, of the error first."""

    def all_at_once(running: set[Future[Any]], **_: Any) -> tuple[list[Future[Any]], set[Future[Any]]]:
        wait(running)
        return sorted(running, key=lambda future: future.exception() is None), set()

    with monkeypatch.context() as patched:
        patched.setattr("hmcli.stages.shared.makers.wait", all_at_once)
        with pytest.raises(UsageError, match="nothing can be made of that"):
            written(tmp_path / "out", 2, Silent(), {"d": "usage"})
    assert set(written(tmp_path / "out", 1, Silent(), {})[1]) == {"d", "e"}


@pytest.mark.parametrize("processes", [1, 2])
def test_what_keeps_everything_from_being_made_ends_the_stage_and_leaves_nothing_out(processes: int, tmp_path: Path):
    reporter = Notes()
    with pytest.raises(DataError, match="the weights are damaged"):
        written(tmp_path / "out", processes, reporter, {"load": "data"})
    assert reporter.warnings == []


def test_a_process_that_dies_is_told_and_the_rest_is_kept(tmp_path: Path):
    with pytest.raises(HMError, match="a process that was making items died"):
        written(tmp_path / "out", 2, Silent(), {"e": "dies"})
    assert multiprocessing.active_children() == []
    assert written(tmp_path / "out", 1, Silent(), {})[0] == ["a", "b", "c", "d", "e"]


# --- stopping --------------------------------------------------------------------------------------------------------


def test_a_stop_while_the_pool_starts_is_told_as_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stopped(thread: threading.Thread) -> None:
        raise StoppedEarly("on SIGTERM")

    before = set(multiprocessing.active_children())
    monkeypatch.setattr("concurrent.futures.process._ExecutorManagerThread.start", stopped)
    with pytest.raises(StoppedEarly):
        written(tmp_path / "out", 2, Silent(), {})
    for child in set(multiprocessing.active_children()) - before:
        child.join(20)
        assert not child.is_alive()


def living(session: int) -> list[int]:
    """Processes of a session, but for those that nobody has waited for yet."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for processes in /proc")
def test_stopped_or_killed_it_leaves_no_process_and_goes_on(
    hm: WarmCommand, latents: Path, run: Path, generation: Path, tmp_path: Path
):
    out = tmp_path / "gen"
    arguments = ("generate", latents, "--model", run, "--out", out, "--num-processes", 2)
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        running = hm.start(*arguments, "--set", "sample.steps=100000")
        wait_for(lambda session=running.pid: len(living(session)) >= 4)  # the command, the server and two workers
        if number == signal.SIGTERM:
            os.killpg(running.pid, number)  # as a scheduler does
        else:
            running.send_signal(number)
        assert running.wait().returncode == code
        wait_for(lambda session=running.pid: not living(session), timeout=20)
    done = hm(*arguments)
    assert done.returncode == 0, done.stderr
    assert content(out)["rows"] == content(generation)["rows"]
