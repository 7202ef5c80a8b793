"""`hm plan`: what recipes take, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmcli.cli.app import app
from hmcli.cli.shared import Overrides, command, given
from hmcli.contracts import Description
from hmcli.errors import UsageError
from hmcli.runtime import Console


@command(app, "plan")
def plan(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="YAML files, packaged recipes, or folders of them.")
    ],
    override: Overrides = None,
    latents: Annotated[
        Path | None,
        typer.Option("--latents", help="Plan for these clips, not for those the recipe renders; - reads stdin."),
    ] = None,
    world: Annotated[int, typer.Option("--world", min=1, help="Ranks that share the clips of a step.")] = 1,
    on_device: Annotated[
        str, typer.Option("--on-device", help="a100, h100, h200, l40s or rtx4090; here: this machine's CPU.")
    ] = "here",
    timed: Annotated[bool, typer.Option("--timed", help="Take one real step here, for the time of training.")] = False,
) -> Description:
    """Plan: parameters, memory by part, disk and time of recipes. And what to change where a step does not fit."""
    from hmcli.recipe.reading import load_recipe
    from hmcli.recipe.rules import dropped

    known = [(name, load_recipe(name, override)) for text in recipes for name in _named(text)]
    for name, recipe in known:
        if lost := dropped(recipe):
            Console().note(f"{name}: {lost}")
    from hmcli.stages.planning import plan as stage

    return stage.run(
        known, latents=given(latents), world=world, on_device=on_device, timed=timed, reporter=Console()
    )  # fmt: skip


def _named(text: str) -> list[str]:
    """A recipe, or all recipes of a folder: one on disk, or one of the package."""
    from hmcli.recipe.reading import recipe_names

    folder = Path(text)
    if folder.is_dir():
        if not (found := sorted(str(path) for path in folder.rglob("*.yaml"))):
            raise UsageError(
                "this folder holds no recipe", where={"folder": folder}, fix="name a folder of .yaml files"
            )
        return found
    inside = [name for name in recipe_names() if name.startswith(f"{text.rstrip('/')}/")]
    return inside or [text]
