"""What all commands share: the types of their arguments, how inputs and outputs are found, how a command ends.

`hmcli.cli.main` and `hmcli.cli.dataset` are made of it. stdout carries results only; everything else goes to stderr.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect as signatures
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hmcli.recipe.readers import Readers
    from hmcli.recipe.sections import Recipe

from hmcli.cli.output import Result, emit, explain
from hmcli.errors import UsageError
from hmcli.hub import local
from hmcli.runtime import Console, Terminated, stop_on_sigterm
from hmcli.store.lock import check_writable

OUR_SUFFIXES = (
    ".dataset", ".latents", ".zarr", ".memory", ".run", ".generation", ".evaluation", ".inspection", ".yaml", ".yml",
)  # fmt: skip

RecipeIn = Annotated[str | None, typer.Option("--recipe", help="YAML file or packaged recipe; default: all defaults.")]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file or packaged recipe (hm recipes ls).")]
MaybeRecipe = Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="YAML file or packaged recipe.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key.")]
ArtifactOut = Annotated[Path | None, typer.Option("--out", help="Where to write; default: ./<input stem>.<kind>.")]
DatasetIn = Annotated[str | None, typer.Argument(metavar="[DATA]", help="Folder of clips; - reads it from stdin.")]
LatentsIn = Annotated[str | None, typer.Argument(metavar="[LATENTS]", help="Latents artifact; - reads it from stdin.")]
SourceIn = Annotated[
    str | None, typer.Argument(metavar="[SOURCE]", help="Latents artifact or folder of clips; - reads it from stdin.")
]
GenerationIn = Annotated[
    str | None, typer.Argument(metavar="[GENERATION]", help="Generation artifact; - reads it from stdin.")
]
_MODEL = "Run, checkpoint, or mini (the packaged weights); - reads stdin."
ModelIn = Annotated[Path | None, typer.Option("--model", help=_MODEL)]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)]
Clips = Annotated[list[str] | None, typer.Option("--clips", help="Only these clip ids (may be given several times).")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Processes = Annotated[
    int, typer.Option("--num-processes", min=1, help="Processes that share the clips; the result is the same.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Do everything again, also what is already there.")]
Prune = Annotated[bool, typer.Option("--prune", help="Let finished items go that are not asked for any more.")]


def command(under: typer.Typer, name: str, hidden: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command; adds --json and --debug and turns errors into messages and exit codes."""

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def guarded(*args: Any, json_output: bool, debug: bool, **kwargs: Any) -> None:
            raise typer.Exit(_run(functools.partial(work, *args, **kwargs), json_output, debug))

        def work(*args: Any, **kwargs: Any) -> Result:
            _refuse_two_dashes(kwargs)
            result = function(*args, **kwargs)
            if kwargs.get("dry_run") and "out" in kwargs:  # after the plan: it is of use even so
                check_writable(Path(kwargs["out"] or "."))
            return result

        extra = {
            "json_output": Annotated[bool, typer.Option("--json", help="Print the result as JSON.")],
            "debug": Annotated[bool, typer.Option("--debug", help="Show tracebacks.")],
        }
        own = signatures.signature(function, eval_str=True)
        added = [
            signatures.Parameter(key, signatures.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for key, kind in extra.items()
        ]
        guarded.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*own.parameters.values(), *added], return_annotation=None
        )
        guarded.__annotations__ = {p.name: p.annotation for p in guarded.__signature__.parameters.values()}  # type: ignore[attr-defined]
        under.command(name, hidden=hidden)(guarded)
        return function

    return register


def _run(work: Callable[[], Result], json_output: bool, debug: bool) -> int:
    """Run a stage with stdout kept for its result; returns the exit code."""
    debug = debug or bool(os.environ.get("HM_DEBUG"))
    stop_on_sigterm()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = work()
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if debug:
            traceback.print_exception(error)
        return explain(error)
    return emit(result, json_output)


def _refuse_two_dashes(arguments: dict[str, Any]) -> None:
    """stdin holds one path, so one input can be `-`; an output cannot."""
    if str(arguments.get("out")) == "-":
        raise UsageError("--out cannot be -", fix="name a folder; its path is printed on stdout")
    every = [
        (name, item) for name, value in arguments.items() for item in (value if isinstance(value, list) else [value])
    ]
    if len(dashes := [name for name, item in every if str(item) == "-"]) > 1:
        raise UsageError(f"only one input can be read from stdin, got - for {' and '.join(dashes)}")


