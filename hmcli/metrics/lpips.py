"""LPIPS, version 0.1 (Zhang et al. 2018): a distance of AlexNet's or VGG-16's maps with channels weighed by people.

The published files, by path: ImageNet weights of torchvision's AlexNet or VGG-16 (of which only the convolutions are
used), and the weights of channels that the `lpips` package carries. Neither package is needed. Frames are compared at
their own size; values equal the package's within 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from torch import Tensor, nn

from hmcli.errors import DataError, MissingPartError, UsageError
from hmcli.metrics.backbones.networks import file_hash, versions
from hmcli.metrics.perceptual import Distances, distances
from hmcli.tensors.impostors import check_no_impostor

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1]; the package's
# By network: torchvision's file, the package's file (lpips/weights/v0.1), and the width of each of the five maps.
FILES = {"alex": ("alexnet-owt-7be5be79.pth", "alex.pth"), "vgg": ("vgg16-397923af.pth", "vgg.pth")}
WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def _alexnet() -> list[nn.Sequential]:
    relu, pool = nn.ReLU, lambda: nn.MaxPool2d(3, 2)
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, 4, padding=2), relu()),
        nn.Sequential(pool(), nn.Conv2d(64, 192, 5, padding=2), relu()),
        nn.Sequential(pool(), nn.Conv2d(192, 384, 3, padding=1), relu()),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), relu()),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), relu()),
    ]


def _vgg16() -> list[nn.Sequential]:
    parts, inside = [], 3
    for number, (width, count) in enumerate(zip(WIDTHS["vgg"], (2, 2, 3, 3, 3), strict=True)):
        layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if number else []
        for _ in range(count):
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
            inside = width
        parts.append(nn.Sequential(*layers))
    return parts


class Trunk(nn.Module):
    """(N, 3, H, W) pixels in [0, 255] -> five maps (N, C, h, w), each after a ReLU.

    Its layers in their order are those of torchvision's `features` up to the last tap, so that `features.3.weight` is
    layer 3's.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: str) -> None:
        super().__init__()
        parts = _alexnet() if network == "alex" else _vgg16()
        self.features = nn.Sequential(*(layer for part in parts for layer in part))
        self.ends = np.cumsum([len(part) for part in parts]).tolist()
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = (pixels / 127.5 - 1.0 - self.shift) / self.scale
        found = []
        for number, layer in enumerate(self.features, start=1):
            x = layer(x)
            if number in self.ends:
                found.append(x)
        return found


class Lpips:
    """LPIPS of frames against frames by one of the two networks; `about` is for the protocol card."""

    def __init__(self, network: str, trunk: Trunk, heads: list[Tensor], device: str, about: dict[str, str]) -> None:
        self.name, self.about = network, about
        self._trunk, self._heads, self._device = trunk, heads, device

    def __call__(self, prediction: np.ndarray, reference: np.ndarray) -> Distances:
        """Of (T, H, W, 3) uint8 to as many. Raises ValueError for frames too small for the network."""
        height, width = prediction.shape[1:3]
        if min(height, width) < (least := LEAST[self.name]):
            raise ValueError(f"LPIPS ({self.name}) needs at least {least} pixels a side, these are {height}x{width}")
        return distances(prediction, reference, self._trunk, self._heads, self._device)


LEAST = {"alex": 31, "vgg": 16}  # pixels: smaller frames leave the last maps without a place


def load_lpips(network: str, folder: str, device: str) -> Lpips:
    """LPIPS from the folder that holds its two files, under their published names.

    Raises UsageError for an unknown network, MissingPartError saying which file is missing and where it is published,
    DataError for a file that is not what its name says.
    """
    if network not in FILES:
        raise UsageError(f"unknown network of LPIPS {network!r}", fix=f"one of {', '.join(FILES)}")
    files = [_file(network, folder, name) for name in FILES[network]]
    trunk, heads = _trunk(network, files[0]), _heads(network, files[1])
    about = {
        "features": f"LPIPS 0.1: {network}, taps after its five ReLUs, channels to unit length + 1e-10, weighed, "
        "averaged over places, summed",
        "resize": "none; pixels to [-1, 1], shift (-.030, -.088, -.188), scale (.458, .448, .450)",
        "weights": ", ".join(f"{file.name} sha256:{file_hash(file)}" for file in files),
        "precision": "float32",
        "versions": versions("torch"),
        "comparable": f"with LPIPS 0.1 ({network}) where the weights are the released ones, which their hashes say",
    }
    return Lpips(network, trunk.to(device), [head.to(device) for head in heads], device, about)


def _trunk(network: str, file: Path) -> Trunk:
    """Convolutions by torchvision's names; what else is in the file is not used."""
    trunk, weights = Trunk(network), _read(file)
    try:
        trunk.load_state_dict({name: weights[name] for name in trunk.state_dict() if name in weights})
    except RuntimeError as error:
        raise DataError(f"these are not the weights of {network}: {error}", where={"file": file}) from error
    return trunk.eval().requires_grad_(False)


def _heads(network: str, file: Path) -> list[Tensor]:
    """The weight of each channel of the five maps."""
    weights = _read(file)
    heads = [weights.get(f"lin{number}.model.1.weight", torch.empty(0)) for number in range(len(WIDTHS[network]))]
    if [tuple(head.shape) for head in heads] != [(1, width, 1, 1) for width in WIDTHS[network]]:
        raise DataError(f"these are not LPIPS's weights of {network}'s channels", where={"file": file})
    return [head.flatten().float() for head in heads]


def _file(network: str, folder: str, name: str) -> Path:
    if folder and (file := Path(folder) / name).is_file():
        return file
    raise MissingPartError(
        f"LPIPS ({network}) needs {name}",
        where={"folder": folder} if folder else None,
        fix=f"put {FILES[network][0]} (https://download.pytorch.org/models/) and {FILES[network][1]} (weights/v0.1 of "
        f"the package lpips 0.1.4) into one folder: --set eval.lpips={network} --set eval.lpips_path=FOLDER",
    )


def _read(file: Path) -> Mapping[str, Tensor]:
    check_no_impostor(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise DataError(f"the weights cannot be read: {error}", where={"file": file}) from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError("the file holds no named weights", where={"file": file})
    return found
