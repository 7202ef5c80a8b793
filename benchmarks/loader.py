"""Do latents arrive as fast as a model wants them?

    python benchmarks/loader.py                                  # the published clip, and 100,000 small rows
    python benchmarks/loader.py --place /mnt/store --json loader.json
    python benchmarks/loader.py --compressor blosc --keep-bits 6

Rows of a latents artifact (written here, then dropped from the page cache where the system allows) are read as training
reads them: one by one, each file held against the manifest when it is first read, as float32, by the threads that
prepare batches ahead (`STEPS_AHEAD`). Said are the
share of the throughput of plain reading of the same files, and the share of time that steps of 50, 200 and 1000 ms (a
device that sleeps) wait for their clip; to stay below: 5 % at 200 ms and above. Many small rows show whether memory
grows with what was read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from hmcli.recipe.sections import MANTISSA
from hmcli.stages.training.feeding import STEPS_AHEAD, prepared_ahead
from hmcli.store import listed
from hmcli.store.arrays import ROOT, ZSTD, StackReader, rounded, write_stack
from hmcli.store.hashing import hash_tree
from hmcli.store.manifest import make_manifest, write_manifest

LARGE = (16, 40, 60, 104)  # a published clip: channels, latent frames, rows, columns
SMALL = (16, 2, 4, 4)
STEPS = (0.05, 0.2, 1.0)  # seconds
MOST_WAITING = 0.05


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, help="folder on the disk to measure; default: the temporary one")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100_000, help="small rows that are read")
    parser.add_argument("--shape", default="x".join(map(str, LARGE)))
    parser.add_argument("--seconds", type=float, default=5.0, help="of every kind of step")
    parser.add_argument("--compressor", default=ZSTD, choices=[ZSTD, "blosc", "none"])
    parser.add_argument("--keep-bits", type=int, default=MANTISSA)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    shape = tuple(int(side) for side in asked.shape.split("x"))
    with tempfile.TemporaryDirectory(dir=asked.place) as place:
        path = write(Path(place), "large", shape, asked.clips, asked.compressor, asked.keep_bits)
        found = measure(path, asked.seconds) | {"memory": growth(Path(place), asked.rows)}
    print(f"read {found['mb_per_second']:.0f} MB/s, {found['share_of_raw']:.2f} of plain reading, in the first epoch; ")
    print(f"{found['mb_per_second_again']:.0f} MB/s later; {found['stored_mb']:.0f} MB hold {found['mb']:.0f}")
    for step, share in found["waiting"].items():
        print(f"steps of {step} s wait {share:.1%} of the time")
    print("memory grew by {grew_mib:.1f} MiB over {rows} rows".format(**found["memory"]))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))
    return found


def write(
    place: Path, name: str, shape: tuple[int, ...], count: int, compressor: str = ZSTD, keep_bits: int = MANTISSA
) -> Path:
    """Rows as latents are stored: float16 of unit variance, in an artifact with a manifest. Noise packs worst."""
    rng = np.random.default_rng(0)
    made = (rng.standard_normal(shape, dtype=np.float32).astype(np.float16) for _ in range(count))
    rows = (rounded(row, keep_bits)[0] for row in made)
    axes, root = ["clip", *(f"axis {number}" for number in range(len(shape)))], place / name
    write_stack(
        root / ROOT, "", name, rows, count=count, shape=shape, dtype="float16", axes=axes, units="one",
        compressor=compressor,
    )  # fmt: skip
    write_manifest(root, make_manifest("latents", recipe={}, inputs={}, seed=0, files=hash_tree(root)))
    return root / ROOT / name


def measure(path: Path, seconds: float) -> dict[str, Any]:
    """Throughput against plain reading, and waiting, of the rows of an array."""
    raw = best(lambda: sum(len(file.read_bytes()) for file in files(path)), path)
    reader = anew(path)
    count, shape = len(reader), reader.shape[1:]

    def read(reader: StackReader) -> None:
        for row in range(count):
            reader[row].astype(np.float32)

    first = best(lambda: read(anew(path)), path)
    again = best(lambda: read(reader), path)
    stored = sum(file.stat().st_size for file in files(path))
    return {
        "shape": list(shape), "clips": count, "stored_mb": stored / 1e6, "mb": count * math.prod(shape) * 2 / 1e6,
        "mb_per_second": stored / 1e6 / first, "mb_per_second_again": stored / 1e6 / again,
        "share_of_raw": raw / first, "waiting": {str(step): waiting(path, count, step, seconds) for step in STEPS},
    }  # fmt: skip


def anew(path: Path) -> StackReader:
    """A reader that has not seen any file yet."""
    listed._OPENED.clear()
    return StackReader(path)


def waiting(path: Path, count: int, step: float, seconds: float) -> float:
    """Share of the time that a model of `step` seconds waits for its next row."""
    forget(path)
    reader = anew(path)

    def prepare(_: int, rows: list[str]) -> Any:
        return np.stack([reader[int(row)].astype(np.float32) for row in rows])

    steps = max(4, round(seconds / step))
    jobs = ((number, [str(row)]) for number, row in enumerate(islice(cycle(range(count)), steps)))
    waited, ready = 0.0, iter(prepared_ahead(prepare, jobs, STEPS_AHEAD))
    next(ready)  # the first one is waited for, whoever reads
    for _ in range(steps - 1):
        time.sleep(step)
        started = time.perf_counter()
        next(ready)
        waited += time.perf_counter() - started
    return waited / (waited + step * (steps - 1))


def growth(place: Path, rows: int) -> dict[str, Any]:
    """Resident memory after a tenth of the rows, and after all of them."""
    count = min(rows, 1024)
    reader = anew(write(place, "small", SMALL, count))
    for row in islice(cycle(range(count)), rows // 10):
        reader[row]
    before = resident()
    for row in islice(cycle(range(count)), rows - rows // 10):
        reader[row]
    return {"rows": rows, "grew_mib": (resident() - before) / 2**20}


def best(read: Any, path: Path, times: int = 3) -> float:
    """Seconds of the fastest of a few readings from the disk."""
    spent = []
    for _ in range(times):
        forget(path)
        started = time.perf_counter()
        read()
        spent.append(time.perf_counter() - started)
    return min(spent)


def files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.rglob("*")) if file.is_file())


def forget(path: Path) -> None:
    """Drop files from the page cache, where the system does it for one who asks."""
    for file in files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident() -> int:
    """Bytes of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
