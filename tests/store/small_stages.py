"""Small but real stages that write artifacts, and a reporter that remembers, for the store's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hmcli.store.artifact import ArtifactWriter
from hmcli.store.asked import Asked
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
        fixed = {"recipe": {"codec": {"name": "mini"}}, "inputs": {"clips": "sha256:00"}, "seed": 7, "under": "mini"}
        return ArtifactWriter(self.out, "latents", reporter=self.reporter, **{**fixed, **options})

    def run(self, clips: Mapping[str, float], **options: object) -> Manifest:
        self.made.clear()
        done = []
        with self.writer(**options) as writer:
            writer.ask(Asked(keys={clip: f"value {value}" for clip, value in clips.items()}))
            for clip, value in clips.items():
                if clip in self.refuse:
                    done += [clip] if writer.quarantine(clip, self.refuse[clip], [clip]) else []
                    continue
                done.append(clip)
                if writer.kept(clip, f"value {value}"):
                    continue
                self.made.append(clip)
                arrays = {"latents": latents(value), "valid": np.array(value > 0)}
                writer.put_arrays(clip, f"value {value}", arrays, meta={"value": value})
            if not writer.unchanged(done):
                axes = ["clip", "channel", "y", "x"]
                writer.stack("latents", done, group="3x4", axes=axes, units="VAE latent", rows_per_shard=2)
                writer.stack("valid", done, axes=["clip"], units="flag")
            return writer.finish(done, counts={"clips": len(done)})


def latents(value: float) -> np.ndarray:
    return np.full((2, 3, 4), value, np.float32) + np.arange(4, dtype=np.float32)


def write_clips(out: Path, reporter: Notes, texts: Mapping[str, str], **options: object) -> tuple[Manifest, list[str]]:
    """A stage whose items are folders; returns (manifest, ids it made)."""
    fixed = {"recipe": {}, "inputs": {}, "seed": 0}
    made = []
    with ArtifactWriter(out, "dataset", reporter=reporter, **{**fixed, **options}) as writer:
        writer.ask(Asked(keys=texts))
        for clip, text in texts.items():
            if not writer.kept(clip, text):
                made.append(clip)
                with writer.item_folder(clip, text, parent="clips") as folder:
                    (folder / "caption.txt").write_text(text)
        if not writer.unchanged(list(texts)):
            (writer.staged / "clips.jsonl").write_text("\n".join(texts))
        return writer.finish(list(texts)), made
