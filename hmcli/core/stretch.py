"""A stretch: one run of all blocks over some frames, and what they share of it: spans, cameras, rotary tables.

Paper: "rotary" and "memory tokens" rows of docs/paper-map.md. Made once per run, so that no block waits for the device.
Shape letters here: B batch, F frames of the stretch, A all frames so far, M memory slots, T times, R entries of a
camera row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from hmcli.core.memory import ContextMemory, absolute_times, slot_cameras, slot_spans
from hmcli.core.rays import PatchLens, cell_centres, head_paces, ray_table
from hmcli.core.retrieval import ALL_FRAMES, SLOTS, Policy, RetrievalInputs, needs_of
from hmcli.core.rope import full_table, slot_table

Part = Literal["joint", "context", "target"]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One run of all blocks over a stretch of frames: where it lies in time and what it may read beyond itself."""

    part: Part
    camera_BFR: Tensor  # of its frames
    num_context: int  # its first frames that are context (for the camera encoder)
    grid: tuple[int, int]  # rows and columns of patch tokens
    first_frame: int  # absolute number of its first frame
    span_M2: Tensor  # first and last frame of the memory's slots and of its own, absolute, int64 on CPU
    key_table: Tensor  # rotary table of the memory's tail and its own frames
    slot_table: Tensor  # rotary table of the memory's slots and its own
    camera_BAR: Tensor  # camera rows of all frames so far, float32 at least
    slot_camera_BMR: Tensor  # mean camera rows of the same slots as `span_M2`
    memory: ContextMemory | None = None
    tail_frames: int = 0  # last frames whose keys and values are kept for later (part context)
    inputs: RetrievalInputs | None = None
    memo: dict[str, Any] = field(default_factory=dict)  # of the policy, for all blocks


def make_stretch(
    part: Part,
    latents: Tensor,
    camera: Tensor,
    num_context: int,
    memory: ContextMemory | None,
    inputs: RetrievalInputs | None,
    *,
    config: Any,
    policy: Policy,
    kernel: tuple[int, int, int],
    dtype: torch.dtype,
) -> Stretch:
    """Everything the blocks share: spans, cameras and rotary tables, the first of these frames at time 0.

    `config` is the model's; `kernel` its memory tokenizer's, in tokens; `dtype` what its blocks compute in.
    """
    frames, rows, columns = latents.shape[2], *latents.shape[3:]
    grid = (rows // config.patch_size[1], columns // config.patch_size[2])
    first = 0 if memory is None else memory.num_context_frames
    tail = 0 if memory is None else memory.tail_frames
    slots = frames // kernel[0] if SLOTS in needs_of(policy) else 0
    camera_BAR = camera.to(torch.promote_types(camera.dtype, torch.float32))
    camera_BFR = camera_BAR.to(latents.device, dtype)
    span_M2 = slot_spans(frames, kernel[0], config.spans)[:slots] + first
    slot_camera_BMR, times_M = slot_cameras(camera_BAR, kernel[0])[:, :slots], absolute_times(slots, kernel[0], 0)
    if memory is not None:
        camera_BAR = torch.cat([memory.frame_camera_BAR.to(camera_BAR), camera_BAR], dim=1)
        span_M2 = torch.cat([memory.span_M2, span_M2])
        slot_camera_BMR = torch.cat([memory.camera_BMR.to(slot_camera_BMR), slot_camera_BMR], dim=1)
        times_M = torch.cat([in_trained_range(config, memory.time_M - first), times_M])
    pace_H = head_paces(config.num_attention_heads) if config.positions == "moving-rays" else None
    place = (pace_H, config.attention_head_dim, dtype, latents.device)
    times_A = in_trained_range(config, torch.arange(-tail, frames, dtype=torch.float64))
    lens = _lens(config, inputs, grid, camera.device)
    every = ALL_FRAMES in needs_of(policy)
    return Stretch(
        part=part,
        camera_BFR=camera_BFR,
        num_context=num_context,
        grid=grid,
        first_frame=first,
        span_M2=span_M2,
        key_table=_table(times_A, camera_BAR[:, first - tail :], grid, None, lens, *place),
        slot_table=_table(times_M, slot_camera_BMR, grid, kernel, lens, *place),
        camera_BAR=camera_BAR,
        slot_camera_BMR=slot_camera_BMR,
        memory=memory,
        tail_frames=0 if part != "context" else frames if every else min(config.window - 1, frames),
        inputs=inputs,
    )


def _table(
    times_T: Tensor,
    camera_BTR: Tensor,
    grid: tuple[int, int],
    kernel: tuple[int, int, int] | None,
    lens: PatchLens | None,
    pace_H: Tensor | None,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Rotary table of full-resolution frames or, with `kernel`, of memory slots; with `lens`, of world rays."""
    rows, columns = grid if kernel is None else (grid[0] // kernel[1], grid[1] // kernel[2])
    place = (head_dim, dtype, device)
    if lens is not None:
        row_R, column_K = (
            cell_centres(side, step).to(camera_BTR.device)
            for side, step in zip((rows, columns), kernel[1:] if kernel else (1, 1), strict=True)
        )
        return ray_table(times_T, camera_BTR, lens, row_R, column_K, *place, means=kernel is not None, pace_H=pace_H)
    if kernel is None:
        return full_table(times_T, grid, *place)
    return slot_table(times_T, (rows, columns), kernel, *place)


def _lens(config: Any, inputs: RetrievalInputs | None, grid: tuple[int, int], device: torch.device) -> PatchLens | None:
    """Which rays go through a frame's tokens; None where positions are those of the screen."""
    if config.positions == "screen":
        return None
    assert inputs is not None  # the model refuses a call without
    assert inputs.intrinsics_B4 is not None
    assert inputs.image_size is not None
    return PatchLens(intrinsics_B4=inputs.intrinsics_B4.to(device), size=inputs.image_size, grid=grid)


def in_trained_range(config: Any, time: Tensor) -> Tensor:
    """Times before the target, kept in the trained range."""
    return time.clamp(min=-config.max_history) if config.max_history else time
