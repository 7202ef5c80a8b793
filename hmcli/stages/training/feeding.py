"""Which clips a training sees, and how they get there: read by each rank for itself, ahead of their step.

What a step sees follows from seed and step alone. How many ranks there are, and what was read before, changes nothing.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hmcli.errors import UsageError
from hmcli.recipe.sections import TrainConfig
from hmcli.stages.latents.view import LatentClip, LatentsView
from hmcli.stages.training.learning import batches, batches_by_shard
from hmcli.stages.training.trainer import Resident

if TYPE_CHECKING:
    from hmcli.stages.training.trainer import Prepared, Training

STEPS_AHEAD = 8  # batches prepared while the device works
STEPS_AHEAD_ON_CPU = 2  # and while this processor does, which threads that prepare would take from
CACHE_BYTES = 2 << 30  # clips stay in memory when all of them together stay below


def order_of(view: LatentsView, aside: Collection[str], train: TrainConfig, seed: int) -> Iterator[list[str]]:
    """Endless batches of clip ids, all but those put `aside`, as `train.shuffle` says."""
    left_out = set(aside)
    groups = [[clip for clip in group.ids if clip not in left_out] for group in view.groups if group.shape.has_target]
    groups = [group for group in groups if group]
    if train.shuffle == "clips":
        return batches(groups, train.batch, seed)
    shards = [[list(of) for _, of in itertools.groupby(group, view.shards.__getitem__)] for group in groups]
    return batches_by_shard(shards, train.batch, seed)


def held_out(clips: list[str], train: TrainConfig) -> list[str]:
    """The clips that are not trained on."""
    if train.held_out >= len(clips):
        raise UsageError(
            f"train.held_out={train.held_out} leaves none of {len(clips)} clips to train on", fix="lower train.held_out"
        )
    return clips[len(clips) - train.held_out :]


class Feed:
    """Prepares batches for one rank, which reads its own clips alone."""

    def __init__(self, training: Training, clips: list[str]) -> None:
        self.training, self.view = training, training.view
        nbytes = self.view.clip(clips[0]).latents.nbytes * len(clips)
        self._keeps = nbytes <= CACHE_BYTES
        training.resident = Resident.on(training.device, nbytes) if self._keeps else None
        self._kept: dict[str, LatentClip] = {}
        on_cpu = 0 if self._keeps and not self.view.distant else STEPS_AHEAD_ON_CPU
        self.ahead = on_cpu if training.device == "cpu" else STEPS_AHEAD

    def prepare(self, step: int, chosen: list[str]) -> Prepared:
        """This rank's share of the batch of these clips. Several threads may ask at once."""
        own = self.training.own(chosen)
        return self.training.prepare(step, [self._read(clip) for clip in chosen[own]], of=(chosen, own.start))

    def _read(self, clip: str) -> LatentClip:
        if (known := self._kept.get(clip)) is not None:
            return known
        read = self.view.clip(clip)
        if self._keeps:
            self._kept[clip] = read
        return read


def prepared_ahead(
    prepare: Callable[[int, list[str]], Prepared], jobs: Iterable[tuple[int, list[str]]], ahead: int
) -> Iterator[Prepared]:
    """Batches in order; the next `ahead` of them are made by threads meanwhile, for a device that would wait."""
    if not ahead:
        yield from (prepare(*job) for job in jobs)
        return
    remaining = iter(jobs)
    with ThreadPoolExecutor(ahead) as pool:
        waiting = deque(pool.submit(prepare, *job) for job in itertools.islice(remaining, ahead))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(prepare, *job) for job in itertools.islice(remaining, 1))
            yield ready
