"""The subject segmenter: finds people and animals of HM-World in predictions, offline; its weights ship with hm.

Trained on renders, damaged as generated videos are (hmcli.metrics.detectors.learning; `hm train mini/segmenter`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmcli.aligned import own_weights, tensor_of
from hmcli.errors import DataError, MissingPartError
from hmcli.metrics.backbones.networks import BATCH, file_hash, versions
from hmcli.metrics.contract import Detection, check_video
from hmcli.metrics.detectors.instances import APART, LEAST_PIXELS, SAME, TWO_HEAPS, subjects_in
from hmcli.tensors.impostors import check_no_impostor

if TYPE_CHECKING:
    from torch import Tensor

    from hmcli.metrics.detectors.unet import SubjectNet

NAME = "segmenter"
WEIGHTS = "segmenter.safetensors"
PACKAGED = Path(__file__).parents[2] / "weights" / NAME / WEIGHTS
THRESHOLD = 0.5  # of a pixel's chance to show a subject
SURE = 0.88  # mean chance over a subject's pixels: below it, it is nobody (the packaged weights' card says why)
_WIDTHS = "widths"  # in the file's metadata


class Segmenter:
    """Frames -> subjects with masks. Works at the frames' own size."""

    name = NAME

    def __init__(self, net: SubjectNet, device: str, about: dict[str, str]) -> None:
        self.about = about
        self._net, self._device = net.to(device), device

    def __call__(self, frames: np.ndarray) -> list[list[Detection]]:
        return [[one for one in seen if one.score >= SURE] for seen in self._seen(frames)]

    def unsure(self, frames: np.ndarray) -> list[list[Detection]]:
        """What looks a little like somebody, and is taken for nobody."""
        return [[one for one in seen if one.score < SURE] for seen in self._seen(frames)]

    def _seen(self, frames: np.ndarray) -> list[list[Detection]]:
        check_video("frames", frames)
        return [
            subjects_in(chance, ways, THRESHOLD)
            for start in range(0, len(frames), BATCH)
            for chance, ways in zip(*self.maps(frames[start : start + BATCH]), strict=True)
        ]

    def maps(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The chance of every pixel to show a subject (T, H, W), and its way to that one's middle (T, 2, H, W)."""
        import torch

        with torch.inference_mode():
            pixels = tensor_of(frames).to(self._device).permute(0, 3, 1, 2).float()
            logits, ways = self._net(pixels)
        return logits.sigmoid().cpu().numpy(), ways.cpu().numpy()


def segmenter(path: str, device: str) -> Segmenter:
    """The packaged segmenter, or one that `hm train` wrote: its folder or file. Raises MissingPartError without one."""
    file = Path(path) if path else PACKAGED
    file = file / WEIGHTS if file.is_dir() else file
    if not file.is_file():
        raise MissingPartError(
            "the segmenter has no weights there", where={"expected": file},
            fix="set eval.detector_path to what hm train mini/segmenter wrote, or leave it empty: weights ship with hm",
        )  # fmt: skip
    return load_segmenter(file, device)


def packed(net: SubjectNet) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights as they are kept, in half precision, and what is kept with them."""
    state = {name: value.half() for name, value in net.state_dict().items()}
    return state, {_WIDTHS: ",".join(map(str, net.widths))}


def load_segmenter(file: Path, device: str) -> Segmenter:
    """A segmenter from its file, in float32. Raises DataError for a file that is none."""
    import torch
    from safetensors import SafetensorError, safe_open

    from hmcli.metrics.detectors.unet import SubjectNet

    check_no_impostor(file)
    try:
        with safe_open(str(file), framework="pt") as kept:
            widths = tuple(int(width) for width in (kept.metadata() or {})[_WIDTHS].split(","))
            state = {name: kept.get_tensor(name).to(torch.float32) for name in kept.keys()}  # noqa: SIM118
        net = SubjectNet(widths)
        net.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"these are no weights of a segmenter: {error}", where={"file": file}) from error
    own_weights(net)
    return Segmenter(net.eval().requires_grad_(False), device, _about(file, widths))


def _about(file: Path, widths: tuple[int, ...]) -> dict[str, str]:
    return {
        "finds": "people and animals as HM-World draws them: masks, boxes around them, mean chance of their pixels",
        "network": f"U-Net of widths {', '.join(map(str, widths))}, on frames at their own size, each by itself",
        "threshold": f"pixels of at least {THRESHOLD}, subjects of at least {SURE} and {LEAST_PIXELS} pixels",
        "apart": f"by the middles that pixels point to: one at {SAME}, two at {APART} of the root of its pixels, where "
        f"that is {TWO_HEAPS} of their spreads",
        "weights": f"sha256:{file_hash(file)}",
        "precision": "float32 (weights kept in float16)",
        "versions": versions("torch"),
    }
