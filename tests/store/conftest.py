"""What the store's tests share: a reporter that remembers, and a small stage that writes latents."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hmcli.store.artifact import ArtifactWriter
from hmcli.store.manifest import Manifest


class Notes:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda done: None


class LatentsStage:
    """The smallest real stage: each clip is a number; its latents are that number, repeated (2, 3, 4)."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.reporter = Notes()
        self.made: list[str] = []
        self.refuse: dict[str, str] = {}  # clips that cannot be used, with the reason

    def writer(self, **options: object) -> ArtifactWriter:
        fixed = {"recipe": {"codec": {"name": "mini"}}, "inputs": {"clips": "sha256:00"}, "seed": 7}
        return ArtifactWriter(self.out, "latents", reporter=self.reporter, **{**fixed, **options})

    def run(self, clips: Mapping[str, float], **options: object) -> Manifest:
        self.made.clear()
        with self.writer(**options) as writer:
            for clip, value in clips.items():
                if writer.kept(clip, f"value {value}"):
                    continue
                if clip in self.refuse:
                    writer.quarantine(clip, self.refuse[clip])
                    continue
                self.made.append(clip)
                arrays = {"latents": latents(value), "valid": np.array(value > 0)}
                writer.put_arrays(clip, f"value {value}", arrays, meta={"value": value})
            order = [clip for clip in clips if clip not in self.refuse]
            if not writer.unchanged(order):
                axes = ["clip", "channel", "y", "x"]
                writer.stack("latents", order, group="3x4", axes=axes, units="VAE latent", rows_per_shard=2)
                writer.stack("valid", order, axes=["clip"], units="flag")
            return writer.finish(order, counts={"clips": len(order)})


def latents(value: float) -> np.ndarray:
    return np.full((2, 3, 4), value, np.float32) + np.arange(4, dtype=np.float32)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def stage(tmp_path: Path) -> LatentsStage:
    return LatentsStage(tmp_path / "clips.latents")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a process of its own; arguments are in sys.argv, `say` prints a line at once."""
    running: list[subprocess.Popen[str]] = []
    head = "import sys\ndef say(text):\n    print(text, flush=True)\nsys.path.insert(0, %r)\n" % str(
        Path(__file__).parent
    )

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def flip_a_byte(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


@pytest.fixture
def flip() -> Callable[[Path, int], None]:
    return flip_a_byte
