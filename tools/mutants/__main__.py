"""python -m mutants [--count N] [--seed N]: put faults into a copy of the code, one at a time; do tests fail?"""

from __future__ import annotations

import argparse
from pathlib import Path

from mutants.child import Notes, load_libraries
from mutants.choosing import ROOMS, Rooms, chosen
from mutants.reach import recorded
from mutants.table import table, unnoticed
from mutants.tree import code_hash, copied, hash_of
from mutants.trying import Result, append, known, tried

TESTS = (
    "tests/core/test_core_*.py", "tests/core/test_golden_*.py", "tests/core/test_a*.py",
    "tests/store/test_*.py", "tests/metrics/test_*.py",
    *(f"tests/stages/test_{name}.py" for name in (
        "evaluate", "item_keys", "metric_inputs", "muon", "nano", "not_finite", "not_finite_arrays", "returned",
        "samples", "train", "train_blocks", "train_codec", "train_keys", "train_step", "training_state",
    )),
)  # fmt: skip


def run(
    root: Path, work: Path, *, rooms: Rooms, tests: tuple[str, ...], package: str, seed: int, count: int, limit: float,
    recording: float, only: tuple[str, ...] | None = None,
) -> list[Result]:  # fmt: skip
    """Results of the chosen mutants, in the order of the choice; what is known and still holds is not tried again."""
    work.mkdir(parents=True, exist_ok=True)
    tree = copied(root, work / "tree")
    files = sorted({file.relative_to(tree).as_posix() for pattern in tests for file in tree.glob(pattern)})
    code, tested = code_hash(tree), hash_of((tree / file for file in files), tree)
    reached = list(recorded(tree, work / "reach", files, code, package, recording))
    log = work / "results.jsonl"
    old = known(log, tree, code, tested)
    results = []
    for room, mutant in chosen(tree, rooms, seed, count, only):
        if mutant.name not in old:
            done = tried(room, mutant, tree, reached, Notes(work / "tests.jsonl"), code, tested, limit)
            append(log, done)
            print(f"{done.outcome}: {done.file}:{done.line} ({done.seconds} s)", flush=True)
            old[mutant.name] = done
        results.append(old[mutant.name])
    return results


def main() -> None:
    read = argparse.ArgumentParser(prog="mutants", description=__doc__)
    read.add_argument("--count", type=int, default=200)
    read.add_argument("--seed", type=int, default=16)
    read.add_argument("--limit", type=float, default=60.0, help="seconds a mutant")
    read.add_argument(
        "--recording", type=float, default=60.0, help="seconds a file of tests, while coverage is recorded"
    )
    read.add_argument("--rooms", nargs="+", choices=list(ROOMS), default=list(ROOMS))
    read.add_argument(
        "--tests", nargs="+", default=list(TESTS), metavar="PATTERN", help="files of tests, from the root"
    )
    read.add_argument("--work", type=Path, default=Path(".mutants"), help="the copy, what was recorded, the results")
    given = read.parse_args()
    load_libraries()
    root = Path(__file__).resolve().parents[2]
    results = run(
        root, given.work.resolve(), rooms=ROOMS, tests=tuple(given.tests), package="hmcli", seed=given.seed,
        count=given.count, limit=given.limit, recording=given.recording, only=tuple(given.rooms),
    )  # fmt: skip
    print(f"\nseed {given.seed}\n{table(results)}\n\n{unnoticed(results)}")


if __name__ == "__main__":
    main()
