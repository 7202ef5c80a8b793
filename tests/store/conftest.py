"""Fixtures of the store's tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store.small_stages import LatentsStage, Notes


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def stage(tmp_path: Path) -> LatentsStage:
    return LatentsStage(tmp_path / "clips.latents")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a process of its own; arguments are in sys.argv, `say` prints a line at once."""
    running: list[subprocess.Popen[str]] = []
    tests = str(Path(__file__).parents[1])
    head = f"import sys\nsys.path.insert(0, {tests!r})\ndef say(text):\n    print(text, flush=True)\n"

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def flip_a_byte(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    return flip_a_byte
