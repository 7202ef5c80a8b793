"""What to change when a step does not fit: settings of the recipe, tried one after the other until it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hmcli.recipe.sections import LoraConfig, Recipe


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change of the recipe, and the peak that is left of a step with it and all before it."""

    change: str  # as --set takes it
    peak: float  # bytes
    fits: bool


def remedies(recipe: Recipe, room: float, peak_of: Callable[[Recipe], float]) -> list[Remedy]:
    """Changes that together make a step fit into `room` bytes, or as many as there are; those without use are left out.

    The result of training changes least with the first ones.
    """
    found: list[Remedy] = []
    peak = peak_of(recipe)
    for change, changed in _changes(recipe):
        tried = changed(recipe)
        if tried == recipe or (left := peak_of(tried)) >= 0.99 * peak:
            continue
        recipe, peak = tried, left
        found.append(Remedy(change=change, peak=peak, fits=peak <= room))
        if peak <= room:
            break
    return found


def _changes(recipe: Recipe) -> Iterator[tuple[str, Callable[[Recipe], Recipe]]]:
    yield "train.parallel=fsdp", lambda r: _train(r, parallel="fsdp")
    yield "train.gradient_checkpointing=true", lambda r: _train(r, gradient_checkpointing=True)
    yield "train.offload=true", lambda r: _train(r, offload=r.train.parallel == "fsdp")
    yield "train.dtype=bfloat16", lambda r: _train(r, dtype="bfloat16")
    yield "train.draws=1", lambda r: _train(r, draws=1)
    pieces = recipe.train.accumulate
    while (pieces := 2 * pieces) <= recipe.train.batch:
        yield f"train.accumulate={pieces}", lambda r, pieces=pieces: _train(r, accumulate=pieces)  # type: ignore[misc]
    if recipe.train.optimizer == "adamw":
        yield "train.optimizer=adamw8bit", lambda r: _train(r, optimizer=_of_whole(r))
    yield "train.ema=0", lambda r: _train(r, ema=0.0)
    if recipe.train.lora is None:
        yield "train.lora={rank: 16}", lambda r: _train(r, lora=LoraConfig(), train_only=())


def _of_whole(r: Recipe) -> str:
    """The optimizer with moments in 8 bits, where it is not divided among ranks."""
    return "adamw" if r.train.parallel == "fsdp" else "adamw8bit"


def _train(recipe: Recipe, **changes: Any) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **changes))
