"""`hm export MODEL --to onnx`: a model's denoising step and its decoder as graphs, for clips of one shape.

Both graphs are run by onnxruntime before the artifact is complete, and held against torch on inputs that no graph was
made from. What writes memory of frozen context stays in torch.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import DataError, HMError, UsageError
from hmcli.recipe.sections import CodecConfig
from hmcli.stages.exporting.layout import DECODER, KIND, STEP, ExportAttributes, Shape, clip_shape
from hmcli.stages.exporting.running import WRITES, Graph, check_packages
from hmcli.stages.latents.view import LatentsView, open_latents
from hmcli.stages.models.folders import ModelFolder, check_memory_fits, find_model
from hmcli.stages.models.identity import codec_hash, codec_of, open_codec
from hmcli.stages.shared.outcome import planned, result_of
from hmcli.stages.shared.typed import to_json
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.hashing import hash_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hmcli.core.memory import ContextMemory
    from hmcli.core.retrieval import RetrievalInputs
    from hmcli.core.transformer import HydraTransformer3DModel

APART = 1e-4  # how far from torch a graph may be
LEVELS = (1000.0, 700.0, 400.0)  # timesteps at which that is looked at


def run(
    model: Path,
    *,
    latents: Path,
    clips: tuple[str, ...],
    out: Path,
    force: bool,
    reporter: Reporter,
    dry_run: bool = False,
) -> StageResult:
    """Export a model for clips of the shape that these latents hold; see `hm export --help`."""
    check_packages(WRITES)
    folder, view = find_model(model), open_latents(latents)
    shape = shape_of(view, clips)
    _check(folder, view, shape)
    codec = codec_hash(codec_of(folder, ""))
    if dry_run:
        return planned(out, KIND, f"a step and a decoder for {shape}", reporter)
    inputs = {"model": folder.fingerprint, "codec": codec, "shape": hash_json(asdict(shape))}
    with ArtifactWriter(out, KIND, recipe={}, inputs=inputs, seed=0, reporter=reporter, force=force) as writer:
        if not force and writer.unchanged([]):
            reporter.note("exported already: kept")
            return result_of(writer, writer.finish([]))
        attributes = _write(folder, shape, writer.emptied(), reporter)
        return result_of(writer, writer.finish([], attributes=to_json(attributes)))


def shape_of(view: LatentsView, clips: tuple[str, ...]) -> Shape:
    """The shape of the clips. Raises UsageError where they have several."""
    shapes = {clip_shape(view, clip): clip for clip in view.ids(clips)}
    if len(shapes) > 1:
        raise UsageError(
            "a graph is for clips of one shape, and these have several",
            where={clip: f"{of.context} + {of.target} latent frames" for of, clip in shapes.items()},
            fix="name clips of one shape with --clips",
        )  # fmt: skip
    (shape,) = shapes
    return shape


def _check(folder: ModelFolder, view: LatentsView, shape: Shape) -> None:
    """Raise UsageError or DataError for a model that cannot be exported, or clips that it cannot read."""
    from hmcli import registry
    from hmcli.core.retrieval import ALL_FRAMES, CONTEXT_FRAMES, SLOTS, needs_of

    config = folder.config()
    reads = needs_of(registry.find("policy", config["policy"])) - {SLOTS, ALL_FRAMES, CONTEXT_FRAMES}
    if reads:
        raise UsageError(
            f"policy {config['policy']} reads {', '.join(sorted(reads))} of a clip, which a graph is not given",
            where={"model": folder.path}, fix="export a model of policy affinity, none, all or recent",
        )  # fmt: skip
    if shape.text[1] != config["text_dim"] or view.channels != config["in_channels"]:
        raise DataError(
            "these latents are not what the model reads", where={"latents": view.path, "model": folder.path},
            fix="encode with the model's recipe",
        )  # fmt: skip
    check_memory_fits(config, view.ids()[0], context=shape.context, target=shape.target, size=shape.size)


def _write(folder: ModelFolder, shape: Shape, place: Path, reporter: Reporter) -> ExportAttributes:
    """Both graphs, held against torch. Raises HMError where one of them is too far from it."""
    import torch

    from hmcli.core.onnx import FLOW, OPSET, Step, step_inputs, stretch_of, write_graph

    model, generator = folder.load(torch.float32, "cpu"), torch.Generator().manual_seed(0)
    stride = open_codec(codec := codec_of(folder, ""), "cpu").stride
    pixels = (shape.size[0] * stride, shape.size[1] * stride)
    samples = _samples(model, shape, pixels, generator)
    model.set_attention("sdpa")  # a graph has one way to attend
    first = next(samples)
    latents, timestep, text, camera, context, memory, inputs = first
    stretch = stretch_of(model, latents, camera, context, memory, inputs)
    reporter.note(f"writing {STEP} and {DECODER} for {shape}")
    write_graph(Step(model, stretch), step_inputs(model, latents, timestep, text, stretch), [FLOW], place / STEP)
    model.set_attention("auto")
    graph, step_apart = Graph(place / STEP), 0.0
    with torch.no_grad():
        for latents, timestep, text, camera, context, memory, inputs in samples:
            wanted = model(latents, timestep, text, camera, context, inputs, memory, return_dict=False)[0]
            stretch = stretch_of(model, latents, camera, context, memory, inputs)
            given = step_inputs(model, latents, timestep, text, stretch)
            step_apart = max(step_apart, apart(graph.run({name: given[name] for name in graph.names}), wanted))
    require_near(STEP, step_apart, folder)
    del model, graph
    gc.collect()
    decoder_apart = write_decoder(codec, shape.target, shape.size, place / DECODER, folder, generator)
    reporter.note(f"from torch at most: {step_apart:.1e} (flow), {decoder_apart:.1e} (pixels in [-1, 1])")
    return ExportAttributes(
        shape=shape, opset=OPSET, versions={name: version(name) for name in ("torch", *WRITES)},
        step_apart=step_apart, decoder_apart=decoder_apart,
    )  # fmt: skip


def write_decoder(
    codec: CodecConfig, frames: int, size: tuple[int, int], file: Path, folder: ModelFolder, generator: torch.Generator
) -> float:
    """Write the graph of a codec's decoder for videos of so many latent frames, of height and width `size` in latent
    pixels; returns how far it is from torch. Raises UsageError for a codec that is no Wan VAE, HMError where that is
    too far."""
    import torch

    from hmcli.codecs.onnx import Decoder
    from hmcli.codecs.video import WanCodec
    from hmcli.core.onnx import write_graph

    opened: Any = open_codec(codec, "cpu")
    if not isinstance(opened, WanCodec):
        raise UsageError(
            f"codec {codec.name} is no Wan VAE: its decoder cannot be exported", where={"model": folder.path}
        )
    some = [torch.randn(1, opened.channels, frames, *size, generator=generator) for _ in range(2)]
    opened.vae.float()
    write_graph(Decoder(opened), {"latents": some[0]}, ["pixels"], file)
    found = apart(Graph(file).run({"latents": some[1]}), opened.decode(some[1]))
    require_near(file.name, found, folder)
    return found


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference."""
    return float((found - wanted).abs().max())


