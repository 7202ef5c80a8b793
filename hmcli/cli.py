"""The `hm` command: parse, call the stage, print the artifact's path. Nothing here computes.

stdout carries results only: one absolute path, or one JSON object with --json. Everything else goes to stderr.
Torch loads inside the stages, so `hm --help` is instant.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect as signatures
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import hmcli
from hmcli.contracts import Description, StageResult
from hmcli.errors import UsageError
from hmcli.output import Result, emit, explain, unprinted
from hmcli.registry import normal
from hmcli.runtime import Console, Terminated, stop_on_sigterm

OUR_SUFFIXES = (
    ".dataset", ".latents", ".zarr", ".memory", ".run", ".generation", ".evaluation", ".yaml", ".yml",
)  # fmt: skip

app = typer.Typer(
    name="hm",
    help="Hybrid-memory video world models: render, encode, tokenize memory, train, generate, evaluate.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": normal},
)
recipes_app = typer.Typer(help="Packaged recipes: ls, show, cp.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipes_app, name="recipes")

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
ModelIn = Annotated[
    Path | None, typer.Option("--model", help="Run, checkpoint, or mini (the packaged weights); - reads stdin.")
]
Clips = Annotated[list[str] | None, typer.Option("--clips", help="Only these clip ids (may be given several times).")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Do everything again, also what is already there.")]


def command(under: typer.Typer, name: str, hidden: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command; adds --json and --debug and turns errors into messages and exit codes."""

    def register(function: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def guarded(*args: Any, json_output: bool, debug: bool, **kwargs: Any) -> None:
            raise typer.Exit(_run(functools.partial(work, *args, **kwargs), json_output, debug))

        def work(*args: Any, **kwargs: Any) -> Result:
            _refuse_two_dashes(kwargs)
            return function(*args, **kwargs)

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
    if len(dashes := [name for name, value in arguments.items() if str(value) == "-"]) > 1:
        raise UsageError(f"only one input can be read from stdin, got - for {' and '.join(dashes)}")


def _given(text: str | Path | None) -> Path | None:
    """An input as written; `-` reads one path from stdin, and an empty stdin is an error."""
    if text is None or str(text) != "-":
        return None if text is None else Path(text)
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
    if len(lines) != 1:
        found = "nothing" if not lines else f"{len(lines)} lines"
        raise UsageError(
            f"expected one path on stdin, got {found}",
            fix="the command before the pipe failed, or printed no artifact; set -o pipefail shows which",
        )
    return Path(lines[0].strip())


def _input(text: str | Path | None, *kinds: str, accept: Callable[[Any], bool] = lambda manifest: True) -> Path:
    """An input as given, or the newest complete artifact of these kinds below the working folder, named on stderr."""
    if (path := _given(text)) is not None:
        return path
    from hmcli.store.artifact import find_newest

    found = find_newest(Path.cwd(), kinds, accept=accept)
    Console().note(f"using {found} (the newest {' or '.join(kinds)} here)")
    return found


def _named(out: Path | None, source: str | Path | None, kind: str, model: Path | None = None) -> Path:
    """The output as given, or `./<input stem>.<kind>`; made by a model, `./<input stem>-<model stem>.<kind>`."""
    stems = [_stem(source or "mini"), *([] if model is None else [_stem(model)])]
    return out or Path(f"{'-'.join(stems)}.{kind}")


def _stem(source: str | Path) -> str:
    """A name without the suffix hm gave it: of `clips.v1` everything, of `clips.v1.latents` `clips.v1`."""
    path = Path(os.path.abspath(source))
    return path.stem if path.suffix in OUR_SUFFIXES else path.name


def _made_with(recipe: dict[str, Any], *names: str) -> Callable[[Any], bool]:
    """Takes artifacts whose codec (or text encoder) has the recipe's name; a side that names none fits all."""
    named = [name for name in names if name in recipe]
    return lambda manifest: all(manifest.recipe.get(n, recipe[n])["name"] == recipe[n]["name"] for n in named)


def _recorded(model: Path | None) -> dict[str, Any]:
    """The recipe a model was made with, for what the command line leaves open."""
    if model is None:
        return {}
    from hmcli.stages.models import find_model

    return copy.deepcopy(find_model(model).manifest.recipe)


@command(app, "render")
def render(
    recipe: MaybeRecipe = None,
    clips: Annotated[int | None, typer.Option("--clips", min=1, help="How many clips (world.clips).")] = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Render clips with exit-entry events from a seed. Each: video, masks, depth, cameras, subjects, caption."""
    from hmcli.recipe import load_recipe

    more = [] if clips is None else [f"world.clips={clips}"]
    resolved = load_recipe(recipe, [*(override or []), *more])
    from hmcli.runtime import pick_device
    from hmcli.stages import render as stage

    return stage.run(
        resolved, out=_named(out, recipe, "dataset"), force=force, device=pick_device(device), reporter=Console(),
        dry_run=dry_run,
    )  # fmt: skip


@command(app, "encode")
def encode(
    data: DatasetIn = None,
    out: ArtifactOut = None,
    recipe: RecipeIn = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Encode a folder of clips. Videos become VAE latents, captions embeddings, poses camera rows."""
    from hmcli.recipe import load_recipe

    resolved = load_recipe(recipe, override)
    source = _input(data, "dataset")
    from hmcli.runtime import pick_device
    from hmcli.stages import encode as stage

    return stage.run(
        resolved, data=source, out=_named(out, source, "latents"), force=force, device=pick_device(device),
        reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


@command(app, "tokenize-memory")
def tokenize_memory(
    latents: LatentsIn = None,
    model: ModelIn = None,
    clips: Clips = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Default: ./<input stem>.memory; --model: ./<input stem>-<model folder name>.memory."
        ),
    ] = None,
    recipe: RecipeIn = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Describe the memory slots of each clip. With --model (context: frozen) also compute their keys and values."""
    from hmcli.recipe import load_recipe

    weights = _given(model)
    base = _recorded(weights)
    resolved = load_recipe(recipe, override, base=base)
    source = _input(latents, "latents", accept=_made_with(base, "codec"))
    from hmcli.runtime import pick_device
    from hmcli.stages import tokenize_memory as stage

    return stage.run(
        resolved, latents=source, model=weights, clips=tuple(clips or ()), force=force, device=pick_device(device),
        out=_named(out, source, "memory", weights), reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


@command(app, "train")
def train(
    recipe: RecipeArgument,
    latents: Annotated[
        str | None, typer.Option("--latents", help="Latents artifact (part codec: folder of clips); - reads stdin.")
    ] = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Train what the recipe says, from where it last stopped."""
    from hmcli.recipe import load_recipe, to_dict

    resolved = load_recipe(recipe, override)
    codec = resolved.train.part == "codec"
    accept = _made_with(to_dict(resolved), "codec", "text")
    source = _input(latents, "dataset" if codec else "latents", accept=accept)
    where = _named(out, recipe, "run")
    from hmcli.runtime import pick_device

    if codec:
        from hmcli.stages import train_codec

        return train_codec.run(
            resolved, data=source, out=where, force=force, device=pick_device(device), reporter=Console(),
            dry_run=dry_run,
        )  # fmt: skip
    from hmcli.stages import train as stage

    return stage.run(
        resolved, latents=source, out=where, force=force, device=pick_device(device), reporter=Console(),
        dry_run=dry_run,
    )  # fmt: skip


@command(app, "generate")
def generate(
    source: SourceIn = None,
    model: ModelIn = None,
    memory: Annotated[
        Path | None, typer.Option("--memory", help="Memory artifact of the same model; - reads stdin.")
    ] = None,
    clips: Clips = None,
    out: ArtifactOut = None,
    recipe: RecipeIn = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Generate each clip's target along its target cameras."""
    from hmcli.recipe import load_recipe

    given = _given(source)  # before anything else, so that a failed command before the pipe is what is reported
    weights = _input(model, "run")
    base = _recorded(weights)
    found = _input(given, "latents", "dataset", accept=_made_with(base, "codec"))
    base.get("data", {}).pop("split", None)  # how the training clips were cut; a folder of clips is generated whole
    resolved = load_recipe(recipe, override, base=base)
    from hmcli.runtime import pick_device
    from hmcli.stages import generate as stage

    return stage.run(
        resolved, source=found, model=weights, memory=_given(memory), clips=tuple(clips or ()),
        out=_named(out, found, "generation"), force=force, device=pick_device(device), reporter=Console(),
        dry_run=dry_run,
    )  # fmt: skip


def evaluate(
    generation: GenerationIn = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Folder of clips with the true target videos; - reads stdin.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A metric (may be given several times); default: all that apply."),
    ] = None,
    out: ArtifactOut = None,
    recipe: RecipeIn = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Score generated videos. Metrics: psnr, ssim, subject-consistency, background-consistency."""
    from hmcli.recipe import load_recipe

    resolved = load_recipe(recipe, override)
    source = _input(generation, "generation")
    from hmcli.runtime import pick_device
    from hmcli.stages import evaluate as stage

    return stage.run(
        resolved, generation=source, reference=_given(reference), metrics=tuple(metric or resolved.eval.metrics),
        out=_named(out, source, "evaluation"), force=force, device=pick_device(device), reporter=Console(),
        dry_run=dry_run,
    )  # fmt: skip


command(app, "eval")(evaluate)
command(app, "evaluate", hidden=True)(evaluate)


@command(app, "inspect")
def inspect(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Any artifact; - reads its path from stdin.")],
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again and compare.")] = False,
) -> Description:
    """Say what an artifact is, what made it, if it is whole."""
    from hmcli.stages import inspect as stage

    return stage.run(_input(artifact), verify=verify, reporter=Console())


@command(app, "demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo"),
    override: Overrides = None,
    device: Device = "auto",
    force: Force = False,
) -> StageResult:
    """Run the whole chain on the embedded default. In one process; says where the pictures are."""
    from hmcli.runtime import pick_device
    from hmcli.stages import demo as stage

    return stage.run(
        out=out, overrides=list(override or []), force=force, device=pick_device(device), reporter=Console()
    )


@command(recipes_app, "ls")
def recipes_ls() -> Description:
    """List the packaged recipes."""
    from hmcli.recipe import recipe_names

    return Description(text="\n".join(recipe_names()), data={"recipes": recipe_names()})


@command(recipes_app, "show")
def recipes_show(
    name: RecipeArgument,
    override: Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> Description:
    """Print a recipe; with --resolved or --set as the stages see it."""
    from hmcli.recipe import find_recipe, load_recipe, to_dict, to_yaml

    recipe = load_recipe(name, override)
    whole = resolved or bool(override)
    text = to_yaml(recipe) if whole else find_recipe(name).read_text(encoding="utf-8")
    return Description(text=text.rstrip(), data=to_dict(recipe))


@command(recipes_app, "cp")
def recipes_cp(
    name: RecipeArgument,
    target: Annotated[Path, typer.Argument(help="File or folder to copy to.")] = Path(),
    force: Force = False,
) -> StageResult:
    """Copy a packaged recipe to edit it."""
    from hmcli.recipe import find_recipe

    source = find_recipe(name)
    file = target / source.name if target.is_dir() else target
    if file.exists() and not force:
        raise UsageError(f"{file} exists", fix="choose another name, or --force")
    try:
        file.write_bytes(source.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}", fix="name a file in a folder that is there"
        ) from error
    return StageResult(path=file, kind="recipe")


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


def main() -> None:
    """Entry point of the installed command."""
    stop_on_sigterm()
    try:
        app()
    except Terminated as error:  # before or after a command's own work
        sys.exit(explain(error))
    except OSError as error:  # commands catch their own: this is the help or the version, on a full disk
        sys.exit(unprinted(error, "the help", 1))
