"""Each mutant against the tests that reach it; one line of JSON a result, appended, so that a killed run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants.changes import Mutant
from mutants.child import Notes, run_tests
from mutants.reach import Reached, reaching, within
from mutants.tree import hash_of, mutated

KILLED, SURVIVED, TIMED_OUT, UNREACHED = "killed", "survived", "timed out", "not reached"
_SHARE = 0.6  # of the limit that tests took when recorded: coverage slowed them, a shared machine may too
_HANGS = (10.0, 10.0)  # s, times: past both, a test hangs rather than is slow


@dataclass(frozen=True)
class Result:
    room: str
    mutant: str
    file: str
    line: int
    old: str
    new: str
    code: str  # hash of the tree without tests
    tests: str  # hash of all tests
    outcome: str
    by: str  # the test that failed or hung
    by_hash: str  # of the file it stands in
    ran: int  # tests chosen
    seconds: float


def known(file: Path, tree: Path, code: str, tests: str) -> dict[str, Result]:
    """Results by mutant that still hold: of the same tree, or killed by a test of a file that is still the same."""
    found: dict[str, Result] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            one = Result(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut short when the run was killed
        if one.code == code and (one.tests == tests or (one.outcome == KILLED and one.by_hash == _hash(tree, one.by))):
            found[one.mutant] = one
    return found


def append(file: Path, result: Result) -> None:
    """A line of its own, even after one that was cut short."""
    with file.open("a+b") as out:
        if out.tell():
            out.seek(-1, 2)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write(json.dumps(asdict(result)).encode() + b"\n")


def tried(
    room: str, mutant: Mutant, tree: Path, reached: Sequence[Reached], notes: Notes, code: str, tests: str, limit: float
) -> Result:
    """Run the tests that reach the mutant, fastest first, until one fails or `limit` seconds are over."""
    chosen = within(reaching(mutant, reached), _SHARE * limit)
    begin = time.monotonic()
    outcome, by = UNREACHED, ""
    if chosen:
        with mutated(tree, mutant):
            ended = run_tests(tree, ["-x", *(one.test for one in chosen)], notes, limit=limit, environment={})
        outcome, by = _verdict(ended, notes.file, {one.test: one.seconds for one in chosen})
    return Result(
        room, mutant.name, mutant.file, mutant.line, mutant.old, mutant.new, code, tests, outcome, by,
        _hash(tree, by), len(chosen), round(time.monotonic() - begin, 1),
    )  # fmt: skip


def _verdict(ended: int | None, notes: Path, seconds: dict[str, float]) -> tuple[str, str]:
    said = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()] if notes.exists() else []
    failed = [one["failed"] for one in said if "failed" in one]
    last = next((one["started"] for one in reversed(said) if "started" in one), "")
    if ended == 0:
        return SURVIVED, ""
    if ended is not None or failed:  # a test failed, the import did, or a signal ended the process
        return KILLED, failed[0] if failed else last
    hangs = notes.stat().st_mtime + max(_HANGS[0], _HANGS[1] * seconds.get(last, 0.0)) < time.time()
    return (TIMED_OUT, last) if hangs else (SURVIVED, "")


def _hash(tree: Path, test: str) -> str:
    file = tree / test.partition("::")[0]
    return hash_of([file], tree) if test and file.is_file() else ""
