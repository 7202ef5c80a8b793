"""A linear code of video blocks: stride x stride pixels of 1 or 4 frames, each as coordinates along fixed directions.

No network: latents are exact in a piece as in the whole, a still video has the latents of its first frame throughout,
and a video moved by whole blocks has latents moved alike. Directions are a picture times a wave in time (a cosine of
the discrete cosine transform); which ones is learned from clips (hmcli.codecs.block_fit). A codec for small compute:
many channels, most of them weak, beside a model that predicts clean latents (flow.target=clean).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from hmcli.aligned import own_weights
from hmcli.codecs.places import CONFIG, vae_folder
from hmcli.codecs.video import check_latents, check_video
from hmcli.codecs.wan_files import first_line, refuse_wrong_keys
from hmcli.contracts import SIDE_STEP, TIME_STRIDE
from hmcli.errors import DataError, MissingPartError, NotFiniteError, RecipeError
from hmcli.recipe.sections import CodecConfig
from hmcli.tensors.impostors import check_no_impostors_in

COLOURS = 3


def waves() -> Tensor:
    """(4, 4) float32: the discrete cosine transform of four frames; the first row is their mean, all have its length.

    Halved against the orthonormal one, so that four equal frames have the coordinates of one.
    """
    frame, frequency = torch.arange(TIME_STRIDE) + 0.5, torch.arange(TIME_STRIDE)[:, None]
    rows = torch.cos(math.pi * frequency * frame / TIME_STRIDE) * math.sqrt(2) / TIME_STRIDE
    rows[0] = 1 / TIME_STRIDE
    return rows


class LinearBlocks(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The code itself. Weights: `mean` (N,), the mean picture of a block, N = 3 * stride * stride; `pictures` (C, N),
    orthonormal among those of one frequency; `frequency` (C,), the wave in time that each goes with, 0 first."""

    config: Any

    @register_to_config
    def __init__(
        self,
        stride: int = 4,
        z_dim: int = 48,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        numbers = COLOURS * stride * stride
        if stride < 1 or SIDE_STEP % stride or not 1 <= z_dim <= TIME_STRIDE * numbers:
            raise ValueError(f"no code of {z_dim} channels has blocks of {stride} x {stride} pixels")
        for name, values in {"latents_mean": latents_mean, "latents_std": latents_std}.items():
            if values is not None and (len(values) != z_dim or not all(map(math.isfinite, values))):
                raise ValueError(f"{name} are not {z_dim} numbers")
        self.mean = nn.Parameter(torch.zeros(numbers), requires_grad=False)
        self.pictures = nn.Parameter(torch.zeros(z_dim, numbers), requires_grad=False)
        self.frequency = nn.Parameter(torch.zeros(z_dim, dtype=torch.int64), requires_grad=False)

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4k, H, W) -> (B, C, 1 + k, H / stride, W / stride), not normalised."""
        stride = self.config.stride
        first = (cut(video[:, :, :1], stride) - self.mean).squeeze(2) @ self._still().T
        if video.shape[2] > 1:
            rest = (cut(video[:, :, 1:], stride) - self.mean).movedim(2, -2)  # B k h w 4 N
            first = torch.cat([first, rest.flatten(-2) @ self._moving().T], dim=1)
        return first.movedim(-1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + k, h, w) -> (B, 3, 1 + 4k, h * stride, w * stride)."""
        z = latents.movedim(1, -1)  # B F h w C
        first = (z[:, :1] @ self._still()).unsqueeze(2)
        later = (z[:, 1:] @ self._moving() * TIME_STRIDE).unflatten(-1, (TIME_STRIDE, -1)).movedim(-2, 2)
        return torch.cat([joined(part + self.mean, self.config.stride) for part in (first, later)], dim=2)

    def _still(self) -> Tensor:
        """(C, N): of a single frame, which has no wave but the first."""
        return self.pictures * (self.frequency == 0)[:, None]

    def _moving(self) -> Tensor:
        """(C, 4 * N): of four frames."""
        wave = waves().to(self.pictures)[self.frequency]
        return (wave[:, :, None] * self.pictures[:, None]).flatten(1)


def cut(frames: Tensor, stride: int) -> Tensor:
    """(B, 3, 4k, H, W) -> blocks (B, k, 4, h, w, N); a single frame -> (B, 1, 1, h, w, N)."""
    parts = frames.unflatten(3, (-1, stride)).unflatten(5, (-1, stride))  # B 3 T h s w s
    numbers = parts.permute(0, 2, 3, 5, 1, 4, 6).flatten(4)
    return numbers.unflatten(1, (-1, min(TIME_STRIDE, frames.shape[2])))


def joined(blocks: Tensor, stride: int) -> Tensor:
    """(B, k, frames, h, w, N) -> (B, 3, k * frames, H, W): `cut` undone."""
    parts = blocks.flatten(1, 2).unflatten(-1, (COLOURS, stride, stride))  # B T h w 3 s s
    return parts.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(3, 4)


