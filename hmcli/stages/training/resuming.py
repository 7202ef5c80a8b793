"""`hm train --resume-with train.lr=...`: a run goes on from its last checkpoint under another rate or schedule.

Weights, moments, average and data position are the checkpoint's; what changed, and from which step, is recorded in
every checkpoint after it and in the run. Its recipe alone no longer makes such a run, so its key holds that too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hmcli.errors import UsageError
from hmcli.stages.models.layout import CheckpointAbout, MadeFrom, Resumed
from hmcli.stages.shared.typed import from_json, to_json
from hmcli.stages.training.runs import LENGTH, differences, in_words, made_from
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked
from hmcli.store.hashing import hash_json

SCHEDULE = ("train.lr", "train.warmup", "train.decay", "train.steps")  # what may change when a run goes on


@dataclass(frozen=True, kw_only=True)
class GoingOn:
    """How a run goes on: under which key, after which changes, and from where."""

    key: str
    resumed: tuple[Resumed, ...] = ()
    step: int = 0
    folder: Path | None = None  # of the checkpoint


def go_on_with(writer: ArtifactWriter, key: str, given: Collection[str]) -> GoingOn:
    """Go on from the newest whole checkpoint in the run, where nothing differs from it but what is `given`.

    `key` is that of the recipe with the changes. Raises UsageError where something else differs, there is no checkpoint
    or none is to go on from.
    """
    if unknown := sorted(set(given) - set(SCHEDULE)):
        raise UsageError(
            f"--resume-with changes a learning rate or schedule, not {', '.join(unknown)}",
            fix=f"it takes {', '.join(SCHEDULE)}; anything else makes another run: choose another --out",
        )
    for item in sorted(writer.items, reverse=True):
        record = writer.items[item]
        if not writer.kept(item, record["key"]):
            continue
        about = from_json(CheckpointAbout, record["meta"], "a checkpoint's record", run=writer.path)
        changed = _changed(about.made_from, made_from(writer), given, writer)
        before = about.resumed or ()
        writer.ask(Asked(keys={}, helps=lambda item: True, seeded=False))  # older checkpoints go when this is whole
        if not changed:
            return GoingOn(key=record["key"], resumed=before, step=int(item), folder=writer.place(item))
        resumed = (*before, Resumed(step=int(item), changed=changed))
        key = hash_json({"recipe": key, "resumed": [to_json(one) for one in resumed]})
        return GoingOn(key=key, resumed=resumed, step=int(item), folder=writer.place(item))
    raise UsageError(
        "--resume-with goes on with a run, but there is no checkpoint to go on from", where={"run": writer.path},
        fix="to start with these values give them with --set",
    )  # fmt: skip


def _changed(then: MadeFrom | None, now: MadeFrom, given: Collection[str], writer: ArtifactWriter) -> dict[str, str]:
    """Which of the given keys differ from those of a checkpoint, in words."""
    if then is None:
        raise UsageError(
            "this run was made by an older hm and does not say what it was made from", where={"run": writer.path},
            fix="train on from its weights into another --out: --set model.base=RUN",
        )  # fmt: skip
    found = differences(then, now)
    scheduled = {of.recipe["train"]["decay"] for of in (then, now)} != {"constant"}
    free = LENGTH if not scheduled else tuple(name for name in LENGTH if name != "train.steps")
    counts = {name: change for name, change in found.items() if name not in free}
    if other := {name: change for name, change in counts.items() if name not in given}:
        raise UsageError(
            f"the run was made otherwise than --resume-with says: {', '.join(other)}",
            where={"run": writer.path, **in_words(other)},
            fix=f"give {', '.join(other)} as then, or, of {', '.join(SCHEDULE)}, with --resume-with",
        )
    return in_words(counts)
