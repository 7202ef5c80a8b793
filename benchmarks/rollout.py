"""Does a chunk of a rollout cost the same however long the history is?

    python benchmarks/rollout.py                                   # the packaged model, 40 chunks of 21 frames
    python benchmarks/rollout.py --affinity spatial --json rollout.json

A rendered clip is rolled out (`sample.chunk`) along pans to and fro, its memory on disk. The time of a chunk is
processor time from the chunk before it to itself: running the last one as context, and all denoising steps. `ratio` is
the median of the last five chunks over that of the second to the sixth; resident memory is the process's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents import encode
from hmcli.stages.models.folders import find_model
from hmcli.stages.rendering import render
from hmcli.stages.sampling.job import Job, open_job
from hmcli.stages.sampling.one_video import Asked, as_folder
from hmcli.stages.sampling.rollout import roll_out

RECIPE = "mini/hydra"
WAY = ("pan-left-return", "pan-right-return")
SOME = 5  # chunks at both ends that are compared


def job_of(place: Path, chunks: int, chunk: int, steps: int, affinity: str) -> Job:
    """A rendered and encoded clip, and the packaged model, whose slots are chosen by `affinity`."""
    recipe = load_recipe(RECIPE, ["world.clips=1", f"sample.chunk={chunk}", f"sample.steps={steps}"])
    render.run(recipe, out=place / "clips", reporter=Silent())
    asked = Asked(cameras="+".join(WAY * max(1, chunks // len(WAY))), frames=(chunks * chunk - 1) // 4 * 4 + 1)
    video = next((place / "clips").glob("*/cond.mp4"))
    as_folder(video, asked, recipe.data, recipe.poses, place / "clip", Silent())
    encode.run(recipe, data=place / "clip", out=place / "latents", force=False, device="cpu", reporter=Silent())
    job, _ = open_job(recipe, find_model(Path("mini")), place / "latents", [], None, (), "cpu", Silent())
    model: Any = job.network
    other: Any = HydraTransformer3DModel.from_config({**model.config, "affinity": affinity})
    other.load_state_dict(model.state_dict())
    job.__dict__["network"] = other.eval()
    return job


def measure(job: Job, place: Path) -> dict[str, Any]:
    """Processor seconds and resident MiB of every chunk but the first."""
    clip = job.view.clip(job.view.ids()[0])
    seconds, resident, before = [], [], 0.0
    for _ in roll_out(job, clip, 1, place):
        now = time.process_time()
        if before:
            seconds.append(now - before)
        resident.append(resident_mib())
        before = time.process_time()
    early, late = median(seconds[:SOME]), median(seconds[-SOME:])
    grown = resident[-1] - resident[min(SOME, len(resident) - 1)]
    return {
        "chunks": len(resident), "seconds": seconds, "early_seconds": early, "late_seconds": late,
        "ratio": late / early, "resident_mib": resident, "grown_mib": grown,
    }  # fmt: skip


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--chunk", type=int, default=21)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--affinity", choices=("pooled", "spatial"), default="pooled")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(Path(folder), asked.chunks, asked.chunk, asked.steps, asked.affinity)
        found = measure(job, Path(folder) / "chunks")
    print(f"{asked.affinity}: {found['chunks']} chunks of {asked.chunk} frames, {asked.steps} steps each")
    print(f"a chunk: {found['early_seconds']:.2f} s at first, {found['late_seconds']:.2f} s in the end")
    print(f"ratio: {found['ratio']:.2f}; resident memory grew by {found['grown_mib']:.0f} MiB")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
