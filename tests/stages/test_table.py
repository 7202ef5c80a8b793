"""Rows of recipes/table differ from HyDRA in what they are named after alone; all.sh makes, scores and shows them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from recipe_keys import flat
from warm import WarmCommand

from hmcli.recipe.reading import load_recipe, to_dict
from hmcli.store.manifest import read_manifest

MEMORY = "model.memory."
JOINT = {MEMORY + "policy", MEMORY + "top_k", MEMORY + "context", "train.draws"}
FACTORS = {
    "hydra": set[str](),
    "window-only": {MEMORY + "policy", MEMORY + "top_k"},
    "dense": {MEMORY + "policy", MEMORY + "top_k"},
    "context-as-memory": {MEMORY + "policy", MEMORY + "top_k"},
    "dense-joint": JOINT,
    "dfot": JOINT | {"flow.noise", "flow.loss", "sample.history_guidance"},
    "random": {MEMORY + "policy"},
    "oracle": {MEMORY + "policy"},
    "fov": {MEMORY + "policy"},
    "spatial": {MEMORY + "affinity"},
    "kernel-1x4x4": {MEMORY + "kernel", MEMORY + "top_k"},
    "kernel-2x8x8": {MEMORY + "kernel"},
    "kernel-2x16x16": {MEMORY + "kernel"},
    "top-k-1": {MEMORY + "top_k"},
    "top-k-2": {MEMORY + "top_k"},
    "top-k-5": {MEMORY + "top_k"},
}
MAIN = tuple(FACTORS)[:6]


@pytest.fixture
def run(hm: WarmCommand, project: Path, tmp_path: Path):
    hm.shim(tmp_path)

    def go(**settings: str) -> Path:
        env = {**os.environ, **settings, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(
            ["bash", project / "recipes" / "table" / "all.sh", tmp_path / "table"], env=env, check=True, timeout=1500
        )
        return tmp_path / "table"

    return go


def test_rows_differ_in_the_factor_they_are_named_after(run):
    made = run(STAGES="recipes", SEEDS="2002 2003", BASE="base", BASE_SCREEN="screen")
    recipes = {file.stem: flat(to_dict(load_recipe(str(file)))) for file in (made / "recipes").iterdir()}
    lines = {f"{row}-2002-rays" for row in FACTORS}
    lines |= {f"{row}-{seed}-{of}" for row in MAIN for seed, of in ((2003, "rays"), (2002, "screen"), (2003, "screen"))}
    assert recipes.keys() == lines
    hydra = recipes["hydra-2002-rays"]
    assert {key for key, value in flat(to_dict(load_recipe("nano/hydra"))).items() if hydra[key] != value} == {
        "model.base", "codec.path",
    }  # fmt: skip
    for name, values in recipes.items():
        row, seed, positions = name.rsplit("-", 2)
        assert (values["seed"], values["model.positions"]) == (int(seed), positions)
        assert values["model.base"] == {"rays": "base", "screen": "screen"}[positions]
        changed = {key for key, value in values.items() if value != hydra[key]}
        assert changed - {"seed", "model.positions", "model.base"} == FACTORS[row], name


def test_a_row_that_is_none_is_refused(run):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run(STAGES="recipes", ROWS="hydra hydrant")
    assert refused.value.returncode == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_is_made_by_one_line_and_resumes(run):
    short = {
        "CLIPS": "34", "SCORED": "2", "BASE_STEPS": "1", "ROW_STEPS": "1", "BATCH": "1", "SAMPLE_STEPS": "1",
        "PROCESSES": "2", "WORLD": "world.places=1", "CODEC": "codec.channels=24", "SEEDS": "2002", "POSITIONS": "rays",
        "SIDES": "seen",
    }  # fmt: skip
    for rows in ("hydra", "hydra kernel-2x8x8 dfot"):
        made = run(**short, ROWS=rows)
        report = (made / "seen.tables" / "table.md").read_text()
        for row in (*rows.split(), "truth", "warp"):
            assert row in report
    times = [line.split("\t")[0] for line in (made / "seconds.tsv").read_text().splitlines()]
    assert times.count("hydra-2002-rays") == 2
    assert not (made / "not-run.txt").read_text()
    assert read_manifest(made / "dfot-2002-rays").recipe["model"]["memory"]["context"] == "joint"
    late = run(**short, ROWS="hydra fov", HOURS="0", STAGES="recipes rows")
    assert (late / "not-run.txt").read_text().split() == ["hydra-2002-rays", "fov-2002-rays"]
