"""Makers: what makes the items of a stage, in this process or copied into several.

torch computes on one thread in every process, however many there are: sums are formed in one order then, and results
depend neither on the number of processes nor on that of a machine's cores. Workers only make; what they hand back is
put into the artifact by the one process that holds its lock.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from hmcli.contracts import Reporter
from hmcli.errors import DataError, HMError
from hmcli.runtime import Heard, tell

_AHEAD = 2  # units given out per process: none waits for another to be collected
# On Linux one process imports what making needs, and forks; elsewhere a fork of a process with libraries is not safe.
_METHOD = "forkserver" if sys.platform.startswith("linux") else "spawn"


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is made at once, mostly one clip: items of the artifact, each with the key of all that it depends on."""

    id: str  # what it is called when it is left out
    items: Mapping[str, str]
    clips: int = 1  # in the progress bar


class Maker(Protocol):
    """Pickled into workers before it has loaded anything; each of them loads its own."""

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules that making needs and that take long to import; torch among them, or in them, where it is used."""

    def reporting_to(self, reporter: Reporter) -> Maker:
        """A copy, for a worker, that tells this reporter what it has to tell."""

    def load(self) -> None:
        """Load what making needs, where it is not loaded yet. What this raises ends the stage."""

    def make(self, unit: Unit, place: Path) -> Any:
        """What `keep` of the stage needs to put the unit's items into the artifact. Picklable; files go to `place`.

        `place` is not there yet. Raises DataError for a unit that cannot be made; any other error ends the stage.
        """


@dataclass(frozen=True, kw_only=True)
class Made:
    """A unit with what its maker returned, or why there is nothing; `place` holds the files it wrote, if any."""

    unit: Unit
    place: Path
    value: Any = None
    error: DataError | None = None
    said: tuple[tuple[str, str], ...] = ()


def make_all(
    maker: Maker, units: Iterator[Unit], place: Callable[[], Path], processes: int, reporter: Reporter
) -> Generator[Made, None, None]:
    """Units with what was made of them, in the order in which they are done. Close it: that ends the workers.

    Units are taken as they are needed, `place` gives a new place for the files of one. With one process, or one unit,
    all happens in this process.
    """
    first = list(islice(units, 2))
    if processes == 1 or len(first) < 2:
        return _make_here(maker, chain(first, units), place)
    return _make_in_workers(maker, chain(first, units), place, processes, reporter)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread in this block, if it is imported."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 1
    if torch is not None:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


def _make(maker: Maker, unit: Unit, place: Path) -> Made:
    try:
        return Made(unit=unit, place=place, value=maker.make(unit, place))
    except DataError as error:
        return Made(unit=unit, place=place, error=error)


def _make_here(maker: Maker, units: Iterator[Unit], place: Callable[[], Path]) -> Generator[Made, None, None]:
    for unit in units:
        _import(maker)
        with one_thread():
            maker.load()
            made = _make(maker, unit, place())
        yield made


def _import(maker: Maker) -> None:
    for module in maker.imports:
        importlib.import_module(module)


# --- workers ---------------------------------------------------------------------------------------------------------


def _make_in_workers(
    maker: Maker, units: Iterator[Unit], place: Callable[[], Path], processes: int, reporter: Reporter
) -> Generator[Made, None, None]:
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context(_METHOD)
    context.set_forkserver_preload(list(maker.imports))
    copied = maker.reporting_to(Heard())  # a reporter stays where its terminal is
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_worker, initargs=(copied,))
    said: set[tuple[str, str]] = set()
    try:
        running: set[Future[Made]] = set()
        while True:
            for unit in islice(units, processes * _AHEAD - len(running)):
                running.add(pool.submit(_make_in_worker, unit, place()))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=_failed):  # what is made is handed on before an error ends it all
                made = _result(future)
                _retell(reporter, made.said, said)
                yield made
    finally:
        for child in set(multiprocessing.active_children()) - others:  # nobody waits for what they are at
            child.kill()
        with contextlib.suppress(RuntimeError):  # stopped while the pool started its thread: there is none to wait for
            pool.shutdown(cancel_futures=True)


def _retell(reporter: Reporter, heard: tuple[tuple[str, str], ...], said: set[tuple[str, str]]) -> None:
    """Say what a worker was told, once: each of them loads the same model."""
    for how, text in heard:
        if (how, text) not in said:
            said.add((how, text))
            tell(reporter, how, text)


def _failed(future: Future[Made]) -> bool:
    return future.exception() is not None


def _result(future: Future[Made]) -> Made:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool as error:
        raise HMError(
            "a process that was making items died (out of memory?)",
            fix="run the same command again with a smaller --num-processes: finished items are kept",
        ) from error


_heard = Heard()
_here: list[Maker] = []  # of a worker: its maker, which keeps what it has loaded


def _begin_worker(maker: Maker) -> None:
    """One process per core beats torch's own threads; and no process outlives the one that started it."""
    os.dup2(2, 1)  # stdout carries the result of the command, and nothing else
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the parent decides
        signal.signal(number, signal.SIG_IGN)

    def end_with_parent() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            with contextlib.suppress(OSError):
                parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _import(maker)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    _here[:] = [maker.reporting_to(_heard)]


def _make_in_worker(unit: Unit, place: Path) -> Made:
    maker = _here[0]
    maker.load()
    made = _make(maker, unit, place)
    return replace(made, said=_heard.take())
