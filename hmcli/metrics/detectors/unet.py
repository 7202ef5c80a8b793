"""The subject segmenter's network: which pixels show a subject, and where the middle of that subject is.

A small U-Net. Pictures are first folded 2x2 into channels, so that nothing expensive works at full resolution; only the
last layer sees the pixels again, for outlines. Shape letters: B frames, H rows, W columns.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (24, 48, 96, 160)  # channels at 1/2, 1/4, 1/8 and 1/16 of the picture
UNIT = 16.0  # pixels: offsets to the middle are told in this unit
_FOLD, _FINE, _OUTPUTS = 2, 8, 3


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.conv_in, self.conv_out = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_in(functional.relu(self.norm_in(x)))
        found: Tensor = x + self.conv_out(functional.relu(self.norm_out(y)))
        return found


class SubjectNet(nn.Module):
    """(B, 3, H, W) floats in [0, 255] -> the logit that a pixel shows a subject (B, H, W), and the way from it to the
    subject's middle (B, 2, H, W), x and y in pixels.

    Any size: sides are filled up to a multiple of 16 by their edge.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.widths = widths
        self.stem = nn.Conv2d(3 * _FOLD**2, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(width) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Block(width) for width in widths[:-1])
        self.unfold = nn.Conv2d(widths[0], _FINE * _FOLD**2, 1)
        self.fine = nn.Conv2d(_FINE + 3, 2 * _FINE, 3, padding=1)
        self.head = nn.Conv2d(2 * _FINE, _OUTPUTS, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        height, width = frames.shape[-2:]
        multiple = _FOLD * 2 ** (len(self.widths) - 1)
        pixels = functional.pad(frames, (0, -width % multiple, 0, -height % multiple), mode="replicate") / 127.5 - 1
        x, passed = self.stem(functional.pixel_unshuffle(pixels, _FOLD)), []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.shrink):
                passed.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest") + passed[level]
            x = self.up[level](x)
        fine = torch.cat([functional.pixel_shuffle(self.unfold(x), _FOLD), pixels], dim=1)
        found = self.head(functional.relu(self.fine(fine)))[..., :height, :width]
        return found[:, 0], found[:, 1:] * UNIT


def new_subject_net(seed: int, widths: tuple[int, ...] = WIDTHS) -> SubjectNet:
    """Random weights that follow from the seed; every shortcut starts as the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SubjectNet(widths)
    for block in (*net.down, *net.up):
        nn.init.zeros_(block.conv_out.weight)
    return net
