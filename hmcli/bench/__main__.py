"""The packaged benchmark that is next: its draft, and how it is frozen from the recipes bench/hm-bench-2-*.

    python -m hmcli.bench draft
    python -m hmcli.bench freeze WORK [--num-processes N]
    python -m hmcli.bench schema

For maintainers. `draft` writes seeds and recipes into the package, `freeze` also what they drew: it keeps its clips in
the folder WORK and goes on there when it was stopped; a new version of the world needs a new folder. `schema` writes
the JSON schema of score files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hmcli.bench.freeze import draft, freeze
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Console
from hmcli.stages.bench.definition import PACKAGED, write_benchmark
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
    commands.add_parser("draft", help="write what the recipes ask for; nothing is rendered")
    commands.add_parser("schema", help="write the JSON schema of score files")
    given = parser.parse_args()
    if given.command == "schema":
        write_json(SCHEMA, schema())
        return
    recipes = {split: load_recipe(f"bench/{NAME}-{split}") for split in SPLITS}
    if given.command == "draft":
        write_benchmark(PACKAGED / f"{NAME}.json", draft(NAME, recipes))
        return
    given.work.mkdir(parents=True, exist_ok=True)
    frozen = freeze(NAME, recipes, work=given.work, processes=given.num_processes, reporter=Console())
    write_benchmark(PACKAGED / f"{NAME}.json", frozen)


if __name__ == "__main__":
    main()
