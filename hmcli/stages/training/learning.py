"""What training is made of: batches from a seed, the loss of one step, what trains, the learning rate, the average.

Shapes: B samples, C channels, F latent frames, L text rows, D text width. Used by hmcli.stages.training.trainer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.errors import UsageError
from hmcli.recipe.sections import FlowConfig, TrainConfig
from hmcli.stages.latents.view import LatentClip
from hmcli.world.views.cameras import relative_camera_rows

if TYPE_CHECKING:
    import torch
    from diffusers.training_utils import EMAModel

    from hmcli.core.flow import FlowSchedule
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel


ContextKind = Literal["joint", "frozen"]


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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one step."""

    latents: torch.Tensor  # (B, C, F, h, w)
    camera: torch.Tensor  # (B, F, 12)
    text: torch.Tensor  # (B, L, D)
    context: int
    older: int = 0  # latent frames that slots of frozen memory are placed back by


def make_batch(
    clips: list[LatentClip], empty: np.ndarray, *, frozen: bool, train: TrainConfig, tested: bool = False, rng: Any
) -> Batch:
    """Stack clips; draw what is random about them: dropped captions and, for frozen context, the anchor pose and age.

    `tested`: as in use, captions stay, the anchor is a frame's and memory is as old as it is.
    """
    away = (0.0, 0.0) if tested else (train.anchor_turn, train.anchor_shift)
    cameras = [anchored_rows(clip, *away, rng=rng) if frozen else clip.camera for clip in clips]
    text_dropout = 0.0 if tested else train.text_dropout
    texts = [empty if rng.random() < text_dropout else clip.text for clip in clips]
    return Batch(
        latents=tensor_of(np.stack([clip.latents for clip in clips])),
        camera=tensor_of(np.stack(cameras).astype(np.float32)),
        text=tensor_of(np.stack(texts)),
        context=clips[0].context,
        older=int(rng.integers(train.older + 1)) if train.older and not tested else 0,
    )


def anchored_rows(clip: LatentClip, turn: float, shift: float, *, rng: Any) -> np.ndarray:
    """Camera rows of a clip relative to an anchor, (F, 12) float32. Needs absolute poses.

    The anchor is one of its latent frames; turned about its own vertical by up to `turn` degrees, and moved by up to
    `shift` metres along each axis, as far as these are not 0: memory on disk is read under anchors far away.
    """
    poses = clip.world_poses()
    anchor = poses[int(rng.integers(len(poses)))]
    if turn or shift:
        yaw = np.radians(rng.uniform(-turn, turn))
        away = np.eye(4)
        away[[0, 2], [0, 2]] = np.cos(yaw)
        away[0, 2], away[2, 0] = np.sin(yaw), -np.sin(yaw)
        away[:3, 3] = rng.uniform(-shift, shift, 3)
        anchor = anchor @ away
    return relative_camera_rows(poses, anchor).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What chance decides of one step, on the CPU; N = draws x B, all samples of the first draw first.

    With several draws `latents` and `wanted` hold target frames alone, otherwise context frames too.
    """

    latents: torch.Tensor  # (N, C, F, h, w), noised
    timesteps: torch.Tensor  # (N,) or (N, F)
    wanted: torch.Tensor  # (N, C, F, h, w): the flow to predict
    weights: torch.Tensor  # (N,) or (N, F)
    draws: int = 1

    def after(self, frames: int) -> Question:
        """The same without the first frames."""
        timesteps, weights = (x[:, frames:] if x.ndim == 2 else x for x in (self.timesteps, self.weights))
        return replace(
            self, latents=self.latents[:, :, frames:], timesteps=timesteps, wanted=self.wanted[:, :, frames:],
            weights=weights,
        )  # fmt: skip


def ask(
    batch: Batch, schedule: FlowSchedule, flow: FlowConfig, *, context: ContextKind, draws: int = 1, seed: int
) -> Question:
    """Noise and levels for a batch, from `seed`: one level for the target frames of a clip, or as `flow.noise` says.

    `context` is the model's: joint or frozen. Several `draws` share one run of a frozen model over its context.
    """
    import torch

    from hmcli.core.flow import clean_frames, draw_levels, flow_target, with_clean_context

    generator = torch.Generator().manual_seed(seed)
    clean, kept = batch.latents, clean_frames(batch.context, flow.noise, context)
    if draws > 1:
        clean, kept = clean[:, :, batch.context :].repeat(draws, 1, 1, 1, 1), 0
    index = draw_levels(len(schedule.sigmas), len(clean), clean.shape[2], flow.noise, generator)
    noise = torch.randn(clean.shape, generator=generator)
    return Question(
        latents=with_clean_context(clean, noise, schedule.sigmas[index], kept), timesteps=schedule.timesteps[index],
        wanted=flow_target(clean, noise, flow.target), weights=schedule.weights[index], draws=draws,
    )  # fmt: skip


def loss_of(
    model: HydraTransformer3DModel,
    batch: Batch,
    question: Question,
    flow: FlowConfig,
    *,
    device: str,
    retrieval: RetrievalInputs | None = None,
) -> torch.Tensor:
    """Flow-matching loss of one batch (Eq. 1): on its target frames, or as `flow.loss` says."""
    n, text, camera = batch.context, batch.text.to(device), batch.camera.to(device)
    latents, timesteps = question.latents.to(device), question.timesteps.to(device)
    if (draws := question.draws) == 1 and not batch.older:
        prediction = model(latents, timesteps, text, camera, n, retrieval, return_dict=False)[0]
        return flow_loss_of(prediction, question, 0 if flow.loss == "all" else n)
    memory = model.encode_context(batch.latents[:, :, :n].to(device), camera[:, :n], retrieval)
    memory = memory.older_by(batch.older).repeated(draws)
    again = None if retrieval is None else retrieval.repeated(draws)
    skip = n if draws == 1 else 0
    prediction = model(
        latents[:, :, skip:], timesteps[:, skip:] if timesteps.ndim == 2 else timesteps, text.repeat(draws, 1, 1),
        camera[:, n:].repeat(draws, 1, 1), 0, again, memory, return_dict=False,
    )[0]  # fmt: skip
    return flow_loss_of(prediction, question.after(skip), 0)


def flow_loss_of(prediction: torch.Tensor, question: Question, first: int) -> torch.Tensor:
    """Weighted loss over the frames from `first` on."""
    from hmcli.core.flow import flow_loss

    return flow_loss(prediction, question.wanted.to(prediction.device), question.weights, first)


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

    return EMAModel(parameters, decay=decay, update_after_step=-1) if decay else None
