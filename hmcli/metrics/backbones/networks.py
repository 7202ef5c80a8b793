"""Backbones: frames -> features, for the metrics that compare what frames show rather than their pixels.

`hog` needs no weights and is the offline default: histograms of oriented gradients, no notion of a subject. `dino` and
`clip` are those of VBench, loaded from a local folder in transformers' format and fed as VBench feeds them: resized in
torch without antialiasing, on float pixels, so neither rounded nor clamped.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.metrics.contract import check_video

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ViTModel

HOG_SIDE = 128  # pixels: every frame is resized to this square
HOG = {"orientations": 9, "pixels_per_cell": (16, 16), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}
BATCH = 16  # frames through a network at once
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Hog:
    """Histograms of oriented gradients of the whole frame by scikit-image; weights: none."""

    name = "hog"

    def __init__(self) -> None:
        settings = ", ".join(f"{key}={value}" for key, value in HOG.items())
        self.about = {
            "features": f"scikit-image hog, {settings}, strongest of the three channels' gradients",
            "resize": f"whole frame to {HOG_SIDE}x{HOG_SIDE} pixels, aspect ratio given up, PIL bilinear (antialiased)",
            "weights": "none",
            "versions": _versions("scikit-image", "pillow"),
            "comparable": "no: not a learned backbone; scores are not comparable with VBench's or the paper's",
        }

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        from PIL import Image
        from skimage.feature import hog as histograms

        check_video("frames", frames)
        side = (HOG_SIDE, HOG_SIDE)
        small = (np.asarray(Image.fromarray(frame).resize(side, Image.Resampling.BILINEAR)) for frame in frames)
        return np.stack([histograms(frame, channel_axis=-1, **HOG) for frame in small]).astype(np.float32)


class Network:
    """A vision network with the pixels it wants: `pixels` maps (N, 3, H, W) floats in [0, 255] to its input,
    `features` that input to (N, D)."""

    def __init__(
        self,
        name: str,
        *,
        pixels: Callable[[Tensor], Tensor],
        features: Callable[[Tensor], Tensor],
        device: str,
        about: dict[str, str],
    ) -> None:
        self.name, self.about = name, about
        self._pixels, self._features, self._device = pixels, features, device

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        import torch

        check_video("frames", frames)
        found = []
        with torch.inference_mode():
            for start in range(0, len(frames), BATCH):
                batch = torch.from_numpy(frames[start : start + BATCH].copy()).to(self._device).permute(0, 3, 1, 2)
                found.append(self._features(self._pixels(batch.float())).float().cpu())
        return torch.cat(found).numpy()


class DinoFeatures:
    """Class token of a ViT at any input size, with position embeddings stretched as the DINO repository does.

    DINO enlarges the table by (cells + 0.1) / side along each axis and keeps that factor for the coordinates, where
    transformers passes the wanted size; the grids agree, the values differ a little, and scores with them.
    """

    def __init__(self, model: ViTModel) -> None:
        self._config = model.config
        self._weights = dict(model.named_parameters()) | dict(model.named_buffers())
        self._shells: dict[tuple[int, int], ViTModel] = {}  # the architecture at one input size, without weights

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, 1 + cells, D): the table of the class token and of every patch of a (height, width) input, in pixels."""
        import torch
        from torch.nn import functional

        table = self._weights["embeddings.position_embeddings"]
        side = round((table.shape[1] - 1) ** 0.5)
        patch_height, patch_width = self._weights["embeddings.patch_embeddings.projection.weight"].shape[-2:]
        cells = (height // patch_height, width // patch_width)
        if cells == (side, side) and height == width:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factor = [(count + 0.1) / side for count in cells]
        stretched = functional.interpolate(grid, scale_factor=factor, mode="bicubic")
        return torch.cat([table[:, :1], stretched.flatten(2).mT], dim=1)

    def __call__(self, pixels: Tensor) -> Tensor:
        import copy

        import torch
        from transformers import ViTModel

        size = (pixels.shape[-2], pixels.shape[-1])
        if size not in self._shells:
            config = copy.deepcopy(self._config)
            config.image_size = size
            with torch.device("meta"):
                self._shells[size] = ViTModel(config, add_pooling_layer=False).eval()
        weights = self._weights | {"embeddings.position_embeddings": self._positions(*size)}
        output = torch.func.functional_call(self._shells[size], weights, (pixels,), strict=True)
        return output.last_hidden_state[:, 0]


def shorter_side(frames: Tensor, side: int, mode: str) -> Tensor:
    """Resize (N, 3, H, W) floats so that the shorter side is `side`, the longer one rounded down; not antialiased."""
    from torch.nn import functional

    height, width = frames.shape[-2:]
    short = min(height, width)
    size = (int(side * height / short), int(side * width / short))
    return functional.interpolate(frames, size=size, mode=mode, align_corners=False, antialias=False)


def centre(frames: Tensor, side: int) -> Tensor:
    """The (side, side) square in the middle of (N, 3, H, W); half a pixel is rounded to even, as torchvision does."""
    top, left = (round((length - side) / 2) for length in frames.shape[-2:])
    return frames[..., top : top + side, left : left + side]


def normalised(frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """[0, 255] -> [0, 1], then per channel minus mean, divided by std."""
    return (frames / 255.0 - frames.new_tensor(mean)[:, None, None]) / frames.new_tensor(std)[:, None, None]


def hog(path: str, device: str) -> Hog:
    """The offline default. It has no weights, so a path is refused; it runs on the CPU whatever the device."""
    if path:
        raise UsageError(
            "the backbone hog has no weights to load",
            where={"recipe": f"eval.backbone_path={path}"},
            fix="leave eval.backbone_path empty, or set eval.backbone to dino or clip",
        )
    return Hog()


def dino(path: str, device: str) -> Network:
    """DINO ViT-B/16 (VBench's subject consistency): class token, shorter side 224, whole frame."""
    from transformers import ViTModel

    folder = _folder("dino", path, "DINO ViT-B/16 as transformers saves a ViTModel (facebook/dino-vitb16)")
    model = _load(ViTModel, folder, device, add_pooling_layer=False)
    side = _side("dino", folder, model.config.image_size)
    return Network(
        "dino",
        pixels=lambda frames: normalised(shorter_side(frames, side, "bilinear"), IMAGENET_MEAN, IMAGENET_STD),
        features=DinoFeatures(model),
        device=device,
        about=_about(
            f"class token of a ViT with {model.config.num_hidden_layers} layers of width {model.config.hidden_size} on "
            f"patches of {model.config.patch_size}, position embeddings stretched as in the DINO repository",
            f"shorter side to {side}, bilinear, no antialiasing, no crop, float pixels; ImageNet mean and std",
            folder,
        ),
    )


def clip(path: str, device: str) -> Network:
    """CLIP ViT-B/32 (VBench's background consistency): projected image features, shorter side 224, centre crop."""
    from transformers import CLIPVisionModelWithProjection

    folder = _folder("clip", path, "CLIP ViT-B/32 as transformers saves a CLIPModel (openai/clip-vit-base-patch32)")
    model = _load(CLIPVisionModelWithProjection, folder, device)
    side = _side("clip", folder, model.config.image_size)
    return Network(
        "clip",
        pixels=lambda frames: normalised(centre(shorter_side(frames, side, "bicubic"), side), CLIP_MEAN, CLIP_STD),
        features=lambda pixels: model(pixel_values=pixels).image_embeds,
        device=device,
        about=_about(
            f"projected image features of a ViT with {model.config.num_hidden_layers} layers of width "
            f"{model.config.hidden_size} on patches of {model.config.patch_size}",
            f"shorter side to {side}, bicubic, no antialiasing, centre crop, float pixels; CLIP mean and std",
            folder,
        ),
    )


def _about(features: str, resize: str, folder: Path) -> dict[str, str]:
    return {
        "features": features,
        "resize": resize,
        "weights": f"sha256:{_weights_hash(folder)}",
        "precision": "float32",
        "versions": _versions("torch", "transformers"),
        "comparable": "with VBench's where the weights are the released ones and the metric is the one that uses them",
    }


def _versions(*packages: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in packages)


def _folder(name: str, path: str, what: str) -> Path:
    """The weights' folder; nothing is downloaded. Raises MissingPartError saying what to put where."""
    if path and (Path(path) / "config.json").is_file():
        return Path(path)
    raise MissingPartError(
        f"the backbone {name} needs weights" + ("" if path else ", and eval.backbone_path is empty"),
        where={"expected": str(Path(path) / "config.json")} if path else None,
        fix=f"put {what} into a folder (config.json and model.safetensors) and pass "
        f"--set eval.backbone={name} --set eval.backbone_path=FOLDER; eval.backbone=hog needs no weights",
    )


def _side(name: str, folder: Path, image_size: Any) -> int:
    """The square input size, in pixels, that the weights were trained at (224 for the released ones)."""
    if isinstance(image_size, int):
        return image_size
    raise DataError(
        f"the backbone {name} wants square inputs of one size, its configuration says {image_size}",
        where={"file": folder / "config.json", "key": "image_size"},
        fix="use the released weights' configuration",
    )


def _load(kind: Any, folder: Path, device: str, **options: Any) -> Any:
    """The network in float32 for inference. Raises DataError naming what the folder lacks."""
    import torch
    from safetensors import SafetensorError

    try:
        with _quiet_loading():  # parts of the folder that are not asked for (a text tower) are no news
            model, info = kind.from_pretrained(
                str(folder), local_files_only=True, output_loading_info=True, dtype=torch.float32, **options
            )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise DataError(f"the weights cannot be read as {kind.__name__}: {error}", where={"folder": folder}) from error
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise DataError(
            f"the weights do not fill {kind.__name__}: {len(wrong)} parameters are missing or of another shape",
            where={"folder": folder, "first": ", ".join(wrong[:5])},
            fix="use a folder saved by transformers' save_pretrained for this architecture",
        )
    return model.to(device).eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """transformers without its bar and its table of unused keys; what is missing is raised by the caller."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _weights_hash(folder: Path) -> str:
    """sha256 over configuration and weight files, by name."""
    digest = hashlib.sha256()
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