def require_near(name: str, apart: float, folder: ModelFolder) -> None:
    """Raise HMError for a graph that is too far from torch."""
    if not apart <= APART:
        raise HMError(
            f"{name} is {apart:.1e} from torch, which is more than {APART:g}: it is not written",
            where={"model": folder.path}, fix="sample in torch; other releases of onnxscript may translate better",
        )  # fmt: skip


Sample = tuple["Tensor", "Tensor", "Tensor", "Tensor", int, "ContextMemory | None", "RetrievalInputs | None"]


def _samples(
    model: HydraTransformer3DModel, shape: Shape, pixels: tuple[int, int], generator: torch.Generator
) -> Iterator[Sample]:
    """Made-up arguments of the model's `forward`: one to make the graph from, and one for each of `LEVELS`."""
    import torch

    from hmcli.core.retrieval import RetrievalInputs

    channels, frames = model.config.in_channels, shape.context + shape.target

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    inputs = None
    if model.config.positions != "screen":
        intrinsics = torch.tensor([[pixels[1], pixels[1], pixels[1] / 2, pixels[0] / 2]], dtype=torch.float64)
        inputs = RetrievalInputs(intrinsics_B4=intrinsics, image_size=pixels)
    for level in (LEVELS[0], *LEVELS):
        whole, camera = normal(1, channels, frames, *shape.size), turning_cameras(frames, normal)
        text, timestep = normal(1, *shape.text), torch.tensor([level])
        if model.config.context == "frozen":
            with torch.no_grad():
                memory = model.encode_context(whole[:, :, : shape.context], camera[:, : shape.context], inputs)
            yield whole[:, :, shape.context :], timestep, text, camera[:, shape.context :], 0, memory, inputs
        else:
            if model.config.flow_noise == "per-frame":
                timestep = torch.cat([torch.zeros(shape.context), timestep.expand(shape.target)])[None]
            yield whole, timestep, text, camera, shape.context, None, inputs


def turning_cameras(frames: int, normal: Callable[..., Tensor]) -> Tensor:
    """Rows (1, F, 12) of cameras that turn to one side and walk."""
    import torch

    angle = torch.linspace(0, math.pi / 4, frames) + 0.1 * normal(1)
    zero, one = torch.zeros(frames), torch.ones(frames)
    turned = [angle.cos(), zero, angle.sin(), zero, one, zero, -angle.sin(), zero, angle.cos()]
    rotation = torch.stack(turned, dim=-1).unflatten(-1, (3, 3))
    walked = normal(3) * torch.linspace(0, 1, frames)[:, None]
    return torch.cat([rotation, walked[..., None]], dim=-1).flatten(1)[None]
