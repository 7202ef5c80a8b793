"""EfficientNet-Lite0 in plain torch: features of an image, of the whole and at five scales.

Tan and Le's EfficientNet without squeeze-and-excitation and with ReLU6, as TensorFlow's "lite" models are. The released
weights were trained there, so padding is TensorFlow's "same" (the odd pixel goes to the right and the bottom) and batch
norms divide by the root of variance + 1e-3.
Shape letters here: N images, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

NORM_EPSILON = 1e-3
STEM, HEAD, LABELS = 32, 1280, 1000  # channels, and ImageNet's classes
# kernel, stride, expansion, channels, blocks: of each stage
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1))  # fmt: skip
TAPPED = (0, 1, 2, 4, 6)  # the last stage of each scale: strides 2, 4, 8, 16, 32


class Layer(nn.Module):
    """Convolution with TensorFlow's "same" padding, batch norm, and ReLU6 where `bend`."""

    def __init__(
        self, inside: int, outside: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, bend: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outside, eps=NORM_EPSILON)
        self.kernel, self.stride, self.bend = kernel, stride, bend

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (same_padding(length, self.kernel, self.stride) for length in x.shape[-2:])
        conv = self.conv
        if (top, left) == (bottom, right):  # the convolution pads by itself, without a copy of x
            x = functional.conv2d(x, conv.weight, conv.bias, conv.stride, (top, left), 1, conv.groups)
        else:
            x = conv(functional.pad(x, (left, right, top, bottom)))
        x = self.norm(x)
        return functional.relu6(x, inplace=True) if self.bend else x

    def fold(self) -> None:
        """Put the norm of a trained layer into its convolution: one pass over x less."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.norm = nn.Identity()


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, so that ceil(length / stride) places are computed."""
    places = -(-length // stride)
    zeros = max((places - 1) * stride + kernel - length, 0)
    return zeros // 2, zeros - zeros // 2


class Block(nn.Module):
    """Expand channels, filter each alone, project; added to the input where shapes agree."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expand = Layer(inside, wide) if expansion > 1 else nn.Identity()
        self.depthwise = Layer(wide, wide, kernel, stride, groups=wide)
        self.project = Layer(wide, outside, bend=False)
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) pixels in [0, 255] -> features; any size (the weights were trained at 224x224).

    Channels lie last in memory: twice as fast on CPUs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Layer(3, STEM, 3, 2)
        stages, inside = [], STEM
        for kernel, stride, expansion, outside, count in STAGES:
            first = Block(inside, outside, kernel, stride, expansion)
            rest = [Block(outside, outside, kernel, 1, expansion) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
            inside = outside
        self.stages = nn.ModuleList(stages)
        self.head = Layer(inside, HEAD)
        self.classes = nn.Linear(HEAD, LABELS)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def folded(self) -> EfficientNetLite0:
        """This network, for inference alone: norms are part of the convolutions, a fifth less time on a CPU."""
        for layer in self.eval().modules():
            if isinstance(layer, Layer):
                layer.fold()
        return self

    def taps(self, pixels: Tensor) -> list[Tensor]:
        """Five maps (N, C, h, w), at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""
        x = self.stem(((pixels - 127.0) / 128.0).contiguous(memory_format=torch.channels_last))
        found = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in TAPPED:
                found.append(x)
        return found

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 1280): the last map, averaged over space."""
        return self.head(self.taps(pixels)[-1]).mean(dim=(-2, -1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 1000): logits of ImageNet's classes."""
        return self.classes(self.features(pixels))


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released weights under our names; a name that is none of theirs stays as it is."""
    places = [f"stages.{stage}.{block}" for stage, (*_, count) in enumerate(STAGES) for block in range(count)]
    return {_renamed(name, places): tensor for name, tensor in weights.items()}


_LAYERS = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm",
           "_fc": "classes"}  # fmt: skip
_IN_BLOCK = {"_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv",
             "_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm"}  # fmt: skip


def _renamed(name: str, places: list[str]) -> str:
    if (found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)) and int(found[1]) < len(places):
        return f"{places[int(found[1])]}.{_IN_BLOCK.get(found[2], found[2])}.{found[3]}"
    layer, _, kind = name.partition(".")
    return f"{_LAYERS.get(layer, layer)}.{kind}"
