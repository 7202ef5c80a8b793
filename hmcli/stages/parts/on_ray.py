"""`--on ray --shards N`: the N parts of a stage as tasks of a Ray cluster, joined here when all are there.

The cluster is that of RAY_ADDRESS, else one of this machine alone that lives as long as the command. Its nodes share
the file system: each task writes `<out>.parts/i-of-N` as `--shard i/N` does. A task whose worker or node dies is
started again, and goes on with what the dead one had finished. Errors of a stage are not tried again.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import HMError, LockedError, MissingPartError
from hmcli.runtime import Heard, Silent, Terminated, stopping_at_boundaries, tell
from hmcli.stages.parts import merge
from hmcli.stages.shared.shards import Shard

ADDRESS = "RAY_ADDRESS"
RETRIES = 3  # of a part whose worker died
PATIENCE = 60.0  # seconds that a part waits for the lock of a worker that is taken for dead, and is not quite yet
LOOK = 0.5  # seconds between looks at signals
ANSWER = 10.0  # seconds that a cluster has to answer
HERE = "127.0.0.1"

Stage = Callable[..., StageResult]


def run(
    stage: Stage, *, shards: int, out: Path, device: str, processes: int, reporter: Reporter, dry_run: bool = False,
    force: bool = False, prune: bool = False, **arguments: Any,
) -> StageResult:  # fmt: skip
    """Make the parts of a stage's artifact on a cluster, and join them; see `hm encode --help`.

    `arguments` are the stage's own. What is finished already needs no cluster. Raises MissingPartError without ray, the
    error of a part that failed, and HMError for a part whose workers died again and again.
    """
    import_ray()
    common = {**arguments, "processes": processes, "force": force, "prune": prune}
    planned = stage(out=out, device=device, reporter=reporter, dry_run=True, **common)
    if planned.details["finished"] and not force and not dry_run:
        from hmcli.runtime import pick_device

        return stage(out=out, device=pick_device(device), reporter=reporter, **common)
    folder = Path(f"{out.absolute()}.parts")
    jobs = [
        Job(stage=stage, arguments=common, shard=Shard(index=index, of=shards), out=folder / f"{index}-of-{shards}",
            device=device, folder=Path.cwd())
        for index in range(shards)
    ]  # fmt: skip
    reporter.note(f"in {shards} parts on Ray, at {os.environ.get(ADDRESS) or 'this machine'}, into {folder}")
    first = jobs[0]  # says now what every worker would refuse
    stage(out=first.out, device=device, reporter=Silent(), dry_run=True, shard=first.shard, **common)
    if dry_run:
        return planned
    _make_all(jobs, processes, device, reporter)
    result = merge.run([job.out for job in jobs], out=out, reporter=reporter, force=force, prune=prune)
    reporter.note(f"the parts stay in {folder}: delete them when no more is to come")
    return result


def import_ray() -> Any:
    """The package. Raises MissingPartError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        fix = "pip install 'hmcli[ray]', on every node"
        raise MissingPartError("--on ray needs the package ray", fix=fix) from error
    return ray


# --- a part, in a worker of the cluster ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Job:
    """One part, as it is sent to a worker."""

    stage: Stage
    arguments: Mapping[str, Any]
    shard: Shard
    out: Path
    device: str  # as asked for: each node looks what it has
    folder: Path  # working folder of the command, which paths start from


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a part, and what its stage had to tell."""

    result: StageResult | None = None
    error: HMError | None = None
    said: tuple[tuple[str, str], ...] = ()


def make(job: Job) -> Outcome:
    """Run a stage for its part. An error that a user can act on is an outcome, any other is raised."""
    from hmcli.runtime import pick_device

    heard = Heard()
    os.chdir(job.folder)
    job.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        device = pick_device(job.device)
        result = _when_unlocked(
            lambda: job.stage(out=job.out, shard=job.shard, device=device, reporter=heard, **job.arguments)
        )
    except HMError as error:
        plain = {label: str(place) for label, place in error.where.items()}  # it crosses processes
        return Outcome(error=type(error)(error.what, where=plain, fix=error.fix), said=heard.take())
    return Outcome(result=dataclasses.replace(result, details={}), said=heard.take())


def _when_unlocked(work: Callable[[], StageResult]) -> StageResult:
    """A worker whose node is lost may hold its part's lock for a moment longer."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except LockedError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


# --- the cluster -----------------------------------------------------------------------------------------------------


def _make_all(jobs: list[Job], processes: int, device: str, reporter: Reporter) -> None:
    ray = import_ray()
    with _connected(ray), reporter.progress("making parts", len(jobs), "part") as advance:
        if all(node["Resources"].get("CPU", 0) < processes for node in ray.nodes()):
            reporter.warn(f"no node of the cluster has {processes} CPUs: the parts wait until one joins that has")
        gpus = 1 if device.startswith("cuda") or (device == "auto" and ray.cluster_resources().get("GPU")) else 0
        task = ray.remote(num_cpus=processes, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False)(make)
        running = {task.options(name=f"part {job.shard}").remote(job): job for job in jobs}
        try:
            while running:
                for done in _some_done(ray, list(running)):
                    _settle(ray, done, running.pop(done), reporter)
                    advance(1)
        finally:
            for left in running:  # nobody waits for what they are at; what is finished of it stays
                ray.cancel(left, force=True)


def _some_done(ray: Any, running: list[Any]) -> list[Any]:
    """Wait until some tasks are done. A signal counts between waits: within one, Ray would make an error of it."""
    with stopping_at_boundaries() as stop:
        while True:
            done, _ = ray.wait(running, num_returns=1, timeout=LOOK)
            if stop.signal == signal.SIGTERM:
                raise Terminated
            if stop:
                raise KeyboardInterrupt
            if done:
                return list(done)


def _settle(ray: Any, done: Any, job: Job, reporter: Reporter) -> None:
    """Say what a part said. Raises its error."""
    try:
        outcome: Outcome = ray.get(done)
    except ray.exceptions.RayTaskError:
        raise  # a fault in the stage
    except ray.exceptions.RayError as error:
        raise HMError(
            f"the worker of part {job.shard} died, and so did those that tried again (out of memory?)",
            where={"part": job.out, "at": error}, fix="run the same command again: finished clips are kept",
        ) from error  # fmt: skip
    for how, text in outcome.said:
        tell(reporter, how, f"part {job.shard}: {text}")
    if outcome.error is not None:
        outcome.error.where = {"part": f"{job.shard}, {job.out}", **outcome.error.where}
        raise outcome.error


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts: here it goes on to mean what it means for every command."""
    address = os.environ.get(ADDRESS) or "local"
    on_loopback = address == "local" or address.split(":")[0] in (HERE, "localhost")
    own = {"_node_ip_address": HERE} if on_loopback else {}
    quiet = {"log_to_driver": False, "logging_level": "warning", "configure_logging": False}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _require_answer(address)
        ray.init(address=address, **own, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise HMError(
            "there is no Ray cluster to work on", where={ADDRESS: address, "at": error},
            fix=f"start one (ray start --head) and set {ADDRESS} to its host:port; unset it to use this machine alone",
        ) from error  # fmt: skip
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise OSError unless something listens at host:port: Ray would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
