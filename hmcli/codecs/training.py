"""Training a small video VAE: batches, loss, learning rate and one step, as pure functions.

Every batch depends on (seed, step) alone, so a run that stopped and went on is bit-identical to one that did not.
The plan goes from many small pieces (short clips, half the height and width: diverse, cheap) to whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hmcli.contracts import SPACE_STRIDE
from hmcli.recipe import TrainConfig

EDGE_WEIGHT = 0.5  # share of the gradient loss: keeps outlines where L1 alone would blur them
KL_WEIGHT = 1e-5  # per latent value: enough to keep latents compact, too little to be seen in the pictures
SMALL_PIECES = 0.85  # share of the steps on small pieces
SHORT_CLIP = 5  # video frames of a small piece


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How many pieces a batch holds, and their size in video frames and pixels."""

    clips: int
    frames: int
    height: int
    width: int


def plan_batch(step: int, train: TrainConfig, height: int, width: int) -> BatchPlan:
    """The batch of one step: first 4 x `batch` short quarter frames, later `batch` whole frames of `frames` frames."""
    if step >= SMALL_PIECES * train.steps:
        return BatchPlan(clips=train.batch, frames=train.frames, height=height, width=width)
    h, w = (max(SPACE_STRIDE, side // (2 * SPACE_STRIDE) * SPACE_STRIDE) for side in (height, width))
    return BatchPlan(clips=4 * train.batch, frames=min(SHORT_CLIP, train.frames), height=h, width=w)


def draw_batch(clips: Sequence[np.ndarray], plan: BatchPlan, rng: np.random.Generator) -> Tensor:
    """Random pieces of uint8 (T, H, W, 3) clips -> (B, 3, T, H, W) float32 in [-1, 1], mirrored half of the time."""
    pieces = np.empty((plan.clips, plan.frames, plan.height, plan.width, 3), np.uint8)
    for piece in pieces:
        clip = clips[int(rng.integers(len(clips)))]
        spare = [have - want for have, want in zip(clip.shape[:3], piece.shape[:3], strict=True)]
        if min(spare) < 0:
            raise ValueError(f"a clip of shape {clip.shape} is smaller than the piece {piece.shape} wanted from it")
        t, y, x = (int(rng.integers(room + 1)) for room in spare)
        cut = clip[t : t + plan.frames, y : y + plan.height, x : x + plan.width]
        piece[:] = cut[:, :, ::-1] if rng.random() < 0.5 else cut
    return torch.from_numpy(pieces).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1.0)


def learning_rate(step: int, train: TrainConfig) -> float:
    """Linear warm-up to `lr` over `warmup` steps, then constant, or half a cosine down to a hundredth of it."""
    rising = min(1.0, (step + 1) / max(1, train.warmup))
    if train.decay == "constant" or step < train.warmup:
        return train.lr * rising
    done = (step - train.warmup) / max(1, train.steps - train.warmup)
    return train.lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


def edges(video: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel, down and to the right."""
    return video[..., 1:, :] - video[..., :-1, :], video[..., 1:] - video[..., :-1]


def codec_loss(video: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, dict[str, float]]:
    """L1 + edges + a very small KL to the unit normal; returns the loss and its parts for the log."""
    l1 = (decoded - video).abs().mean()
    edge = torch.stack([(a - b).abs().mean() for a, b in zip(edges(decoded), edges(video), strict=True)]).mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    loss = l1 + EDGE_WEIGHT * edge + KL_WEIGHT * kl
    return loss, {"l1": float(l1.detach()), "edge": float(edge.detach()), "kl": float(kl.detach())}


def train_step(
    vae: Any, optimizer: torch.optim.Optimizer, video: Tensor, train: TrainConfig, step: int, generator: torch.Generator
) -> dict[str, float]:
    """One optimiser step on a batch (B, 3, T, H, W); changes `vae` and `optimizer`, returns the parts of the loss."""
    posterior = vae.encode(video).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(video.device)
    decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    loss, parts = codec_loss(video, decoded, posterior.mean, posterior.logvar)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, train)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(vae.parameters(), train.clip_norm)
    optimizer.step()
    return parts


def average_weights(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], step: int, decay: float) -> None:
    """Move the exponential average towards the weights, in place; early steps linger for less."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in weights.items():
        average[name].lerp_(value.detach().to(average[name].dtype), 1.0 - decay)


def whole_frames(clip: np.ndarray, frames: int) -> Tensor:
    """The first `frames` frames of a uint8 (T, H, W, 3) clip -> (1, 3, frames, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(clip[None, :frames].copy()).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1.0)


@torch.no_grad()
def mean_psnr(vae: Any, videos: Sequence[Tensor]) -> float:
    """Peak signal-to-noise ratio in dB of the reconstruction from the posterior's mode, mean over videos."""
    values = []
    for video in videos:
        error = (vae.decode(vae.encode(video).latent_dist.mode()).sample - video).square().mean()
        values.append(10.0 * math.log10(4.0 / max(float(error), 1e-12)))
    return sum(values) / len(values)


@torch.no_grad()
def latent_statistics(vae: Any, videos: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over (B, 3, T, H, W) videos, for the config."""
    values = torch.cat([vae.encode(video).latent_dist.mode().movedim(1, 0).flatten(1) for video in videos], dim=1)
    return values.mean(dim=1).tolist(), values.std(dim=1).tolist()
