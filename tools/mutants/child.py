"""pytest in a forked child: libraries are loaded once, in the parent, and the code under test in each child anew."""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

_LOADED = (
    "numpy", "scipy.ndimage", "torch", "pydantic", "zarr", "yaml", "safetensors.torch", "skimage.feature",
    "skimage.metrics", "av", "accelerate", "peft", "transformers", "diffusers.models",
)  # fmt: skip
_MEMORY = 12 << 30  # bytes of data a child may hold: a mutant may ask for any


def load_libraries() -> None:
    """Before the first child. What is missing is missed by the tests that need it."""
    for name in _LOADED:
        with suppress(ImportError):
            importlib.import_module(name)


class Notes:
    """Writes down, line by line, which test starts and how it ended: what a killed child leaves."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def note(self, **values: Any) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(values) + "\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.note(started=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.note(failed=report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.note(failed=report.nodeid)


def run_tests(
    tree: Path, arguments: list[str], notes: Notes, *, limit: float, environment: dict[str, str]
) -> int | None:
    """Exit code of pytest in `tree`, negative when a signal ended it; None past `limit` seconds."""
    notes.file.unlink(missing_ok=True)
    if (pid := os.fork()) == 0:
        _become(tree, arguments, notes, environment)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _end_all(pid)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    _end_all(pid)
    os.waitpid(pid, 0)
    return None


def _end_all(child: int) -> None:
    """Servers that tests started in sessions of their own, too."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(child).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _become(tree: Path, arguments: list[str], notes: Notes, environment: dict[str, str]) -> None:
    """In the child; never returns."""
    code = 70
    try:
        os.setsid()
        with notes.file.with_suffix(".log").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
        os.chdir(tree)
        os.environ.update({"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **environment})
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tree), environment.get("PYTHONPATH")]))
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(tree))
        temporary = notes.file.with_suffix(".tmp")
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options += ["--rootdir", str(tree), "--basetemp", str(temporary)]
        code = int(pytest.main([*options, *arguments], plugins=[notes]))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
