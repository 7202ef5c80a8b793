"""Ray on this machine alone, for tests: what it is told through its environment, and that nothing of it is left."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs the package ray: pip install 'hmcli[ray]'")


@contextmanager
def ray_here() -> Iterator[dict[str, str]]:
    """Variables for nodes and commands: no cluster of others, no proxy, no tokens, files in a folder that goes again.

    At the end nothing may run that was started with them.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets lie in it: its name must be short
    proxies = {name: "" for name in os.environ if "proxy" in name.lower()}
    try:
        yield {**proxies, "RAY_ADDRESS": "", "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}
        _wait_until_it_ended(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_ended(folder: Path, seconds: float = 150) -> None:
    """A worker that has lost its node looks about for a moment, an agent looks for its cluster for a minute."""
    end = time.monotonic() + seconds
    while left := left_of(folder):
        assert time.monotonic() < end, f"Ray has left behind: {left}"
        time.sleep(0.1)


def left_of(folder: Path) -> list[str]:
    """Command lines of the processes whose Ray writes to a folder: they were told of it, or have a file open there.

    Ray's agents write their titles over what they were told, so that the files alone give some of them away.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = f"RAY_TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
            if told or _has_open(process, folder):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip())
    return [line for line in found if line]  # an empty one is a process that has ended


def _has_open(process: Path, folder: Path) -> bool:
    for file in (process / "fd").iterdir():
        with suppress(OSError):  # closed in the meantime
            if file.readlink().is_relative_to(folder):
                return True
    return False
