"""A generation as a model could have made it: the true targets of a data set with noise on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import small_generations as small

from hmcli.recipe.sections import DataConfig, PosesConfig
from hmcli.runtime import Silent
from hmcli.stages.data.opening import open_dataset
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.files import write_json_lines
from hmcli.store.video import read_video, write_video

MODEL = "sha256:model"


def generated(data: Path, out: Path, noise: int, *, left_out: str = "", model: str = MODEL, frames: int = 17) -> Path:
    """Write the artifact; `noise` is the standard deviation in grey levels, `left_out` a clip that failed."""
    dataset = open_dataset(data, PosesConfig())
    inputs = {"latents": "sha256:latents", "model": model}
    recipe = {"sample": {"steps": 3, "guidance": 1.5}}
    with ArtifactWriter(out, "generation", recipe=recipe, inputs=inputs, seed=8, reporter=Silent()) as writer:
        rows = []
        for number, source in enumerate(dataset.clips):
            if source.id == left_out:
                writer.quarantine(source.id, "its context is cut short")
                continue
            true = read_video(source.files["target"])[:frames]
            video = true + np.random.default_rng(number).normal(0, noise, true.shape)
            with writer.item_file(source.id, f"sha256:{noise}", suffix=".mp4", parent="videos") as place:
                write_video(place, np.clip(video, 0, 255).astype(np.uint8), fps=5, quality="near-lossless")
            rows.append(small.row(source.id, *true.shape[:3], seconds=2.0 + number))
        write_json_lines(writer.staged / "generations.jsonl", rows)
        size = (dataset.clips[0].context_info.height, dataset.clips[0].context_info.width)
        about = small.attributes(DataConfig(size=size), source=dataset.path, fingerprint=dataset.fingerprint)
        writer.finish([line["id"] for line in rows], attributes=about)
    return out
