"""Every metric that names rows puts them in its order: the truth and rows without a model, on clips of usual size."""

from __future__ import annotations

import json

import pytest

from hmcli import registry
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.bench import rows
from hmcli.stages.bench.row_kinds import ROWS
from hmcli.stages.rendering import render
from hmcli.stages.scoring import evaluate

TRUTH = "truth"
SMALLER = [
    "context_frames=33",
    "hidden_seconds=0.6",
    "visible_seconds=0.8",
    "clips=2",
    "target_frames=25",
    "subjects=[walker,builder]",
]
ORDERED = {name: registry.find("metric", name) for name in registry.BUILT_IN["metric"]}
ORDERED = {name: metric for name, metric in ORDERED.items() if metric.order}
Means = dict[str, dict[str, float | None]]  # row -> metric -> its number


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> Means:
    place = tmp_path_factory.mktemp("orders")
    recipe = load_recipe("nano/clips", [f"world.{setting}" for setting in SMALLER])
    data = render.run(recipe, out=place / "data", force=False, device="cpu", reporter=Silent()).path
    wanted = {row for metric in ORDERED.values() for row in metric.order}
    rows.run(data, out=place / "rows", rows=sorted(wanted), reporter=Silent())
    found: Means = {}
    for row in sorted(wanted):
        done = evaluate.run(
            load_recipe(), generation=place / "rows" / row, reference=data,
            metrics=tuple(name for name, metric in ORDERED.items() if row in metric.order),
            out=place / f"{row}.evaluation", reporter=Silent(),
        )  # fmt: skip
        scores = json.loads((done.path / "scores.json").read_text())["metrics"].values()
        found[row] = {of["metric"]: None if of["mean"] is None else float(of["mean"]) for of in scores}
    return found


@pytest.mark.parametrize("name", ORDERED)
def test_rows_are_in_the_order_that_the_metric_states(name: str, means: Means):
    metric = ORDERED[name]
    assert set(metric.order) <= {*ROWS}
    values = [means[row][name] for row in metric.order]
    assert None not in values, f"no row without a value can be put in order: {values}"
    best_first = sorted(values, key=lambda value: float(value or 0), reverse=metric.better == "higher")
    assert values == best_first
    assert len(set(values)) == len(values), f"{name} does not tell its rows apart"


@pytest.mark.parametrize("name", registry.BUILT_IN["metric"])
def test_a_metric_of_detections_states_an_order(name: str):
    metric = registry.find("metric", name)
    needs_none = metric.better == "neither" or "regions" in metric.needs  # whose network is no part of the package
    assert metric.order[:1] == (TRUTH,) or "detections" not in metric.needs or needs_none
