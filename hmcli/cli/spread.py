"""`--shard`, `--on` and `--shards`: which part of its work a command does, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hmcli.contracts import StageResult
from hmcli.errors import UsageError
from hmcli.runtime import Console

ShardIn = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Make part I of N alone (0/N is the first); hm merge joins."),
]
OnIn = Annotated[
    Literal["ray"] | None,
    typer.Option("--on", help="Make the parts as tasks of a Ray cluster (RAY_ADDRESS, or here), and join them."),
]
ShardsIn = Annotated[int | None, typer.Option("--shards", min=1, help="With --on: how many parts.")]


@dataclass(frozen=True)
class Spread:
    """The three options as they were given."""

    shard: str | None
    on: str | None
    shards: int | None


def carry_out(
    stage: Callable[..., StageResult], spread: Spread, *, out: Path, device: str, processes: int, **arguments: Any
) -> StageResult:
    """Run a stage as a whole, as one part, or as parts on a cluster. Raises UsageError for options without effect."""
    if spread.on is None and spread.shards is not None:
        raise UsageError("--shards has no effect without --on", fix="give --on ray too, or --shard i/n for one part")
    if spread.on is not None and (spread.shard is not None or spread.shards is None):
        fix = "--on ray --shards N makes N parts, and joins them"
        raise UsageError("--on makes all parts: it needs --shards, and no --shard", fix=fix)
    common = {"out": out, "processes": processes, "reporter": Console(), **arguments}
    if spread.shards is not None:
        from hmcli.stages.parts import on_ray

        return on_ray.run(stage, shards=spread.shards, device=device, **common)
    from hmcli.runtime import pick_device
    from hmcli.stages.shared.shards import parse_shard

    shard = None if spread.shard is None else parse_shard(spread.shard)
    return stage(shard=shard, device=pick_device(device), **common)
