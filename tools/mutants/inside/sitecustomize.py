"""Python runs this in each process a test starts while coverage is recorded: which lines, for which test?

A process of its own counts from its start; a forked one (tests/warm.py) from its fork, and saves where it ends.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable

_FOLDER = os.environ.get("MUTANTS_REACH")
if _FOLDER is not None:
    import coverage

    _end: Callable[[int], None] = os._exit
    _running: list[coverage.Coverage] = []

    def _start() -> None:
        if _running:
            _running.pop().stop()
        found = coverage.Coverage(data_file=None, include=[os.environ["MUTANTS_CODE"]], messages=False)
        found.set_option("run:disable_warnings", ["no-data-collected", "module-not-measured"])
        _running.append(found)
        found.start()

    def _save() -> None:
        found = _running.pop()
        found.stop()
        data = found.get_data()
        lines = {file: sorted(data.lines(file) or ()) for file in data.measured_files()}
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        with open(os.path.join(str(_FOLDER), f"{os.getpid()}-{time.time_ns()}.json"), "w", encoding="utf-8") as out:
            json.dump({"test": test, "lines": lines}, out)

    def _exit(code: int) -> None:
        try:
            if _running:
                _save()
        finally:
            _end(code)

    if not any(word.endswith("warm.py") for word in sys.orig_argv):  # it imports for others, and is killed
        _start()
    atexit.register(lambda: _save() if _running else None)
    os.register_at_fork(after_in_child=_start)
    os._exit = _exit  # type: ignore[assignment]
