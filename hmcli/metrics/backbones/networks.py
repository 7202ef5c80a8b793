"""Backbones: frames -> features, for the metrics that compare what frames show rather than their pixels.

`effnet-lite0` is the offline default, with weights from the extra `features`. `hog` needs no weights: histograms of
oriented gradients, no notion of a subject. `dino` and `clip` are those of VBench, loaded from a local folder in
transformers' format and fed as VBench feeds them: resized in torch without antialiasing, on float pixels, so neither
rounded nor clamped.
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

from hmcli.aligned import own_weights, tensor_of
from hmcli.errors import DataError, MissingPartError
from hmcli.metrics.contract import check_video
from hmcli.tensors.impostors import check_no_impostors_in

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 16  # frames through a network at once
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


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
                batch = tensor_of(frames[start : start + BATCH]).to(self._device).permute(0, 3, 1, 2)
                found.append(self._features(self._pixels(batch.float())).float().cpu())
        return torch.cat(found).numpy()


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


def about_network(features: str, resize: str, folder: Path) -> dict[str, str]:
    return {
        "features": features,
        "resize": resize,
        "weights": f"sha256:{weights_hash(folder)}",
        "precision": "float32",
        "versions": versions("torch", "transformers"),
        "comparable": "with VBench's where the weights are the released ones and the metric is the one that uses them",
    }


def versions(*packages: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in packages)


def weights_folder(name: str, path: str, what: str, *, key: str = "eval.backbone_path") -> Path:
    """The weights' folder; nothing is downloaded. Raises MissingPartError saying what to put where."""
    if path and (Path(path) / "config.json").is_file():
        return Path(path)
    fix = f"have config.json and model.safetensors in a folder ({what}); pass it: --set {key}=FOLDER"
    if key == "eval.backbone_path":
        fix = (
            f"hm fetch {name} brings {what}, or have config.json and model.safetensors in a folder; pass it: "
            f"--set eval.backbone={name} --set {key}=FOLDER; eval.backbone=hog needs no weights"
        )
    raise MissingPartError(
        f"the backbone {name} needs weights" + ("" if path else f", and {key} is empty"),
        where={"expected": str(Path(path) / "config.json")} if path else None, fix=fix,
    )  # fmt: skip


def input_side(name: str, folder: Path, image_size: Any) -> int:
    """The square input size, in pixels, that the weights were trained at (224 for the released ones)."""
    if isinstance(image_size, int):
        return image_size
    raise DataError(
        f"the backbone {name} wants square inputs of one size, its configuration says {image_size}",
        where={"file": folder / "config.json", "key": "image_size"},
        fix="use the released weights' configuration",
    )


def load_network(kind: Any, folder: Path, device: str, **options: Any) -> Any:
    """The network in float32 for inference. Raises DataError naming what the folder lacks."""
    import torch
    from safetensors import SafetensorError

    check_no_impostors_in(folder)
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
    own_weights(model)
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


def weights_hash(folder: Path, *more: str) -> str:
    """sha256 over configuration, weight files and those named besides, by name."""
    digest = hashlib.sha256()
    named = [folder / name for name in ("config.json", *more)]
    for file in sorted([*named, *folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(file.name.encode())
        _read_into(digest, file)
    return digest.hexdigest()


def file_hash(file: Path) -> str:
    """sha256 of a file of weights."""
    digest = hashlib.sha256()
    _read_into(digest, file)
    return digest.hexdigest()


def _read_into(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
