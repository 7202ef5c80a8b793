"""`hm recipes`: the packaged recipes, listed, shown, copied, and what their keys are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hmcli.cli.shared import (
    Force,
    Overrides,
    RecipeArgument,
    command,
)
from hmcli.contracts import Description, StageResult
from hmcli.errors import UsageError
from hmcli.runtime import Console

recipes_app = typer.Typer(help="Packaged recipes: ls, show, cp, schema.", no_args_is_help=True, rich_markup_mode=None)


@command(recipes_app, "ls")
def recipes_ls() -> Description:
    """List the packaged recipes."""
    from hmcli.recipe.reading import recipe_names

    return Description(text="\n".join(recipe_names()), data={"recipes": recipe_names()})


@command(recipes_app, "show")
def recipes_show(
    name: RecipeArgument,
    override: Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> Description:
    """Print a recipe; with --resolved or --set as the stages see it."""
    from hmcli.recipe.reading import find_recipe, load_recipe, to_dict, to_yaml
    from hmcli.recipe.rules import dropped
    from hmcli.recipe.schema import without_schema_line

    recipe = load_recipe(name, override)
    if lost := dropped(recipe):
        Console().note(lost)
    whole = resolved or bool(override)
    text = to_yaml(recipe) if whole else without_schema_line(find_recipe(name).read_text(encoding="utf-8"))
    return Description(text=text.rstrip(), data=to_dict(recipe))


@command(recipes_app, "cp")
def recipes_cp(
    name: RecipeArgument,
    target: Annotated[Path, typer.Argument(help="File or folder to copy to.")] = Path(),
    force: Force = False,
) -> StageResult:
    """Copy a packaged recipe to edit it."""
    from hmcli.recipe.reading import find_recipe, recipe_folder
    from hmcli.recipe.schema import FILE, with_schema_line

    source = find_recipe(name)
    file = target / source.name if target.is_dir() else target
    if file.exists() and not force:
        raise UsageError(f"{file} exists", fix="choose another name, or --force")
    try:
        text = with_schema_line(source.read_text(encoding="utf-8"), recipe_folder().resolve() / FILE)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}", fix="name a file in a folder that is there"
        ) from error
    return StageResult(path=file, kind="recipe")


@command(recipes_app, "schema")
def recipes_schema() -> Description:
    """Print the JSON schema of recipes. Every key, for editors and other tools."""
    from hmcli.recipe.schema import schema

    return Description(text=json.dumps(schema(), indent=1, ensure_ascii=False), data=schema())
