"""Drawing: a clip description becomes RGB, instance numbers and depth.

Frames are drawn a chunk at a time; every pixel is computed by itself, so pictures do not depend on the chunk size, the
number of threads or the other frames. Masks and depth are those of the pixel's middle, also with antialiasing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.clip import ClipDescription
from hmcli.world.render.bins import Pairs, ShadowBins, screen_ranges, shadow_bins, tile_pairs
from hmcli.world.render.cast import Bundles, nearest
from hmcli.world.render.patterns import Noise, noise_from
from hmcli.world.render.shade import Hits, Stage, depth_of, shade, with_ground
from hmcli.world.render.table import Bounds, bounds_of, table_of

TILE = 8  # pixels
_SUB_RAYS = 2  # per axis, on pixels at an edge
_EDGE = 0.08  # difference of display brightness that counts as an edge
_CHUNK_PIXELS = 1 << 17  # pixels drawn at once on a CPU; a CUDA device takes 16 times as many


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


@dataclass(frozen=True, kw_only=True)
class View:
    """Size of the pictures in pixels, and the focal length in pixels."""

    height: int
    width: int
    focal: float

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.height // TILE), -(-self.width // TILE)


def draw_clip(
    clip: ClipDescription, size: tuple[int, int], device: torch.device | str = "cpu", *,
    antialias: bool = True, chunk_frames: int = 0,
) -> RenderedClip:  # fmt: skip
    """Draw every frame of a clip at (height, width). `chunk_frames` 0 chooses by memory; it does not change results."""
    device = torch.device(device)
    view = View(height=size[0], width=size[1], focal=clip.focal(size[1]))
    pixels = _CHUNK_PIXELS * (16 if device.type == "cuda" else 1)
    chunk = chunk_frames or max(1, pixels // (size[0] * size[1]))
    painter = Painter(clip, view, device)
    with torch.inference_mode():
        parts = [painter.frames(slice(i, min(i + chunk, clip.frames)), antialias) for i in range(0, clip.frames, chunk)]
    rgb, instances, depth, amodal = zip(*parts, strict=True)
    return RenderedClip(
        rgb=np.concatenate(rgb),
        instances=np.concatenate(instances),
        depth=np.concatenate(depth),
        amodal=np.concatenate(amodal, axis=1),
    )


class Painter:
    """Holds what does not change between the frames of a clip."""

    def __init__(self, clip: ClipDescription, view: View, device: torch.device) -> None:
        self.clip, self.view, self.device = clip, view, device
        self.still, self.moving = clip.scene.shapes, clip.moving_shapes()
        self.still_bounds, self.moving_bounds = bounds_of(self.still), bounds_of(self.moving)
        self.noise: Noise = noise_from(np.random.default_rng(clip.texture_seed), device)
        self.sun = np.asarray(clip.light.towards_sun)
        rows = np.flatnonzero([paint.shadow for paint in self.still.paints])
        casting = Bounds(
            corners=self.still_bounds.corners[:, rows], centre=self.still_bounds.centre[:, rows],
            radius=self.still_bounds.radius[:, rows],
        )  # fmt: skip
        self.still_shadows: ShadowBins = shadow_bins(casting, rows[None], self.sun, device)

    def frames(self, frames: slice, antialias: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """RGB, instances, depth and amodal masks of some frames."""
        cameras = self.clip.world_from_camera[frames]
        stage = self._stage(frames)
        pairs = self._pairs(frames, cameras)
        t, row, colour = self._draw_tiles(stage, cameras, pairs)
        owner = torch.where(row >= 0, stage.table.owner[row.clamp_min(0)], 0).to(torch.uint8)
        if antialias:
            self._smooth_edges(stage, cameras, pairs, row, owner, colour)
        rgb = (colour.permute(1, 2, 3, 0) * 255 + 0.5).to(torch.uint8)
        amodal = self._alone(stage, cameras, pairs)
        return rgb.cpu().numpy(), owner.cpu().numpy(), depth_of(t).cpu().numpy(), amodal.cpu().numpy()

    def _rows(self, count: int) -> np.ndarray:
        """(frames, moving shapes) rows of the table."""
        still, moving = len(self.still.kind), len(self.moving.kind)
        return still + np.arange(count * moving).reshape(count, moving)

    def _stage(self, frames: slice) -> Stage:
        moving = Bounds(
            corners=self.moving_bounds.corners[frames],
            centre=self.moving_bounds.centre[frames],
            radius=self.moving_bounds.radius[frames],
        )
        return Stage(
            table=table_of(self.still, self.moving, frames, self.device),
            ground=self.clip.scene.ground,
            light=self.clip.light,
            lamps=self.clip.scene.lamps,
            noise=self.noise,
            shadows=(
                self.still_shadows,
                shadow_bins(moving, self._rows(len(moving.centre)), self.sun, self.device),
            ),
            feet=torch.as_tensor(self.clip.feet()[frames], dtype=torch.float32, device=self.device),
        )

    def _pairs(self, frames: slice, cameras: np.ndarray) -> Pairs:
        size, count = (self.view.height, self.view.width), len(cameras)
        still = screen_ranges(self.still_bounds, cameras, self.view.focal, size)
        part = Bounds(
            corners=self.moving_bounds.corners[frames],
            centre=self.moving_bounds.centre[frames],
            radius=self.moving_bounds.radius[frames],
        )
        moving = screen_ranges(part, cameras, self.view.focal, size)
        still_rows = np.broadcast_to(np.arange(len(self.still.kind)), (count, len(self.still.kind)))
        rows = np.concatenate([still_rows, self._rows(count)], 1)
        return tile_pairs(np.concatenate([still, moving], 1), rows, TILE, self.view.grid).to(self.device)

    def _rays(self, cameras: np.ndarray, frame: Tensor, x: Tensor, y: Tensor, offsets: Tensor) -> Bundles:
        """Bundles around pixel positions (x, y); directions advance 1 along the forward axis, so t is depth."""
        pose = torch.as_tensor(cameras, dtype=torch.float32, device=self.device).index_select(0, frame)
        right, down, forward, eye = pose[:, :3].unbind(2)
        u, v = (x - self.view.width / 2) / self.view.focal, (y - self.view.height / 2) / self.view.focal
        steps = offsets / self.view.focal
        base = forward + right * u[:, None] + down * v[:, None]
        return Bundles(origin=eye, base=base, right=right, down=down, across=steps, along=steps)

    def _hits(self, bundles: Bundles, frame: Tensor, t: Tensor, row: Tensor) -> Hits:
        direction = bundles.directions().reshape(-1, 3).T.contiguous()
        origin = bundles.origin[:, None].expand(-1, bundles.rays, -1).reshape(-1, 3).T.contiguous()
        t, row = with_ground(origin[2], direction[2], t.reshape(-1), row.reshape(-1))
        return Hits(
            frame=frame[:, None].expand(-1, bundles.rays).reshape(-1), origin=origin, direction=direction,
            t=t, row=row, spread=1 / self.view.focal,
        )  # fmt: skip

    def _draw_tiles(self, stage: Stage, cameras: np.ndarray, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """t, row (frames, H, W) and colour (3, frames, H, W), one ray through the middle of each pixel."""
        bundles, frame = self._tile_rays(cameras)
        t, row = nearest(stage.table, bundles, pairs.bundle, pairs.row)
        hits = self._hits(bundles, frame, t, row)
        colour = shade(stage, hits)
        return self._untiled(hits.t), self._untiled(hits.row), self._untiled(colour)

    def _alone(self, stage: Stage, cameras: np.ndarray, pairs: Pairs) -> Tensor:
        """(subjects, frames, H, W) bool: what each subject covers when nothing else is there."""
        bundles, _ = self._tile_rays(cameras)
        owner = stage.table.owner.index_select(0, pairs.row)
        masks = []
        for actor in self.clip.actors:
            own = (owner == actor.number).nonzero()[:, 0]
            _, row = nearest(stage.table, bundles, pairs.bundle[own], pairs.row[own])
            masks.append(self._untiled(row.reshape(-1) >= 0))
        return torch.stack(masks)

    def _tile_rays(self, cameras: np.ndarray) -> tuple[Bundles, Tensor]:
        """One bundle per tile, with the frame it belongs to."""
        lines, columns = self.view.grid
        number = torch.arange(len(cameras) * lines * columns, device=self.device)
        frame, tile = number // (lines * columns), number % (lines * columns)
        x, y = (tile % columns) * TILE, (tile // columns) * TILE
        offsets = torch.arange(TILE, device=self.device) + 0.5
        return self._rays(cameras, frame, x.float(), y.float(), offsets), frame

    def _untiled(self, values: Tensor) -> Tensor:
        """(..., rays) tile by tile -> (..., frames, H, W)."""
        lines, columns = self.view.grid
        grid = values.reshape(*values.shape[:-1], -1, lines, columns, TILE, TILE).transpose(-3, -2)
        whole = grid.reshape(*grid.shape[:-4], lines * TILE, columns * TILE)
        return whole[..., : self.view.height, : self.view.width].contiguous()

    def _smooth_edges(
        self, stage: Stage, cameras: np.ndarray, pairs: Pairs, row: Tensor, owner: Tensor, colour: Tensor
    ) -> None:
        """Replace the colour of pixels at edges by the mean of several sub-rays."""
        frame, y, x = edges(row, owner, colour).nonzero(as_tuple=True)
        lines, columns = self.view.grid
        tile = (frame * lines + y // TILE) * columns + x // TILE
        count = torch.bincount(pairs.bundle, minlength=len(cameras) * lines * columns)
        start = count.cumsum(0) - count
        offsets = (torch.arange(_SUB_RAYS, device=self.device) + 0.5) / _SUB_RAYS
        for some in torch.arange(len(frame), device=self.device).split(_CHUNK_PIXELS // 4):
            bundles = self._rays(cameras, frame[some], x[some].float(), y[some].float(), offsets)
            tests = count[tile[some]]
            bundle = torch.arange(len(some), device=self.device).repeat_interleave(tests)
            within = torch.arange(len(bundle), device=self.device) - (tests.cumsum(0) - tests).repeat_interleave(tests)
            rows = start[tile[some]].repeat_interleave(tests) + within
            low_x, high_x, low_y, high_y = pairs.ranges.index_select(0, rows).unbind(1)
            at_x, at_y = x[some].float()[bundle], y[some].float()[bundle]
            close = ((low_x <= at_x + 1) & (high_x >= at_x) & (low_y <= at_y + 1) & (high_y >= at_y)).nonzero()[:, 0]
            t, met = nearest(stage.table, bundles, bundle[close], pairs.row[rows[close]])
            light = shade(stage, self._hits(bundles, frame[some], t, met))
            rays = light.reshape(3, len(some), bundles.rays).unbind(2)
            total = rays[0]
            for ray in rays[1:]:  # a fixed order of addition
                total = total + ray
            colour[:, frame[some], y[some], x[some]] = total / bundles.rays


def edges(row: Tensor, owner: Tensor, colour: Tensor) -> Tensor:
    """(T, H, W) bool: pixels whose neighbour to the right, left, above or below shows something else."""
    bright = colour[0] * 0.3 + colour[1] * 0.6 + colour[2] * 0.1
    found = torch.zeros_like(row, dtype=torch.bool)
    for axis in (1, 2):
        last = row.shape[axis] - 1
        pair = [(v.narrow(axis, 0, last), v.narrow(axis, 1, last)) for v in (row, owner, bright)]
        step = (pair[2][0] - pair[2][1]).abs()
        differs = (pair[1][0] != pair[1][1]) | (step > _EDGE)
        differs |= (pair[0][0] != pair[0][1]) & (step > _EDGE / 4)
        found.narrow(axis, 0, last).logical_or_(differs)
        found.narrow(axis, 1, last).logical_or_(differs)
    return found
