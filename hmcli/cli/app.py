"""The application that commands join, and what it says of itself."""

from __future__ import annotations

from typing import Annotated

import typer

import hmcli
from hmcli.registry import normal

app = typer.Typer(
    name="hm",
    help="Hybrid-memory video world models: render, encode, tokenize memory, train, generate, evaluate.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": normal},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hm {hmcli.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
