"""What training is made of: batches from a seed, the loss of one step, what trains, the learning rate, the average.

Shapes: B samples, C channels, F latent frames, L text rows, D text width. Used by hmcli.stages.training.train.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.errors import UsageError
from hmcli.recipe.sections import FlowConfig, TrainConfig
from hmcli.stages.latents.view import LatentClip
from hmcli.world.views.cameras import relative_camera_rows

if TYPE_CHECKING:
    import torch

    from hmcli.core.flow import FlowSchedule
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel


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


def make_batch(clips: list[LatentClip], empty: np.ndarray, *, frozen: bool, text_dropout: float, rng: Any) -> Batch:
    """Stack clips; draw what is random about them: dropped captions and, for frozen context, the anchor pose."""
    cameras = [anchored_rows(clip, int(rng.integers(len(clip.camera)))) if frozen else clip.camera for clip in clips]
    texts = [empty if rng.random() < text_dropout else clip.text for clip in clips]
    return Batch(
        latents=tensor_of(np.stack([clip.latents for clip in clips])),
        camera=tensor_of(np.stack(cameras).astype(np.float32)),
        text=tensor_of(np.stack(texts)),
        context=clips[0].context,
    )


def anchored_rows(clip: LatentClip, anchor: int) -> np.ndarray:
    """Camera rows of a clip relative to one of its own latent frames, (F, 12) float32. Needs absolute poses."""
    poses = clip.world_poses()
    return relative_camera_rows(poses, poses[anchor]).astype(np.float32)


def step_loss(
    model: HydraTransformer3DModel,
    batch: Batch,
    schedule: FlowSchedule,
    flow: FlowConfig,
    *,
    seed: int,
    device: str,
    retrieval: RetrievalInputs | None = None,
) -> torch.Tensor:
    """Flow-matching loss of one batch (Eq. 1), noise and timesteps from `seed`.

    One noise level for the target frames of a clip and loss on these, or as `flow.noise` and `flow.loss` say.
    """
    import torch

    from hmcli.core.flow import clean_frames, draw_levels, flow_loss, flow_target, with_clean_context

    generator = torch.Generator().manual_seed(seed)
    clean = batch.latents
    index = draw_levels(len(schedule.sigmas), len(clean), clean.shape[2], flow.noise, generator)
    noise = torch.randn(clean.shape, generator=generator)
    kept = clean_frames(batch.context, flow.noise, model.config.context)
    noisy = with_clean_context(clean, noise, schedule.sigmas[index], kept)
    prediction = model(
        noisy.to(device), schedule.timesteps[index].to(device), batch.text.to(device), batch.camera.to(device),
        batch.context, retrieval, return_dict=False,
    )[0]  # fmt: skip
    wanted = flow_target(clean, noise, flow.target).to(device)
    return flow_loss(prediction, wanted, schedule.weights[index], 0 if flow.loss == "all" else batch.context)


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


class Average:
    """Exponential moving average of the trainable weights; its decay grows from 0 so that early steps do not linger."""

    def __init__(self, model: HydraTransformer3DModel, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    def update(self, model: HydraTransformer3DModel) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)
