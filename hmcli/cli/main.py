"""The `hm` command: parse, call the stage, print the artifact's path. Nothing here computes.

stdout carries results only: one absolute path, or one JSON object with --json. Everything else goes to stderr.
Torch loads inside the stages, so `hm --help` is instant.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from hmcli.cli import chain  # noqa: F401  registers the chain's commands, first in the help
from hmcli.cli import fetch as _fetch  # noqa: F401  registers the command
from hmcli.cli import plan as _plan  # noqa: F401  registers the command
from hmcli.cli import play as _play  # noqa: F401  registers the command
from hmcli.cli import report as _report  # noqa: F401  registers the command
from hmcli.cli import strip as _strip  # noqa: F401  registers the command
from hmcli.cli.app import app
from hmcli.cli.bench import bench_app
from hmcli.cli.dataset import dataset_app
from hmcli.cli.output import explain, unprinted
from hmcli.cli.readers import of_sampling
from hmcli.cli.recipes import recipes_app
from hmcli.cli.shared import (
    ArtifactOut,
    Clips,
    Device,
    DryRun,
    Force,
    ModelArgument,
    Overrides,
    Processes,
    Prune,
    command,
    find_input,
    given,
    given_all,
    named,
    recipe_for,
    recorded,
)
from hmcli.cli.spread import OnIn, ShardIn, ShardsIn, Spread, carry_out
from hmcli.contracts import Description, StageResult
from hmcli.errors import UsageError
from hmcli.hub import name_of
from hmcli.runtime import Console, Terminated, stop_on_sigterm

Target = Literal["checkpoint", "released", "diffusers"]
Runtime = Literal["onnx"]
FloatType = Literal["float32", "bfloat16", "float16"]

app.add_typer(recipes_app, name="recipes")
app.add_typer(dataset_app, name="dataset")
app.add_typer(bench_app, name="bench")


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
    processes: Processes = 1,
    shard: ShardIn = None,
    on: OnIn = None,
    shards: ShardsIn = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> Description | StageResult:
    """Say what an artifact is, what made it, if it is whole. With --latents: draw what memory a model reads.

    Of a run, --out FILE.png draws the curves of its training, also while it trains.
    """
    if latents is None:
        looking = {"--memory": memory, "--clips": clips, "--set": override, "--dry-run": dry_run,
                   "--force": force, "--prune": prune, "--device": device != "auto",
                   "--num-processes": processes != 1, "--shard": shard, "--on": on, "--shards": shards}  # fmt: skip
        _refuse_idle(looking, "without --latents", fix="hm inspect MODEL --latents LATENTS looks into a model's memory")
        if out is not None:
            _refuse_idle({"--verify": verify}, "with --out", fix="hm inspect ARTIFACT --verify")
            from hmcli.stages.inspecting import curves

            return curves.run(find_input(artifact), out=out)
        from hmcli.stages.inspecting import inspect as stage

        return stage.run(find_input(artifact), verify=verify, reporter=Console())
    _refuse_idle({"--verify": verify}, "with --latents", fix="hm inspect ARTIFACT --verify")
    weights, source = find_input(artifact), find_input(latents)
    resolved = recipe_for("inspect", None, override, of_sampling(weights, None), recorded(weights))
    from hmcli.stages.inspecting import memory as inspect_memory

    return carry_out(
        inspect_memory.run, Spread(shard, on, shards), recipe=resolved,
        model=weights, latents=source, memory=given_all(memory), clips=tuple(clips or ()),
        out=named(out, source, "inspection", weights, shard), force=force, prune=prune, device=device,
        processes=processes, dry_run=dry_run,
    )  # fmt: skip


@command(app, "merge")
def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PARTS...", help="All artifacts made with --shard i/n.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write the whole.")],
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Join parts made with --shard. The result is what one process would have written."""
    from hmcli.stages.parts import merge as stage

    return stage.run(parts, out=out, force=force, prune=prune, reporter=Console(), dry_run=dry_run)


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
    lora: Annotated[Path | None, typer.Option("--lora", help="Adapter (LoRA) to put into the weights.")] = None,
    part: Annotated[
        str, typer.Option("--part", help="Of a file with several state dicts, the one to take (model_ema, ...).")
    ] = "",
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
    stem = found.stem if found.is_file() else name_of(found)
    return stage.run(
        found, to=to, out=named(out, stem, str(kind)), recipe=recipe, lora=given(lora), dtype=dtype,
        overrides=list(override or ()), force=force, reporter=Console(), dry_run=dry_run, part=part,
    )  # fmt: skip


@command(app, "export")
def export(
    model: ModelArgument,
    to: Annotated[Runtime, typer.Option("--to", help="onnx: graphs that onnxruntime runs.")],
    latents: Annotated[
        Path | None, typer.Option("--latents", help="Clips of the shape that the graphs are for; - reads stdin.")
    ] = None,
    clips: Clips = None,
    out: ArtifactOut = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult:
    """Export a model. Its denoising step and its decoder become graphs, for hm generate --exported."""
    weights, source = find_input(model), find_input(latents, "latents")
    from hmcli.stages.exporting import export as stage

    return stage.run(
        weights, latents=source, clips=tuple(clips or ()), out=named(out, weights, to), force=force,
        reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


@command(app, "demo")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("demo"),
    override: Overrides = None,
    device: Device = "auto",
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Run the whole chain on the embedded default. In one process; says where the pictures are."""
    from hmcli.runtime import pick_device
    from hmcli.stages import demo as stage

    return stage.run(
        out=out, overrides=list(override or []), force=force, prune=prune, device=pick_device(device),
        reporter=Console(),
    )  # fmt: skip


def main() -> None:
    """Entry point of the installed command."""
    stop_on_sigterm()
    try:
        app()
    except Terminated as error:  # before or after a command's own work
        sys.exit(explain(error))
    except OSError as error:  # commands catch their own: this is the help or the version, on a full disk
        sys.exit(unprinted(error, "the help", 1))