def given(text: str | Path | None) -> Path | None:
    """An input as written, or where it lies in the hub's cache (hmcli.hub); `-` reads one path from stdin.

    An empty stdin is an error.
    """
    if text is None or str(text) != "-":
        return None if text is None else Path(local(str(text)))
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    if len(lines) != 1:
        found = "nothing" if not lines else f"{len(lines)} lines"
        raise UsageError(
            f"expected one path on stdin, got {found}",
            fix="the command before the pipe failed, or printed no artifact; set -o pipefail shows which",
        )
    return Path(lines[0].strip())


def given_all(texts: Sequence[str | Path] | None) -> tuple[Path, ...]:
    """Inputs of an option that may be given several times."""
    return tuple(path for text in texts or () if (path := given(text)) is not None)


def find_input(
    text: str | Path | None,
    *kinds: str,
    accept: Callable[[Any], bool] = lambda manifest: True,
    remote: bool = False,
) -> Path:
    """An input as given, or the newest complete artifact of these kinds below the working folder, named on stderr.

    With `remote` it may be at a URL; then the folder that stands for it (hmcli.store.remote).
    """
    from hmcli.store.remote import is_url, mirror

    path = mirror(str(text)) if remote and is_url(str(text or "")) else given(text)
    if path is None:
        from hmcli.store.artifact import find_newest

        path = find_newest(Path.cwd(), kinds, accept=accept)
        Console().note(f"using {path} (the newest {' or '.join(kinds)} here)")
    _say_what_it_is(path)
    return path


def _say_what_it_is(path: Path) -> None:
    """Artifacts of an earlier format, and parts of artifacts, are read as they are."""
    from hmcli.store.manifest import is_artifact, is_part, is_sealed

    if not is_artifact(path):
        return
    if not is_sealed(path):
        Console().note(f"{path} has the manifest of an earlier hm: edits of it (not of its files) would not be noticed")
    if is_part(path):
        Console().note(f"{path} is a part: what is made of it covers its clips alone (hm merge joins all parts first)")


def recipe_for(
    command: str, name: str | None, overrides: list[str] | None, readers: Readers, base: dict[str, Any] | None = None
) -> Recipe:
    """The recipe of a command. A `--set` key that it does not read is refused; a file without any it reads is said."""
    from hmcli.recipe.readers import says_nothing
    from hmcli.recipe.reading import find_recipe, load_recipe, read_yaml
    from hmcli.recipe.rules import dropped

    recipe = load_recipe(name, overrides, base, readers=readers, command=f"hm {command}")
    if {"train", "slots"} & set(readers) and (lost := dropped(recipe)):
        Console().note(lost)
    if name is not None and says_nothing(read_yaml(find_recipe(name)), readers):
        Console().note(f"{name} says nothing that hm {command} reads: it goes by the defaults")
    return recipe


def named(
    out: Path | None, source: str | Path | None, kind: str, model: Path | None = None, shard: str | None = None
) -> Path:
    """The output as given, or `./<input stem>.<kind>`; made by a model, `./<input stem>-<model stem>.<kind>`.

    Part 1 of 4 is named `./<stem>.1-of-4.<kind>`.
    """
    stems = [_stem(source or "mini"), *([] if model is None else [_stem(model)])]
    part = "" if shard is None else f".{shard.replace('/', '-of-')}"
    return out or Path(f"{'-'.join(stems)}{part}.{kind}")


def _stem(source: str | Path) -> str:
    """A name without the suffix hm gave it: of `clips.v1` everything, of `clips.v1.latents` `clips.v1`."""
    path = Path(os.path.abspath(source))
    return path.stem if path.suffix in OUR_SUFFIXES else path.name


def made_with(recipe: dict[str, Any], *names: str) -> Callable[[Any], bool]:
    """Takes artifacts whose codec (or text encoder) has the recipe's name; a side that names none fits all."""
    named = [name for name in names if name in recipe]
    return lambda manifest: all(manifest.recipe.get(n, recipe[n])["name"] == recipe[n]["name"] for n in named)


def recorded(model: Path | None) -> dict[str, Any]:
    """The recipe a model was made with, for what the command line leaves open."""
    if model is None:
        return {}
    from hmcli.stages.models.folders import find_model

    return copy.deepcopy(find_model(model).manifest.recipe)
