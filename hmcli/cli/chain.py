"""The chain: render, encode, tokenize-memory, train, generate, eval; each reads artifacts and writes one."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from hmcli.cli import readers
from hmcli.cli.app import app
from hmcli.cli.output import explain
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
    Processes,
    Prune,
    RecipeArgument,
    RecipeIn,
    SourceIn,
    command,
    find_input,
    given,
    given_all,
    made_with,
    named,
    recipe_for,
    recorded,
)
from hmcli.cli.spread import OnIn, ShardIn, ShardsIn, Spread, carry_out
from hmcli.contracts import StageResult
from hmcli.errors import NothingFoundError, UsageError
from hmcli.runtime import Console


@command(app, "render")
def render(
    recipe: MaybeRecipe = None,
    clips: Annotated[int | None, typer.Option("--clips", min=1, help="How many clips (world.clips).")] = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    processes: Processes = 1,
    shard: ShardIn = None,
    on: OnIn = None,
    shards: ShardsIn = None,
    captioner: Annotated[
        Path | None, typer.Option("--captioner", help="Folder of an image-text-to-text model that writes the captions.")
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Render clips with exit-entry events from a seed. Each: video, masks, depth, cameras, subjects, caption."""
    more = [] if clips is None else [f"world.clips={clips}"]
    more += [] if captioner is None else [f"world.captioner={json.dumps(str(given(captioner)))}"]
    resolved = recipe_for("render", recipe, [*(override or []), *more], readers.RENDER)
    from hmcli.stages.rendering import render as stage

    return carry_out(
        stage.run, Spread(shard, on, shards), recipe=resolved,
        out=named(out, recipe, "dataset", shard=shard), force=force, prune=prune, device=device,
        processes=processes, dry_run=dry_run,
    )  # fmt: skip


