"""Exported graphs, opened: checked against the model and the clips they are to serve, and run by onnxruntime."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hmcli.aligned import tensor_of
from hmcli.contracts import VideoCodec
from hmcli.errors import DataError, MissingPartError, NotFiniteError, UsageError
from hmcli.stages.exporting.layout import BESIDE, DECODER, KIND, STEP, ExportAttributes, Shape
from hmcli.stages.shared.typed import from_json
from hmcli.store.listed import listed
from hmcli.store.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from hmcli.core.transformer import HydraTransformer3DModel

WRITES = ("onnx", "onnxscript", "onnxruntime")  # packages that an export needs
RUNS = ("onnxruntime",)  # what is needed to run one


def check_packages(names: tuple[str, ...]) -> None:
    """Raise MissingPartError unless these packages are installed."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise MissingPartError(
            f"graphs of ONNX need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            fix="pip install 'hmcli[onnx]'",
        )


class Graph:
    """A graph in onnxruntime, on the CPU, on as many threads as torch uses."""

    def __init__(self, file: Path) -> None:
        """Raises DataError for a file that onnxruntime cannot open."""
        check_packages(RUNS)
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3  # errors alone
        self.file = file
        try:
            self._session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for every kind of damage, all of them plain exceptions
            raise DataError(
                "onnxruntime cannot open the graph", where={"file": file, "because": str(error).partition("\n")[0]},
                fix="export the model again",
            ) from error  # fmt: skip
        self._shapes = {given.name: tuple(given.shape) for given in self._session.get_inputs()}

    @property
    def names(self) -> tuple[str, ...]:
        """Inputs, in the graph's order."""
        return tuple(self._shapes)

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The graph's first output. Raises UsageError for inputs of other shapes than it was made for."""
        return next(iter(self.outputs(inputs).values()))

    def outputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs of the graph by name, in its order. Raises as `run`."""
        wrong = {
            name: f"{tuple(value.shape)}, the graph takes {self._shapes[name]}"
            for name, value in inputs.items()
            if tuple(value.shape) != self._shapes[name]
        }
        if wrong:
            raise UsageError(
                "the exported graph is of other shapes", where={"file": self.file, **wrong},
                fix="export the model for these clips",
            )  # fmt: skip
        found = self._session.run(None, {name: value.detach().contiguous().numpy() for name, value in inputs.items()})
        names = [output.name for output in self._session.get_outputs()]
        return {name: tensor_of(value) for name, value in zip(names, found, strict=True)}


class GraphCodec:
    """A codec that decodes videos of the exported length in onnxruntime, and all else in torch."""

    def __init__(self, codec: VideoCodec, graph: Graph, shape: Shape) -> None:
        self.codec, self.graph, self.shape = codec, graph, shape
        self.name, self.channels, self.stride = codec.name, codec.channels, codec.stride

    def encode(self, video: Any) -> Any:
        return self.codec.encode(video)

    def decode(self, latents: Any) -> Any:
        """As the codec's own. Raises NotFiniteError."""
        if tuple(latents.shape) != (1, self.channels, self.shape.target, *self.shape.size):
            return self.codec.decode(latents)
        pixels = self.graph.run({"latents": latents.float()})
        if not bool(pixels.isfinite().all()):
            raise NotFiniteError(f"the exported decoder of codec {self.name} made pixels that are not finite")
        return pixels


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported model, checked but not loaded."""

    path: Path
    manifest: Manifest
    about: ExportAttributes

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    def network(self, model: HydraTransformer3DModel) -> HydraTransformer3DModel:
        """What samples: context in torch, steps in onnxruntime."""
        from hmcli.core.onnx import OnnxTransformer

        graph = self._graph(STEP)
        made: Any = OnnxTransformer(model, graph.run, graph.names)
        return cast("HydraTransformer3DModel", made)

    def codec(self, codec: VideoCodec) -> VideoCodec:
        return GraphCodec(codec, self._graph(DECODER), self.about.shape)

    def _graph(self, name: str) -> Graph:
        """The graph of a file, which is as it was written; so is what lies beside it."""
        files = listed(self.path)
        if (self.path / f"{name}{BESIDE}").exists():
            files.check(f"{name}{BESIDE}")
        return Graph(files.check(name))


def open_exported(path: Path, *, model: str, codec: str) -> Exported:
    """An export of the model with this fingerprint, and of the codec with this hash. Loads nothing.

    Raises DataError for a folder that is none, or one of another model.
    """
    manifest = read_manifest(path, kinds=(KIND,))
    about = from_json(ExportAttributes, manifest.attributes, "the description", exported=path)
    for name, wanted in (("model", model), ("codec", codec)):
        if (found := manifest.inputs.get(name)) != wanted:
            raise DataError(
                f"this is an export of another {name}", where={"exported": path, "made of": found, "here": wanted},
                fix="export this one: hm export MODEL --to onnx",
            )  # fmt: skip
    return Exported(path=path, manifest=manifest, about=about)
