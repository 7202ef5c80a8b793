"""Progress and notes: plain lines where stderr is no terminal, a bar where it is; devices by name."""

from __future__ import annotations

import contextlib
import io
import signal

import pytest

from hmcli.errors import UsageError
from hmcli.runtime import Console, Terminated, pick_device, stop_on_sigterm


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_progress_is_one_plain_line_at_the_end():
    stream = io.StringIO()
    with Console(stream).progress("encoding", 3, "clip") as advance:
        for _ in range(3):
            advance(1)
    assert stream.getvalue().startswith("encoding: 3/3 clips, ")
    assert stream.getvalue().endswith("0 s left\n")
    assert "\x1b" not in stream.getvalue()


def test_with_a_terminal_a_bar_shows_count_and_rate_and_notes_stay_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    console = Console(stream)
    with console.progress("encoding", 2, "clip") as advance:
        advance(1)
        console.warn("clip [b]7[/b] is left out")
        advance(1)
    text = stream.getvalue()
    assert "warning: clip [b]7[/b] is left out\n" in text
    assert "2/2" in text
    assert "clip/s" in text


def test_a_device_that_is_not_there_is_an_error():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        pick_device("gpu")
    with pytest.raises(UsageError, match="is not there"):
        pick_device("cuda:97")


@pytest.mark.parametrize("name", ["meta", "xpu", "cuda:-1", ""])
def test_a_device_type_hm_does_not_use_is_unknown(name: str):
    with pytest.raises(UsageError, match="unknown device"):
        pick_device(name)


def test_sigterm_is_no_exception_that_a_library_could_swallow():
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop_on_sigterm()
        with pytest.raises(Terminated), contextlib.suppress(Exception):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
