"""`hm strip`: videos side by side as one file that loops."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmcli.cli.app import app
from hmcli.cli.readers import DATASET
from hmcli.cli.shared import Clips, Overrides, command, find_input, given, named, recipe_for
from hmcli.contracts import StageResult
from hmcli.runtime import Console


@command(app, "strip")
def strip(
    generations: Annotated[
        list[str], typer.Argument(metavar="GENERATION...", help="Generations of the same clips; - reads stdin.")
    ],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Folder of the true clips; default: what they were made from.")
    ] = None,
    clips: Clips = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="A name for each generation, in order.")] = None,
    scale: Annotated[int, typer.Option("--scale", min=1, max=8, help="Pixels shown for each pixel.")] = 2,
    most: Annotated[float, typer.Option("--max-mib", min=0.01, help="The animation's size, at most.")] = 2.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A .webp or .gif that loops, an .mp4 or a .png; default: ./<stem>.webp."),
    ] = None,
    override: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> StageResult:
    """Show the truth and generations side by side."""
    resolved = recipe_for("strip", None, override, DATASET)
    found = [find_input(path, "generation") for path in generations]
    from hmcli.stages.viewing import strip as stage

    return stage.run(
        found, reference=given(reference), clips=tuple(clips or ()), labels=tuple(label or ()), scale=scale,
        most_mib=most, out=named(out, found[0], "webp"), force=force, poses=resolved.poses, reporter=Console(),
    )  # fmt: skip
