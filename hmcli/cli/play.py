"""`hm play`: walk through a generated world, on a local page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmcli.cli import readers
from hmcli.cli.app import app
from hmcli.cli.shared import (
    Device,
    DryRun,
    Force,
    ModelArgument,
    Overrides,
    command,
    find_input,
    given,
    named,
    recipe_for,
)
from hmcli.contracts import Description, StageResult
from hmcli.errors import UsageError
from hmcli.runtime import Console


@command(app, "play")
def play(
    model: ModelArgument,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]", help="Latents, folder of clips or a video to go on from; default: a clip is rendered."
        ),
    ] = None,
    clip: Annotated[str, typer.Option("--clip", help="Which of several clips; default: the first.")] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="With a video: what it shows.")] = "",
    fov: Annotated[
        float, typer.Option("--fov", min=0, max=120, help="With a video: its horizontal field of view, degrees.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of clips for saved walks; default: ./<model>.walks.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = 0,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="DIR", help="Write the page as a folder that runs in a browser alone."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option("--runtime", metavar="DIR", help="With --bundle: folder of the npm package onnxruntime-web."),
    ] = None,
    override: Overrides = None,
    device: Device = "auto",
    dry_run: DryRun = False,
    force: Force = False,
) -> StageResult | Description:
    """Walk through a generated world. A local page: steer the camera, see on a map what memory is read."""
    _refuse_idle(bundle, {"--out": out is not None, "--port": port != 0}, runtime=runtime is not None, force=force)
    weights = find_input(model, "run")
    begin = given(source)
    from hmcli.runtime import pick_device
    from hmcli.stages.models.folders import find_model
    from hmcli.stages.playing import opening
    from hmcli.stages.playing import play as stage

    start = opening.Start(source=begin, clip=clip, prompt=prompt, degrees=fov)
    base = opening.usual(find_model(weights), start)
    resolved = recipe_for("play", None, override, readers.of_playing(weights, begin), base)
    if bundle is not None:
        from hmcli.stages.playing import bundle as bundling

        return bundling.run(
            resolved, model=weights, start=start, out=bundle, runtime=runtime, device=device, force=force,
            reporter=Console(), dry_run=dry_run,
        )  # fmt: skip
    return stage.run(
        resolved, model=weights, start=start, out=named(out, weights, "walks"), port=port, device=pick_device(device),
        reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


def _refuse_idle(bundle: Path | None, served: dict[str, bool], *, runtime: bool, force: bool) -> None:
    """Raise UsageError for an option that has no effect: some are for a page that is served, some for a folder."""
    if bundle is None:
        idle = [name for name, given in (("--runtime", runtime), ("--force", force)) if given]
        why = "there is no folder without --bundle"
    else:
        idle, why = [name for name, given in served.items() if given], "nothing is served with --bundle"
    if idle:
        raise UsageError(f"{', '.join(idle)}: {why}", fix="leave it out")
