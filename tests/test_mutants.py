"""The driver of `make mutants`, on a package of three functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mutants.changes import Mutant, mutants_of
from mutants.choosing import chosen
from mutants.reach import Reached, reaching, within
from mutants.tree import hash_of
from mutants.trying import _verdict

CODE = '''"""Small."""


def larger(a, b):
    return a if a > b else b


def between(a, low, high):
    return low <= a and a < high


def unseen(a):
    return a * 3
'''
TESTS = """
from small.sums import between, larger


def test_the_larger_one():
    assert larger(2, 3) == 3
    assert larger(5, 3) == 5


def test_a_range_without_its_end():
    assert between(1, 1, 2)
    assert not between(2, 1, 2)
"""
RUN = """
import json, sys
from pathlib import Path
from mutants.__main__ import run
root, work, count = sys.argv[1:]
done = run(Path(root), Path(work), rooms={"sums": ("small/*.py",)}, tests=("tests/test_*.py",), package="small", seed=1,
           count=int(count), limit=120, recording=120)
print(json.dumps([[one.line, one.new, one.outcome, one.by] for one in done]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    for name, text in {
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--import-mode=importlib'\n",
        "small/__init__.py": "",
        "small/sums.py": CODE,
        "tests/test_sums.py": TESTS,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def _run(project: Path, root: Path, work: Path, count: int) -> list[list[object]]:
    path = os.pathsep.join([str(project / "tools"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", RUN, root, work, str(count)], capture_output=True, text=True, cwd=root.parent,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_says_which_changes_no_test_noticed_and_goes_on_where_it_was_stopped(
    project: Path, root: Path, tmp_path: Path
):
    before = hash_of((file for file in root.rglob("*") if file.is_file()), root)
    work = tmp_path / "work"
    results = _run(project, root, work, 99)
    assert Counter(outcome for _, _, outcome, _ in results) == {"killed": 4, "survived": 1, "not reached": 2}
    assert [row for row in results if row[2] == "survived"] == [[5, ">=", "survived", ""]]  # equal ones are both larger
    assert {row[0] for row in results if row[2] == "not reached"} == {13}
    assert {row[3] for row in results if row[0] == 9} == {"tests/test_sums.py::test_a_range_without_its_end"}
    assert hash_of((file for file in root.rglob("*") if file.is_file()), root) == before

    log = work / "results.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join(lines[:5]) + "\n" + lines[5][:40], encoding="utf-8")
    (work / "tree/small/sums.py").write_text("left by a run that was killed", encoding="utf-8")
    assert _run(project, root, work, 99) == results
    again = log.read_text(encoding="utf-8").splitlines()
    assert again[:5] == lines[:5]
    assert len(again) == len(lines) + 1  # the line cut short stays, what it said was done again
    assert [json.loads(line)["mutant"] for line in again[6:]] == [json.loads(line)["mutant"] for line in lines[5:]]


def test_a_seed_always_chooses_the_same_and_more_of_them_keep_those_of_fewer(root: Path):
    rooms = {"a": ("small/sums.py",), "b": ("small/*.py",)}
    few, many = (chosen(root, rooms, 7, count) for count in (4, 8))
    assert many[:4] == few
    assert len({mutant.name for _, mutant in many}) == 7
    assert chosen(root, rooms, 7, 8) == many
    assert chosen(root, rooms, 8, 8) != many
    assert {room for room, _ in many} == {"a"}  # a file belongs to the first room that has it
    assert chosen(root, rooms, 7, 8, only=("a",)) == many
    assert chosen(root, rooms, 7, 8, only=("b",)) == []


def test_every_mutant_is_one_change_that_compiles_and_knows_its_line():
    source = CODE.encode()
    found = mutants_of(source, "small/sums.py")
    for one in found:
        changed = one.applied(source)
        compile(changed, "mutant", "exec")
        rows = [
            row
            for row, pair in enumerate(zip(source.splitlines(), changed.splitlines(), strict=True), 1)
            if pair[0] != pair[1]
        ]
        assert rows == [one.line]
        assert source[one.start : one.end].decode() == one.old
    assert len({one.name for one in found}) == len(found) == 7


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("x: int = f(a is not b)", {"is"}),
        ("x = a not in b or c", {"in", "and"}),
        ("if not a: pass", {"a", "not (not a)"}),
        ("while True: break", {"False", "not (True)", "continue"}),
        ("x = 0.5", {"1.0"}),
        ("x = 'a' + b", set()),
        ("x = f'{a + 1}'", set()),
        ("raise ValueError(a + 1)", {"pass"}),
        ("f(b'\\xc3\\xa9', 'é', 1)", {"2", "pass"}),
        ("x += 1", {"pass", "2"}),
        ("@f(frozen=True)\nclass A: pass", set()),
        ("def f(a: g[1] = 2): ...", {"3"}),
    ],
)
def test_what_is_changed_in_a_line(line: str, changes: set[str]):
    found = mutants_of(line.encode(), "a.py")
    assert {one.new for one in found} == changes


def test_the_fastest_tests_that_reach_a_line_run_first_within_their_seconds():
    lines = {"a.py": frozenset({3, 4})}
    slow, fast, other = (
        Reached("slow", 9.0, lines),
        Reached("fast", 1.0, lines),
        Reached("other", 0.1, {"a.py": frozenset({8})}),
    )
    inside = Mutant("a.py", 4, 5, 0, 1, "a", "b", False, "")
    loading = Mutant("a.py", 1, 1, 0, 1, "a", "b", True, "")
    assert reaching(inside, [slow, fast, other]) == [fast, slow]
    assert reaching(loading, [slow, fast, other]) == [other, fast, slow]
    assert reaching(Mutant("b.py", 4, 5, 0, 1, "a", "b", False, ""), [slow, fast, other]) == []
    assert within([fast, slow], 9.5) == [fast]
    assert within([slow], 1.0) == [slow]


@pytest.mark.parametrize(
    ("ended", "said", "age", "verdict"),
    [
        (0, [{"started": "a"}], 0, ("survived", "")),
        (1, [{"started": "a"}, {"failed": "a"}], 0, ("killed", "a")),
        (-11, [{"started": "a"}], 0, ("killed", "a")),
        (4, [], 0, ("killed", "")),
        (None, [{"started": "a"}], 30, ("timed out", "a")),  # a took a second before
        (None, [{"started": "a"}], 2, ("survived", "")),  # the limit came while tests went on as ever
        (None, [{"started": "a"}, {"failed": "a"}], 30, ("killed", "a")),
    ],
)
def test_what_an_ended_run_of_tests_says(
    tmp_path: Path, ended: int | None, said: list[dict[str, str]], age: float, verdict: tuple[str, str]
):
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps(one) + "\n" for one in said), encoding="utf-8")
    stat = notes.stat()
    os.utime(notes, (stat.st_atime - age, stat.st_mtime - age))
    assert _verdict(ended, notes, {"a": 1.0}) == verdict
