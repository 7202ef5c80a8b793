"""Ranks: the processes that train one model together, each on its share of every batch.

Which samples a step sees, and which noise, follows from (seed, step) alone; ranks only divide them. What they hold
together goes over torch.distributed: gloo for the CPU, NCCL for gradients on GPUs. Nothing here reads the environment
but `from_environment`, and that takes nothing over silently.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hmcli.errors import HMError, StoppedEarly, UsageError

if TYPE_CHECKING:
    import torch

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun tells each process; all or none
FOREIGN = ("ACCELERATE_",)  # beginnings of names by which other launchers change a training
PEERS_SECONDS = 45.0  # for all ranks to come; with the start of a process a missing one is said within a minute
STALL = timedelta(minutes=60)  # for one exchange: the first rank writes checkpoints meanwhile
STUCK_SECONDS = 20.0  # after a signal, for a step to end; longer where steps take longer
_GO_ON = "the same command goes on from the last checkpoint"


@dataclass(frozen=True)
class Place:
    """Which of the ranks this process is, and where they meet."""

    rank: int
    count: int
    address: str
    port: int
    local: int | None = None  # among the ranks of this machine: which GPU is its own; None: nobody said

    def device(self, name: str) -> str:
        """The rank's own one of the devices `name`. Raises UsageError for GPUs where nobody said which."""
        if name != "cuda":
            return name
        if self.local is None:
            raise UsageError(
                f"rank {self.rank} of {self.count} was not told which GPU of its machine it has",
                where={"environment": "LOCAL_RANK is not set"},
                fix="start ranks with --num-processes N or torchrun, which set it (srun: LOCAL_RANK=$SLURM_LOCALID)",
            )
        return f"cuda:{self.local}"


def from_environment(environ: Mapping[str, str], asked: int) -> Place | None:
    """The place that torchrun gave this process; None: it was started alone.

    Raises UsageError for what would change a run silently: another number of ranks than `--num-processes` asks for, a
    part of torchrun's names, settings of accelerate.
    """
    if foreign := sorted(name for name in environ if name.startswith(FOREIGN)):
        raise UsageError(
            "the environment holds settings of accelerate, which training does not take over",
            where={"environment": ", ".join(foreign)},
            fix="unset them and say it in the recipe (train.dtype, train.accumulate, train.parallel); start ranks with "
            "--num-processes N, or with torchrun on several machines",
        )
    given = [name for name in NAMES if environ.get(name)]
    if not given:
        return None
    if missing := [name for name in NAMES if name not in given]:
        raise UsageError(
            f"the environment says {', '.join(given)} but not {', '.join(missing)}",
            where={"environment": ", ".join(f"{name}={environ[name]}" for name in given)},
            fix="unset them; --num-processes N starts N ranks here, torchrun those of several machines",
        )
    rank, count, port = (_number(environ, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    local = _number(environ, "LOCAL_RANK") if environ.get("LOCAL_RANK") else None
    if count != asked or rank >= count:
        raise UsageError(
            f"the environment makes this rank {rank} of {count}, --num-processes asks for {asked}",
            where={"environment": f"RANK={rank} WORLD_SIZE={count}"},
            fix=f"give --num-processes {count} (all ranks of all machines), or unset {', '.join(NAMES)}",
        )
    return Place(rank, count, environ["MASTER_ADDR"], port, local)


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name]
    if not text.isdigit():
        raise UsageError(
            f"the environment says {name}={text}, which is no number from 0 up",
            fix=f"unset {', '.join(NAMES)}; --num-processes N starts N ranks here, torchrun those of several machines",
        )
    return int(text)


@dataclass(kw_only=True)
class Watch:
    """How far a rank is, for the thread that watches it."""

    since: float = field(default_factory=time.monotonic)  # when the step began
    longest: float = 0.0  # seconds of a step
    stepped: bool = False  # until then what others have yet to do (read weights, take a place) is no step
    saving: bool = False  # a checkpoint may take as long as it takes
    done: bool = False

    def step(self) -> None:
        """A step begins."""
        now = time.monotonic()
        if self.stepped:
            self.longest = max(self.longest, now - self.since)
        self.since, self.stepped = now, True


@dataclass(frozen=True)
class Ranks:
    """This rank among those that train together."""

    rank: int = 0
    count: int = 1
    watch: Watch = field(default_factory=Watch, compare=False)

    @property
    def first(self) -> bool:
        """The one that writes the run."""
        return self.rank == 0

    def total(self, values: list[float]) -> list[float]:
        """Each of the values, summed over all ranks in float64."""
        import torch

        if self.count == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(summed)
        return [float(value) for value in summed]

    def largest(self, value: int) -> int:
        import torch

        if self.count == 1:
            return value
        found = torch.tensor([value])
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def told(self, value: str) -> str:
        """What the first rank says; the others' `value` does not count."""
        import torch

        if self.count == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return str(box[0])


ALONE = Ranks()


@contextlib.contextmanager
def joined(place: Place | None, device: str = "cpu") -> Iterator[Ranks]:
    """The ranks, once all are there; they part afterwards. Raises HMError when one is missing, or is lost later.

    From then on a signal ends a rank that waits for one that is stuck: `ending_when_stuck`.
    """
    if place is None:
        yield ALONE
        return
    import torch.distributed as dist

    store = _meet(place)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    ranks = Ranks(place.rank, place.count)
    with _naming_the_lost(place), ending_when_stuck(ranks):
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.count, timeout=STALL)
        try:
            yield ranks
        finally:
            dist.destroy_process_group()


