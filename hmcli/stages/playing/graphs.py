"""The graphs of a walk in the browser: two that write memory, one that reads it, each with memory on and off, and the
decoder. Every one is run by onnxruntime and held against torch, on inputs that no graph was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmcli.contracts import Reporter
from hmcli.stages.exporting.export import LEVELS, apart, require_near, turning_cameras, write_decoder
from hmcli.stages.exporting.layout import DECODER
from hmcli.stages.exporting.running import Graph
from hmcli.stages.models.identity import codec_of
from hmcli.stages.playing.layout import WEIGHTS, past_graph, step_graph
from hmcli.stages.playing.session import Session

if TYPE_CHECKING:
    import torch

    from hmcli.core.memory import ContextMemory
    from hmcli.core.transformer import HydraTransformer3DModel

LEAST_SHARED = 1024  # bytes of a weight that is kept once for all graphs


@dataclass(frozen=True, kw_only=True)
class Room:
    """For how much the graphs are made, in latent frames; `chunks` and the start fill all places for slots."""

    start: int
    chunk: int
    chunks: int
    slot: int  # latent frames of a slot

    @property
    def places(self) -> int:
        """Slots of the past."""
        return self.start // self.slot + self.chunks * (self.chunk // self.slot)


def write_graphs(session: Session, room: Room, place: Path, reporter: Reporter) -> dict[str, float]:
    """Write all graphs; returns how far each is from torch. Raises HMError where that is too far."""
    import torch

    job, far = session.on, dict[str, Callable[[], float]]()
    generator = torch.Generator().manual_seed(0)
    for memory, of in (("on", session.on), ("off", session.off)):
        reporter.note(f"writing the graphs of memory {memory}")
        drawn = _Drawn(of.network, room, session, generator)
        for stretch, frames in (("start", room.start), ("chunk", room.chunk)):
            name = past_graph(stretch, memory)
            far[name] = _write_past(drawn, frames, place / name)
        far[step_graph(memory)] = _write_step(drawn, place / step_graph(memory))
    share_weights([place / name for name in far], place / WEIGHTS)
    reporter.note("writing the decoder")
    codec = codec_of(job.model, job.recipe.codec.path)
    decoder = write_decoder(codec, room.chunk, job.view.latent_size, place / DECODER, job.model, generator)
    found = {name: measure() for name, measure in far.items()} | {DECODER: decoder}
    for name, value in found.items():
        require_near(name, value, job.model)
    return found


class _Drawn:
    """Made-up arguments of a model."""

    def __init__(
        self, model: HydraTransformer3DModel, room: Room, session: Session, generator: torch.Generator
    ) -> None:
        self.model, self.room, self.generator = model, room, generator
        self.size, self.rows = session.on.view.latent_size, session.on.view.text_shape

    def normal(self, *sizes: int) -> Any:
        import torch

        return torch.randn(*sizes, generator=self.generator)

    def frames(self, frames: int) -> tuple[Any, Any]:
        latents = self.normal(1, self.model.config.in_channels, frames, *self.size)
        return latents, turning_cameras(frames, self.normal)

    def past(self, chunks: int, gap: int = 0) -> ContextMemory:
        """Memory of the start, `gap` frames after it that are out of reach, and so many chunks."""
        import torch

        with torch.no_grad():
            memory = self.model.encode_context(*self.frames(self.room.start)).older_by(gap)
            for _ in range(chunks):
                later = self.model.encode_context(*self.frames(self.room.chunk))
                memory = memory.then(later.starting_at(memory.num_context_frames))
        return memory

    def pasts(self) -> Iterator[ContextMemory]:
        """The least, the most, and some of which a part is out of reach."""
        yield self.past(0)
        yield self.past(self.room.chunks)
        yield self.past(1, gap=self.room.chunk)


def _write_past(drawn: _Drawn, frames: int, file: Path) -> Callable[[], float]:
    """Write a graph; returns what says how far it is from torch."""
    from hmcli.core.onnx import write_graph
    from hmcli.core.walk_graphs import Remember, memory_parts

    model = drawn.model
    latents, camera = drawn.frames(frames)
    model.set_attention("sdpa")  # a graph has one way to attend
    write_graph(
        Remember(model, latents, camera), {"latents": latents, "camera": camera}, memory_parts(model), file
    )  # fmt: skip
    model.set_attention("auto")
    return partial(_past_apart, drawn, frames, file)


def _past_apart(drawn: _Drawn, frames: int, file: Path) -> float:
    import torch

    from hmcli.core.onnx import takes_slots
    from hmcli.core.walk_graphs import packed

    model, (latents, camera) = drawn.model, drawn.frames(frames)
    found = Graph(file).outputs({"latents": latents, "camera": camera})
    with torch.no_grad():
        wanted = packed(model.encode_context(latents, camera).blocks, takes_slots(model))
    return max(apart(found[name], part) for name, part in wanted.items())


def _write_step(drawn: _Drawn, file: Path) -> Callable[[], float]:
    import torch

    from hmcli.core.onnx import stretch_of, write_graph
    from hmcli.core.walk_graphs import WalkStep, latest_tail, walk_inputs

    model, places = drawn.model, drawn.room.places
    memory, (latents, camera) = drawn.past(drawn.room.chunks), drawn.frames(drawn.room.chunk)
    step = WalkStep(model, stretch_of(model, latents, camera, 0, latest_tail(memory, model), None))
    text, level = drawn.normal(1, *drawn.rows), torch.tensor([LEVELS[0]])
    model.set_attention("sdpa")
    write_graph(step, walk_inputs(model, latents, level, text, camera, memory, places), step.outputs, file)
    model.set_attention("auto")
    return partial(_step_apart, drawn, file)


def _step_apart(drawn: _Drawn, file: Path) -> float:
    import torch

    from hmcli.core.walk_graphs import walk_inputs

    model, places, graph, most = drawn.model, drawn.room.places, Graph(file), 0.0
    for level_now, memory in zip(LEVELS, drawn.pasts(), strict=True):
        (latents, camera), level = drawn.frames(drawn.room.chunk), torch.tensor([level_now])
        text = drawn.normal(1, *drawn.rows)
        with torch.no_grad():
            wanted = model(latents, level, text, camera, 0, None, memory, return_dict=False)[0]
        found = graph.run(walk_inputs(model, latents, level, text, camera, memory, places))
        most = max(most, apart(found, wanted))
    return most


def share_weights(graphs: Sequence[Path], beside: Path) -> None:
    """Move the weights of graphs into one file beside them, where equal ones lie once."""
    import onnx

    places = dict[bytes, tuple[int, int]]()
    with beside.open("wb") as weights:
        for file in graphs:
            model = onnx.load(str(file))
            for tensor in model.graph.initializer:
                data = onnx.numpy_helper.to_array(tensor).tobytes()
                if len(data) < LEAST_SHARED:
                    continue
                digest = hashlib.sha256(data).digest()
                if digest not in places:
                    places[digest] = weights.tell(), len(data)
                    weights.write(data)
                for values in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                    tensor.ClearField(values)
                del tensor.external_data[:]
                start, length = places[digest]
                for key, value in (("location", beside.name), ("offset", start), ("length", length)):
                    tensor.external_data.add(key=key, value=str(value))
                tensor.data_location = onnx.TensorProto.EXTERNAL
            file.write_bytes(model.SerializeToString())
