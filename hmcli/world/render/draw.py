"""Drawing: clip descriptions become RGB, instance numbers and depth.

Frames are drawn a take at a time, and a take may hold frames of several clips; every pixel is computed by itself, so
pictures do not depend on how frames are grouped, nor on the number of threads. Masks and depth are those of the pixel's
middle, also with antialiasing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.render.cast import alone, nearest
from hmcli.world.render.reel import TILE, Part, Reel, Take, View
from hmcli.world.render.shade import Hits, depth_of, shade, with_ground
from hmcli.world.render.smooth import smooth_edges
from hmcli.world.staging.clip import ClipDescription

_TAKE_PIXELS, _TAKE_PIXELS_CUDA = 1 << 17, 1 << 23  # pixels drawn at once


@dataclass(frozen=True, kw_only=True)
class RenderedClip:
    """`rgb` (T, H, W, 3) uint8; `instances` (T, H, W) uint8, 0 scene, k the k-th subject; `depth` (T, H, W) float32.

    Depth is in metres along the camera's forward axis, infinite for the sky. `amodal` (subjects, T, H, W) bool marks
    the pixels each subject would cover if it were alone in the world.
    """

    rgb: np.ndarray
    instances: np.ndarray
    depth: np.ndarray
    amodal: np.ndarray


def draw_clip(
    clip: ClipDescription, size: tuple[int, int], device: torch.device | str = "cpu", *,
    antialias: bool = True, chunk_frames: int = 0,
) -> RenderedClip:  # fmt: skip
    """Draw every frame of a clip at (height, width). `chunk_frames` 0 chooses by memory; it does not change results."""
    return draw_clips([clip], size, device, antialias=antialias, chunk_frames=chunk_frames)[0]


def draw_clips(
    clips: Sequence[ClipDescription], size: tuple[int, int], device: torch.device | str = "cpu", *,
    antialias: bool = True, chunk_frames: int = 0,
) -> list[RenderedClip]:  # fmt: skip
    """Draw several clips of one field of view, `chunk_frames` frames at a time, whichever clips these belong to.

    The same pictures as one clip at a time. Raises ValueError when the clips' fields of view differ.
    """
    if len({clip.field_of_view for clip in clips}) > 1:
        raise ValueError("clips that are drawn together need one field of view")
    if not clips:
        return []
    device = torch.device(device)
    view = View(height=size[0], width=size[1], focal=clips[0].focal(size[1]))
    drawn = [_blank(clip, size) for clip in clips]
    with torch.inference_mode():
        for parts in takes(clips, chunk_frames or frames_at_once(size, device), device):
            pictures = _draw(Take([part for _, part in parts], view), antialias)
            first = 0
            for number, part in parts:
                last = first + len(part.frames)
                _put(drawn[number], part, [picture[..., first:last, :, :] for picture in pictures])
                first = last
    return drawn


def frames_at_once(size: tuple[int, int], device: torch.device) -> int:
    pixels = _TAKE_PIXELS if device.type == "cpu" else _TAKE_PIXELS_CUDA
    return max(1, pixels // (size[0] * size[1]))


def _blank(clip: ClipDescription, size: tuple[int, int]) -> RenderedClip:
    frames = (clip.frames, *size)
    return RenderedClip(
        rgb=np.empty((*frames, 3), np.uint8), instances=np.empty(frames, np.uint8), depth=np.empty(frames, np.float32),
        amodal=np.empty((len(clip.actors), *frames), bool),
    )  # fmt: skip


def takes(clips: Sequence[ClipDescription], chunk: int, device: torch.device) -> Iterator[list[tuple[int, Part]]]:
    """Numbers of clips with their frames, `chunk` frames at a time."""
    parts: list[tuple[int, Part]] = []
    room = chunk
    for number, clip in enumerate(clips):
        reel, first = Reel(clip, device), 0
        while first < clip.frames:
            frames = range(first, min(first + room, clip.frames))
            parts.append((number, Part(reel=reel, frames=frames)))
            first, room = frames.stop, room - len(frames)
            if not room:
                yield parts
                parts, room = [], chunk
    if parts:
        yield parts


def _put(drawn: RenderedClip, part: Part, pictures: list[np.ndarray]) -> None:
    some = slice(part.frames.start, part.frames.stop)
    rgb, drawn.instances[some], drawn.depth[some], amodal = pictures
    drawn.rgb[some] = np.moveaxis(rgb, 0, -1)
    drawn.amodal[:, some] = amodal[[actor.number - 1 for actor in part.reel.clip.actors]]


def _draw(take: Take, antialias: bool) -> list[np.ndarray]:
    """RGB (3, F, H, W), instances (F, H, W), depth (F, H, W) and amodal masks (subjects, F, H, W)."""
    tiles = take.tiles()
    t, row = nearest(take.table, tiles, take.bundle_P, take.row_P)
    direction = tiles.directions()
    height = tiles.origin[2][:, None].expand(t.shape)
    t, row = with_ground(height, direction[2].view(t.shape), t, row)
    frame = tiles.frame[:, None].expand(t.shape).flatten()
    colour = shade(take.stage, Hits(frame=frame, direction=direction, t=t.flatten(), row=row.flatten()))
    t, row, colour = (untiled(values, take.view) for values in (t.flatten(), row.flatten(), colour))
    owner = torch.cat([torch.zeros(2, dtype=torch.uint8, device=take.device), take.table.owner])
    instances = owner.index_select(0, row.flatten() + 2).view(row.shape)
    if antialias:
        colour = smooth_edges(take, row, colour)
    rgb = (colour * 255 + 0.5).to(torch.uint8)
    subjects = max((actor.number for part in take.parts for actor in part.reel.clip.actors), default=0)
    amodal = alone(take.table, tiles, take.bundle_P, take.row_P, subjects).flatten(1)
    return [picture.cpu().numpy() for picture in (rgb, instances, depth_of(t), untiled(amodal, take.view))]


def untiled(values: Tensor, view: View) -> Tensor:
    """(..., rays) tile by tile -> (..., F, H, W)."""
    lines, columns = view.grid
    frames = values.shape[-1] // (lines * columns * TILE * TILE)
    grid = values.reshape(*values.shape[:-1], frames, lines, columns, TILE, TILE).transpose(-3, -2)
    whole = grid.reshape(*values.shape[:-1], frames, lines * TILE, columns * TILE)
    return whole[..., : view.height, : view.width].contiguous()
