"""The packaged recipes: rows of a table differ in what it compares, headers say how and what for, and they train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recipe_keys import flat
from warm import WarmCommand, ok

from hmcli.recipe.reading import find_recipe, load_recipe, recipe_names, to_dict
from hmcli.recipe.rules import dropped
from hmcli.stages.planning.rehearsal import loss_in, real_step, set_up
from hmcli.stages.planning.shapes import shape_of

BUNDLE = ("flow.noise", "flow.loss", "sample.history_guidance")  # DFoT's, with its policy
POLICY = ("model.memory.policy", "model.memory.top_k")
TABLES = {  # rows, and the keys in which they differ
    "Table 1": (["hydra", "dense", "window-only", "context-as-memory", "dfot"], (*POLICY, *BUNDLE)),
    "Table 4": (["kernel-1x4x4", "kernel-2x2x2", "kernel-2x4x4", "kernel-2x8x8"], ("model.memory.kernel",)),
    "Table 5": (["top-k-5", "top-k-10", "top-k-15"], ("model.memory.top_k",)),
    "Table 6": (
        ["affinity", "fov", "random", "oracle", "spatial"], ("model.memory.policy", "model.memory.affinity"),
    ),
}  # fmt: skip
ROWS = [f"ablations/{row}" for rows, _ in TABLES.values() for row in rows]
FULL = ["wan1.3b/hydra", "wan1.3b/dense", "wan1.3b/context-as-memory", "wan1.3b/dfot"]
TRAINED = [
    name for name in recipe_names()
    if name.startswith(("mini/", "nano/", "ablations/")) and load_recipe(name).train.part == "transformer"
]  # fmt: skip
TINY = ["model.base=\"\"", "model.layers=1", "model.dim=24", "model.heads=2", "model.ffn_dim=32", "train.lr=0.01",
        "train.warmup=0", "train.batch=2"]  # fmt: skip


def differing(names: list[str]) -> set[str]:
    """Keys that are not alike in all of these recipes."""
    every = [flat(to_dict(load_recipe(name))) for name in names]
    return {key for key in every[0] if any(values[key] != every[0][key] for values in every)}


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_a_table_differ_in_what_it_compares_and_in_nothing_else(table: str):
    rows, factor = TABLES[table]
    names = [f"ablations/{row}" for row in rows]
    assert differing(names) == set(factor)
    told_apart = {str([flat(to_dict(load_recipe(name)))[key] for key in factor]) for name in names}
    assert len(told_apart) == len(rows)
    assert all(table in find_recipe(name).read_text(encoding="utf-8") for name in names)


def test_what_makes_dfot_a_bundle_is_its_alone():
    others = [f"ablations/{row}" for row in TABLES["Table 1"][0] if row != "dfot"]
    assert differing(others) == set(POLICY)
    assert {load_recipe(name).model.memory.context for name in [*others, "ablations/dfot"]} == {"joint"}


def test_baselines_at_full_scale_differ_from_the_papers_setting_as_the_small_ones_do():
    assert differing(FULL) == {*POLICY, *BUNDLE}
    assert differing([name for name in FULL if not name.endswith("dfot")]) == set(POLICY)
    for name in ("dense", "context-as-memory", "dfot"):
        full, small = load_recipe(f"wan1.3b/{name}"), load_recipe(f"ablations/{name}")
        assert full.model.memory.policy == small.model.memory.policy
        assert (full.flow.noise, full.flow.loss) == (small.flow.noise, small.flow.loss)


def test_every_ablation_is_in_a_table():
    assert sorted(ROWS) == [name for name in recipe_names() if name.startswith("ablations/")]


@pytest.mark.parametrize("name", [*ROWS, *FULL])
def test_a_header_says_the_command_what_to_expect_and_what_it_costs(name: str):
    text = find_recipe(name).read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any(re.match(rf"#   hm .*{name}", line) for line in head)
    for what in ("# Expect: ", "# Cost: "):
        assert sum(line.startswith(what) for line in head) == 1


@pytest.mark.parametrize("name", recipe_names())
def test_slots_of_a_packaged_recipe_cover_the_whole_frame(name: str):
    assert dropped(load_recipe(name)) == ""


def test_a_recipe_whose_kernel_drops_tokens_says_so_when_it_is_read(hm: WarmCommand, tmp_path: Path):
    wide = load_recipe("ablations/kernel-2x8x8", ["data.size=[64, 112]"])
    assert "the last 0 rows and 6 columns of 8x14 latent pixels" in dropped(wide)
    assert "multiples of 64 and 64" in dropped(wide)
    assert dropped(load_recipe("ablations/dense", ["model.memory.kernel=[2, 8, 8]"])) == ""  # reads no slots
    done = hm("recipes", "show", "mini/joint", "--set", "model.memory.kernel=[2, 4, 4]", cwd=tmp_path)
    assert done.returncode == 0
    assert "memory slots leave out the last 0 rows and 2 columns" in done.stderr
    assert "memory slots" not in hm("recipes", "show", "mini/joint", cwd=tmp_path).stderr


@pytest.mark.parametrize("name", TRAINED)
def test_a_transformers_recipe_trains_two_steps(name: str):
    small = [f"model.memory.top_k={min(load_recipe(name).model.memory.top_k, 4)}"]
    recipe = load_recipe(name, [*TINY, *small, "world.context_frames=33", "world.target_frames=13"])
    stage = set_up(recipe, shape_of(recipe), on_cpu=True)
    before = [parameter.detach().clone() for parameter in stage.trained]
    for _ in range(2):
        real_step(recipe, stage)
    assert loss_in(recipe, stage).isfinite()
    moved = sum(not bool((old == new).all()) for old, new in zip(before, stage.trained, strict=True))
    assert moved > len(before) / 2


@pytest.mark.parametrize("name", ["mini/codec", "mini/segmenter", "nano/blocks"])
def test_a_recipe_of_another_part_trains_two_steps(hm: WarmCommand, clips: Path, tmp_path: Path, name: str):
    """The command, on small clips; the decoder's recipe goes on from a codec, and has a test in test_train_codec."""
    small = ["data.size=[32, 48]", *([] if name == "nano/blocks" else ["train.steps=2", "train.batch=1"])]
    sets = [word for text in small for word in ("--set", text)]
    done = ok(hm("train", name, "--latents", clips, "--out", tmp_path / "made", *sets))
    assert (done / "manifest.json").is_file()
