"""docs/paper-map.md and docs/parity.md name functions, tests, recipes and switches that are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from hmcli.recipe.reading import load_recipe, recipe_names, to_dict

CODE = re.compile(r"`((?:core|store|stages|world|metrics)/[\w/]+)\.py`: ((?:`\w+`(?:, )?(?: \([^)]*\)(?:, )?)?)+)")
TEST = re.compile(r"`(test_\w+\.py)`")
SECTIONS = "model|flow|sample|train|data|poses|text"
SWITCH = re.compile("`((?:" + SECTIONS + r")\.[a-z_.]+)(?:: ([^`:{]+))?`((?:(?: \([^)]*\))?, `[^`:]+`)*)")


def page(project: Path, name: str) -> str:
    return (project / "docs" / name).read_text(encoding="utf-8")


def test_every_function_of_the_map_exists(project: Path):
    found = CODE.findall(page(project, "paper-map.md"))
    assert len(found) > 20
    for file, names in found:
        module = importlib.import_module("hmcli." + file.replace("/", "."))
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(module, name), f"{file}.py has no {name}"


@pytest.mark.parametrize("name", ["paper-map.md", "parity.md"])
def test_every_test_file_named_exists(project: Path, name: str):
    there = {path.name for path in (project / "tests").rglob("test_*.py")}
    assert set(TEST.findall(page(project, name))) <= there


def test_every_ablation_recipe_is_a_row_of_the_map(project: Path):
    text = page(project, "paper-map.md")
    assert [name for name in recipe_names() if name.startswith("ablations/") and f"`{name}`" not in text] == []


def test_every_switch_of_the_parity_page_is_a_key_of_the_recipe_with_such_a_value(project: Path):
    found = SWITCH.findall(page(project, "parity.md"))
    assert len(found) > 20
    with_joint = ["model.memory.context=joint", "flow.noise=per-frame"]  # what flow.loss=all asks for
    for key, first, others in found:
        place = to_dict(load_recipe())
        for part in key.split("."):
            assert part in place, f"{key} is no key of a recipe"
            place = place[part]
        values = [first, *re.findall(r"`([^`]+)`", others)] if first and not isinstance(place, dict) else []
        for value in values:
            load_recipe(None, [*(with_joint if value in ("all", "1.0") else []), f"{key}={value}"])
