"""`hm dataset unpack`: tar and zip archives, whole or in parts, into a folder of clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError
from hmcli.store.archive_target import KEPT, WRITTEN
from hmcli.store.archives import find_archives, unpack
from hmcli.store.lock import ArtifactLock, writing_output


def run(paths: Sequence[Path], *, out: Path, reporter: Reporter) -> StageResult:
    """Unpack all archives into `out`; see `hm dataset unpack --help`.

    What is refused is named in the result; a damaged archive ends the command, and the same again keeps what is whole.
    """
    archives = find_archives(paths)
    if not archives:
        raise DataError("no archives here", where={"looked in": ", ".join(map(str, paths))})
    counts = {WRITTEN: 0, KEPT: 0}
    refused = []
    with ArtifactLock(out), writing_output(out), reporter.progress("unpacking", len(archives), "archive") as advance:
        for archive in archives:
            for member in unpack(archive, out):
                if member.state in counts:
                    counts[member.state] += 1
                else:
                    refused.append(Quarantined(item=member.member, reason=member.state))
                    reporter.warn(f"{member.member} is not unpacked: {member.state}")
            advance(1)
    reporter.note(f"{counts[WRITTEN]} files written, {counts[KEPT]} were there")
    return StageResult(path=out, kind="folder", counts=counts, quarantined=tuple(refused))
