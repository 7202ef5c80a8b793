"""Videos as uint8 frames to normalised latents, and back."""

from __future__ import annotations

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.contracts import VideoCodec
from hmcli.errors import NotFiniteError

_WIDER = "set codec.dtype to float32 or bfloat16 where it is float16; otherwise look at the codec's weights"


def encode_video(video: np.ndarray, codec: VideoCodec, device: str) -> np.ndarray:
    """(T, H, W, 3) uint8 -> normalised latents (C, F, h, w) float32, finite. Raises NotFiniteError."""
    pixels = tensor_of(video).to(device).movedim(-1, 0)[None].float() / 127.5 - 1
    latents = codec.encode(pixels)[0].float().cpu().numpy()
    if not np.isfinite(latents).all():
        raise NotFiniteError(f"codec {codec.name} made latents that are not finite", fix=_WIDER)
    return latents


def decode_video(latents: np.ndarray, codec: VideoCodec, device: str) -> np.ndarray:
    """Normalised latents (C, F, h, w) -> (T, H, W, 3) uint8. Raises NotFiniteError where pixels are not finite."""
    import torch

    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):  # whatever a training computes in
        pixels = codec.decode(tensor_of(latents)[None].to(device))[0]
    if not bool(torch.isfinite(pixels).all()):
        raise NotFiniteError(f"codec {codec.name} made pixels that are not finite", fix=_WIDER)
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().movedim(0, -1).cpu().numpy()
