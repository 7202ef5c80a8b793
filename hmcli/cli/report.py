"""`hm report`: evaluations side by side, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmcli.cli.app import app
from hmcli.cli.shared import command, given, given_all
from hmcli.contracts import StageResult
from hmcli.runtime import Console


@command(app, "report")
def report(
    evaluations: Annotated[
        list[Path] | None,
        typer.Argument(metavar="EVALUATION...", help="What others are compared with comes first; - reads stdin."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME=EVALUATION", help="One of the seeds of a row NAME (several times)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: ./report.html.")] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Folder to write instead: a static site, videos as files.")
    ] = None,
    tables: Annotated[
        Path | None, typer.Option("--tables", help="Folder for the table as markdown, CSV and LaTeX.")
    ] = None,
    clips: Annotated[
        list[str] | None,
        typer.Option("--clips", help="Clips whose videos are shown (several times); default: the first 24."),
    ] = None,
    generation: Annotated[
        list[Path] | None,
        typer.Option("--generation", help="What was scored, where it lies elsewhere now (several times)."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Folder of the clips, where it lies elsewhere now.")
    ] = None,
    inspection: Annotated[
        list[Path] | None,
        typer.Option("--inspection", help="What `hm inspect MODEL --latents` saw of a row's memory (several times)."),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Evaluations",
) -> StageResult:
    """Show evaluations side by side. One HTML file without network: table, intervals, all clips in step, plots."""
    from hmcli.stages.reporting import report as stage

    return stage.run(
        given_all(evaluations), out=out, bundle=bundle, tables=tables, clips=tuple(clips or ()),
        groups=tuple(group or ()), generations=given_all(generation), reference=given(reference), title=title,
        inspections=given_all(inspection), reporter=Console(),
    )  # fmt: skip
