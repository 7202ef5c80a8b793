"""How an exported model is laid out (docs/artifacts.md): shared by its writer and who runs it."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class ExportAttributes:
    """What the manifest of an exported model says besides."""

    shape: Shape
    opset: int
    versions: dict[str, str]  # of what wrote and tried the graphs
    step_apart: float  # largest difference of the flow from torch's, on made-up inputs
    decoder_apart: float  # of pixels in [-1, 1]
