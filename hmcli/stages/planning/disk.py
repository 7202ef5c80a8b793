"""How large the artifacts of a recipe become: arrays before compression, videos as `hm render` writes them."""

from __future__ import annotations

from dataclasses import dataclass

from hmcli.recipe.sections import Recipe
from hmcli.stages.planning.rehearsal import Account
from hmcli.stages.planning.shapes import ClipShape

CLIP, VIDEO = 0.5, 0.15  # bytes a pixel and frame: of all files of a clip, of a video alone; measured at 64 x 128
_CAMERA = 12 * 4  # bytes of a camera row; poses are 16 float64 a video frame
_POSE = 16 * 8


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Bytes."""

    clips: float
    latents: float
    memory: float  # keys and values of all clips; 0 where the model keeps none
    checkpoint: float
    run: float  # all checkpoints that are kept, and the one being written
    generation: float  # of the target frames of all clips
    exported: float = 0.0  # of a run on videos: the codec or segmenter that it is for, counted in `run`

    @property
    def all(self) -> float:
        return self.clips + self.latents + self.memory + self.run + self.generation


def disk_of(recipe: Recipe, shape: ClipShape, step: Account, sampling: Account, *, kept: float) -> Disk:
    """Of all clips of the recipe."""
    frames, area = shape.video_frames, shape.pixels[0] * shape.pixels[1]
    row = 2 * shape.values + _CAMERA * shape.frames + _POSE * sum(frames)
    caption = 4 * shape.text_rows * shape.text_dim
    checkpoint = step.weights + step.optimizer + step.average
    return Disk(
        clips=CLIP * area * sum(frames) * shape.clips, latents=(row + caption) * shape.clips,
        memory=kept * shape.clips, checkpoint=checkpoint, run=checkpoint * (recipe.train.keep + 1),
        generation=VIDEO * area * frames[1] * shape.clips * recipe.sample.count,
    )  # fmt: skip
