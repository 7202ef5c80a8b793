"""Portraits: crops of one subject in a plain place, drawn by the real renderer, for tests that look at families."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hmcli.recipe.sections import WorldConfig
from hmcli.world.bodies import settled
from hmcli.world.render import draw_clip
from hmcli.world.space.light import MOODS, light_from
from hmcli.world.space.shapes import BOX, Ground, Paint, ShapeList
from hmcli.world.staging.clip import ClipDescription, describe_clip
from hmcli.world.staging.paths import Walk
from hmcli.world.subjects import SUBJECTS, Subject

SIZE = (128, 224)
PIXELS = 56  # about the height of a subject


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """A frame (H, W, 3) uint8 and the subject's mask (H, W) bool."""

    rgb: np.ndarray
    mask: np.ndarray

    def crop(self) -> tuple[np.ndarray, np.ndarray]:
        """RGB and mask of the box around the mask."""
        lines, columns = np.nonzero(self.mask.any(1))[0], np.nonzero(self.mask.any(0))[0]
        box = (slice(lines[0], lines[-1] + 1), slice(columns[0], columns[-1] + 1))
        return self.rgb[box], self.mask[box]


@cache
def _any_clip() -> ClipDescription:
    return describe_clip(WorldConfig(subjects=("walker",), size=SIZE), 0, 0)


def _stage(subject: Subject, heading_T: np.ndarray, phase_T: np.ndarray, rng: np.random.Generator) -> ClipDescription:
    """The subject on the spot before a camera about as far away as in clips, in some light on a plain ground."""
    clip, frames = _any_clip(), len(heading_T)
    far_away = ShapeList()
    far_away.add(BOX, (0.0, 900.0, 1.0), (1.0, 1.0, 1.0), Paint(colour=(0.5, 0.5, 0.5)))
    ground = Ground(paint=Paint(colour=tuple(rng.uniform(0.35, 0.75, 3))))
    walk = Walk(position=np.zeros((frames, 3)), heading=heading_T, distance=phase_T * subject.figure.stride_metres)
    actor = replace(
        clip.actors[0], number=1, subject=subject, walk=walk, phase=phase_T, lift=settled(walk.distance)
    )  # fmt: skip
    extent = max(subject.tall, 0.6 * subject.body_length)
    distance = extent * clip.focal(SIZE[1]) / (PIXELS * rng.uniform(0.92, 1.08))
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float64)  # right, down, forward as columns
    pose[:3, 3] = [0.0, -distance, extent * rng.uniform(0.5, 0.95)]
    return replace(
        clip, scene=replace(clip.scene, shapes=far_away.shapes(), ground=ground, lamps=()),
        light=light_from(rng, tuple(MOODS)), actors=(actor,),
        world_from_camera=np.broadcast_to(pose, (frames, 4, 4)).copy(),
        needs=replace(clip.needs, context_frames=frames), target_frames=0, texture_seed=int(rng.integers(2**31)),
    )  # fmt: skip


def portraits(family: str, draw: int, headings_T: np.ndarray) -> list[Portrait]:
    """One draw of a family, seen from the side, the front or between, each time in another phase of its gait."""
    rng = np.random.default_rng([list(SUBJECTS).index(family), draw])
    subject = SUBJECTS[family](rng)
    clip = _stage(subject, headings_T, rng.uniform(0, 1, len(headings_T)), rng)
    drawn = draw_clip(clip, SIZE)
    return [Portrait(rgb=rgb, mask=seen == 1) for rgb, seen in zip(drawn.rgb, drawn.instances, strict=True)]
