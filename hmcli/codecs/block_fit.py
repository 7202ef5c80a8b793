"""Fitting a linear code of blocks (hmcli.codecs.blocks) to videos: principal components, in one pass.

For every wave in time, the covariance of the pictures that go with it; the directions with most variance are kept.
Sums are float64, so that the order of clips does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from hmcli.codecs.blocks import COLOURS, LinearBlocks, cut, waves
from hmcli.codecs.training import latent_statistics
from hmcli.contracts import TIME_STRIDE

LEAST_STD = 1e-3  # of a channel, in pixels: one that clips never use


@dataclass
class BlockMoments:
    """Sums over blocks of videos, each by its weight. N = 3 * stride * stride numbers of a block's picture."""

    stride: int
    blocks: float = 0.0
    mean_N: Tensor = field(init=False)  # sums of the pictures' means over time
    square_4NN: Tensor = field(init=False)  # sums of outer products, one for every wave

    def __post_init__(self) -> None:
        numbers = COLOURS * self.stride**2
        self.mean_N = torch.zeros(numbers, dtype=torch.float64)
        self.square_4NN = torch.zeros(TIME_STRIDE, numbers, numbers, dtype=torch.float64)

    def add(self, video: Tensor, weight: Tensor) -> None:
        """A video (1, 3, 1 + 4k, H, W) in [-1, 1], pixels by `weight` (1, 1, 1 + 4k, H, W); its first frame counts as
        four, as it is coded."""
        pixels, weights = (
            torch.cat([x[:, :, :1].repeat(1, 1, TIME_STRIDE, 1, 1), x[:, :, 1:]], dim=2) for x in (video, weight)
        )
        blocks = cut(pixels, self.stride).double()
        coded = torch.einsum("tu,bkuhwn->tbkhwn", waves().double(), blocks).flatten(1, -2)
        shares = avg_pool2d(weights[:, 0].double(), self.stride).unflatten(1, (-1, TIME_STRIDE)).mean(2).flatten()
        self.blocks += float(shares.sum())
        self.mean_N += shares @ coded[0]
        self.square_4NN += torch.einsum("tan,a,tam->tnm", coded, shares, coded)


def fit(moments: BlockMoments, channels: int) -> LinearBlocks:
    """The code of `channels` directions that keeps most of what was seen, in squared error and by weight."""
    mean = moments.mean_N / moments.blocks
    square = moments.square_4NN / moments.blocks
    square[0] -= torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(square)  # (4, N), (4, N, N): columns
    order = values.flatten().argsort(descending=True, stable=True)[:channels]
    order = order[(order // len(mean)).argsort(stable=True)]  # still ones first, each wave from most to least
    frequency, which = order // len(mean), order % len(mean)
    pictures = vectors[frequency, :, which]
    loudest = pictures.abs().argmax(dim=1, keepdim=True)
    pictures = pictures * pictures.gather(1, loudest).sign()  # eigenvectors come with either sign
    code = LinearBlocks(stride=moments.stride, z_dim=channels)
    for name, value in {"mean": mean, "pictures": pictures, "frequency": frequency}.items():
        getattr(code, name).data.copy_(value)
    return code


@torch.no_grad()
def normalise(code: LinearBlocks, videos: Sequence[Tensor], whitening: float) -> None:
    """Set the code's latent statistics from (B, 3, 1 + 4k, H, W) videos: mean 0, a mean square of 1 over all channels.

    Latents are divided by std ** whitening: 1 makes all channels equally loud, 0 leaves the pixels' own balance.
    """
    mean, deviation = latent_statistics(lambda video: code.encode(video).double(), videos)
    own = torch.tensor(deviation, dtype=torch.float64).clamp(min=LEAST_STD)
    std = own**whitening
    std *= (own / std).square().mean().sqrt()
    code.register_to_config(latents_mean=tuple(mean), latents_std=tuple(std.tolist()))
