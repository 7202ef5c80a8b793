"""What a run asks for, held against what an artifact holds: what is kept, replaced, new, and what would go.

The rule (docs/artifacts.md): an item that is still asked for is replaced once its successor is whole; one that is no
longer asked for goes only with --prune.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmcli.errors import UsageError
from hmcli.store.records import Record


def some(items: Sequence[str], most: int = 5) -> str:
    """The first ones, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _none(item: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The items that the finished artifact is to hold."""

    keys: Mapping[str, str]  # item -> the key under which what is there may stay
    unread: frozenset[str] = frozenset()  # asked for too, but their source cannot be read now, so they have no key
    helps: Callable[[str], bool] = _none  # is it an item of which others are made, and that goes with them (a caption)?
    seeded: bool = True  # does what is made depend on the seed?

    def __contains__(self, item: str) -> bool:
        return item in self.keys or item in self.unread


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a run would do with the items of an artifact, as far as keys tell: nothing is hashed."""

    kept: tuple[str, ...]
    replaced: tuple[str, ...]
    new: tuple[str, ...]
    unread: tuple[str, ...]  # they stay if they may
    gone: tuple[str, ...]  # held, but not asked for

    def __str__(self) -> str:
        parts = {
            "kept": self.kept, "replaced": self.replaced, "new": self.new,
            "whose source cannot be read now": self.unread, "go": self.gone,
        }  # fmt: skip
        said = [f"{len(items)} {what}" for what, items in parts.items() if items]
        return ", ".join(said) + (f" ({some(self.gone)})" if self.gone else "")


def outlook(records: Mapping[str, Record], asked: Asked, *, force: bool) -> Outlook:
    """Compare keys. `force` replaces everything that has a source."""
    there = [item for item in asked.keys if item in records]
    same = {item for item in there if records[item]["key"] == asked.keys[item] and not force}
    return Outlook(
        kept=tuple(item for item in records if item in same),
        replaced=tuple(item for item in there if item not in same),
        new=tuple(item for item in asked.keys if item not in records),
        unread=tuple(item for item in records if item in asked.unread),
        gone=tuple(item for item in records if item not in asked and not asked.helps(item)),
    )


def refuse_loss(out: Path, found: Outlook, asked: Asked, seeds: tuple[int | None, int]) -> None:
    """Raise UsageError when finished items would go: fewer are asked for, or `seeds` (made with, asked for) differ."""
    made, wanted = seeds
    other_seed = asked.seeded and made is not None and made != wanted
    going = [*found.gone, *(found.replaced if other_seed else ())]
    if not going:
        return
    what = f"{len(going)} finished items would go: " + (
        f"they were made from seed {made}, asked for is seed {wanted}" if other_seed else "they are not asked for"
    )
    where = {"out": out, "would go": some(going), "asked for": f"{len(asked.keys) + len(asked.unread)} items"}
    raise UsageError(
        what, where=where, fix="--prune lets them go; to keep them ask for them too, or give another --out"
    )
