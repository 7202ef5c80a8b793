"""Training a small video VAE: batches, loss, learning rate and one step, as pure functions.

Every batch depends on (seed, step) alone, so a run that stopped and went on is bit-identical to one that did not.
The plan: first single frames, which teach the picture ten times cheaper than clips, then clips; pieces are a quarter of
a frame, since many different ones teach more than few large ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn
from torch.nn.functional import conv2d

from hmcli.aligned import tensor_of
from hmcli.contracts import SIDE_STEP
from hmcli.errors import NotFiniteError
from hmcli.recipe.sections import TrainConfig

EDGE_WEIGHT = 0.5  # share of the gradient loss: keeps outlines where L1 alone would blur them
SQUARE_WEIGHT = 2.0  # share of the squared error, which is what PSNR counts
KL_WEIGHT = 1e-5  # per latent value: enough to keep latents compact, too little to be seen in the pictures
PICTURES = 0.6  # share of the steps on single frames, for a VAE that starts from nothing
PICTURES_PER_CLIP = 4  # single frames in the place of one clip of a batch
CLIP_RATE = 0.25  # share of the learning rate on clips: at the full one they undo what the pictures taught


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A video that pieces are cut from: uint8 frames (T, H, W, 3), and the subject each pixel shows (T, H, W), or 0."""

    clip: str  # id
    frames: np.ndarray
    subjects: np.ndarray


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How many pieces a batch holds, and their size in video frames and pixels."""

    clips: int
    frames: int
    height: int
    width: int


def picture_steps(train: TrainConfig, fresh: bool) -> int:
    """Steps on single frames at the start; none for a VAE that has been trained before."""
    return round(PICTURES * train.steps) if fresh else 0


def plan_batch(step: int, train: TrainConfig, pictures: int, height: int, width: int) -> BatchPlan:
    """The batch of one step: 4 x `batch` single frames in the first `pictures` steps, then `batch` clips."""
    h, w = (max(SIDE_STEP, side // (2 * SIDE_STEP) * SIDE_STEP) for side in (height, width))
    if step < pictures:
        return BatchPlan(clips=PICTURES_PER_CLIP * train.batch, frames=1, height=h, width=w)
    return BatchPlan(clips=train.batch, frames=train.frames, height=h, width=w)


def draw_batch(
    clips: Sequence[Footage], plan: BatchPlan, subject_weight: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list[str]]:
    """Random pieces of clips, mirrored half of the time: video (B, 3, T, H, W) float32 in [-1, 1], the weight of
    every pixel, (B, 1, T, H, W): 1, on subjects `subject_weight` more, and the ids of the clips."""
    pieces = np.empty((plan.clips, plan.frames, plan.height, plan.width, 3), np.uint8)
    shown = np.zeros(pieces.shape[:4], bool)
    names = []
    for piece, subjects in zip(pieces, shown, strict=True):
        clip = clips[int(rng.integers(len(clips)))]
        names.append(clip.clip)
        spare = [have - want for have, want in zip(clip.frames.shape[:3], piece.shape[:3], strict=True)]
        if min(spare) < 0:
            raise ValueError(f"a clip of shape {clip.frames.shape} is smaller than the piece {piece.shape} wanted")
        t, y, x = (int(rng.integers(room + 1)) for room in spare)
        cut = np.s_[t : t + plan.frames, y : y + plan.height, x : x + plan.width]
        flip = np.s_[:, :, ::-1] if rng.random() < 0.5 else np.s_[:]
        piece[:] = clip.frames[cut][flip]
        if subject_weight:
            subjects[:] = clip.subjects[cut][flip] > 0
    video = tensor_of(pieces).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1.0)
    return video, 1.0 + subject_weight * tensor_of(shown)[:, None].float(), names


def learning_rate(step: int, train: TrainConfig, pictures: int) -> float:
    """Linear warm-up to the peak over `warmup` steps, then constant, or half a cosine down to a hundredth of it.

    Pictures and clips are two trainings, each with its own warm-up, peak (`lr`, and a quarter of it) and decay.
    """
    start, stop, peak = (0, pictures, 1.0) if step < pictures else (pictures, train.steps, CLIP_RATE)
    step -= start
    if train.decay == "constant" or step < train.warmup:
        return train.lr * peak * min(1.0, (step + 1) / max(1, train.warmup))
    done = (step - train.warmup) / max(1, stop - start - train.warmup)
    return train.lr * peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))


def edges(video: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel, down and to the right."""
    return video[..., 1:, :] - video[..., :-1, :], video[..., 1:] - video[..., :-1]


