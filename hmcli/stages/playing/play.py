"""`hm play`: open what a walk starts from, show it on a page, until somebody ends it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hmcli.contracts import Description, Reporter, StageResult
from hmcli.recipe.sections import Recipe
from hmcli.runtime import Terminated
from hmcli.stages.models.folders import find_model
from hmcli.stages.playing import record
from hmcli.stages.playing.opening import Start, check, open_session
from hmcli.stages.playing.server import Server, check_packages
from hmcli.stages.sampling.job import check_settings
from hmcli.world.files.tables import DATASET


def run(
    recipe: Recipe, *, model: Path, start: Start, out: Path, port: int, device: str, reporter: Reporter,
    dry_run: bool = False,
) -> StageResult | Description:  # fmt: skip
    """Serve a walk; see `hm play --help`. The result is the folder of the walks that were saved, if any were."""
    check_packages()
    folder = find_model(model)
    check_settings(recipe.sample, folder, device)
    check(recipe, folder, start)
    record.check_out(out)
    if dry_run:
        sample, source = recipe.sample, start.source or f"a clip rendered from seed {recipe.seed}"
        reporter.note(f"would play {model} from {source}: chunks of {sample.chunk} frames, {sample.steps} steps each")
        return StageResult(path=out, kind=DATASET, details={"dry_run": True})
    with tempfile.TemporaryDirectory(prefix="hm-play-") as place:
        session = open_session(recipe, folder, start, Path(place), device, reporter)
        server = Server(session, out, name=str(model), port=port)
        reporter.note(f"open {server.address}")
        reporter.note("the walk goes on until Ctrl-C; what is not saved by then is gone")
        with contextlib.suppress(KeyboardInterrupt, Terminated):  # how it ends
            server.serve()
    if not server.saved:
        return Description(text="no walk was saved", data={"saved": []})
    return StageResult(path=out, kind=DATASET, counts={"clips": len(server.saved)})
