"""The JSON schema of recipes: what editors complete and check keys by.

`hm recipes schema` prints it; recipes/recipe.schema.json is the packaged copy, and the first line of a recipe names it.
Written with keywords of draft 7, which every editor knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmcli import registry
from hmcli.recipe.reading import ADAPTER, recipe_folder

FILE = "recipe.schema.json"
LINE = "# yaml-language-server: $schema="


def schema() -> dict[str, Any]:
    """The schema, with the names that are known here."""
    made = _said(ADAPTER.json_schema())
    return {"$schema": "http://json-schema.org/draft-07/schema#", **made, "title": "hm recipe"}


def _said(node: Any) -> Any:
    """A part of pydantic's schema with names as choices, and without what only this program reads."""
    if isinstance(node, list):
        return [_said(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {name: _said(part) for name, part in node.items() if name not in ("title", "hint", "also", "ends")}
    if isinstance(kind := found.pop("names", None), str):
        ends, known = node["ends"], registry.BUILT_IN[kind]
        names = [*node["also"], *(name + end for name in known for end in ends)]
        choice = {"anyOf": [{"enum": names}, {"type": "string"}]}  # other packages bring more
        listed = {"type": "array", "items": choice}
        if "anyOf" in found:  # one name, or a list of them
            found["anyOf"] = [choice, listed]
        else:
            found |= listed if found.pop("type") == "array" else choice
    if len(sides := {repr(side) for side in found.get("prefixItems", ())}) == 1:
        found["items"] = found.pop("prefixItems")[0]  # draft 7 knows no prefixItems
        assert len(sides) == 1
    return found


def without_schema_line(text: str) -> str:
    """A recipe's text without the line that names the schema."""
    return text.split("\n", 1)[1] if text.startswith(LINE) else text


def with_schema_line(text: str, place: str | Path) -> str:
    """A recipe's text whose first line names the schema at `place`."""
    return f"{LINE}{place}\n{without_schema_line(text)}"


def schema_place(recipe: Path) -> str:
    """Where a packaged recipe finds the schema: `../` for every folder it lies in."""
    return "../" * (len(recipe.relative_to(recipe_folder()).parts) - 1) + FILE
