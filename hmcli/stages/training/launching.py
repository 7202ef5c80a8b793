"""`--num-processes N`: ranks on this machine, started by torch's elastic launcher.

It does not try again by itself: a rank that ends takes the others along, and the same command goes on from the last
checkpoint. Signals reach the ranks, which stop together at a step; so this process only passes them on.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from hmcli.contracts import StageResult
from hmcli.errors import HMError
from hmcli.runtime import Silent, stop_on_sigterm
from hmcli.stages.training.ranks import Place, from_environment

LAST_WORDS_SECONDS = 5.0  # what the first rank has to say is enough where all say the same

Work = Callable[..., StageResult]
Explain = Callable[[BaseException], int]


class RanksEnded(SystemExit):
    """Nothing more is to be said: other ranks say what was made, or have said what went wrong; carries an exit code."""


def in_ranks(
    work: Work, place: Place | None, count: int, *, device: str, dry_run: bool, explain: Explain
) -> StageResult:
    """Run a training (`hmcli.stages.training.train.run` with all but `place`) alone, as a rank, or in `count` ranks.

    Before ranks are started, all is checked here once: an error is said once, and nothing is started for it.
    """
    if place is not None:
        made: StageResult = work(place=place, dry_run=dry_run)
        if place.rank:
            raise RanksEnded(0)
        return made
    if count == 1 or dry_run:
        return work(dry_run=dry_run, processes=count)
    work(dry_run=True, processes=count, reporter=Silent())
    return start(work, count, device=device, explain=explain)


def start(work: Work, count: int, *, device: str, explain: Explain) -> StageResult:
    """Run `work` in `count` ranks; returns what the first one made. Raises RanksEnded with the exit code of a rank."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _quiet()
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=f"hm-{os.getpid()}", rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1", max_restarts=0, monitor_interval=0.05,
        start_method="fork" if device == "cpu" else "spawn", signals_to_handle="SIGQUIT",
    )  # fmt: skip
    with _passing_signals_on():
        try:
            made = elastic_launch(config, _rank)(work, count, os.getpid(), explain)
        except ChildFailedError as error:
            raise RanksEnded(_code(error.failures)) from None
    return made[0]


def _code(failures: dict[int, Any]) -> int:
    """The exit code of the first rank, or of whichever failed first; a signal is said, for that rank said nothing."""
    for rank, failure in sorted(failures.items()):
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            lost = HMError(f"rank {rank} was ended by {name}", fix="the same command goes on from the last checkpoint")
            print(f"error: {lost}", file=sys.stderr)
            return 1
    return int(next(failure for _, failure in sorted(failures.items())).exitcode)


def _rank(work: Work, count: int, parent: int, explain: Explain) -> StageResult:
    """What each process does; ends it with the exit code of what went wrong."""
    os.setpgid(0, 0)  # the terminal's Ctrl-C is for the process that started this one, which passes it on
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    stop_on_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = from_environment({n: v for n, v in os.environ.items() if not n.startswith("ACCELERATE_")}, count)
    assert place is not None  # the launcher has set it
    try:
        return work(place=place)
    except BaseException as error:
        try:
            if place.rank:
                time.sleep(LAST_WORDS_SECONDS)  # the first rank says the same, and its end ends this one
            code = explain(error)
            sys.stderr.flush()
        except BaseException:  # the launcher's SIGTERM
            code = 1
        os._exit(code)


def _end_with(parent: int) -> None:
    """End this rank when the process that started it is gone (SIGKILL), at any point: artifacts allow it."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


@contextlib.contextmanager
def _passing_signals_on() -> Iterator[None]:
    """Until the ranks have ended, SIGTERM and Ctrl-C are theirs."""

    def pass_on(number: int, frame: Any) -> None:
        for child in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid or 0, number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quiet() -> None:
    """The launcher's own account of a rank that ended is a page long; ranks say it in a line."""
    loud = ("torch.distributed.elastic", "torch.multiprocessing")
    for name in [name for name in logging.root.manager.loggerDict if name.startswith(loud)]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
