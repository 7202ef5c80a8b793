"""`--on ray`: the same artifact as from one process, also when a node dies in the midst."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from contents import content
from ray_here import ray_here, with_ray
from warm import WarmCommand, ok, wait_for

from hmcli.errors import DataError, LockedError, MissingPartError
from hmcli.runtime import Silent
from hmcli.stages.parts import on_ray
from hmcli.stages.shared.shards import Shard
from hmcli.store.lock import ArtifactLock

CLIPS = 8  # of which a node draws half: the second dies after its first one


class Node:
    """A node of a Ray cluster on this machine: all its processes are in the process group of `ray start`."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        command = [Path(sysconfig.get_path("scripts")) / "ray", "start", *arguments]
        usual = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats"]
        started = subprocess.Popen(
            [*command, *usual], env=env, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = started.communicate(timeout=120)
        assert started.returncode == 0, said.decode()
        self.group = started.pid

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)

    def runs(self, pid: int) -> bool:
        """Is a process one of its workers?"""
        try:
            return os.getpgid(os_parent(pid)) == self.group
        except OSError:
            return False


def os_parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def env(hm: WarmCommand, project: Path) -> Iterator[dict[str, str]]:
    """Of nodes and commands: hm is found on a node as here, and nothing is left in a home."""
    with ray_here() as said:
        here = {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
        yield {**os.environ, **said, **here, "HOME": str(hm.home), "XDG_CACHE_HOME": str(hm.home / "cache")}


@pytest.fixture
def nodes(env: dict[str, str]) -> Iterator[tuple[str, list[Node]]]:
    """The address of a cluster of two nodes, and the nodes."""
    with socket.socket() as free:
        free.bind((on_ray.HERE, 0))
        port = free.getsockname()[1]
    address = f"{on_ray.HERE}:{port}"
    started: list[Node] = []
    try:
        started.append(Node(env, "--head", f"--port={port}", "--include-dashboard=false"))
        started.append(Node(env, f"--address={address}"))
        yield address, started
    finally:
        for node in started:
            node.kill()


def worker_of(part: Path) -> int | None:
    """The process that writes a part, once one of its clips is done."""
    lock = part.with_name(part.name + ".lock")
    if not list(part.glob("unfinished/items/*.json")):
        return None
    with suppress(OSError, ValueError):
        return int(json.loads(lock.read_text())["pid"])
    return None


@pytest.mark.slow
@with_ray
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for processes in /proc")
def test_a_node_that_dies_costs_time_and_nothing_else(
    hm: WarmCommand, nano: Path, env: dict[str, str], nodes: tuple[str, list[Node]], tmp_path: Path
):
    address, (_, second) = nodes
    one = ok(hm("render", nano, "--clips", CLIPS, "--out", tmp_path / "one"))
    command = ("render", nano, "--clips", CLIPS, "--on", "ray", "--shards", 2, "--out", tmp_path / "out")
    running = hm.start(*command, env={**env, on_ray.ADDRESS: address})
    parts = [tmp_path / "out.parts" / f"{index}-of-2" for index in range(2)]

    def on_second() -> list[Path]:
        return [part for part in parts if (pid := worker_of(part)) is not None and second.runs(pid)]

    wait_for(on_second)
    (struck,) = on_second()
    second.kill()
    assert not (struck / "manifest.json").exists(), "it was killed in the midst"
    done = running.wait()
    assert content(ok(done)) == content(one)
    assert f"part {struck.name[0]}/2: " in done.stderr, "what it had finished was kept"
    assert "items kept" in done.stderr
    again = hm(*command, env={**env, on_ray.ADDRESS: "127.0.0.1:1"})
    assert ok(again) == tmp_path / "out", "what is finished needs no cluster"


@pytest.mark.slow
@with_ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_takes_its_ray_along_and_goes_on(
    number: signal.Signals, hm: WarmCommand, nano: Path, env: dict[str, str], tmp_path: Path
):
    """What is left behind is looked for when `env` ends."""
    out = tmp_path / "out"
    running = hm.start("render", nano, "--clips", CLIPS, "--on", "ray", "--shards", 2, "--out", out, env=env)
    wait_for(lambda: list(tmp_path.glob("out.parts/*/unfinished/items/*.json")))
    running.send_signal(number)
    stopped = running.wait()
    expected = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
    assert (stopped.returncode, stopped.stdout) == (expected[number], "")
    assert not out.exists()


@pytest.mark.slow
@with_ray
def test_an_error_of_a_stage_comes_back_with_its_exit_code(
    hm: WarmCommand, nano: Path, env: dict[str, str], tmp_path: Path
):
    foreign = tmp_path / "out.parts" / "1-of-2" / "mine.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("not an artifact")
    failed = hm("render", nano, "--on", "ray", "--shards", 2, "--out", tmp_path / "out", env=env)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "the output folder is not empty and is no artifact of hm" in failed.stderr
    assert "1/2" in failed.stderr
    assert foreign.read_text() == "not an artifact"
    assert not (tmp_path / "out").exists()


@with_ray
def test_without_a_cluster_at_its_address_it_says_so(hm: WarmCommand, nano: Path, env: dict[str, str], tmp_path: Path):
    failed = hm(
        "render", nano, "--on", "ray", "--shards", 2, "--out", tmp_path / "out",
        env={**env, on_ray.ADDRESS: "127.0.0.1:1"},
    )  # fmt: skip
    assert failed.returncode == 1
    assert "there is no Ray cluster to work on" in failed.stderr


# --- without a cluster -----------------------------------------------------------------------------------------------


def stage(*, out: Path, **options: Any) -> Any:
    raise AssertionError("nothing is to be made")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPartError, match="needs the package ray") as caught:
        on_ray.run(stage, shards=2, out=tmp_path / "out", device="cpu", processes=1, reporter=Silent())
    assert "hmcli[ray]" in caught.value.fix
    assert caught.value.exit_code == 5


