"""What slots stand for, without a model: time spans, cameras, overlap, the subjects they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hmcli.aligned import tensor_of
from hmcli.contracts import Reporter
from hmcli.errors import DataError
from hmcli.recipe.sections import MemoryConfig
from hmcli.stages.latents.layout import VISIBILITY
from hmcli.stages.latents.view import LatentClip, LatentsView
from hmcli.stages.memory.layout import OVERLAP, POSE, SHOWS, SPAN
from hmcli.world.views.cameras import focal_length

if TYPE_CHECKING:
    import torch

if TYPE_CHECKING:
    from hmcli.core.camera import Lens


def lens_of(clips: Sequence[LatentClip], view: LatentsView, config: MemoryConfig) -> Lens:
    """The lenses of clips. Raises DataError when neither a clip nor the recipe knows its intrinsics."""

    from hmcli.core.camera import Lens

    pixels = []
    for clip in clips:
        if (known := intrinsics_of(clip, view.size, config)) is None:
            raise DataError(
                f"policy {config.policy} or model.positions beside screen needs the field of view, but nothing says "
                "how wide this clip's camera sees",
                where={"latents": view.path, "clip": clip.id},
                fix="encode clips that have intrinsics.json, or set model.memory.field_of_view (HM-World measures 37)",
            )
        pixels.append(known)
    return Lens(intrinsics_B4=tensor_of(np.stack(pixels)), size=view.size, near=config.near, far=config.far)


def intrinsics_of(clip: LatentClip, size: tuple[int, int], config: MemoryConfig) -> np.ndarray | None:
    """The clip's own intrinsics (4,), or those of the recipe's field of view; None when neither says."""
    if clip.intrinsics is not None:
        return clip.intrinsics
    if config.field_of_view is None:
        return None
    height, width = size
    focal = focal_length(np.deg2rad(config.field_of_view), width)
    return np.array([focal, focal, width / 2, height / 2])


def clip_spans(clip: LatentClip, config: MemoryConfig, spans: Literal["exact", "released"]) -> tuple[np.ndarray, int]:
    """(M, 2) first and last frame of all slots of a clip as the model numbers them, and how many are made of context.

    A joint model makes slots of all frames in a row (one across the border counts as target); a frozen one starts
    anew at the target. `exact` are the frames a slot is made of, `released` those the released code takes it for.
    """
    from hmcli.core.memory import slot_spans

    time = config.kernel[0]  # latent frames are token frames
    if config.context == "joint":
        return slot_spans(clip.context + clip.target, time, spans).numpy(), clip.context // time
    context, target = (slot_spans(frames, time, spans).numpy() for frames in (clip.context, clip.target))
    return np.concatenate([context, target + clip.context]), len(context)


def shown_subjects(visibility: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """(M, S) uint8: does slot m show subject s, and is s out of sight in some later frame? From (F, S) visibility.

    Frames beyond those of `visibility` (a target that is not known) show nothing and hide nothing.
    """
    seen = visibility > 0
    shows = np.zeros((len(spans), seen.shape[1]), np.uint8)
    for slot, (first, last) in enumerate(spans):
        hidden_later = ~seen[last + 1 :].all(axis=0)
        shows[slot] = seen[first : last + 1].any(axis=0) & hidden_later
    return shows


def describe_slots(
    clip: LatentClip, view: LatentsView, config: MemoryConfig, reporter: Reporter
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Spans, poses, overlaps and subjects of all slots of a clip: arrays of `_UNITS`, and the slot grid.

    Raises DataError when the context is shorter than one slot.
    """

    from hmcli.core.camera import CAMERA_ROW, camera_overlap, mean_poses

    time, rows, columns = config.kernel
    spans, context_slots = clip_spans(clip, config, config.spans)
    if not context_slots:
        raise DataError(
            f"{clip.context} context latent frames are shorter than one slot of {time}", where={"clip": clip.id},
            fix="use longer clips or a smaller model.memory.kernel",
        )  # fmt: skip
    arrays: dict[str, np.ndarray] = {SPAN: spans}
    if clip.poses is not None:
        arrays[POSE] = mean_poses(slot_rows(clip.poses[:, :3].reshape(-1, CAMERA_ROW), clip, config))[0].numpy()
    if intrinsics_of(clip, view.size, config) is not None:
        rows_AR, lens = tensor_of(clip.camera), lens_of([clip], view, config)
        arrays[OVERLAP] = camera_overlap(rows_AR[None], slot_rows(clip.camera, clip, config), lens)[0].numpy()
    else:
        reporter.note(f"{clip.id}: no intrinsics, so no overlap (HM-World measures model.memory.field_of_view=37)")
    subjects = view.subjects(clip.id)
    if VISIBILITY in subjects:
        arrays[SHOWS] = shown_subjects(subjects[VISIBILITY], clip_spans(clip, config, "exact")[0])
    grid = (clip.latents.shape[2] // rows, clip.latents.shape[3] // columns)
    counts = {"context": clip.context, "target": clip.target, "context_slots": context_slots}
    return arrays, {"slots": len(spans), "slot_grid": grid, **counts}


def slot_rows(camera: np.ndarray, clip: LatentClip, config: MemoryConfig) -> torch.Tensor:
    """Mean camera row of the frames that each slot of a clip is made of: (A, 12) -> (1, M, 12)."""
    import torch

    from hmcli.core.memory import slot_cameras

    whole = tensor_of(camera)[None]
    parts = [whole] if config.context == "joint" else [whole[:, : clip.context], whole[:, clip.context :]]
    return torch.cat([slot_cameras(part, config.kernel[0]) for part in parts], dim=1)
