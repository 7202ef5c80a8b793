"""How an exported model is laid out (docs/artifacts.md): shared by its writer and who runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hmcli.stages.latents.view import LatentsView

KIND = "onnx"
STEP, DECODER = "step.onnx", "decoder.onnx"
BESIDE = ".data"  # ending of the file that holds weights which are too large for a graph's own file


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the graphs are made for: clips of these lengths and this size."""

    context: int  # latent frames
    target: int
    size: tuple[int, int]  # height, width in latent pixels
    text: tuple[int, int]  # rows and width of a caption's embedding

    def __str__(self) -> str:
        return (
            f"{self.context} + {self.target} latent frames (context + target) of {self.size[0]} x {self.size[1]}, "
            f"{self.text[0]} rows of text"
        )


def clip_shape(view: LatentsView, clip: str) -> Shape:
    of = view.where[clip][0].shape
    return Shape(context=of.context, target=of.target, size=view.latent_size, text=view.text_shape)


@dataclass(frozen=True, kw_only=True)
class ExportAttributes:
    """What the manifest of an exported model says besides."""

    shape: Shape
    opset: int
    versions: dict[str, str]  # of what wrote and tried the graphs
    step_apart: float  # largest difference of the flow from torch's, on made-up inputs
    decoder_apart: float  # of pixels in [-1, 1]
