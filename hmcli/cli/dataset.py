"""`hm dataset`: tools for folders of clips, ours or the released data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hmcli.cli.readers import DATASET
from hmcli.cli.shared import Clips, DatasetIn, Device, Overrides, command, find_input, given, named, recipe_for
from hmcli.contracts import Description, StageResult
from hmcli.registry import normal
from hmcli.runtime import Console

dataset_app = typer.Typer(
    help="Clips: check, split, unpack, import, caption, show.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"token_normalize_func": normal},
)
FolderOut = Annotated[Path, typer.Option("--out", help="Folder to write.")]


@command(dataset_app, "check")
def check(data: DatasetIn = None, override: Overrides = None) -> Description:
    """Say what is missing, contradictory or unreadable. Finds events and the field of view too."""
    resolved = recipe_for("dataset check", None, override, DATASET)
    source = find_input(data, "dataset")
    from hmcli.stages.data import check as stage

    return stage.run(source, poses=resolved.poses, reporter=Console())


@command(dataset_app, "split")
def split(
    data: DatasetIn = None,
    test: Annotated[float, typer.Option("--test", help="Share of the test part.")] = 0.1,
    by: Annotated[
        Literal["clip", "scene", "subjects"],
        typer.Option("--by", help="What stays together: scene and subjects hold out whole families."),
    ] = "clip",
    seed: Annotated[int, typer.Option("--seed", help="Another seed, another split.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: ./<input stem>.split.")] = None,
    override: Overrides = None,
) -> StageResult:
    """Divide a folder of clips into train/ and test/, folders of links. The same clips always go the same way."""
    resolved = recipe_for("dataset split", None, override, DATASET)
    source = find_input(data, "dataset")
    from hmcli.stages.data import split as stage

    return stage.run(
        source, test=test, by=by, seed=seed, out=named(out, source, "split"), poses=resolved.poses, reporter=Console()
    )


@command(dataset_app, "unpack")
def unpack(
    archives: Annotated[
        list[Path], typer.Argument(metavar="ARCHIVE...", help="Tar or zip files, their parts, or folders.")
    ],
    out: FolderOut,
) -> StageResult:
    """Unpack tar and zip archives, whole or in parts. Nothing leaves the folder; what is odd is left out by name."""
    from hmcli.stages.data import unpack as stage

    return stage.run(archives, out=out, reporter=Console())


@command(dataset_app, "import")
def import_(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="A video file.")],
    poses: Annotated[
        Path, typer.Option("--poses", help="COLMAP model folder, TUM trajectory, or nerfstudio transforms.json.")
    ],
    out: FolderOut,
    form: Annotated[
        Literal["auto", "colmap", "tum", "nerfstudio"], typer.Option("--form", help="Of the poses; auto looks.")
    ] = "auto",
    caption: Annotated[str, typer.Option("--caption", help="What the video shows.")] = "",
    name: Annotated[str, typer.Option("--id", help="The clip's id; default: the video's name.")] = "",
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Place fewer poses than frames by their times or image numbers.")
    ] = False,
    metres_per_unit: Annotated[float, typer.Option("--metres-per-unit", help="Length of the poses' unit.")] = 1.0,
) -> StageResult:
    """Make a clip of a real video and its camera poses. `hm encode` reads the folder."""
    from hmcli.stages.data import importing as stage

    return stage.run(
        video, poses=poses, form=form, caption=caption, name=name, interpolate=interpolate,
        metres_per_unit=metres_per_unit, out=out, reporter=Console(),
    )  # fmt: skip


@command(dataset_app, "caption")
def caption(
    captioner: Annotated[Path, typer.Option("--captioner", help="Folder of an image-text-to-text model.")],
    data: DatasetIn = None,
    override: Overrides = None,
    device: Device = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite captions that are there.")] = False,
) -> StageResult:
    """Have a model write the captions that clips lack. Run again to go on."""
    resolved = recipe_for("dataset caption", None, override, DATASET)
    source = find_input(data, "dataset")
    from hmcli.runtime import pick_device
    from hmcli.stages.data import captioning as stage

    return stage.run(
        source,
        captioner=given(captioner) or captioner,
        force=force,
        device=pick_device(device),
        poses=resolved.poses,
        reporter=Console(),
    )


@command(dataset_app, "show")
def show(
    data: DatasetIn = None,
    clips: Clips = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: ./<input stem>.gallery.")] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    override: Overrides = None,
) -> StageResult:
    """Make a gallery that plays the clips, and open it. One static page: timeline, contact sheet, view from above."""
    resolved = recipe_for("dataset show", None, override, DATASET)
    source = find_input(data, "dataset")
    from hmcli.stages.data import show as stage

    return stage.run(
        source, clips=tuple(clips or ()), out=named(out, source, "gallery"), open_browser=open_browser,
        poses=resolved.poses, reporter=Console(),
    )  # fmt: skip
