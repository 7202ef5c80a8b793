"""Several latents artifacts read as one: what a training sees of them is a longer list of clips.

A clip is named `<artifact>/<clip>`, by the artifact's folder without suffix; where two folders are called alike, by
its number as given (1, 2, ...). Clips of one shape are one group, wherever they lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hmcli.contracts import Quarantined
from hmcli.errors import DataError, UsageError
from hmcli.stages.latents.layout import KIND, ClipAbout, Group
from hmcli.stages.latents.view import LatentClip, LatentsView, open_latents
from hmcli.store.hashing import hash_json

_ALIKE = ("codec", "text")  # inputs, and sections of the recipe, that all have in common


class LatentsStores(LatentsView):
    """Several opened latents artifacts. What is said of all of them is said by the first."""

    def __init__(self, views: Sequence[LatentsView]) -> None:
        first = views[0]
        self.path, self.manifest, self.attributes = first.path, first.manifest, first.attributes
        self._readers = {}
        self.views = dict(zip(_names(views), views, strict=True))
        for view in views[1:]:
            _refuse_unlike(first, view)
        self._places = {f"{name}/{clip}": (name, clip) for name, view in self.views.items() for clip in view.where}
        merged: dict[str, Group] = {}
        for name, view in self.views.items():
            for group in view.groups:
                ids = tuple(f"{name}/{clip}" for clip in group.ids)
                known = merged.get(group.name)
                merged[group.name] = replace(group, ids=ids if known is None else (*known.ids, *ids))
        self.groups = tuple(merged.values())

    @property
    def fingerprint(self) -> str:
        return hash_json([view.fingerprint for view in self.views.values()])

    @property
    def inputs(self) -> dict[str, str]:
        return {f"{KIND} {number}": view.fingerprint for number, view in enumerate(self.views.values(), 1)}

    @cached_property
    def shards(self) -> dict[str, tuple[str, int]]:
        return {
            f"{name}/{clip}": (f"{name}/{group}", shard)
            for name, view in self.views.items()
            for clip, (group, shard) in view.shards.items()
        }

    @property
    def distant(self) -> bool:
        return any(view.distant for view in self.views.values())

    def clip(self, clip: str) -> LatentClip:
        view, own = self._of(clip)
        return replace(view.clip(own), id=clip)

    def about(self, clip: str) -> ClipAbout:
        view, own = self._of(clip)
        return view.about(own)

    def latents_hash(self, clip: str) -> str:
        view, own = self._of(clip)
        return view.latents_hash(own)

    def subjects(self, clip: str) -> dict[str, np.ndarray]:
        view, own = self._of(clip)
        return view.subjects(own)

    def text(self, index: int) -> np.ndarray:
        """The empty caption's embedding; others are numbered differently in each artifact."""
        if index:
            raise ValueError(f"row {index} of text: of which artifact?")
        return next(iter(self.views.values())).text(0)

    @property
    def left_out(self) -> tuple[Quarantined, ...]:
        return tuple(
            Quarantined(item=f"{name}/{left.item}", reason=left.reason)
            for name, view in self.views.items()
            for left in view.left_out
        )

    def _of(self, clip: str) -> tuple[LatentsView, str]:
        name, own = self._places[clip]
        return self.views[name], own


def open_stores(paths: Path | Sequence[Path]) -> LatentsView:
    """Open one latents artifact or several. Raises UsageError where they do not go together."""
    views = [open_latents(path) for path in ([paths] if isinstance(paths, Path) else paths)]
    seen: dict[str, Path] = {}
    for view in views:
        if (before := seen.setdefault(view.fingerprint, view.path)) is not view.path:
            raise UsageError(
                "the same latents are given twice", where={"latents": before, "and": view.path},
                fix="leave one --latents out",
            )  # fmt: skip
    return views[0] if len(views) == 1 else LatentsStores(views)


def _names(views: Sequence[LatentsView]) -> list[str]:
    stems = [view.name for view in views]
    return stems if len(set(stems)) == len(stems) else [str(number) for number in range(1, len(stems) + 1)]


def _refuse_unlike(first: LatentsView, other: LatentsView) -> None:
    """Raise where one model could not be trained on both."""
    of_both = [
        {
            **{f"weights of the {name}": view.manifest.inputs[name] for name in _ALIKE},
            **{name: view.manifest.recipe[name]["name"] for name in _ALIKE},
            "channels": view.channels, "size": view.size, "stride": view.attributes.stride, "text": view.text_shape,
        }
        for view in (first, other)
    ]  # fmt: skip
    for what, of_first in of_both[0].items():
        if of_both[1][what] != of_first:
            raise DataError(
                f"the latents do not go together: {what} {of_first} of one, {of_both[1][what]} of the other",
                where={"latents": first.path, "and": other.path},
                fix="encode both with the same recipe, or train on one of them",
            )
