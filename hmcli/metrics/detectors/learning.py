"""Training the subject segmenter: batches, loss and one step, as pure functions of a seed and a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from hmcli.aligned import tensor_of
from hmcli.errors import NotFiniteError
from hmcli.metrics.detectors.damage import damaged, mixed, recoloured, reframed
from hmcli.metrics.detectors.unet import UNIT, SubjectNet

OVERLAP_WEIGHT, MIDDLE_WEIGHT = 0.5, 0.3  # beside the cross-entropy of pixels
_RIM = 2.0  # how much more a pixel near an outline counts, and one of a small subject
_PLAIN = 0.35  # share of the pictures that are left undamaged
_FEW = 256.0  # pixels: a smaller subject's count more, up to four times


class Labelled(Protocol):
    """A video that pictures are taken from."""

    @property
    def clip(self) -> str: ...
    @property
    def frames(self) -> np.ndarray: ...  # (T, H, W, 3) uint8
    @property
    def subjects(self) -> np.ndarray: ...  # (T, H, W) uint8, 0: none


def draw_batch(videos: Sequence[Labelled], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, list[str]]:
    """Pictures (B, 3, H, W) in [0, 255] as a detector may meet them, their subjects (B, H, W), and the clips' ids."""
    chosen = [videos[int(rng.integers(len(videos)))] for _ in range(count)]
    at = [int(rng.integers(len(video.frames))) for video in chosen]
    frames = np.stack([video.frames[t] for video, t in zip(chosen, at, strict=True)])
    subjects = np.stack([video.subjects[t] for video, t in zip(chosen, at, strict=True)])
    generator = Generator().manual_seed(int(rng.integers(2**62)))
    pictures, labels = tensor_of(frames).permute(0, 3, 1, 2).float(), tensor_of(subjects).long()
    pictures, labels = reframed(pictures, labels, generator)
    pictures, labels = mixed(recoloured(pictures, labels, generator), labels, generator)
    plain = torch.rand(count, generator=generator) < _PLAIN
    pictures = torch.where(plain.view(-1, 1, 1, 1), pictures.round().clamp(0, 255), damaged(pictures, generator))
    return pictures, labels, [video.clip for video in chosen]


def ways_to_middles(subjects: Tensor) -> tuple[Tensor, Tensor]:
    """For numbers (B, H, W): the way from every subject's pixel to the middle of its box, x and y in pixels (B, 2, H,
    W), 0 elsewhere, and how many pixels its subject has (B, H, W), 0 elsewhere."""
    ways = torch.zeros(len(subjects), 2, *subjects.shape[1:])
    sizes = torch.zeros(subjects.shape)
    for picture, labels in enumerate(subjects):
        for number in labels.unique().tolist():
            if not number:
                continue
            rows, columns = torch.nonzero(labels == number, as_tuple=True)
            middle = [(axis.min() + axis.max()) / 2 for axis in (columns, rows)]
            ways[picture, :, rows, columns] = torch.stack([middle[0] - columns, middle[1] - rows])
            sizes[picture, rows, columns] = float(len(rows))
    return ways, sizes


def segmenter_loss(logits: Tensor, ways: Tensor, subjects: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of pixels, those near outlines and of small subjects by more, overlap (1 - Dice over the batch's
    subjects) and the error of the way to the middle; the loss and its parts."""
    shown = (subjects > 0).float()
    true_ways, sizes = (x.to(logits.device) for x in ways_to_middles(subjects.cpu()))
    near = functional.max_pool2d(shown[:, None], 5, 1, 2) + functional.max_pool2d(-shown[:, None], 5, 1, 2)
    small = torch.where(sizes > 0, (_FEW / sizes.clamp(min=1)).sqrt().clamp(1, 4), 1.0)
    weight = small * (1 + _RIM * near[:, 0])
    pixels = (
        functional.binary_cross_entropy_with_logits(logits, shown, reduction="none") * weight
    ).sum() / weight.sum()
    chance = logits.sigmoid()
    each = (1, 2)
    dice = (2 * (chance * shown).sum(each) + 1) / (chance.sum(each) + shown.sum(each) + 1)
    present = (shown.sum(each) > 0).float()
    overlap = ((1 - dice) * present).sum() / present.sum().clamp(min=1)
    error = functional.smooth_l1_loss(ways / UNIT, true_ways / UNIT, reduction="none").sum(1)
    middle = (error * shown * small).sum() / (shown * small).sum().clamp(min=1)
    loss = pixels + OVERLAP_WEIGHT * overlap + MIDDLE_WEIGHT * middle
    return loss, {"pixels": pixels.detach(), "overlap": overlap.detach(), "middle": middle.detach()}


def train_step(
    net: SubjectNet,
    optimizers: Sequence[torch.optim.Optimizer],
    frames: Tensor,
    subjects: Tensor,
    *,
    lr: float,
    clip_norm: float,
) -> dict[str, float]:
    """One step on a batch; changes `net` and `optimizers`, returns the parts of the loss.

    Raises NotFiniteError, and changes no weight, where loss or gradient is not finite.
    """
    logits, ways = net(frames)
    loss, parts = segmenter_loss(logits, ways, subjects)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
    for what, value in (("the loss", float(loss.detach())), ("the gradient's norm", float(norm))):
        if not math.isfinite(value):
            raise NotFiniteError(f"{what} is {value}")
    for optimizer in optimizers:
        optimizer.step()
    return dict(zip(parts, torch.stack(list(parts.values())).tolist(), strict=True))
