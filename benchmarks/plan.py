"""Is the memory that `hm plan` predicts the memory that a step takes?

    python benchmarks/plan.py                        # every recipe, one process each
    python benchmarks/plan.py --only joint --json plan.json

Each recipe's step (forward, backward, clipping, optimizer; twice) runs in a process of its own on this machine's CPU.
Measured is the process's highest resident memory from after its imports and a step of one clip on; predicted is the
peak of the plan. Tensors are of 32 MiB and more, which glibc gives back when they are done with: `--small` measures
smaller ones, of which it keeps many, and shows what a process of the same plan then takes. Those of trainings on videos
are small whatever the batch: glibc is told to give them back.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmcli.recipe.sections import Recipe

Measures = tuple[Callable[[], float], Callable[[], None], Callable[[], None]]  # planned bytes, a warm-up, the steps

SHARED = [
    "world.context_frames=49", "world.target_frames=49", "model.layers=1", "model.dim=96", "model.heads=2",
    "model.ffn_dim=384",
]  # fmt: skip
SMALL = ["model.layers=6", "train.batch=24"]
RECIPES = {  # many clips of little width: much memory for few products
    "frozen": ["model.memory.context=frozen", "train.batch=256"],
    "joint": ["model.memory.context=joint", "train.batch=192"],
    "lora": ["model.memory.context=joint", "train.batch=384", "train.lora={rank: 16}"],
    "checkpointed": ["model.memory.context=joint", "train.batch=256", "train.gradient_checkpointing=true"],
}
ON_VIDEOS = {
    "codec": ["train.part=codec", "train.batch=32", "train.frames=13"],
    "segmenter": ["train.part=segmenter", "train.batch=256", "data.size=[64, 128]"],
}
NAMES = (*RECIPES, *ON_VIDEOS)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=NAMES, action="append")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--in-here", choices=NAMES, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.small and set(asked.only or ()) & set(ON_VIDEOS):
        parser.error("--small is of recipes on latents")
    if asked.in_here:
        print(json.dumps(measure(asked.in_here, small=asked.small)))
        return
    rows = []
    for name in asked.only or (RECIPES if asked.small else NAMES):
        rows.append(row := apart(name, small=asked.small))
        print("{name:<13} measured {measured:.2f} GiB, planned {planned:.2f}: {ratio:.2f}".format(**row), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2))


def apart(name: str, *, small: bool) -> dict[str, Any]:
    """One recipe in a process of its own."""
    command = [sys.executable, __file__, "--in-here", name, *(["--small"] if small else [])]
    given_back = {"MALLOC_MMAP_THRESHOLD_": "262144"} if name in ON_VIDEOS else {}  # their tensors are small
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **given_back})
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(name: str, *, small: bool) -> dict[str, Any]:
    """Two real steps in this process, then the plan of one; sizes in GiB."""
    import torch

    torch.set_num_threads(1)
    planned_of, warm_up, steps = (on_videos if name in ON_VIDEOS else on_latents)(name, small)
    warm_up()
    ctypes.CDLL(None).malloc_trim(0)  # what is loaded or made with the first step stays, its memory does not
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest is what there is now
    before = resident("VmRSS")
    steps()
    measured = (resident("VmHWM") - before) / 2**30
    planned = planned_of() / 2**30
    return {"name": name, "measured": measured, "planned": planned, "ratio": planned / measured}


def on_latents(name: str, small: bool) -> Measures:
    """Of a transformer."""
    import peft  # noqa: F401  imports are not counted

    from hmcli.recipe.reading import load_recipe
    from hmcli.stages.planning.rehearsal import real_step, set_up, training_account
    from hmcli.stages.planning.shapes import shape_of

    recipe = load_recipe(None, [*SHARED, *RECIPES[name], *(SMALL if small else [])])
    shape = shape_of(recipe)

    def step(of: Recipe, times: int) -> None:
        stage = set_up(of, shape, on_cpu=True)
        for _ in range(times):
            real_step(of, stage)

    return (
        lambda: training_account(recipe, shape, on_cpu=True).peak,
        lambda: step(of_one(recipe), 1),
        lambda: step(recipe, 2),
    )


def on_videos(name: str, small: bool) -> Measures:
    """Of a VAE's clips, or of the segmenter; the videos themselves are not there, and not counted."""
    from hmcli.recipe.reading import load_recipe
    from hmcli.stages.planning.pixels import kinds_of_steps, pixel_account, real_pixel_step, rehearsed
    from hmcli.stages.planning.shapes import shape_of

    recipe = load_recipe(None, ON_VIDEOS[name])
    shape = shape_of(recipe)

    def step(of: Recipe, times: int) -> None:
        stage = rehearsed(of, shape.pixels, kinds_of_steps(of)[-1][1], on_cpu=True)
        for _ in range(times):
            real_pixel_step(of, stage)

    return (
        lambda: pixel_account(recipe, shape, on_cpu=True).step.peak,
        lambda: step(of_one(recipe), 1),
        lambda: step(recipe, 2),
    )


def of_one(recipe: Recipe) -> Recipe:
    """The same with one clip a step."""
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch=1))


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the highest (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


if __name__ == "__main__":
    main()