def test_a_dry_run_says_where_and_starts_nothing(hm: WarmCommand, nano: Path, tmp_path: Path):
    if find_spec("ray") is None:
        pytest.skip("needs the package ray: pip install 'hmcli[ray]'")
    planned = hm("render", nano, "--on", "ray", "--shards", 2, "--out", "out", "--dry-run", cwd=tmp_path)
    assert (planned.returncode, planned.stdout) == (0, "")
    assert "in 2 parts on Ray, at this machine" in planned.stderr
    refused = hm("render", nano, "--on", "ray", "--shards", 4, "--out", "out", "--dry-run", cwd=tmp_path)
    assert "3 clips cannot be divided into 4 parts" in refused.stderr
    assert refused.returncode == 2
    assert list(tmp_path.iterdir()) == []


def fails(*, out: Path, **options: Any) -> Any:
    raise DataError("nothing can be made of that", where={"at": ValueError("the cause")}, fix="another")


def test_what_a_part_fails_with_can_cross_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    job = on_ray.Job(
        stage=fails, arguments={}, shard=Shard(index=0, of=2), out=tmp_path / "0-of-2", device="cpu", folder=tmp_path
    )
    outcome = on_ray.make(job)
    assert isinstance(outcome.error, DataError)
    assert (outcome.error.where, outcome.error.fix) == ({"at": "the cause"}, "another")


def locked(*, out: Path, **options: Any) -> Any:
    with ArtifactLock(out):
        raise AssertionError("it was free")


def test_a_part_waits_for_the_lock_of_a_worker_that_is_dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    waits: list[float] = []
    lock = ArtifactLock(tmp_path / "0-of-2")

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            lock.release()

    monkeypatch.setattr(on_ray.time, "sleep", wait)
    job = on_ray.Job(
        stage=locked, arguments={}, shard=Shard(index=0, of=2), out=tmp_path / "0-of-2", device="cpu", folder=tmp_path
    )
    with lock, pytest.raises(AssertionError, match="it was free"):
        on_ray.make(job)
    assert len(waits) == 2
    monkeypatch.setattr(on_ray, "PATIENCE", -1.0)
    with ArtifactLock(tmp_path / "0-of-2"):
        assert isinstance(on_ray.make(job).error, LockedError)