def _meet(place: Place) -> torch.distributed.Store:
    """Wait until every rank has said that it is there, in short looks, so that a signal is heard at once."""
    import torch.distributed as dist

    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun keeps the store
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    end, found = time.monotonic() + PEERS_SECONDS, None
    while found is None:
        try:
            found = dist.TCPStore(
                place.address, place.port, None, is_master=place.rank == 0 and not agent, wait_for_workers=False,
                timeout=timedelta(seconds=2), multi_tenant=not agent and place.rank == 0,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
            if time.monotonic() > end or place.rank == 0:
                raise _missing(place, "nobody answers there") from error
            time.sleep(0.2)
    store = dist.PrefixStore(f"hm/{restart}", found)
    store.set(f"here/{place.rank}", "yes")
    while missing := [rank for rank in range(place.count) if not store.check([f"here/{rank}"])]:
        if time.monotonic() > end:
            raise _missing(place, f"missing: {', '.join(map(str, missing[:8]))}")
        time.sleep(0.05)
    return store


@contextlib.contextmanager
def ending_when_stuck(ranks: Ranks) -> Iterator[None]:
    """End this rank, with code 75, where it was told to stop and waits for another that is stuck.

    torch waits for others outside of Python, where no handler of a signal runs; a thread hears of it by a pipe.
    """
    watch = ranks.watch
    if ranks.count == 1:
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_end_when_stuck, args=(read, watch), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        watch.done = True
        os.close(write)


def _end_when_stuck(read: int, watch: Watch) -> None:
    with os.fdopen(read, "rb", buffering=0) as pipe:  # open to the end: a second signal is written into it too
        while (heard := pipe.read(1)) and heard[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        told = time.monotonic()
        while heard and not watch.done:
            left = max(told, watch.since) + STUCK_SECONDS + 2 * watch.longest - time.monotonic()
            if left < 0 and not watch.saving:
                when = "while another rank was stuck" if watch.stepped else "before the first step"
                stuck = StoppedEarly(f"stopped by a signal {when}", fix=_GO_ON)
                print(f"error: {stuck}", file=sys.stderr, flush=True)
                os._exit(stuck.exit_code)
            time.sleep(0.1)


def _missing(place: Place, what: str) -> HMError:
    return HMError(
        f"rank {place.rank} of {place.count} waited {PEERS_SECONDS:.0f} s for the others: {what}",
        where={"meeting at": f"{place.address}:{place.port}"},
        fix="start all ranks (torchrun does), with an address and a port that all of them reach",
    )


@contextlib.contextmanager
def _naming_the_lost(place: Place) -> Iterator[None]:
    """Say of a broken connection that another rank ended; its own error says why."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in ("gloo", "nccl")):
            raise
        raise HMError(
            f"rank {place.rank} lost another rank, which has ended: {str(error).splitlines()[0]}",
            fix=f"look at what the others said; {_GO_ON}",
        ) from error
