"""For maintainers: `python -m hmcli.recipe` writes what is made from the keys: docs/reference.md, the JSON schema of
recipes, and the line in each packaged recipe that names it."""

from __future__ import annotations

import json

from hmcli.recipe.reading import recipe_folder
from hmcli.recipe.reference import reference
from hmcli.recipe.schema import FILE, schema, schema_place, with_schema_line


def write() -> None:
    """Write them into the checkout that this is."""
    recipes = recipe_folder()
    (recipes.parent / "docs" / "reference.md").write_text(reference(), encoding="utf-8")
    (recipes / FILE).write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in sorted(recipes.rglob("*.yaml")):
        file.write_text(with_schema_line(file.read_text(encoding="utf-8"), schema_place(file)), encoding="utf-8")


if __name__ == "__main__":
    write()
