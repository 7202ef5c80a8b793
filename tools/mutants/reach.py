"""Which test reaches which line, and how long does it take? Recorded once a file of tests, with coverage's contexts."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

from mutants.changes import Mutant
from mutants.child import Notes, run_tests
from mutants.tree import hash_of

_INSIDE = Path(__file__).parent / "inside"


@dataclass(frozen=True)
class Reached:
    """A test that passed: its seconds, and the lines of each file that it ran."""

    test: str
    seconds: float
    lines: dict[str, frozenset[int]]


def recorded(
    tree: Path, folder: Path, tests: Sequence[str], code: str, packages: str, limit: float
) -> Iterator[Reached]:
    """What every file of tests reaches below `packages`; those recorded for the same code and file are read again.

    A file of tests that takes more than `limit` seconds ends there: what it reached until then counts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in tests:
        path = tree / file
        place = folder / f"{file.replace('/', '-')}.{code}.{hash_of([path], tree)}.jsonl"
        if not place.exists():
            print(f"recording {file}", flush=True)
            _record(tree, file, place, packages, limit)
        yield from map(_read, place.read_text(encoding="utf-8").splitlines())


def _read(line: str) -> Reached:
    said = json.loads(line)
    return Reached(said["test"], said["seconds"], {file: frozenset(lines) for file, lines in said["lines"].items()})


def _record(tree: Path, file: str, place: Path, packages: str, limit: float) -> None:
    """Leaves `place` when done, by rename."""
    started = place.with_suffix(".processes")
    started.mkdir(exist_ok=True)
    for old in started.iterdir():
        old.unlink()
    code = str(tree / packages / "*")
    notes = _Contexts(place.with_suffix(".part"), code)
    environment = {"PYTHONPATH": str(_INSIDE), "MUTANTS_REACH": str(started), "MUTANTS_CODE": code}
    ended = run_tests(tree, [file], notes, limit=limit, environment=environment)
    if ended not in (0, 1, 5, None):  # passed, failed, none selected, out of time
        raise SystemExit(f"pytest did not run {file} (code {ended}): {notes.file.with_suffix('.log')}")
    said = (
        [json.loads(line) for line in notes.file.read_text(encoding="utf-8").splitlines()]
        if notes.file.exists()
        else []
    )
    failed = {one["failed"] for one in said if "failed" in one}
    passed = {one["test"]: one for one in said if "test" in one and one["test"] not in failed}
    for other in sorted(started.glob("*.json")):
        found = json.loads(other.read_text(encoding="utf-8"))
        if found["test"] in passed:
            lines = passed[found["test"]]["lines"]
            for name, more in found["lines"].items():
                lines[name] = sorted({*lines.get(name, ()), *more})
    with notes.file.open("w", encoding="utf-8") as out:
        for one in passed.values():
            one["lines"] = {Path(name).relative_to(tree).as_posix(): lines for name, lines in one["lines"].items()}
            out.write(json.dumps(one) + "\n")
    notes.file.rename(place)


class _Contexts(Notes):
    """A plugin of pytest: after each test, its seconds and its lines, setup and teardown included."""

    def __init__(self, file: Path, code: str) -> None:
        super().__init__(file)
        self.code = code
        self.coverage: coverage.Coverage | None = None

    def _start(self) -> coverage.Coverage:
        found = coverage.Coverage(data_file=None, include=[self.code], messages=False)
        found.set_option("run:disable_warnings", ["no-data-collected", "module-not-measured"])
        found.start()
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.coverage = self.coverage or self._start()
        self.coverage.switch_context(item.nodeid)
        begin = time.monotonic()
        done = yield
        seconds = time.monotonic() - begin
        self.coverage.switch_context("between tests")
        data = self.coverage.get_data()
        data.set_query_context(item.nodeid)
        lines = {file: sorted(found) for file in data.measured_files() if (found := data.lines(file))}
        self.note(test=item.nodeid, seconds=round(seconds, 3), lines=lines)
        return done


def reaching(mutant: Mutant, reached: Sequence[Reached]) -> list[Reached]:
    """The fastest first. What runs on import is reached by every test that runs a line of the file."""
    wanted = range(mutant.line, mutant.last_line + 1)
    found = [
        one for one in reached
        if (lines := one.lines.get(mutant.file)) and (mutant.loading or not lines.isdisjoint(wanted))
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.seconds, one.test))


def within(tests: Sequence[Reached], seconds: float) -> list[Reached]:
    """The first tests that take so long together, at least one."""
    kept, spent = [], 0.0
    for one in tests:
        spent += one.seconds
        if kept and spent > seconds:
            break
        kept.append(one)
    return kept
