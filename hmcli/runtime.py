"""For stages: progress and notes on stderr, devices, dtypes, signals. torch and rich are imported where used."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from hmcli.contracts import Reporter
from hmcli.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICE_TYPES = ("cpu", "cuda", "mps")
PLAIN_PROGRESS_SECONDS = 10.0  # how often a progress line appears where stderr is no terminal


# Ids, paths and captions come from others: what moves a cursor, colours or turns text around is shown, not obeyed.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with control characters and halves of pairs written as escapes; lines and tabs stay."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


class Console:
    """The Reporter of a command: notes, warnings and progress on stderr, plain where stderr is no terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self._bars: Any = None  # the rich console while a bar is drawn: lines go above it
        self.beside = ""  # what stands beside the progress: a loss, for instance

    def note(self, text: str) -> None:
        """A line a user may want to know."""
        text = printable(text)
        if self._bars is None:
            print(text, file=self.stream, flush=True)
        else:
            self._bars.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """A line a user should know."""
        self.note(f"warning: {text}")

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """Count `total` units of work; the yielded function advances by n. Shows rate and time left."""
        self.beside = ""
        bar = self._bar if self.stream.isatty() else self._lines
        with bar(what, total, unit) as advance:
            yield advance

    @contextlib.contextmanager
    def _bar(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        started, done = time.monotonic(), 0
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=RichConsole(file=self.stream), transient=False) as shown, self._above(shown):
            task = shown.add_task(what, total=total, rate="")

            def advance(n: int) -> None:
                nonlocal done
                done += n
                rate = _rate(done, time.monotonic() - started, unit)
                shown.update(task, advance=n, rate=f"{rate}, {self.beside}" if self.beside else rate)

            yield advance

    @contextlib.contextmanager
    def _above(self, shown: Any) -> Iterator[None]:
        self._bars, before = shown.console, self._bars
        try:
            yield
        finally:
            self._bars = before

    @contextlib.contextmanager
    def _lines(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        started = said = time.monotonic()
        done = 0

        def advance(n: int) -> None:
            nonlocal done, said
            done += n
            now = time.monotonic()
            if done < total and now - said < PLAIN_PROGRESS_SECONDS:
                return
            said = now
            left = (now - started) / done * (total - done) if done else 0.0
            rate = _rate(done, now - started, unit)
            self.note(f"{what}: {done}/{total} {unit}s, {rate}, {left:.0f} s left{self.beside and ', '}{self.beside}")

        yield advance


def _rate(done: int, seconds: float, unit: str) -> str:
    """`0.52 clip/s`, or the time per unit where that reads better."""
    if done == 0 or seconds <= 0:
        return f"- {unit}/s"
    rate = done / seconds
    return f"{rate:.2f} {unit}/s" if rate >= 0.1 else f"{1 / rate:.1f} s/{unit}"


class Silent:
    """A Reporter that says nothing, for library use."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda n: None


@dataclass(frozen=True)
class Heard(Silent):
    """The Reporter of another process: what it is told goes back with what that process has made."""

    said: list[tuple[str, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.said.append(("note", text))

    def warn(self, text: str) -> None:
        self.said.append(("warn", text))

    def take(self) -> tuple[tuple[str, str], ...]:
        """What was said since it was last taken: (how, text), for `tell`."""
        taken = tuple(self.said)
        self.said.clear()
        return taken


def say_beside(reporter: Reporter, text: str) -> None:
    """What stands beside the progress from now on, where it is shown to a person."""
    if isinstance(reporter, Console):
        reporter.beside = text


def tell(reporter: Reporter, how: str, text: str) -> None:
    """Say what was heard elsewhere."""
    (reporter.warn if how == "warn" else reporter.note)(text)


def peak_memory(device: str) -> int:
    """Bytes that this process has held at most: on a GPU those of tensors there, else those of the process."""
    import resource

    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def pick_device(name: str) -> str:
    """`auto` is CUDA where there is one, else the CPU. A device asked for by name and absent is an error."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        known = device.type in DEVICE_TYPES
    except RuntimeError:
        known = False
    if not known:
        raise UsageError(f"unknown device {name!r}", fix="use auto, cpu, cuda or cuda:N")
    cuda_missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if cuda_missing or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise UsageError(f"device {name!r} is not there", fix="use --device cpu, or auto")
    return name


def pick_dtype(name: str) -> torch.dtype:
    """The torch dtype a recipe names."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


class StopFlag:
    """Set by the first SIGTERM or Ctrl-C while `stopping_at_boundaries` is active."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stopping_at_boundaries() -> Iterator[StopFlag]:
    """For work that wants to end at a clean point (a training step): the first signal sets the flag, a second acts."""
    flag = StopFlag()

    def remember(number: int, frame: Any) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.signal = number

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Terminated(BaseException):
    """SIGTERM arrived. Like KeyboardInterrupt no Exception: a library's `except Exception` must not swallow it."""


def stop_on_sigterm() -> None:
    """From now on SIGTERM raises Terminated; artifacts are resumable at any instant, so that is safe anywhere."""

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
