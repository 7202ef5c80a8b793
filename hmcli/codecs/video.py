"""Pixels <-> latents: diffusers' AutoencoderKLWan behind `contracts.VideoCodec`.

Latents are the posterior's mode, normalised as Wan does: (z - latents_mean) / latents_std. The VAE is causal, so a
video is encoded and decoded a few latent frames at a time with the features of the frames before kept in a cache:
memory does not grow with the length, and the result is that of the whole clip (tests/codecs/test_video.py pins the
members of diffusers this relies on).  Loading is in `hmcli.codecs.wan_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d, patchify, unpatchify
from torch import Tensor, nn

from hmcli.codecs.tiling import TileGrid
from hmcli.codecs.wan_files import load_wan_vae
from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError, MissingPartError, NotFiniteError
from hmcli.recipe.sections import CodecConfig

MINI_WEIGHTS = Path(__file__).parents[1] / "weights" / "mini" / "vae"
MINI_CHUNK, WAN_CHUNK = 4, 1  # latent frames at once when the recipe leaves it to the codec
_TO_FLOATS = "divide 8-bit pixels by 127.5 and subtract 1"
RANGE_SLACK = 1e-3  # rounding of resized or half-precision pixels beyond [-1, 1]


class WanCodec:
    """A Wan VAE as a codec: checked input, normalised latents, bounded memory."""

    def __init__(
        self, vae: AutoencoderKLWan, *, name: str, device: str | torch.device, tile: tuple[int, int] | None, chunk: int,
        placed: bool = False,
    ) -> None:  # fmt: skip
        """`tile` is height and width in pixels (None: whole frames), `chunk` the latent frames in work at once; weights
        that are `placed` stay where they lie (hooks that offload them see to it)."""
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: at least one latent frame is in work at once")
        config: Any = vae.config
        self.name = name
        self.channels = int(config.z_dim)
        self.stride = space_stride(config)
        moved: Any = vae  # diffusers' annotations hide nn.Module.to
        self.vae: Any = (moved if placed else moved.to(device)).eval().requires_grad_(False)
        self.device = torch.device(device)
        self.tile = tile
        self.chunk = chunk
        shape = (1, self.channels, 1, 1, 1)
        self._mean = torch.tensor(config.latents_mean, dtype=torch.float32).view(shape)
        self._std = torch.tensor(config.latents_std, dtype=torch.float32).view(shape)

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4k, H, W) float in [-1, 1] -> (B, C, 1 + k, H/stride, W/stride) float32, on the video's device."""
        check_video(video, self.stride)
        return torch.cat(list(self.encode_pieces(split_video(video, self.chunk))), dim=2)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + k, h, w) -> (B, 3, 1 + 4k, h * stride, w * stride) float32 in [-1, 1], on the latents' device."""
        check_latents(latents, self.channels)
        return torch.cat(list(self.decode_pieces(split_latents(latents, self.chunk))), dim=2)

    @torch.no_grad()
    def encode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """One clip as consecutive pieces, the first of one frame, the others of 4n frames -> latents of each piece."""
        passes: _Passes | None = None
        for piece in pieces:
            check_pixels(piece)
            if passes is None:
                if piece.shape[2] != 1:
                    raise ValueError(f"the first piece has {piece.shape[2]} frames, a clip starts with one")
                passes = _Passes(self.vae.encoder, TileGrid.cover(piece.shape[3:], self.tile, self.stride))
            z = passes.run(piece, self._encode_tile, down=self.stride)
            yield ((z.float().cpu() - self._mean) / self._std).to(piece.device)

    @torch.no_grad()
    def decode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Consecutive latents of one clip, the first piece of one frame -> the video frames of each piece."""
        for video in self.unchecked_pieces(pieces):
            if not bool(torch.isfinite(video).all()):  # clamping would make infinite pixels white
                raise NotFiniteError(f"codec {self.name} in {self.vae.dtype} made pixels that are not finite")
            yield video.clamp(-1.0, 1.0)

    def unchecked_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same as they leave the network, in float32: no number in them decides what is done."""
        passes: _Passes | None = None
        for piece in pieces:
            if passes is None:
                if piece.shape[2] != 1:
                    raise ValueError(f"the first piece has {piece.shape[2]} latent frames, a clip starts with one")
                tile = None if self.tile is None else (self.tile[0] // self.stride, self.tile[1] // self.stride)
                passes = _Passes(self.vae.decoder, TileGrid.cover(piece.shape[3:], tile, 1))
            z = piece.float().cpu() * self._std + self._mean
            yield passes.run(z, self._decode_tile, up=self.stride).float().to(piece.device)

    def _encode_tile(self, tile: Tensor, memory: _CausalMemory) -> Tensor:
        x = tile.to(self.device, self.vae.dtype)
        if self.vae.config.patch_size is not None:
            x = patchify(x, patch_size=self.vae.config.patch_size)
        moments = self.vae.quant_conv(memory.run(x))
        return moments[:, : self.channels]  # mean, then log variance: the mode is the mean

    def _decode_tile(self, tile: Tensor, memory: _CausalMemory) -> Tensor:
        z = self.vae.post_quant_conv(tile.to(self.device, self.vae.dtype))
        x = memory.run(z, first_chunk=memory.fresh)
        if self.vae.config.patch_size is not None:
            x = unpatchify(x, patch_size=self.vae.config.patch_size)
        return x


class _CausalMemory:
    """The features that a causal network keeps of the frames it has seen, for one tile of one clip."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._features: list[Any] = [None] * sum(isinstance(m, WanCausalConv3d) for m in network.modules())
        self.fresh = True

    def run(self, x: Tensor, **first: bool) -> Tensor:
        self.fresh = False
        return self._network(x, feat_cache=self._features, feat_idx=[0], **first)


class _Passes:
    """Causal passes over all tiles of one clip, side by side."""

    def __init__(self, network: nn.Module, grid: TileGrid) -> None:
        self._grid = grid
        self._memories = [_CausalMemory(network) for _ in grid.places]

    def run(
        self, piece: Tensor, one_tile: Callable[[Tensor, _CausalMemory], Tensor], *, up: int = 1, down: int = 1
    ) -> Tensor:
        tiles = [one_tile(cut, m) for cut, m in zip(self._grid.cut(piece), self._memories, strict=True)]
        return self._grid.join(tiles, up=up, down=down)


def split_video(video: Tensor, chunk: int) -> list[Tensor]:
    """A checked video as pieces for `encode_pieces`: one frame, then `chunk` latent frames' worth each."""
    return _split(video, TIME_STRIDE * chunk)


def split_latents(latents: Tensor, chunk: int) -> list[Tensor]:
    """Latents as pieces for `decode_pieces`: one frame, then `chunk` each."""
    return _split(latents, chunk)


def _split(x: Tensor, step: int) -> list[Tensor]:
    frames = x.shape[2]
    cuts = sorted({0, *range(1, frames, step), frames})
    return [x[:, :, start:stop] for start, stop in pairwise(cuts)]


def space_stride(config: Any) -> int:
    """Pixels per latent pixel along a side, as its network has it: folded, then halved by each level but one."""
    return int((config.patch_size or 1) * 2 ** (len(config.dim_mult) - 1))


def check_video(video: Tensor, stride: int) -> None:
    """Refuse what diffusers would cut silently: lengths other than 4k+1, sides that are not multiples of `stride`."""
    if video.ndim != 5 or video.shape[1] != 3:
        raise DataError(f"a video of shape {tuple(video.shape)} is not (B, 3, T, H, W)")
    frames, height, width = video.shape[2:]
    if frames % TIME_STRIDE != 1:
        low = max(1, (frames - 1) // TIME_STRIDE * TIME_STRIDE + 1)
        near = f"{low} or {low + TIME_STRIDE}" if frames else "1"
        raise DataError(f"{frames} video frames is not 4k+1", fix=f"use {near} frames, or data.frames=trim or pad")
    sides = (("height", height), ("width", width))
    wrong = [f"{name} {side} ({_around(side, stride)})" for name, side in sides if side % stride]
    if wrong or not height or not width:
        raise DataError(
            f"video size {height}x{width} is not in multiples of {stride}: {', '.join(wrong)}",
            fix=f"set data.size to multiples of {stride}",
        )
    check_pixels(video)


def _around(side: int, stride: int) -> str:
    low = side // stride * stride
    return f"near {low} and {low + stride}" if low else f"at least {stride}"


def check_latents(latents: Tensor, channels: int) -> None:
    """Raise DataError for what no codec of so many channels has made."""
    if latents.ndim != 5 or latents.shape[1] != channels or min(latents.shape) < 1:
        raise DataError(f"latents of shape {tuple(latents.shape)} are not (B, {channels}, 1+k, h, w)")
    if not bool(torch.isfinite(latents).all()):
        raise DataError("latents hold infinite or undefined values", fix="encode or generate the clip again")


def check_pixels(video: Tensor) -> None:
    """Pixels are floats in [-1, 1]; anything else would poison every latent made from it."""
    if not video.is_floating_point():
        raise DataError(f"pixels are {video.dtype}, not floats in [-1, 1]", fix=_TO_FLOATS)
    low, high = (float(value) for value in torch.aminmax(video.detach()))
    if not (low >= -1.0 - RANGE_SLACK and high <= 1.0 + RANGE_SLACK):  # also refuses NaN
        raise DataError(
            f"pixel values lie in [{low:.4g}, {high:.4g}], outside [-1, 1]",
            fix=_TO_FLOATS,
        )


def wan_codec(config: CodecConfig, device: str | torch.device) -> WanCodec:
    """The Wan2.1 VAE from `codec.path`: a diffusers folder, or the original single file."""
    if not config.path:
        raise MissingPartError(
            "codec 'wan2.1' needs the weights of the Wan2.1 VAE, and codec.path is empty",
            where={"recipe": "codec.path"},
            fix="download the vae/ folder of Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or Wan2.1_VAE.pth of "
            "Wan-AI/Wan2.1-T2V-1.3B, and set codec.path to it",
        )
    return _codec("wan2.1", Path(config.path), config, device, config.chunk_frames or WAN_CHUNK)


def mini_codec(config: CodecConfig, device: str | torch.device) -> WanCodec:
    """The small VAE that comes with the package, or one of the same kind from `codec.path`."""
    path = Path(config.path) if config.path else MINI_WEIGHTS
    return _codec("mini", path, config, device, config.chunk_frames or MINI_CHUNK)


def codec_around(vae: AutoencoderKLWan, device: str | torch.device) -> WanCodec:
    """A loaded Wan VAE, of whatever size, as a codec that works on whole frames; the weights stay where they lie."""
    return WanCodec(vae, name="vae", device=device, tile=None, chunk=MINI_CHUNK, placed=True)


def _codec(name: str, path: Path, config: CodecConfig, device: str | torch.device, chunk: int) -> WanCodec:
    vae = load_wan_vae(path, getattr(torch, config.dtype))
    return WanCodec(vae, name=name, device=device, tile=config.tile, chunk=chunk)
