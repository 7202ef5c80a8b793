"""Training pictures made to look as generated videos do: blurred, noisy, blocky, tinted; and of other scenes, mixed.

Every function works on a batch: frames (B, 3, H, W) float32 in [0, 255], subjects (B, H, W) int64 numbers, 0 for none.
What is drawn by chance comes from a generator.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

_BLOCK = 8  # pixels of a block, as JPEG and video codecs cut pictures
_SHARE = 0.3  # of the pictures, that each kind of damage comes to
_PASTED, _ERASED = 0.3, 0.15
_RECOLOURED = 0.5  # of the pictures, whose subjects wear other colours


def draw(generator: Generator, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(count,) uniform numbers."""
    return low + (high - low) * torch.rand(count, generator=generator)


def damaged(frames: Tensor, generator: Generator) -> Tensor:
    """Each kind of damage comes to some of the pictures, each time with a strength of its own."""
    for kind in (_tinted, _coarser, _blurred, _blocky, _noisy):
        some = torch.nonzero(draw(generator, len(frames)) < _SHARE).flatten()
        if len(some):
            frames = frames.index_copy(0, some, kind(frames[some], generator))
    return frames.round().clamp(0, 255)


def _tinted(frames: Tensor, generator: Generator) -> Tensor:
    """Other exposure, contrast and saturation, and a cast of colour."""
    count = len(frames)
    gain, cast = draw(generator, count, 0.7, 1.3), draw(generator, 3 * count, 0.9, 1.1).view(-1, 3, 1, 1)
    grey = frames.mean(1, keepdim=True)
    frames = grey + (frames - grey) * draw(generator, count, 0.4, 1.4).view(-1, 1, 1, 1)
    mean = frames.mean((1, 2, 3), keepdim=True)
    light = draw(generator, count, -25, 25).view(-1, 1, 1, 1)
    return ((frames - mean) * gain.view(-1, 1, 1, 1) + mean + light) * cast


def _coarser(frames: Tensor, generator: Generator) -> Tensor:
    """As if drawn with two thirds to a quarter of the pixels a side."""
    height, width = frames.shape[-2:]
    found = []
    for one, factor in zip(frames, draw(generator, len(frames), 1.5, 4.0).tolist(), strict=True):
        small = functional.interpolate(one[None], (round(height / factor), round(width / factor)), mode="area")
        found.append(functional.interpolate(small, (height, width), mode="bilinear", align_corners=False))
    return torch.cat(found)


def _blurred(frames: Tensor, generator: Generator) -> Tensor:
    """Smoothed by a Gaussian of half a pixel to two and a half."""
    return torch.cat(
        [
            blurred(one[None], sigma)
            for one, sigma in zip(frames, draw(generator, len(frames), 0.5, 2.5).tolist(), strict=True)
        ]
    )


