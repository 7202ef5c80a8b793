"""What does `hm eval` cost, with all metrics that run offline?

    python benchmarks/eval.py DATA                          # clips that `hm render nano/test` made; two processes
    python benchmarks/eval.py DATA --clips 12 --processes 1 --json eval.json

Predictions are rows without a model. One row is scored first, which fills the cache of what is made of contexts and
references; then another, which is the measured one; then that again into another folder, where all features are found.
A cache of its own is used, so nothing is found that this run has not made. `by metric` scores four clips once more in
this process, references cached, and says what each metric adds in its order: what it shares with those before it is
counted there. Where other programs run, processor seconds say more than those of the clock: `--processes 1` has them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.bench import rows
from hmcli.stages.data.opening import open_dataset
from hmcli.stages.scoring import evaluate
from hmcli.stages.scoring.clip import Clip
from hmcli.stages.scoring.plan import Column

FIRST, MEASURED = "last-frame", "warp"
FEW = 4  # clips of the table by metric
LIMIT = 300 / 96  # seconds of the clock a clip, in two processes


def link_clips(data: Path, clips: int, place: Path) -> Path:
    """A folder that holds the first so many clips of another."""
    ids = [clip.id for clip in open_dataset(data, load_recipe().poses).clips]
    if len(ids) < clips:
        raise SystemExit(f"{data} has {len(ids)} clips, not {clips}: hm render nano/test --clips {clips}")
    place.mkdir()
    for clip in ids[:clips]:
        (place / clip).symlink_to((data / clip).absolute())
    return place


def score(row: Path, data: Path, out: Path, processes: int = 1) -> dict[str, float]:
    """Seconds of scoring a row with every metric; of the processor, those of this process."""
    clock, processor = time.perf_counter(), time.process_time()
    evaluate.run(
        load_recipe(), generation=row, reference=data, metrics=(), out=out, reporter=Silent(), processes=processes
    )
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def by_metric(data: Path, place: Path) -> dict[str, float]:
    """Processor seconds a clip that each column adds."""
    found: dict[str, float] = {}
    real: Any = Clip.values

    def timed(clip: Clip, column: Column) -> Any:
        before = time.process_time()
        try:
            return real(clip, column)
        finally:
            found[column.name] = found.get(column.name, 0.0) + time.process_time() - before

    clips = min(FEW, len(open_dataset(data, load_recipe().poses).clips))
    few = link_clips(data, clips, place / "few")
    rows.run(few, out=place / "rows of few", rows=[FIRST, MEASURED], reporter=Silent())
    score(place / "rows of few" / FIRST, few, place / "first of few")
    Clip.values = timed  # type: ignore[method-assign]
    try:
        score(place / "rows of few" / MEASURED, few, place / "measured of few")
    finally:
        Clip.values = real  # type: ignore[method-assign]
    return {name: seconds / clips for name, seconds in found.items()}


def measure(data: Path, clips: int, processes: int, place: Path) -> dict[str, Any]:
    """All that is reported; `place` holds what is written on the way."""
    linked = link_clips(data, clips, place / "data")
    os.environ["XDG_CACHE_HOME"] = str(place / "cache of few")
    table = by_metric(data, place)
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    rows.run(linked, out=place / "rows", rows=[FIRST, MEASURED], reporter=Silent(), processes=processes)
    first = score(place / "rows" / FIRST, linked, place / "first", processes)
    measured = score(place / "rows" / MEASURED, linked, place / "measured", processes)
    again = score(place / "rows" / MEASURED, linked, place / "again", processes)
    return {
        "clips": clips, "processes": processes, "first": first, "measured": measured, "again": again,
        "seconds_per_clip": measured["clock"] / clips, "by_metric": table,
        "cache_mib": sum(file.stat().st_size for file in (place / "cache" / "hmcli").iterdir()) / 2**20,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(asked.data, asked.clips, asked.processes, Path(folder))
    print("| metric | processor s a clip |\n|---|---|")
    for name, seconds in sorted(found["by_metric"].items(), key=lambda item: -item[1]):
        print(f"| {name} | {seconds:.2f} |")
    print(f"in all: {sum(found['by_metric'].values()):.2f}")
    print(f"\n{asked.clips} clips, {asked.processes} processes: clock s, processor s of this process")
    for name in ("first", "measured", "again"):
        print(f"{name}: {found[name]['clock']:.1f}, {found[name]['processor']:.1f}")
    print(f"a clip: {found['seconds_per_clip']:.2f} s (to stay under, in two processes: {LIMIT:.2f})")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
