"""The architecture of the small VAE that this package ships, and how a new one starts.

8x in space, 4x in time and 16 channels, like Wan2.1's. Unlike it, the pictures are first folded 2x2 into channels and
every level has the averaging shortcuts of Wan2.2's VAE: no work is done at full resolution, and training converges
several times faster. A second one is 4x in space: what it does at full resolution, it does with fewer channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanAttentionBlock,
    WanCausalConv3d,
    WanResample,
    WanResidualBlock,
)

MINI_VAE: dict[str, Any] = {
    "base_dim": 24,
    "decoder_base_dim": 32,
    "z_dim": 16,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True, True],
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,  # 3 colours x 2 x 2
    "out_channels": 12,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
}
FINE_VAE: dict[str, Any] = MINI_VAE | {  # two halvings of time take two of space: nothing is left to be folded
    "base_dim": 16,
    "decoder_base_dim": 16,
    "patch_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "scale_factor_spatial": 4,
}
_BY_STRIDE = {8: MINI_VAE, 4: FINE_VAE}
QUIET = -6.0  # log variance of the posterior at the start: at 0 its noise would drown the untrained latents


def new_mini_vae(seed: int, *, stride: int = 8, **changes: Any) -> AutoencoderKLWan:
    """A VAE to train from scratch, 8 or 4 pixels to a latent; `changes` to its settings make a smaller one for tests.
    Global random state is kept.

    Residual branches start at zero, so that at first only the shortcuts, upscaling and ends of the network speak. It
    starts as a codec of single pictures: convolutions read nothing of the frames before, time is averaged on the way
    down and copied on the way up. Training on pictures therefore already yields a codec of (still) videos.
    """
    shape = {**_BY_STRIDE[stride], **changes}
    channels = shape["z_dim"]
    for width in {"base_dim", "decoder_base_dim"} - changes.keys():  # the last level is as wide as the latents
        shape[width] = max(shape[width], channels // shape["dim_mult"][-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(**shape, latents_mean=[0.0] * channels, latents_std=[1.0] * channels)
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, WanResidualBlock | WanAttentionBlock):
                last: Any = module.conv2 if isinstance(module, WanResidualBlock) else module.proj
                last.weight.zero_()
                last.bias.zero_()
            if isinstance(module, WanCausalConv3d) and module.kernel_size == (3, 3, 3):
                module.weight[:, :, :-1] = 0.0
            if isinstance(module, WanResample) and module.mode in ("downsample3d", "upsample3d"):
                _pass_time_on(module)
        vae.quant_conv.weight[channels:] *= 0.1
        vae.quant_conv.bias[channels:] = QUIET
    return vae


def _pass_time_on(resample: Any) -> None:
    """Make the (3, 1, 1) convolution that halves or doubles the frame rate an average or a copy, plus some noise."""
    kernel = resample.time_conv.weight
    kernel *= 0.1
    resample.time_conv.bias.zero_()
    one = torch.eye(resample.dim)
    if resample.mode == "downsample3d":
        kernel[..., 0, 0] += one[..., None] / kernel.shape[2]
    else:
        kernel[:, :, -1, 0, 0] += torch.cat([one, one])
