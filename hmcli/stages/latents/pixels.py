"""Videos as uint8 frames to normalised latents, and back."""

from __future__ import annotations

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.contracts import VideoCodec


def encode_video(video: np.ndarray, codec: VideoCodec, device: str) -> np.ndarray:
    """(T, H, W, 3) uint8 -> normalised latents (C, F, h, w) float32."""
    pixels = tensor_of(video).to(device).movedim(-1, 0)[None].float() / 127.5 - 1
    return codec.encode(pixels)[0].float().cpu().numpy()


def decode_video(latents: np.ndarray, codec: VideoCodec, device: str) -> np.ndarray:
    """Normalised latents (C, F, h, w) -> (T, H, W, 3) uint8."""
    import torch

    with torch.no_grad():
        pixels = codec.decode(tensor_of(latents)[None].to(device))[0]
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()
