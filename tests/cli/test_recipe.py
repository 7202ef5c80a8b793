"""Recipes: typed, frozen, every problem in one report, resolved form reads back."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt

from hmcli import registry
from hmcli.errors import RecipeError
from hmcli.recipe.keys import Key, keys_of
from hmcli.recipe.reading import find_recipe, from_dict, load_recipe, recipe_names, sections, to_dict, to_yaml
from hmcli.recipe.sections import Recipe
from hmcli.registry import normal
from hmcli.world.scenes import SCENES
from hmcli.world.staging.choices import choices
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.trajectories import MOVES, TRAJECTORIES


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_loads_and_reads_back(name: str, tmp_path: Path):
    recipe = load_recipe(name)
    (tmp_path / "resolved.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "resolved.yaml") == recipe
    assert from_dict(to_dict(recipe)) == recipe


def test_every_recipe_of_the_checkout_is_packaged(project: Path):
    assert {
        p.relative_to(project / "recipes").with_suffix("").as_posix() for p in (project / "recipes").rglob("*.yaml")
    } == set(recipe_names())


def test_a_misspelt_key_is_refused_with_a_suggestion(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("train: {stepz: 3}\nmodel: {memory: {topk: 2}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert "train.stepz, did you mean train.steps?" in str(caught.value)
    assert "model.memory.topk, did you mean model.memory.top_k?" in str(caught.value)


def test_all_problems_come_in_one_report(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("sed: 1\ntrain: {steps: soon, batch: 0}\nworld: {context_frames: 32}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml", ["nonsense", "data.size=[60,112]"])
    text = str(caught.value)
    for part in ("seed", "train.steps", "train.batch=0", "29 or 33", "nonsense", "data.size=[60, 112]"):
        assert part in text
    assert text.startswith("6 problems")


LIMITS = {Ge: ("ge", -2, "at least"), Gt: ("gt", 0, "above"), Le: ("le", 1, "at most"), Lt: ("lt", 0, "below")}


@pytest.mark.parametrize("key", [key for key in keys_of(Recipe) if key.field.metadata], ids=lambda key: key.path)
def test_a_value_outside_of_a_keys_range_is_refused_by_name(key: Key):
    for kind, (name, step, words) in LIMITS.items():
        for limit in (limit for limit in key.field.metadata if isinstance(limit, kind)):
            value = getattr(limit, name) + step
            if key.path != "format":
                with pytest.raises(RecipeError, match=f"{key.path}={value} .*{words} {getattr(limit, name):g}"):
                    load_recipe(None, ["train.lora={rank: 1}", f"{key.path}={value}"])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("format=2", "format=2: this version reads format 1"),
        ("world.size=[64, 113]", r"world.size=\[64, 113\] must have sides that are multiples of 8.*\[64, 112\]"),
        ("codec.tile=[8, 64]", r"codec.tile=\[8, 64\] must .* at least 16: \[16, 64\]"),
        ("train.frames=-3", "train.frames=-3 is not 4k\\+1: set it to 1"),
        ("world.subjects_per_clip=[0, 2]", r"world.subjects_per_clip=\[0, 2\] must be from 1 to 3"),
        ("world.subject_height=[0.8, 0.5]", r"world.subject_height=\[0.8, 0.5\] must be from 0.1 to 1"),
        ("world.camera.follow=1.5", "world.camera.follow=1.5 must be at most 1"),
        ("world.subjects_per_clip=[3, 2]", "the smaller number first"),
        ("model.patch=[2, 2, 2]", r"model.patch=\[2, 2, 2\] must start with 1"),
        ("model.memory.kernel=[2, 0, 2]", "model.memory.kernel.1=0 must be at least 1"),
        ("model.memory.kernel=[2, 3, 2]", "must be a positive multiple of model.patch"),
        ("train.betas=[0.9, 1]", "train.betas.1=1 must be below 1"),
        ("train.lora={targets: []}", "train.lora.targets"),
        ("model.memory.far=0.5", "model.memory.near=1 must be below model.memory.far=0.5"),
        ("data.split={context: 5}", "data.split.target"),
    ],
)  # fmt: skip
def test_an_impossible_value_is_refused_with_what_would_do(override: str, problem: str):
    with pytest.raises(RecipeError, match=problem) as caught:
        load_recipe(None, [override])
    assert "1 problem in the recipe" in str(caught.value)


def test_a_crowd_is_more_than_one():
    with pytest.raises(RecipeError, match="one is no crowd"):
        load_recipe("mini/hydra", ["world.split=crowd"])
    few = load_recipe("mini/hydra", ["world.split=crowd", "world.subjects_per_clip=[1, 2]"])
    assert choices(few.world).counts == (2,)
    assert choices(load_recipe(None, ["world.split=crowd"]).world).counts == (3,)


def test_what_is_refused_hides_no_other_problem():
    with pytest.raises(RecipeError, match="3 problems") as caught:
        load_recipe(None, ["data.split={context: 6}", "model.heads=5"])
    assert "model.dim must be a multiple of model.heads" in str(caught.value)


def test_overrides_are_typed_and_beat_the_file(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("train: {lr: 3e-4}\n")
    assert load_recipe(tmp_path / "r.yaml").train.lr == 3e-4  # YAML reads 3e-4 as text
    recipe = load_recipe(
        tmp_path / "r.yaml", ["train.lr=1e-5", "data.split={context: 37, target: 37}", "world.size=[48,80]"]
    )
    assert recipe.train.lr == 1e-5
    assert recipe.data.split is not None
    assert (recipe.data.split.context, recipe.world.size) == (37, (48, 80))


def test_a_recipe_is_frozen_and_keyword_only():
    recipe = load_recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        Recipe(1)  # type: ignore[misc]


def test_a_recorded_recipe_fills_what_the_command_line_leaves_open():
    recorded = to_dict(load_recipe(None, ["sample.steps=3"]))
    assert load_recipe(None, ["sample.guidance=2"], base=recorded).sample.steps == 3
    assert load_recipe("mini/hydra", base=recorded).sample.steps == 20


def test_a_problem_in_a_recorded_recipe_is_not_laid_to_the_defaults():
    with pytest.raises(RecipeError, match=r"recipe +the model's own") as caught:
        load_recipe(None, [], base={"model": {"memory": {"policy": "theirs"}}})
    assert "unknown policy 'theirs'" in str(caught.value)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(RecipeError, match="did you mean 'mini/hydra'"):
        find_recipe("mini/hydro")


def test_sections_hold_what_a_stage_read_with_defaults():
    assert sections(load_recipe(), "codec")["codec"]["name"] == "mini"


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_a_number_must_be_finite(value: str):
    with pytest.raises(RecipeError, match=r"world\.camera\.degrees: .*finite"):
        load_recipe(None, [f"world.camera.degrees={value}"])
    with pytest.raises(RecipeError, match=r"train\.betas\.1: .*finite"):
        load_recipe(None, [f"train.betas=[0.9, {value}]"])


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("codec.name=wan2.2", "did you mean 'wan2.1'"), ("text.name=umt4", "did you mean 'umt5'"),
        ("model.memory.policy=afinity", "did you mean 'affinity'"), ("eval.backbone=dyno", "did you mean 'dino'"),
        ("eval.metrics=[psnr, sim]", "did you mean 'ssim'"), ("world.scenes=[streat]", "did you mean 'street'"),
        ("world.subjects=[fix]", "did you mean 'fox'"),
        ("world.camera.trajectory=pan_lef", "did you mean 'pan-left'"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_a_problem_of_the_recipe(override: str, hint: str):
    with pytest.raises(RecipeError, match="1 problem in the recipe") as caught:
        load_recipe(None, [override])
    assert override.partition("=")[0] in str(caught.value)
    assert hint in str(caught.value)


def test_names_may_be_written_with_either_dash():
    load_recipe(None, ["eval.metrics=[subject_consistency]", "world.camera.trajectory=pan_left"])


def test_the_names_of_the_registry_are_the_worlds_own_in_its_order():
    for kind, world in (("scene", SCENES), ("subject", SUBJECTS), ("move", MOVES)):
        assert list(registry.BUILT_IN[kind]) == list(map(normal, world))
    (key,) = (key for key in keys_of(Recipe) if key.path == "world.camera.trajectory")
    sided = [name for move in MOVES for name in (move, f"{move}_left", f"{move}_right")]
    assert key.names == ["any", *map(normal, sided)]
    assert set(TRAJECTORIES) == set(sided) - set(MOVES)


def test_reading_a_recipe_loads_neither_torch_nor_numpy():
    script = (
        "import sys; from hmcli.recipe.reading import load_recipe; load_recipe('mini/demo', ['world.subjects=[fox]']);"
        "print([m for m in ('torch', 'numpy', 'hmcli.world') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("text", "said"), [
    ("train: {steps: 3}\ntrain: {batch: 2}\n", "train is given twice"),
    ("train:\n  steps: 3\n  steps: 4\n", "steps is given twice"),
    ("train: {steps: true}\n", "train.steps=true is no number"),
    ("train: {lr: false}\n", "train.lr=false is no number"),
    ("data: {split: {context:5,target:5}}\n", "YAML needs a space after the colon, context: 5"),
    ("a: " + "[" * 100_000, "not valid YAML"),
])  # fmt: skip
def test_slips_of_yaml_are_named(tmp_path, text, said):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert said in str(caught.value)


def test_slips_of_yaml_are_named_on_the_command_line_too():
    for override in ("train.steps=true", "data.split={context:5,target:5}", "train={steps: 1, steps: 2}"):
        with pytest.raises(RecipeError):
            load_recipe(None, [override])
