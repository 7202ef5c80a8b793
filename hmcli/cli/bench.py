"""`hm bench`: frozen benchmarks: what they fix, whether clips are theirs, and the file that scores are published in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmcli.cli.shared import DatasetIn, DryRun, Force, Processes, Prune, command, find_input, given_all, named
from hmcli.contracts import Description, StageResult
from hmcli.registry import normal
from hmcli.runtime import Console

DEFAULT = "hm-bench-2"  # what is meant where no benchmark is named
bench_app = typer.Typer(
    help="Benchmarks: ls, show, rows, verify, score, check. hm-bench-2 is the one; hm-bench-1 is retired.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"token_normalize_func": normal},
)
Benchmark = Annotated[str, typer.Option("--benchmark", help="A packaged benchmark (hm bench ls), or a JSON file.")]


@command(bench_app, "ls")
def ls() -> Description:
    """List the packaged benchmarks."""
    from hmcli.stages.bench import card

    return card.names()


@command(bench_app, "show")
def show(
    name: Annotated[str, typer.Argument(help="A packaged benchmark, or a JSON file.")] = DEFAULT,
) -> Description:
    """Print the protocol card. Splits, seeds, rules, scores that need no model, tolerances."""
    from hmcli.stages.bench import card

    return card.card(name)


@command(bench_app, "rows")
def rows(
    data: DatasetIn = None,
    row: Annotated[
        list[str] | None,
        typer.Option("--row", help="A row (may be given several times); default: all that the clips have files for."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of one generation per row; default: ./<input stem>.rows.")
    ] = None,
    processes: Processes = 1,
    dry_run: DryRun = False,
    force: Force = False,
    prune: Prune = False,
) -> StageResult:
    """Write videos that need no model. Rows: last-frame, nearest-view, warp, depth-warp, paste, erased, frozen."""
    source = find_input(data, "dataset")
    from hmcli.stages.bench import rows as stage

    return stage.run(
        source, out=named(out, source, "rows"), rows=tuple(row or ()), force=force, prune=prune, processes=processes,
        reporter=Console(), dry_run=dry_run,
    )  # fmt: skip


@command(bench_app, "verify")
def verify(
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Folders of clips; - reads one from stdin.")],
    benchmark: Benchmark = DEFAULT,
) -> Description:
    """Say whether clips are the benchmark's. Names what is missing, foreign or different, and ends with 4 then."""
    from hmcli.stages.bench import verify as stage

    return stage.run(given_all(data), benchmark=benchmark, reporter=Console())


@command(bench_app, "score")
def score(
    evaluations: Annotated[
        list[Path],
        typer.Argument(metavar="EVALUATION...", help="Of one model, on the benchmark's clips; - reads stdin."),
    ],
    name: Annotated[str, typer.Option("--name", help="What the model is called.")],
    training_data: Annotated[
        str, typer.Option("--training-data", help="What it was trained on, and never saw the held-out families in.")
    ] = "not said",
    hardware: Annotated[str, typer.Option("--hardware", help="What it was sampled on.")] = "",
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="Folder of the clips, where it is not where the generation found it."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("scores.json"),
    benchmark: Benchmark = DEFAULT,
    force: Force = False,
) -> StageResult:
    """Make the score file of a model, to be published. Means, 95 % intervals, a row per clip; what failed is named."""
    from hmcli.stages.bench import score as stage

    return stage.run(
        given_all(evaluations), data=tuple(data or ()), benchmark=benchmark, name=name, training_data=training_data,
        hardware=hardware, out=out, force=force, reporter=Console(),
    )  # fmt: skip


@command(bench_app, "check")
def check(
    scores: Annotated[Path, typer.Argument(help="A score file.")],
    benchmark: Annotated[str, typer.Option("--benchmark", help="Default: the one the file names.")] = "",
) -> Description:
    """Check a score file. Its form, its benchmark, and that every number follows from its rows; 4 when incomplete."""
    from hmcli.stages.bench import score_file

    return score_file.check(scores, benchmark=benchmark)
