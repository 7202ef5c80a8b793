"""Who is missed: the subjects of clips that have no video to be judged.

A missing clip is counted once per metric; but clips differ in how many subjects they have and how often these come
back, so what is missing of the question itself is counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hmcli.errors import DataError
from hmcli.stages.data.opening import ClipSource, own_file
from hmcli.stages.data.subjects import subject_tracks
from hmcli.stages.scoring.plan import Plan
from hmcli.store.files import read_json
from hmcli.world.files.layout import STATES
from hmcli.world.files.schema import parse_states


def missed_table(plan: Plan) -> Iterator[dict[str, Any]]:
    """One row per subject of a clip without a video that fits: how often it should come back, and why it does not.

    Clips of a reference without subjects have none. A clip whose subjects cannot be read has one row without a name.
    """
    reasons = {row["item"]: " ".join(row["reason"].split()) for row in plan.generated.manifest.quarantined}
    for clip in plan.clips:
        source = plan.sources.get(clip)
        if clip in plan.generated.rows or source is None or own_file(source, STATES) is None:
            continue
        try:
            yield from _subjects(plan, source, reasons[clip])
        except DataError as error:
            reason = f"{reasons[clip]}; its subjects are not known: {error.what}"
            yield {"clip": clip, "subject": "", "family": "", "returns": "", "reason": reason}


def _subjects(plan: Plan, source: ClipSource, reason: str) -> Iterator[dict[str, Any]]:
    file = own_file(source, STATES)
    assert file is not None
    tracks = subject_tracks(source, parse_states(read_json(file)), plan.generated.data)
    for subject in tracks.subjects:
        returns = sum(of.certified and of.back is not None for of in subject.stretches)
        yield {"clip": source.id, "subject": subject.name, "family": subject.family, "returns": returns,
               "reason": reason}  # fmt: skip


def told(rows: list[dict[str, Any]]) -> str:
    """How many are missed, in words."""
    returns = sum(int(row["returns"] or 0) for row in rows)
    clips = len({row["clip"] for row in rows})
    return f"{len(rows)} subjects of {clips} clips without a video that fits are missed, and {returns} re-entries"
