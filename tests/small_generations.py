"""Generation artifacts that tests write themselves, with the rows and attributes that `hm generate` writes."""

from __future__ import annotations

from typing import Any

from hmcli.recipe.sections import DataConfig
from hmcli.stages.sampling.layout import GenerationAttributes, Row, video_path
from hmcli.stages.shared.typed import to_json


def row(clip: str, frames: int, height: int, width: int, **says: Any) -> dict[str, Any]:
    """A line of generations.jsonl."""
    usual: dict[str, Any] = {
        "video": video_path(clip), "caption": "", "seed": 0, "fps": 15.0, "context_frames": 9, "steps": 1,
        "guidance": 1.0, "shift": 5.0, "negative": "", "dtype": "float32", "memory": "on", "camera": [], "seconds": 1.0,
    }  # fmt: skip
    return to_json(Row(**{**usual, "id": clip, "frames": frames, "height": height, "width": width, **says}))


def attributes(data: DataConfig, *, source: object = "", fingerprint: str = "") -> dict[str, Any]:
    """Attributes of the manifest."""
    about = GenerationAttributes(
        data=data, source_dataset=str(source), source_dataset_fingerprint=fingerprint, model="", latents=""
    )
    return to_json(about)