def codec_loss(
    video: Tensor, decoded: Tensor, weight: Tensor, mean: Tensor, log_variance: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 + squared error + edges, pixels by `weight`, + a very small KL to the unit normal; the loss and its parts."""
    error = decoded - video
    l1, square = weighted_mean(error.abs(), weight), weighted_mean(error.square(), weight)
    down, right = edges(error)
    edge = (weighted_mean(down.abs(), weight[..., 1:, :]) + weighted_mean(right.abs(), weight[..., 1:])) / 2
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    loss = l1 + SQUARE_WEIGHT * square + EDGE_WEIGHT * edge + KL_WEIGHT * kl
    return loss, {"l1": l1.detach(), "square": square.detach(), "edge": edge.detach(), "kl": kl.detach()}


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over (B, C, T, H, W) values, each pixel by its (B, 1, T, H, W) weight."""
    return (values * weight).sum() / (weight.sum() * values.shape[1])


def loss_of(vae: Any, video: Tensor, weight: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss on a batch (B, 3, T, H, W) whose latents are drawn from the posterior, and its parts."""
    with single_frame_convolutions():
        posterior = vae.encode(video).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(video.device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
    return codec_loss(video, decoded, weight, posterior.mean, posterior.logvar)


def train_step(
    vae: Any,
    optimizers: Sequence[torch.optim.Optimizer],
    video: Tensor,
    weight: Tensor,
    *,
    lr: float,
    clip_norm: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """One step on a batch (B, 3, T, H, W), pixels by `weight`; changes `vae` and `optimizers`, returns the losses.

    Raises NotFiniteError, and changes no weight, where loss or gradient is not finite.
    """
    loss, parts = loss_of(vae, video, weight, generator)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(vae.parameters(), clip_norm)
    for what, value in (("the loss", float(loss.detach())), ("the gradient's norm", float(norm))):
        if not math.isfinite(value):
            raise NotFiniteError(f"{what} is {value}")
    for optimizer in optimizers:
        optimizer.step()
    return dict(zip(parts, torch.stack(list(parts.values())).tolist(), strict=True))


@contextlib.contextmanager
def single_frame_convolutions() -> Iterator[None]:
    """Within the block, a causal convolution over one frame without a past skips the frames of zeros before it.

    The sum is the same; the work is a third. Single frames are most of the training.
    """
    whole = WanCausalConv3d.forward

    def forward(self: Any, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        if x.shape[2] > 1 or cache_x is not None or self.stride != (1, 1, 1):
            return whole(self, x, cache_x)
        left, _, top, *_ = self._padding
        return conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=(top, left)).unsqueeze(2)

    WanCausalConv3d.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        WanCausalConv3d.forward = whole  # type: ignore[method-assign]


def subject_boxes(subjects: np.ndarray) -> Tensor:
    """(T, H, W) labels -> (1, 1, T, H, W) bool: inside the box around the pixels of any one subject in that frame."""
    inside = np.zeros(subjects.shape, bool)
    for frame, labels in enumerate(subjects):
        for subject in np.unique(labels[labels > 0]):
            rows, columns = np.nonzero(labels == subject)
            inside[frame, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return tensor_of(inside)[None, None]


def whole_frames(clip: np.ndarray, frames: int) -> Tensor:
    """The first `frames` frames of a uint8 (T, H, W, 3) clip -> (1, 3, frames, H, W) float32 in [-1, 1]."""
    return tensor_of(clip[None, :frames]).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1.0)


def latents_of(vae: Any, video: Tensor) -> Tensor:
    """The posterior's mode of a (B, 3, T, H, W) video, not normalised."""
    mode: Tensor = vae.encode(video).latent_dist.mode()
    return mode


def reconstructed(vae: Any, video: Tensor) -> Tensor:
    """What a VAE makes of a (B, 3, T, H, W) video, from its posterior's mode."""
    made: Tensor = vae.decode(latents_of(vae, video)).sample
    return made


@torch.no_grad()
def mean_psnr(
    reconstruct: Callable[[Tensor], Tensor], videos: Sequence[Tensor], boxes: Sequence[Tensor] | None = None
) -> float:
    """Peak signal-to-noise ratio in dB of what a codec makes of (B, 3, T, H, W) videos, mean over videos.

    With `boxes`, (1, 1, T, H, W) masks of what counts, only inside of them and over the videos that have some; NaN
    where none has.
    """
    values = []
    for number, video in enumerate(videos):
        error = (reconstruct(video) - video).square()
        inside = torch.ones_like(error[:, :1]) if boxes is None else boxes[number].float()
        if inside.any():
            values.append(10.0 * math.log10(4.0 / max(float(weighted_mean(error, inside)), 1e-12)))
    return sum(values) / len(values) if values else math.nan


@torch.no_grad()
def latent_statistics(encode: Callable[[Tensor], Tensor], videos: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over (B, 3, T, H, W) videos, in the type of the latents."""
    values = torch.cat([encode(video).movedim(1, 0).flatten(1) for video in videos], dim=1)
    return values.mean(dim=1).tolist(), values.std(dim=1).tolist()
