"""How a walk that runs in the browser alone is laid out (docs/artifacts.md): a folder for any host of files."""

from __future__ import annotations

from dataclasses import dataclass

KIND = "walk"
PAGE, START, WALK, WEIGHTS = "index.html", "start.bin", "walk.json", "weights.bin"
SCRIPTS = ("bundle.js", "engine.js", "isolate.js", "walking.js")
GIVEN = "given"  # folder of the pictures of the start clip
RUNTIME = "ort"  # folder of onnxruntime-web
RUNTIME_FILES = (
    "dist/ort.wasm.min.js", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm", "package.json"
)  # fmt: skip
MEMORY = ("on", "off")


def step_graph(memory: str) -> str:
    return f"step-{memory}.onnx"


def past_graph(stretch: str, memory: str) -> str:
    """What writes memory of a stretch: `start`, or `chunk`."""
    return f"{stretch}-{memory}.onnx"


@dataclass(frozen=True, kw_only=True)
class WalkAttributes:
    """What the manifest of a walk says besides."""

    clip: str
    start: int  # latent frames of the clip that it starts from
    chunk: int  # latent frames that are made at a time
    slots: int  # of the past, at most
    versions: dict[str, str]  # of what wrote, tried and runs the graphs
    apart: dict[str, float]  # graph -> its largest difference from torch, on made-up inputs
