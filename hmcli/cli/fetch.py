"""`hm fetch`: published weights and data by name. The one command that speaks to a network."""

from __future__ import annotations

from typing import Annotated

import typer

from hmcli.cli.app import app
from hmcli.cli.shared import DryRun, command
from hmcli.contracts import Description, StageResult
from hmcli.errors import UsageError
from hmcli.runtime import Console


@command(app, "fetch")
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A known name (none: list them), owner/name, hf://datasets/owner/name."),
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, tag or commit; default: main.")] = "",
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Only files that match (may be given several times)."),
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Ask the hub what the revision is now.")] = False,
    dry_run: DryRun = False,
) -> StageResult | Description:
    """Fetch published weights and data. Into the hub's cache, verified; shows the licence; goes on after a cut."""
    from hmcli.stages.fetching import fetch as stage

    if name is None:
        if revision or include or update or dry_run:
            raise UsageError("without a name nothing is fetched", fix="hm fetch NAME; hm fetch lists the names")
        return stage.names()
    return stage.run(
        name, revision=revision, include=tuple(include or ()), update=update, reporter=Console(), dry_run=dry_run
    )
