"""A benchmark of two splits of two clips, frozen once per test process (fixture `tiny_bench`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hmcli.bench.freeze import freeze
from hmcli.recipe.sections import EvalConfig, Recipe, WorldConfig
from hmcli.runtime import Silent
from hmcli.stages.bench.definition import Benchmark, write_benchmark

WORLD = WorldConfig(
    clips=2, context_frames=13, target_frames=17, fps=5, size=(32, 48), hold_out="test", subjects_per_clip=(1, 1)
)
PANEL = EvalConfig(metrics=("psnr", "ssim"))
BASELINES = ("last-frame", "nearest-view")
RECIPES = {
    "easy": Recipe(seed=31, world=dataclasses.replace(WORLD, split="easy")),
    "mixed": Recipe(seed=32, world=dataclasses.replace(WORLD, split="mixed")),
}


@dataclasses.dataclass(frozen=True)
class TinyBench:
    """Its file, the folder with a folder of clips per split that it was frozen from, and itself."""

    file: Path
    data: Path
    frozen: Benchmark

    def again(self, name: str, **changes) -> Recipe:
        """The recipe that draws the clips of a split again."""
        world = dataclasses.replace(RECIPES[name].world, benchmark=str(self.file), **changes)
        return dataclasses.replace(RECIPES[name], world=world)


def make(place: Path) -> TinyBench:
    frozen = freeze(
        "tiny", RECIPES, PANEL, work=place / "data", processes=1, reporter=Silent(), baselines=BASELINES
    )  # fmt: skip
    write_benchmark(place / "tiny.json", frozen)
    return TinyBench(file=place / "tiny.json", data=place / "data", frozen=frozen)
