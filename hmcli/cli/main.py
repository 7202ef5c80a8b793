"""The `hm` command: parse, call the stage, print the artifact's path. Nothing here computes.

stdout carries results only: one absolute path, or one JSON object with --json. Everything else goes to stderr.
Torch loads inside the stages, so `hm --help` is instant.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

import hmcli
from hmcli.cli.bench import bench_app
from hmcli.cli.dataset import dataset_app
from hmcli.cli.output import explain, unprinted
from hmcli.cli.shared import (
    ArtifactOut,
    Clips,
    DatasetIn,
    Device,
    DryRun,
    Force,
    GenerationIn,
    LatentsIn,
    MaybeRecipe,
    ModelIn,
    Overrides,
    RecipeArgument,
    RecipeIn,
    SourceIn,
    command,
    find_input,
    given,
    given_all,
    made_with,
    named,
    recorded,
)
from hmcli.contracts import Description, StageResult
from hmcli.errors import UsageError
from hmcli.registry import normal
from hmcli.runtime import Console, Terminated, stop_on_sigterm

Target = Literal["checkpoint", "released", "diffusers"]
FloatType = Literal["float32", "bfloat16", "float16"]

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
app.add_typer(dataset_app, name="dataset")
app.add_typer(bench_app, name="bench")


@command(app, "render")
def render(
    recipe: MaybeRecipe = None,
    clips: Annotated[int | None, typer.Option("--clips", min=1, help="How many clips (world.clips).")] = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    processes: Annotated[
        int, typer.Option("--num-processes", min=1, help="Processes that share the clips; the result is the same.")
    ] = 1,
    captioner: Annotated[
        Path | None, typer.Option("--captioner", help="Folder of an image-text-to-text model that writes the captions.")
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Render clips with exit-entry events from a seed. Each: video, masks, depth, cameras, subjects, caption."""
    from hmcli.recipe.reading import load_recipe

    more = [] if clips is None else [f"world.clips={clips}"]
    more += [] if captioner is None else [f"world.captioner={json.dumps(str(captioner))}"]
    resolved = load_recipe(recipe, [*(override or []), *more])
    from hmcli.runtime import pick_device
    from hmcli.stages.rendering import render as stage

    return stage.run(
        resolved, out=named(out, recipe, "dataset"), force=force, device=pick_device(device), processes=processes,
        reporter=Console(), dry_run=dry_run,
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
    from hmcli.recipe.reading import load_recipe

    resolved = load_recipe(recipe, override)
    source = find_input(data, "dataset")
    from hmcli.runtime import pick_device
    from hmcli.stages.latents import encode as stage

    return stage.run(
        resolved, data=source, out=named(out, source, "latents"), force=force, device=pick_device(device),
        reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


@command(app, "tokenize-memory")
def tokenize_memory(
    latents: LatentsIn = None,
    model: ModelIn = None,
    after: Annotated[
        Path | None,
        typer.Option("--after", help="Memory artifact of the same model that these frames follow; - reads stdin."),
    ] = None,
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
    from hmcli.recipe.reading import load_recipe

    weights = given(model)
    base = recorded(weights)
    resolved = load_recipe(recipe, override, base=base)
    source = find_input(latents, "latents", accept=made_with(base, "codec"))
    from hmcli.runtime import pick_device
    from hmcli.stages.memory import tokenize as stage

    return stage.run(
        resolved, latents=source, model=weights, clips=tuple(clips or ()), force=force, device=pick_device(device),
        out=named(out, source, "memory", weights), reporter=Console(), after=given(after), dry_run=dry_run,
    )  # fmt: skip


@command(app, "train")
def train(
    recipe: RecipeArgument,
    latents: Annotated[
        str | None, typer.Option("--latents", help="Latents artifact (part codec: folder of clips); - reads stdin.")
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option("--memory", help="Memory artifact of the latents, made without a model; - reads stdin."),
    ] = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Train what the recipe says, from where it last stopped."""
    from hmcli.recipe.reading import load_recipe, to_dict

    resolved = load_recipe(recipe, override)
    codec = resolved.train.part == "codec"
    accept = made_with(to_dict(resolved), "codec", "text")
    source = find_input(latents, "dataset" if codec else "latents", accept=accept)
    where = named(out, recipe, "run")
    from hmcli.runtime import pick_device

    if codec:
        if memory is not None:
            raise UsageError("--memory has no effect with train.part=codec", fix="leave --memory out")
        from hmcli.stages.training import codec as train_codec

        return train_codec.run(
            resolved, data=source, out=where, force=force, device=pick_device(device), reporter=Console(),
            dry_run=dry_run,
        )  # fmt: skip
    from hmcli.stages.training import train as stage

    return stage.run(
        resolved, latents=source, memory=given(memory), out=where, force=force, device=pick_device(device),
        reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


@command(app, "generate")
def generate(
    source: SourceIn = None,
    model: ModelIn = None,
    memory: Annotated[
        list[Path] | None,
        typer.Option(
            "--memory",
            help="Memory artifact of the same model (several: in order of time), or of no model; - reads stdin.",
        ),
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
    from hmcli.recipe.reading import load_recipe

    asked = given(source)  # before anything else, so that a failed command before the pipe is what is reported
    weights = find_input(model, "run")
    base = recorded(weights)
    found = find_input(asked, "latents", "dataset", accept=made_with(base, "codec"))
    base.get("data", {}).pop("split", None)  # how the training clips were cut; a folder of clips is generated whole
    resolved = load_recipe(recipe, override, base=base)
    from hmcli.runtime import pick_device
    from hmcli.stages.sampling import generate as stage

    return stage.run(
        resolved, source=found, model=weights, memory=given_all(memory), clips=tuple(clips or ()),
        out=named(out, found, "generation"), force=force, device=pick_device(device), reporter=Console(),
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
    from hmcli.recipe.reading import load_recipe

    resolved = load_recipe(recipe, override)
    source = find_input(generation, "generation")
    from hmcli.runtime import pick_device
    from hmcli.stages.scoring import evaluate as stage

    return stage.run(
        resolved, generation=source, reference=given(reference), metrics=tuple(metric or resolved.eval.metrics),
        out=named(out, source, "evaluation"), force=force, device=pick_device(device), reporter=Console(),
        dry_run=dry_run,
    )  # fmt: skip


command(app, "eval")(evaluate)
command(app, "evaluate", hidden=True)(evaluate)


def _refuse_idle(options: Mapping[str, object], when: str, fix: str) -> None:
    """Raise UsageError when an option was given that would do nothing."""
    if without := [name for name, value in options.items() if value]:
        raise UsageError(f"{', '.join(without)} has no effect {when}", fix=fix)


@command(app, "inspect")
def inspect(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="Any artifact, or a model with --latents; - reads stdin.")
    ],
    verify: Annotated[bool, typer.Option("--verify", help="Hash every file again and compare.")] = False,
    latents: Annotated[
        Path | None, typer.Option("--latents", help="Clips on which to look into the model's memory; - reads stdin.")
    ] = None,
    memory: Annotated[
        list[Path] | None, typer.Option("--memory", help="With --latents: as hm generate takes it; - reads stdin.")
    ] = None,
    clips: Clips = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> Description | StageResult:
    """Say what an artifact is, what made it, if it is whole. With --latents: draw what memory a model reads."""
    if latents is None:
        looking = {"--memory": memory, "--clips": clips, "--out": out, "--set": override, "--dry-run": dry_run,
                   "--force": force, "--device": device != "auto"}  # fmt: skip
        _refuse_idle(looking, "without --latents", fix="hm inspect MODEL --latents LATENTS looks into a model's memory")
        from hmcli.stages.inspecting import inspect as stage

        return stage.run(find_input(artifact), verify=verify, reporter=Console())
    _refuse_idle({"--verify": verify}, "with --latents", fix="hm inspect ARTIFACT --verify")
    from hmcli.recipe.reading import load_recipe

    weights, source = find_input(artifact), find_input(latents)
    resolved = load_recipe(None, override, base=recorded(weights))
    from hmcli.runtime import pick_device
    from hmcli.stages.inspecting import memory as inspect_memory

    return inspect_memory.run(
        resolved, model=weights, latents=source, memory=given_all(memory), clips=tuple(clips or ()),
        out=named(out, source, "inspection", weights), force=force, device=pick_device(device), reporter=Console(),
        dry_run=dry_run,
    )  # fmt: skip


@command(app, "convert")
def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="File or folder of weights, run, checkpoint, or mini; - reads stdin."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write; default: ./<input stem>.<what it becomes>.")
    ] = None,
    to: Annotated[
        Target | None,
        typer.Option(
            "--to",
            help="checkpoint (default): what --model and model.base take; released: one file, named "
            "as HyDRA and Wan published; diffusers: a plain Wan folder.",
        ),
    ] = None,
    lora: Annotated[Path | None, typer.Option("--lora", help="Adapter (.safetensors) to put into the weights.")] = None,
    dtype: Annotated[FloatType | None, typer.Option("--dtype", help="Type of the weights; default: kept.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Settings of the model; default: the source's, or as released.")
    ] = None,
    override: Overrides = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Convert weights. Between released HyDRA, original Wan2.1, diffusers folders and checkpoints of hm."""
    found = given(source)
    assert found is not None  # an argument that must be there
    from hmcli.stages.models import convert as stage

    kind = {None: "checkpoint", "released": "released.safetensors"}.get(to, to)
    return stage.run(
        found, to=to, out=named(out, found.stem if found.is_file() else found, str(kind)), recipe=recipe, lora=lora,
        dtype=dtype, overrides=list(override or ()), force=force, reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


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
    from hmcli.recipe.reading import find_recipe

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
