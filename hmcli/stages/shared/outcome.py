"""How a stage begins and ends: may it write there; what is done; an error when nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmcli.contracts import Quarantined, Reporter, StageResult
from hmcli.errors import DataError
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked
from hmcli.store.manifest import Manifest, is_artifact
from hmcli.store.parts import Part

_SHOWN = 5


def planned(
    out: Path,
    kind: str,
    plan: str,
    reporter: Reporter,
    *,
    look: Asked | Callable[[ArtifactWriter], None] = Asked(keys={}),
    seed: int = 0,
    force: bool = False,
    prune: bool = False,
    counts: Mapping[str, int] | None = None,
    quarantined: tuple[Quarantined, ...] = (),
    part: Part | None = None,
    **details: Any,
) -> StageResult:
    """The result of a dry run: `plan` is said, and what would become of the items that `out` holds; nothing is written.

    `finished` among its details: is `out` complete, with all that is asked for and nothing else? Raises what would keep
    a stage from writing `out`: something else there, another writer, items that would go, or what `look` raises where
    it is no Asked.
    """
    reporter.note(f"{'' if part is None else f'part {part.index} of {part.of}: '}{plan}, into {out}")
    finished = False
    if out.exists():
        with ArtifactWriter(
            out, kind, recipe={}, inputs={}, seed=seed, reporter=reporter, force=force, prune=prune
        ) as writer:
            if not isinstance(look, Asked):
                look(writer)
            elif said := str(found := writer.ask(look)):
                reporter.note(f"there already: {said}")
                finished = is_artifact(out) and not (found.new or found.replaced or found.gone)
    about = {"dry_run": True, "finished": finished, **details}
    return StageResult(path=out, kind=kind, counts=counts or {}, quarantined=quarantined, details=about)


def result_of(writer: ArtifactWriter, manifest: Manifest, **details: Any) -> StageResult:
    """What a stage returns of the artifact it has just finished."""
    return StageResult(
        path=writer.path, kind=manifest.kind, fingerprint=manifest.fingerprint, counts=manifest.counts,
        quarantined=writer.quarantined, details=details,
    )  # fmt: skip


def stay_unread(
    writer: ArtifactWriter,
    left_out: Iterable[Quarantined],
    done: Sequence[str],
    items_of: Callable[[str], list[str]] = lambda item: [item],
) -> list[str]:
    """The items that are done, and those that stay though their source cannot be read now; all of these are listed.

    `items_of` says what is made of a source, where that is more than one item of its name.
    """
    stay = [left.item for left in left_out if writer.quarantine(left.item, left.reason, items_of(left.item))]
    return [*done, *(item for item in stay if item not in done)]


def require_some(done: Sequence[str], left_out: Sequence[Quarantined], source: Path, part: Part | None = None) -> None:
    """Raise DataError, with the first reasons, when not one item could be used; nothing is completed then.

    A part may hold nothing but what it left out: the other parts hold the rest of the whole.
    """
    if done or part is not None:
        return
    reasons = {item.item: item.reason.splitlines()[0] for item in left_out[:_SHOWN]}
    raise DataError(f"none of the {len(left_out)} clips could be used", where={"input": source, **reasons})
