"""A Wan VAE's decoder with tensors of fixed shapes in and out, as a graph of ONNX needs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hmcli.codecs.video import WanCodec, split_latents


class Decoder(nn.Module):
    """Normalised latents (B, C, 1 + k, h, w) float32 -> pixels in [-1, 1] float32, as `WanCodec.decode`, unchecked.

    The passes over pieces of a clip, which keep features from one to the next, are written out one after the other.
    """

    def __init__(self, codec: WanCodec) -> None:
        super().__init__()
        self.vae, self.codec = codec.vae, codec

    def forward(self, latents: Tensor) -> Tensor:
        pieces = self.codec.unchecked_pieces(split_latents(latents, self.codec.chunk))
        return torch.cat(list(pieces), dim=2).clamp(-1.0, 1.0)
