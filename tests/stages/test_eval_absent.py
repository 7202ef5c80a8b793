"""Clips of split `absent`, whose subject is elsewhere: what is judged of them, down to the tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.bench import rows
from hmcli.stages.rendering import render
from hmcli.stages.scoring import evaluate

SMALL = [
    "split=absent",
    "clips=1",
    "context_frames=33",
    "target_frames=25",
    "hidden_seconds=0.6",
    "visible_seconds=0.8",
]


def test_somebody_in_an_empty_place_is_found_and_stands_in_the_tables(tmp_path: Path):
    recipe = load_recipe("nano/clips", [f"world.{setting}" for setting in SMALL])
    data = render.run(recipe, out=tmp_path / "data", device="cpu", reporter=Silent()).path
    rows.run(data, out=tmp_path / "rows", rows=("truth", "frozen"), reporter=Silent())
    means = {}
    for row in ("truth", "frozen"):
        done = evaluate.run(
            load_recipe(), generation=tmp_path / "rows" / row, reference=data, out=tmp_path / f"{row}.evaluation",
            metrics=("false-alarms", "reappearance-precision", "psnr-returned"), reporter=Silent(),
        ).path  # fmt: skip
        with (done / "per_stretch.csv").open(newline="") as file:
            (stretch,) = csv.DictReader(file)
        assert (stretch["absent"], stretch["height"]) == ("True", "")
        scores = {of["metric"]: of for of in json.loads((done / "scores.json").read_text())["metrics"].values()}
        assert float(stretch["value"]) == scores["false-alarms"]["mean"]
        assert scores["psnr-returned"]["mean"] is None
        means[row] = scores["false-alarms"]["mean"]
    assert means["truth"] == 0.0 < 0.2 < means["frozen"], "the one who stands where it was last seen is seen there"
