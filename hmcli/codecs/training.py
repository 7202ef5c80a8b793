"""Training a small video VAE: batches, loss, learning rate and one step, as pure functions.

Every batch depends on (seed, step) alone, so a run that stopped and went on is bit-identical to one that did not.
The plan goes from many small pieces (short clips, half the height and width: diverse, cheap) to whole frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hmcli.recipe import TrainConfig

EDGE_WEIGHT = 0.5  # share of the gradient loss: keeps outlines where L1 alone would blur them
KL_WEIGHT = 1e-5  # per latent value: enough to keep latents compact, too little to be seen in the pictures
SMALL_PIECES = 0.6  # share of the steps on small pieces
SHORT_CLIP = 5  # video frames of a small piece
EMA_DECAY = 0.998  # average of the weights that is exported
PIECE_GRID = 8  # pixels: pieces are multiples of the codec's space stride


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How many pieces a batch holds, and their size in video frames and pixels."""

    clips: int
    frames: int
    height: int
    width: int


def plan_batch(step: int, train: TrainConfig, height: int, width: int) -> BatchPlan:
    """The batch of one step: the pixel budget is `batch` whole clips of `frames` frames, whatever the piece size."""
    if step >= SMALL_PIECES * train.steps:
        return BatchPlan(clips=train.batch, frames=train.frames, height=height, width=width)
    frames = min(SHORT_CLIP, train.frames)
    h, w = (max(PIECE_GRID, side // (2 * PIECE_GRID) * PIECE_GRID) for side in (height, width))
    budget = train.batch * train.frames * height * width
    return BatchPlan(clips=max(1, budget // (frames * h * w)), frames=frames, height=h, width=w)


def draw_batch(clips: Sequence[np.ndarray], plan: BatchPlan, rng: np.random.Generator) -> Tensor:
    """Random pieces of uint8 (T, H, W, 3) clips -> (B, 3, T, H, W) float32 in [-1, 1], mirrored half of the time."""
    pieces = np.empty((plan.clips, plan.frames, plan.height, plan.width, 3), np.uint8)
    for piece in pieces:
        clip = clips[rng.integers(len(clips))]
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
    return train.lr * (0.01 + 0.99 * 0.5 * (1.0 + float(np.cos(np.pi * min(1.0, done)))))


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


def average_weights(average: dict[str, Tensor], weights: Mapping[str, Tensor], step: int) -> None:
    """Move the exponential average towards the weights, in place; early steps count for less."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for name, value in weights.items():
        average[name].lerp_(value.detach().to(average[name].dtype), 1.0 - decay)


@torch.no_grad()
def latent_statistics(vae: Any, videos: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over (B, 3, T, H, W) videos: what normalisation divides by."""
    values = torch.cat([vae.encode(video).latent_dist.mode().movedim(1, 0).flatten(1) for video in videos], dim=1)
    return values.mean(dim=1).tolist(), values.std(dim=1).tolist()
