"""Is the memory that `hm plan` predicts the memory that a step takes?

    python benchmarks/plan.py                        # four recipes, one process each
    python benchmarks/plan.py --only joint --json plan.json

Each recipe's step (forward, backward, clipping, optimizer; twice) runs in a process of its own on this machine's CPU.
Measured is the process's highest resident memory from after its imports on; predicted is the peak of the plan. Tensors
are of 32 MiB and more, which glibc gives back when they are done with: `--small` measures smaller ones, of which it
keeps many, and shows what a process of the same plan then takes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=RECIPES, action="append")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--in-here", choices=RECIPES, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.in_here:
        print(json.dumps(measure(asked.in_here, small=asked.small)))
        return
    rows = []
    for name in asked.only or RECIPES:
        rows.append(row := apart(name, small=asked.small))
        print("{name:<13} measured {measured:.2f} GiB, planned {planned:.2f}: {ratio:.2f}".format(**row), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2))


def apart(name: str, *, small: bool) -> dict[str, Any]:
    """One recipe in a process of its own."""
    command = [sys.executable, __file__, "--in-here", name, *(["--small"] if small else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(name: str, *, small: bool) -> dict[str, Any]:
    """Two real steps in this process, then the plan of one; sizes in GiB."""
    import peft  # noqa: F401  imports are not counted
    import torch

    from hmcli.recipe.reading import load_recipe
    from hmcli.stages.planning.rehearsal import real_step, set_up, training_account
    from hmcli.stages.planning.shapes import shape_of

    torch.set_num_threads(1)
    recipe = load_recipe(None, [*SHARED, *RECIPES[name], *(SMALL if small else [])])
    shape = shape_of(recipe)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest is what there is now
    before = resident("VmRSS")
    stage = set_up(recipe, shape, on_cpu=True)
    for _ in range(2):
        real_step(recipe, stage)
    measured = (resident("VmHWM") - before) / 2**30
    planned = training_account(recipe, shape, on_cpu=True).peak / 2**30
    return {"name": name, "measured": measured, "planned": planned, "ratio": planned / measured}


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the highest (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


if __name__ == "__main__":
    main()
