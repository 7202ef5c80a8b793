"""docs/reference.md and the JSON schema say every key as its field does. If not: python -m hmcli.recipe."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hmcli.cli.main import app
from hmcli.recipe.keys import REQUIRED, keys_of
from hmcli.recipe.readers import KEYS
from hmcli.recipe.reading import load_recipe, recipe_folder, recipe_names
from hmcli.recipe.reference import reference
from hmcli.recipe.schema import FILE, LINE, schema, with_schema_line
from hmcli.recipe.sections import Recipe


def test_the_reference_page_is_current(project: Path):
    assert (project / "docs" / "reference.md").read_text(encoding="utf-8") == reference()


def test_the_reference_page_names_every_key_once_with_its_default_unit_and_meaning():
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([\w.]+)` \|.*$", reference(), re.MULTILINE)}
    assert sorted(rows) == sorted(key.path for key in keys_of(Recipe))
    assert len(rows) == len(re.findall(r"^\| `", reference(), re.MULTILINE))
    for path, row in rows.items():
        key, cells = KEYS[path], [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 6, row
        assert cells[2] == ("required" if key.default is REQUIRED else f"`{json.dumps(key.default)}`")
        assert cells[3:5] == [key.unit, key.meaning]
        assert all(name in cells[5] for name in key.readers) or cells[5] == "every command"


def test_every_key_says_what_it_means_and_who_reads_it():
    for key in KEYS.values():
        assert key.meaning.endswith((".", "...")), key.path
        assert key.readers, key.path


def test_the_schema_that_is_packaged_is_the_one_that_is_printed(project: Path):
    assert json.loads((recipe_folder() / FILE).read_text(encoding="utf-8")) == schema()
    printed = CliRunner().invoke(app, ["recipes", "schema"])
    assert json.loads(printed.stdout) == schema()


def test_the_schema_holds_every_key_and_no_other():
    assert list(_paths(schema(), schema()["$defs"])) == [key.path for key in keys_of(Recipe)]


def _paths(node: dict[str, Any], known: dict[str, Any], prefix: str = "") -> Any:
    assert node["additionalProperties"] is False, prefix
    for name, inner in node["properties"].items():
        options = [inner, *inner.get("anyOf", ())]
        named = next((option["$ref"].rsplit("/", 1)[1] for option in options if "$ref" in option), None)
        if named is None:
            assert inner["description"], name
            yield f"{prefix}{name}"
        else:
            yield from _paths(known[named], known, f"{prefix}{name}.")


def fits(value: Any, node: dict[str, Any], known: dict[str, Any]) -> bool:
    """Does a value fit a schema? The keywords of ours, by the meaning that JSON Schema draft 7 gives them."""
    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    if "$ref" in node:
        return fits(value, known[node["$ref"].rsplit("/", 1)[1]], known)
    if "anyOf" in node and not any(fits(value, option, known) for option in node["anyOf"]):
        return False
    if "type" in node and not isinstance(value, kinds[node["type"]]):
        return False
    if isinstance(value, dict):
        assert node["additionalProperties"] is False
        within = all(name in node["properties"] for name in value) and set(node.get("required", ())) <= set(value)
        return within and all(fits(inner, node["properties"][name], known) for name, inner in value.items())
    if isinstance(value, list):
        count = node.get("minItems", 0) <= len(value) <= node.get("maxItems", len(value))
        return count and all(fits(item, node["items"], known) for item in value if "items" in node)
    if "enum" in node and value not in node["enum"]:
        return False
    return not isinstance(value, int | float) or (
        node.get("minimum", value) <= value <= node.get("maximum", value)
        and not value <= node.get("exclusiveMinimum", value - 1)
        and not value >= node.get("exclusiveMaximum", value + 1)
        and value % node.get("multipleOf", 1 if isinstance(value, int) else value or 1) == 0
    )


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_name_the_schema_and_fit_it(name: str):
    file = recipe_folder() / f"{name}.yaml"
    first, text = file.read_text(encoding="utf-8").split("\n", 1)
    assert first.startswith(LINE)
    assert (file.parent / first.removeprefix(LINE)).resolve() == (recipe_folder() / FILE).resolve()
    assert fits(yaml.safe_load(text), schema(), schema()["$defs"])


@pytest.mark.parametrize(
    "wrong",
    ["sed: 1", "train: {steps: 0}", "train: {lr: 0}", "data: {size: [64]}", "data: {size: [64, 113]}",
     "data: {split: {context: 5}}", "data: {fit: cropp}", "model: {layers: two}"],
)  # fmt: skip
def test_the_schema_refuses_what_a_recipe_cannot_be(wrong: str):
    assert not fits(yaml.safe_load(wrong), schema(), schema()["$defs"])


def test_defaults_fit_the_schema():
    values = json.loads(json.dumps(dataclasses.asdict(load_recipe())))
    assert fits(values, schema(), schema()["$defs"])


def test_a_copied_recipe_names_the_schema_where_it_lies_and_a_shown_one_names_none(tmp_path: Path):
    for _ in range(2):
        CliRunner().invoke(app, ["recipes", "cp", "mini/hydra", str(tmp_path / "r.yaml"), "--force"])
        lines = (tmp_path / "r.yaml").read_text(encoding="utf-8").splitlines()
        assert Path(lines[0].removeprefix(LINE)) == recipe_folder().resolve() / FILE
        assert not any(line.startswith(LINE) for line in lines[1:])
    shown = CliRunner().invoke(app, ["recipes", "show", "mini/hydra"]).stdout
    assert LINE not in shown
    assert shown.splitlines() == lines[1:]


def test_the_line_is_replaced_where_there_is_one_already():
    text = with_schema_line("format: 1\n", "a.json")
    assert with_schema_line(text, "b.json") == f"{LINE}b.json\nformat: 1\n"
