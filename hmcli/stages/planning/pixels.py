"""What trainings on videos take: a VAE, the segmenter, the linear code of blocks (`train.part`).

Their steps are rehearsed as a transformer's are (hmcli.stages.planning.rehearsal). Beside them lie the videos: a VAE
and the segmenter keep all clips in memory, the code reads one after the other and keeps their starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hmcli.codecs.block_fit import BlockMoments
from hmcli.codecs.blocks import LinearBlocks
from hmcli.codecs.mini_vae import new_mini_vae
from hmcli.codecs.training import loss_of, picture_steps, plan_batch
from hmcli.metrics.detectors.learning import segmenter_loss
from hmcli.metrics.detectors.unet import new_subject_net
from hmcli.recipe.sections import Recipe
from hmcli.stages.planning.ledger import Ledger
from hmcli.stages.planning.rehearsal import (
    ACTIVATIONS,
    BATCH,
    FORWARD,
    WEIGHTS,
    Account,
    Changed,
    count_backward,
    give_memory,
    opened,
    optimizers_of,
    take,
)
from hmcli.stages.planning.shapes import ClipShape, vae_config
from hmcli.stages.planning.weightless import Making
from hmcli.stages.training.footage import AHEAD, SCORE_FRAMES
from hmcli.stages.training.learning import freeze, make_average
from hmcli.stages.training.muon import VAE_RATE, is_inner_kernel
from hmcli.stages.training.segmenter import KERNEL_RATE
from hmcli.stages.training.segmenter import is_inner_kernel as is_inner_of_segmenter

_PIXEL = 4  # bytes in memory: three colours, and which subject it shows
_HALF = 2  # bytes of an exported weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """Steps of one kind."""

    steps: int
    account: Account  # of one step

    @property
    def flop(self) -> float:
        return self.steps * self.account.flop


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelAccount:
    """What a training on videos takes, of the clips that a recipe renders."""

    step: Account  # of the kind of step with the highest peak
    phases: tuple[Phase, ...]  # of the code: one "step" for each clip
    videos: float  # bytes of clips in memory
    checkpoint: float  # bytes; 0 where there are none
    exported: float  # bytes of what the training is for


@dataclasses.dataclass(kw_only=True)
class Rehearsed(Changed):
    """A network, and how the loss of one step is computed."""

    given: tuple[Tensor, ...]
    loss: Callable[[], Tensor]


def pixel_account(recipe: Recipe, shape: ClipShape, *, on_cpu: bool) -> PixelAccount:
    """Of `train.part` codec, segmenter or blocks."""
    if recipe.train.part == "blocks":
        return _of_blocks(recipe, shape)
    phases = tuple(
        Phase(steps=steps, account=_step_of(_what_counts(recipe), shape.pixels, first, on_cpu))
        for steps, first in kinds_of_steps(recipe)
    )
    step = max((phase.account for phase in phases), key=lambda account: account.peak)
    trained = step.trained * 4 + step.optimizer + step.average
    return PixelAccount(
        step=step, phases=phases, checkpoint=trained, exported=_HALF * step.parameters,
        videos=_PIXEL * shape.pixels[0] * shape.pixels[1] * sum(shape.video_frames) * shape.clips,
    )  # fmt: skip


def kinds_of_steps(recipe: Recipe) -> list[tuple[int, int]]:
    """How many there are of a kind, and which is the first: of a new VAE single frames, then clips."""
    train = recipe.train
    pictures = picture_steps(train, fresh=not recipe.codec.path) if train.part == "codec" else 0
    counts = [(pictures, 0), (train.steps - pictures, pictures)]
    return [(count, first) for count, first in counts if count]


def _what_counts(recipe: Recipe) -> Recipe:
    """Without what accounts do not depend on; the number of steps says which are of single frames."""
    return Recipe(codec=recipe.codec, train=dataclasses.replace(recipe.train, lr=1.0, checkpoint_every=1, keep=1))


@lru_cache(maxsize=64)
def _step_of(recipe: Recipe, size: tuple[int, int], number: int, on_cpu: bool) -> Account:
    """Count step `number` on tensors without memory."""
    stage = rehearsed(recipe, size, number, on_cpu=on_cpu, weightless=True)
    ledger = opened(stage, stage.given)
    with ledger:
        ledger.label = FORWARD
        ledger.restart_peak()
        loss = stage.loss()
        forward = Account(activations=ledger.live[FORWARD], forward=ledger.peak, flop=ledger.flop)
        step = count_backward(recipe.train.clip_norm, stage, ledger, loss, forward)
    return dataclasses.replace(step, forward=step.forward + step.gradients)  # those of the step before are still there


def rehearsed(
    recipe: Recipe, size: tuple[int, int], number: int, *, on_cpu: bool, weightless: bool = False
) -> Rehearsed:
    """Network, optimizers and the batch of step `number` as training has them; without memory where it is not taken."""
    train = recipe.train
    if train.part == "codec":
        model, inner, rate = _empty_vae(recipe), is_inner_kernel, VAE_RATE
    else:
        with torch.device("meta"):
            model = new_subject_net(recipe.seed)
        inner, rate = is_inner_of_segmenter, KERNEL_RATE
    with Making() if weightless else torch.device("cpu"):
        give_memory(model)
        given, loss = (_of_codec if train.part == "codec" else _of_segmenter)(recipe, model, size, number)
    trained = freeze(model.train(), train)
    return Rehearsed(
        model=model, trained=trained, optimizers=optimizers_of(model, train, inner, on_cpu=on_cpu, rate=rate),
        average=make_average(trained, train.ema), given=given, loss=loss,
    )  # fmt: skip


def real_pixel_step(recipe: Recipe, stage: Rehearsed) -> None:
    """A step that is taken."""
    take(recipe.train.clip_norm, stage, stage.loss())


def _empty_vae(recipe: Recipe) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    codec = recipe.codec
    with torch.device("meta"):
        if not codec.path:
            return new_mini_vae(recipe.seed, stride=codec.stride, z_dim=codec.channels)
        config = vae_config(recipe)
        return AutoencoderKLWan.from_config(config) if config else AutoencoderKLWan()


def _of_codec(recipe: Recipe, vae: Any, size: tuple[int, int], number: int) -> tuple[tuple[Tensor, ...], Any]:
    train = recipe.train
    of = plan_batch(number, train, picture_steps(train, fresh=not recipe.codec.path), *size)
    video = torch.zeros(of.clips, 3, of.frames, of.height, of.width)
    weight = torch.ones(of.clips, 1, of.frames, of.height, of.width)
    generator = torch.Generator().manual_seed(0)
    return (video, weight), lambda: loss_of(vae, video, weight, generator)[0]


def _of_segmenter(recipe: Recipe, net: Any, size: tuple[int, int], number: int) -> tuple[tuple[Tensor, ...], Any]:
    frames = torch.zeros(recipe.train.batch, 3, *size)

    def loss() -> Tensor:
        nobody = torch.zeros((recipe.train.batch, *size), dtype=torch.long)  # has memory: the loss looks who is there
        logits, ways = net(frames)
        return segmenter_loss(logits, ways, nobody)[0]

    return (frames,), loss


def _of_blocks(recipe: Recipe, shape: ClipShape) -> PixelAccount:
    """Clips one after the other: each is a "step" that adds up products, and its start is kept."""
    (height, width), frames = shape.pixels, shape.video_frames
    moments, ledger = BlockMoments(recipe.codec.stride), Ledger()
    ledger.put_down((moments.mean_N, moments.square_4NN), WEIGHTS)
    with ledger:
        for count in frames:
            with Making():
                video, weight = torch.zeros(1, 3, count, height, width), torch.ones(1, 1, count, height, width)
            ledger.put_down((video, weight), BATCH)
            moments.add(video, weight)
            del video, weight
    pixel = _PIXEL * height * width
    starts = sum(min(count, SCORE_FRAMES) for count in frames) * shape.clips
    code = LinearBlocks(stride=recipe.codec.stride, z_dim=recipe.codec.channels)
    numbers = sum(part.numel() for part in code.parameters())
    each = Account(
        parameters=numbers, weights=ledger.live[WEIGHTS], forward=ledger.peak, flop=ledger.flop,
        activations=ledger.live[ACTIVATIONS],
    )  # fmt: skip
    return PixelAccount(
        step=each, phases=(Phase(steps=shape.clips, account=each),), checkpoint=0.0,
        exported=sum(part.nbytes for part in code.parameters()),
        videos=pixel * (starts + sum(frames) * (1 + min(AHEAD, shape.clips))),
    )  # fmt: skip