def blurred(x: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) smoothed by a Gaussian of `sigma` pixels; edges are repeated."""
    reach = min(math.ceil(3 * sigma), min(x.shape[-2:]) - 1)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = (taps / taps.sum()).expand(x.shape[1], 1, 1, -1)
    x = functional.conv2d(functional.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel, groups=x.shape[1])
    return functional.conv2d(
        functional.pad(x, (0, 0, reach, reach), mode="replicate"), kernel.transpose(2, 3), groups=x.shape[1]
    )


def _blocky(frames: Tensor, generator: Generator) -> Tensor:
    """Blocks of 8x8 whose waves are rounded, fine ones more than coarse ones, as JPEG does."""
    waves = cosines(_BLOCK)
    order = torch.arange(_BLOCK)
    step = (1 + order[:, None] + order) * draw(generator, len(frames), 1.0, 7.0).view(-1, 1, 1, 1, 1, 1)
    height, width = frames.shape[-2:]
    padded = functional.pad(frames, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    blocks = padded.unflatten(3, (-1, _BLOCK)).unflatten(2, (-1, _BLOCK)).transpose(3, 4)  # B C rows columns 8 8
    coded = (waves @ blocks @ waves.T / step).round() * step
    pictures = (waves.T @ coded @ waves).transpose(3, 4).flatten(4).flatten(2, 3)
    return pictures[..., :height, :width]


def cosines(size: int) -> Tensor:
    """(size, size) orthonormal waves (DCT-II), one to a row."""
    k, x = torch.arange(size)[:, None], torch.arange(size)
    waves = torch.cos(math.pi * k * (2 * x + 1) / (2 * size)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def _noisy(frames: Tensor, generator: Generator) -> Tensor:
    """Grain, and clouds of false colour."""
    grain = torch.randn(frames.shape, generator=generator) * draw(generator, len(frames), 2, 14).view(-1, 1, 1, 1)
    small = (len(frames), 3, max(2, frames.shape[2] // 8), max(2, frames.shape[3] // 8))
    clouds = torch.randn(small, generator=generator) * draw(generator, len(frames), 0, 14).view(-1, 1, 1, 1)
    return frames + grain + functional.interpolate(clouds, frames.shape[-2:], mode="bilinear", align_corners=False)


# --- other pictures of the same things -------------------------------------------------------------------------------


def reframed(frames: Tensor, subjects: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mirrored, larger or smaller and moved; what lies outside of a picture repeats its edge, and shows no subject."""
    count = len(frames)
    scale = torch.exp(draw(generator, count, math.log(0.75), math.log(1.5)))
    flip = torch.where(draw(generator, count) < 0.5, -1.0, 1.0)
    move = torch.stack([draw(generator, count, -0.35, 0.35) for _ in range(2)], 1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * flip, scale, move
    grid = functional.affine_grid(theta, list(frames.shape), align_corners=False)
    labels = functional.grid_sample(subjects[:, None].float(), grid, mode="nearest", align_corners=False)
    frames = functional.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(-1)
    return frames, torch.where(inside, labels[:, 0].round().long(), 0)


def mixed(frames: Tensor, subjects: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Subjects of another picture of the batch are pasted before some; some pictures lose theirs."""
    order = torch.randperm(len(frames), generator=generator)
    pasted = (subjects[order] > 0) & (draw(generator, len(frames)) < _PASTED).view(-1, 1, 1)
    frames = torch.where(pasted[:, None], frames[order], frames)
    subjects = torch.where(pasted, subjects[order] + int(subjects.max()), subjects)
    gone = draw(generator, len(frames)) < _ERASED
    return torch.where(gone.view(-1, 1, 1, 1), erased(frames, subjects), frames), torch.where(
        gone.view(-1, 1, 1), 0, subjects
    )


def recoloured(frames: Tensor, subjects: Tensor, generator: Generator) -> Tensor:
    """Subjects of some pictures in other colours: turned about the grey axis, lighter or darker, more or less vivid.

    So that a family is not known by its clothes: other families wear others.
    """
    count = len(frames)
    some = draw(generator, count) < _RECOLOURED
    turn, vivid = draw(generator, count, 0.0, 2 * math.pi), draw(generator, count, 0.3, 1.5)
    lighter = draw(generator, count, -40, 40).view(-1, 1, 1, 1)
    axis = torch.full((3,), 1 / math.sqrt(3.0))
    along = torch.outer(axis, axis)  # what of a colour is grey; `across` turns the rest by a quarter
    across = torch.linalg.cross(torch.eye(3), axis.expand(3, 3), dim=1)
    rest = turn.cos().view(-1, 1, 1) * (torch.eye(3) - along) + turn.sin().view(-1, 1, 1) * across
    worn = torch.einsum("bij,bjhw->bihw", along + vivid.view(-1, 1, 1) * rest, frames) + lighter
    changed = some.view(-1, 1, 1, 1) & (subjects > 0)[:, None]
    return torch.where(changed, worn.clamp(0, 255), frames)


def erased(frames: Tensor, subjects: Tensor) -> Tensor:
    """Subjects, and two pixels around them, filled with the colours beside them: a smear that shows nobody."""
    hole = functional.max_pool2d((subjects > 0)[:, None].float(), 5, stride=1, padding=2)
    filled, known = frames * (1 - hole), 1 - hole
    found = torch.zeros_like(frames)
    left = torch.ones_like(hole)
    for sigma in (2.0, 5.0, 14.0):  # near colours first, where there are any
        weight = blurred(known, sigma)
        new = left * (weight > 0.05)
        found = found + new * blurred(filled, sigma) / weight.clamp(min=0.05)
        left = left - new
    found = found + left * frames.mean((2, 3), keepdim=True)
    return torch.where(hole > 0, found, frames)
