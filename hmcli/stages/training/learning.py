"""What training is made of: batches from a seed, what trains, the learning rate, the average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hmcli.errors import UsageError
from hmcli.recipe.sections import TrainConfig

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel


def batches(groups: list[list[str]], batch: int, seed: int) -> Iterator[list[str]]:
    """Endless batches of clip ids, each of one shape; every epoch shows every clip, in an order of its own.

    The last batch of a group in an epoch is filled up from the group's start.
    """
    epoch = 0
    while True:
        rng = np.random.default_rng((seed, epoch))
        order: list[list[str]] = []
        for ids in groups:
            shuffled = [ids[i] for i in rng.permutation(len(ids))]
            filled = shuffled + [shuffled[i % len(ids)] for i in range(-len(ids) % batch)]
            order += [filled[i : i + batch] for i in range(0, len(filled), batch)]
        for index in rng.permutation(len(order)):
            yield order[index]
        epoch += 1


SHARDS_AT_ONCE = 4  # whose clips are mixed


def batches_by_shard(groups: list[list[list[str]]], batch: int, seed: int) -> Iterator[list[str]]:
    """The same from groups of shards, read one after the other: shards are shuffled, then the clips of a few of them.

    Whoever keeps these few at hand reads every shard once an epoch. Groups take turns by chance.
    """
    epoch = 0
    while True:
        rng = np.random.default_rng((seed, epoch, 1))
        queues: list[list[list[str]]] = []
        for shards in groups:
            shuffled = [shards[i] for i in rng.permutation(len(shards))]
            order: list[str] = []
            for first in range(0, len(shuffled), SHARDS_AT_ONCE):
                near = [clip for shard in shuffled[first : first + SHARDS_AT_ONCE] for clip in shard]
                order += [near[i] for i in rng.permutation(len(near))]
            filled = order + [order[i % len(order)] for i in range(-len(order) % batch)]
            queues.append([filled[i : i + batch] for i in range(0, len(filled), batch)])
        turns = [number for number, queue in enumerate(queues) for _ in queue]
        waiting = [iter(queue) for queue in queues]
        for turn in rng.permutation(len(turns)):
            yield next(waiting[turns[turn]])
        epoch += 1


def freeze(model: torch.nn.Module, train: TrainConfig) -> list[torch.nn.Parameter]:
    """Leave only `train.train_only` trainable (parts of names; empty: all), and adapters; returns what trains.

    With adapters (`train.lora`) an empty `train_only` means nothing but them.
    """
    unused = [part for part in train.train_only if not any(part in name for name, _ in model.named_parameters())]
    if unused:
        raise UsageError(
            f"train.train_only names no parameter: {', '.join(unused)}",
            fix="use parts of names such as attn1, attn2, ffn, camera, projector, tokenizer (codec: encoder, decoder)",
        )
    for name, parameter in model.named_parameters():
        everything = not train.train_only and train.lora is None
        parameter.requires_grad_(everything or ".lora_" in name or any(part in name for part in train.train_only))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def learning_rate(train: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant or a cosine to zero at the last step."""
    if step < train.warmup:
        return train.lr * (step + 1) / train.warmup
    if train.decay == "constant":
        return train.lr
    share = (step - train.warmup) / max(1, train.steps - train.warmup)
    return train.lr * 0.5 * (1 + math.cos(math.pi * share))


def make_average(parameters: Iterable[torch.nn.Parameter], decay: float) -> EMAModel | None:
    """diffusers' exponential moving average of `parameters`; None for decay 0, where it would be the weights.

    Its decay is (1 + n) / (10 + n) at the n-th update, `decay` at most, so that early steps do not linger. Left to
    itself EMAModel copies the weights at its first update and counts from the second.
    """
    from diffusers.training_utils import EMAModel

    if not decay:
        return None
    kept = list(parameters)
    at_once = bool(kept) and kept[0].device.type == "cuda"  # few launches; rounds otherwise than one by one
    return EMAModel(kept, decay=decay, update_after_step=-1, foreach=at_once)