@command(app, "encode")
def encode(
    data: DatasetIn = None,
    out: ArtifactOut = None,
    recipe: RecipeIn = None,
    override: Overrides = None,
    processes: Processes = 1,
    shard: ShardIn = None,
    on: OnIn = None,
    shards: ShardsIn = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Encode a folder of clips. Videos become VAE latents, captions embeddings, poses camera rows."""
    resolved = recipe_for("encode", recipe, override, readers.ENCODE)
    source = find_input(data, "dataset")
    from hmcli.stages.latents import encode as stage

    return carry_out(
        stage.run, Spread(shard, on, shards), recipe=resolved,
        data=source, out=named(out, source, "latents", shard=shard), force=force, prune=prune, device=device,
        processes=processes, dry_run=dry_run,
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
    processes: Processes = 1,
    shard: ShardIn = None,
    on: OnIn = None,
    shards: ShardsIn = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Describe the memory slots of each clip. With --model (context: frozen) also compute their keys and values."""
    weights = given(model)
    base = recorded(weights)
    resolved = recipe_for("tokenize-memory", recipe, override, readers.of_memory(weights), base)
    source = find_input(latents, "latents", accept=made_with(base, "codec"))
    from hmcli.stages.memory import tokenize as stage

    return carry_out(
        stage.run, Spread(shard, on, shards), recipe=resolved,
        latents=source, model=weights, clips=tuple(clips or ()), force=force, prune=prune,
        device=device, out=named(out, source, "memory", weights, shard), after=given(after), processes=processes,
        dry_run=dry_run,
    )  # fmt: skip


@command(app, "train")
def train(
    recipe: RecipeArgument,
    latents: Annotated[
        list[str] | None,
        typer.Option(
            "--latents",
            help="Latents artifact, also at a URL (several: all are trained on; for a codec: folder of clips); "
            "- reads stdin.",
        ),
    ] = None,
    memory: Annotated[
        Path | None,
        typer.Option("--memory", help="Memory artifact of the latents, made without a model; - reads stdin."),
    ] = None,
    out: ArtifactOut = None,
    override: Overrides = None,
    ranks: Annotated[
        int, typer.Option("--num-processes", min=1, help="Ranks that share every batch (of all machines, by torchrun).")
    ] = 1,
    resume_with: Annotated[
        list[str] | None,
        typer.Option(
            "--resume-with",
            metavar="KEY=VALUE",
            help="Go on from the last checkpoint under another train.lr, warmup, decay or steps; it is recorded.",
        ),
    ] = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Train what the recipe says, from where it last stopped."""
    from hmcli.recipe.reading import to_dict
    from hmcli.stages.training.ranks import from_environment

    place = from_environment(os.environ, ranks)
    if force and resume_with:
        raise UsageError("--force starts again, --resume-with goes on", fix="give one of them")
    resolved = recipe_for("train", recipe, [*(override or []), *(resume_with or [])], readers.of_training())
    part = resolved.train.part
    accept = made_with(to_dict(resolved), "codec", "text")
    kind = "latents" if part == "transformer" else "dataset"
    if part != "transformer" and len(latents or ()) > 1:
        raise UsageError(f"train.part={part} learns from one folder of clips", fix="give one --latents")
    sources = tuple(find_input(text, kind, accept=accept, remote=part == "transformer") for text in latents or (None,))
    where = named(out, recipe, "run")
    from hmcli.runtime import pick_device

    if part != "transformer":
        if memory is not None:
            raise UsageError(f"--memory has no effect with train.part={part}", fix="leave --memory out")
        if ranks > 1:
            raise UsageError(f"train.part={part} trains in one process", fix="leave --num-processes out")
        if resume_with:
            raise UsageError(f"--resume-with has no effect with train.part={part}", fix="train into another --out")
        from hmcli.stages.training import blocks, codec, segmenter

        by_part = {"codec": codec.run, "blocks": blocks.run, "segmenter": segmenter.run}
        return by_part[part](
            resolved, data=sources[0], out=where, force=force, prune=prune, device=pick_device(device),
            reporter=Console(), dry_run=dry_run,
        )  # fmt: skip
    from hmcli.stages.planning.effort import step_flop
    from hmcli.stages.training import train as stage
    from hmcli.stages.training.launching import in_ranks

    chosen = pick_device(device)
    work = partial(
        stage.run, resolved, latents=sources, memory=given(memory), out=where, force=force, prune=prune, device=chosen,
        reporter=Console(), resume_with=tuple(change.partition("=")[0].strip() for change in resume_with or ()),
        flop_of=step_flop,
    )  # fmt: skip
    return in_ranks(work, place, ranks, device=chosen, dry_run=dry_run, explain=explain)


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
    prompt: Annotated[str, typer.Option("--prompt", help="With a video: what it shows.")] = "",
    cameras: Annotated[
        str,
        typer.Option(
            "--cameras",
            metavar="PRESET|FILE",
            help="With a video: where its camera goes next (pan-right-return:40deg).",
        ),
    ] = "",
    frames: Annotated[
        int,
        typer.Option(
            "--frames", min=0, help="With a video: frames of the target, any number; 0: as many as the context."
        ),
    ] = 0,
    fov: Annotated[
        float, typer.Option("--fov", min=0, max=120, help="With a video: its horizontal field of view, degrees.")
    ] = 0.0,
    replay: Annotated[
        str,
        typer.Option(
            "--replay",
            metavar="ROW",
            help="Make the video of a row (GENERATION/generations.jsonl:LINE) again, bit for bit, as the file --out.",
        ),
    ] = "",
    profile: Annotated[bool, typer.Option("--profile", help="Say where time and memory went.")] = False,
    exported: Annotated[
        Path | None,
        typer.Option(
            "--exported", metavar="DIR", help="Graphs of the model (hm export) to run in onnxruntime; - reads stdin."
        ),
    ] = None,
    out: ArtifactOut = None,
    recipe: RecipeIn = None,
    override: Overrides = None,
    processes: Processes = 1,
    shard: ShardIn = None,
    on: OnIn = None,
    shards: ShardsIn = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Generate the targets of clips, or what comes after a video."""
    if replay:
        beside = {
            "--clips": clips, "--prompt": prompt, "--cameras": cameras, "--frames": frames, "--fov": fov,
            "--recipe": recipe, "--set": override, "--num-processes": processes > 1, "--shard": shard, "--on": on,
            "--shards": shards, "--prune": prune, "--profile": profile,
        }  # fmt: skip
        return _replay(replay, beside, source, model, memory, exported, out, device, force=force, dry_run=dry_run)
    if profile and on is not None:
        raise UsageError("--profile measures one process", fix="leave out --on, or --profile")
    asked = given(source)  # before anything else, so that a failed command before the pipe is what is reported
    memories, graphs = given_all(memory), given(exported)
    weights = _model_for(model, asked)
    base = recorded(weights)
    found = find_input(asked, "latents", "dataset", accept=made_with(base, "codec"))
    base.get("data", {}).pop("split", None)  # how the training clips were cut; a folder of clips is generated whole
    resolved = recipe_for("generate", recipe, override, readers.of_sampling(weights, found), base)
    from hmcli.stages.sampling import generate as stage
    from hmcli.stages.sampling import one_video

    where = named(out, found, "generation", shard=shard)
    wanted = one_video.Asked(prompt=prompt, cameras=cameras, frames=frames, degrees=fov)
    with contextlib.ExitStack() as after:
        if found.is_file():
            place = (
                Path(after.enter_context(TemporaryDirectory())) / "clip"
                if dry_run
                else where.with_name(f"{where.name}.clip")
            )
            resolved = one_video.with_length(resolved, found, wanted, Console())
            one_video.check_length(found, wanted, resolved, weights)
            found = one_video.as_folder(found, wanted, resolved.data, resolved.poses, place, Console())
        else:
            one_video.refuse_without_video(wanted, found)
        return carry_out(
            stage.run, Spread(shard, on, shards), recipe=resolved,
            source=found, model=weights, memory=memories, clips=tuple(clips or ()),
            out=where, force=force, prune=prune, device=device, processes=processes,
            dry_run=dry_run, exported=graphs, **({"profile": True} if profile else {}),
        )  # fmt: skip


def _model_for(model: Path | None, source: str | Path | None) -> Path:
    """The model as given, or the newest run here; for a video the packaged one where there is none, which is said."""
    try:
        return find_input(model, "run")
    except NothingFoundError:
        if source is None or not Path(source).is_file():
            raise
    Console().note("there is no run here: using the packaged model mini (--model names another)")
    return Path("mini")


def _replay(
    row: str, beside: Mapping[str, object], source: str | Path | None, model: Path | None, memory: list[Path] | None,
    exported: Path | None, out: Path | None, device: str, *, force: bool, dry_run: bool,
) -> StageResult:  # fmt: skip
    """A row says all but where things lie now."""
    if refused := [name for name, value in beside.items() if value]:
        raise UsageError(
            f"{', '.join(refused)}: a row that is replayed says that itself",
            fix="leave it out; to change something, generate anew",
        )
    from hmcli.runtime import pick_device
    from hmcli.stages.sampling import replay as stage

    places = stage.Places(
        latents=given(source), model=given(model), memory=given_all(memory), exported=given(exported),
        device="" if device == "auto" else pick_device(device),
    )  # fmt: skip
    return stage.run(row, places, out=out, force=force, reporter=Console(), dry_run=dry_run)


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
    processes: Processes = 1,
    shard: ShardIn = None,
    on: OnIn = None,
    shards: ShardsIn = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Score generated videos. Metrics: psnr, ssim, psnr-returned, subject-consistency, background-consistency."""
    source = find_input(generation, "generation")
    chosen = [f"eval.metrics={json.dumps(metric)}"] if metric else []
    resolved = recipe_for("eval", recipe, [*(override or []), *chosen], readers.of_scoring(source))
    from hmcli.stages.scoring import evaluate as stage

    return carry_out(
        stage.run, Spread(shard, on, shards), recipe=resolved,
        generation=source, reference=given(reference), metrics=resolved.eval.metrics,
        out=named(out, source, "evaluation", shard=shard), force=force, prune=prune, device=device, processes=processes,
        dry_run=dry_run,
    )  # fmt: skip


command(app, "eval")(evaluate)
command(app, "evaluate", hidden=True)(evaluate)
