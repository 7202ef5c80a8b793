"""The packaged benchmark: its draft, and how it was frozen from the recipes bench/hm-bench-2-*.

    python -m hmcli.bench draft
    python -m hmcli.bench freeze WORK [--num-processes N] [--only SPLIT]
    python -m hmcli.bench schema

For maintainers. `draft` writes seeds and recipes into the package, `freeze` also what they drew: it keeps its clips in
the folder WORK and goes on there when it was stopped; a new version of the world needs a new folder. `--only` freezes
one split and keeps the others as the package has them: with the last one it is no draft any more. What is frozen is
never written over (a split whose recipe asks for something else by now is not kept): the next benchmark has another
NAME, and a draft whose splits are to be thrown away is deleted by hand. `schema` writes the JSON schema of score files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hmcli.bench.freeze import draft, freeze
from hmcli.errors import UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Console
from hmcli.stages.bench.definition import PACKAGED, Benchmark, find_benchmark, write_benchmark
from hmcli.stages.bench.score_file import schema
from hmcli.store.files import write_json

NAME = "hm-bench-2"
SPLITS = ("easy", "hard", "crowd", "absent")
SCHEMA = PACKAGED / "scores.schema.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hmcli.bench", description="Freeze the packaged benchmark.")
    commands = parser.add_subparsers(dest="command", required=True)
    freezing = commands.add_parser("freeze", help="render the clips and write the benchmark's file")
    freezing.add_argument("work", type=Path, help="folder for the clips; goes on there when it was stopped")
    freezing.add_argument("--num-processes", type=int, default=1)
    freezing.add_argument("--only", choices=SPLITS, help="freeze this split, and keep the others as they are")
    commands.add_parser("draft", help="write what the recipes ask for; nothing is rendered")
    commands.add_parser("schema", help="write the JSON schema of score files")
    given = parser.parse_args()
    if given.command == "schema":
        write_json(SCHEMA, schema())
        return
    file = PACKAGED / f"{NAME}.json"
    found = find_benchmark(file) if file.is_file() else None
    _refuse_to_lose(file, found, given)
    recipes = {split: load_recipe(f"bench/{NAME}-{split}") for split in SPLITS}
    panel = load_recipe(f"bench/{NAME}-panel").eval
    if given.command == "draft":
        write_benchmark(file, draft(NAME, recipes, panel))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    how = {"work": given.work, "processes": given.num_processes, "reporter": Console()}
    write_benchmark(file, freeze(NAME, recipes, panel, **how, only=given.only or "", found=found))


def _refuse_to_lose(file: Path, found: Benchmark | None, given: argparse.Namespace) -> None:
    """Raise UsageError where the command would write over splits that are frozen."""
    if found is None:
        return
    asked = (given.only,) if given.command == "freeze" and given.only else tuple(found.splits)
    if lost := [name for name in asked if found.splits[name].clips]:
        raise UsageError(
            f"{NAME} is frozen: {', '.join(lost)} would be lost", where={"file": file},
            fix="give the next benchmark another name; to throw these splits away, delete the file and draft it again",
        )  # fmt: skip


if __name__ == "__main__":
    main()