class BlockCodec:
    """`LinearBlocks` as a codec (hmcli.contracts.VideoCodec): checked input, normalised latents."""

    def __init__(self, code: LinearBlocks, *, device: str | torch.device, placed: bool = False) -> None:
        """Weights that are `placed` stay where they lie."""
        moved: Any = code
        self.name = "blocks"
        self.code: Any = (moved if placed else moved.to(device)).eval()
        self.channels, self.stride = int(code.config.z_dim), int(code.config.stride)
        shape = (1, self.channels, 1, 1, 1)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(shape)
            for values in (code.config.latents_mean, code.config.latents_std)
        )

    @property
    def vae(self) -> LinearBlocks:
        """What a diffusers pipeline takes as its VAE."""
        code: LinearBlocks = self.code
        return code

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4k, H, W) float in [-1, 1] -> (B, C, 1 + k, H/stride, W/stride) float32, on the video's device."""
        check_video(video, self.stride)
        z = self.code.encode(video.to(self.code.device, self.code.dtype)).float()
        return ((z - self._mean) / self._std).to(video.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + k, h, w) -> (B, 3, 1 + 4k, h * stride, w * stride) float32 in [-1, 1], on the latents' device."""
        check_latents(latents, self.channels)
        z = latents.to(self._mean) * self._std + self._mean
        video = self.code.decode(z.to(self.code.dtype)).float()
        if not bool(torch.isfinite(video).all()):
            raise NotFiniteError(f"codec {self.name} in {self.code.dtype} made pixels that are not finite")
        return video.clamp(-1.0, 1.0).to(latents.device)


def codec_around(code: LinearBlocks, device: str | torch.device) -> BlockCodec:
    """A loaded code as a codec; its weights stay where they lie."""
    return BlockCodec(code, device=device, placed=True)


def blocks_codec(config: CodecConfig, device: str | torch.device) -> BlockCodec:
    """The code at `codec.path`: a codec artifact of `train.part: blocks`, or its vae/ folder."""
    if not config.path:
        raise MissingPartError(
            "codec 'blocks' needs a fitted code, and codec.path is empty", where={"recipe": "codec.path"},
            fix="fit one (hm train nano/blocks --latents CLIPS --out CODEC) and set codec.path to it",
        )  # fmt: skip
    whole = CodecConfig()
    for name in ("tile", "chunk_frames"):
        if (asked := getattr(config, name)) != getattr(whole, name):
            raise RecipeError(
                f"codec.{name}={asked}: codec 'blocks' works block by block, there is nothing to divide",
                where={"recipe": f"codec.{name}"}, fix="leave it out",
            )  # fmt: skip
    return BlockCodec(load_blocks(Path(config.path), getattr(torch, config.dtype)), device=device)


def load_blocks(path: Path, dtype: torch.dtype) -> LinearBlocks:
    """The code in a folder (its own, or one with vae/ inside). Raises MissingPartError and DataError."""
    folder = vae_folder(path)
    if not (folder / CONFIG).is_file():
        raise MissingPartError(
            "there is no code of blocks at this path", where={"codec.path": path},
            fix="set codec.path to what hm train with train.part=blocks wrote",
        )  # fmt: skip
    check_no_impostors_in(folder)
    try:
        config: Any = LinearBlocks.load_config(str(folder), local_files_only=True)
        named = config.get("_class_name") if isinstance(config, dict) else "list"
        if named != LinearBlocks.__name__:
            raise DataError(
                f"this folder holds a {named}, not a code of blocks", where={"folder": folder},
                fix="set codec.name to mini or wan2.1, whose network it is, or codec.path to a code of blocks",
            )  # fmt: skip
        code, info = LinearBlocks.from_pretrained(
            str(folder), torch_dtype=dtype, output_loading_info=True, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        raise DataError(
            "the code of blocks cannot be loaded", where={"folder": folder, "reason": first_line(error)},
            fix="fit it again (hm train with train.part=blocks)",
        ) from error  # fmt: skip
    own_weights(code)
    refuse_wrong_keys(folder, missing=info["missing_keys"], extra=info["unexpected_keys"])
    _check(code, folder)
    return code


def _check(code: LinearBlocks, folder: Path) -> None:
    """Raise DataError for weights of a folder that are no code."""
    wrong = [
        *(["latents_mean"] if code.config.latents_mean is None else []),
        *(["latents_std"] if code.config.latents_std is None or min(code.config.latents_std) <= 0 else []),
        *(["frequency"] if not bool(((code.frequency >= 0) & (code.frequency < TIME_STRIDE)).all()) else []),
        *(name for name in ("mean", "pictures") if not bool(torch.isfinite(getattr(code, name)).all())),
    ]
    if wrong:
        raise DataError(
            f"the code of blocks says nothing sensible as {', '.join(wrong)}", where={"folder": folder},
            fix="fit it again (hm train with train.part=blocks)",
        )  # fmt: skip
