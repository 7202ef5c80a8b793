"""Reels: clips laid out for drawing, and takes: some frames of some of them, together.

What does not change between the frames of a clip is computed once, in its reel. A take may hold frames of several
clips, so that a large device draws many small clips at once; the clips do not influence each other.
Shape letters: T frames of a clip, F frames of a take, R rows of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmcli.world.render.bins import ShadowBins, ShadowCells, covered, screen_ranges, shadow_bins, shadow_cells
from hmcli.world.render.cast import Bundles, turned
from hmcli.world.render.patterns import Noise, joined_noise, noise_from
from hmcli.world.render.place import places_of
from hmcli.world.render.shade import Stage
from hmcli.world.render.table import Table, joined_tables, table_of
from hmcli.world.staging.clip import ClipDescription

TILE = 8  # pixels


@dataclass(frozen=True, kw_only=True)
class View:
    """Size of the pictures in pixels, and the focal length in pixels."""

    height: int
    width: int
    focal: float

    @property
    def grid(self) -> tuple[int, int]:
        """Lines and columns of tiles."""
        return -(-self.height // TILE), -(-self.width // TILE)


class Reel:
    """One clip on a device."""

    def __init__(self, clip: ClipDescription, device: torch.device) -> None:
        self.clip, self.frames = clip, clip.frames
        shapes = clip.moving_shapes()
        self.still, self.moving = table_of(clip.scene.shapes, device), table_of(shapes, device)
        self.per_frame = len(shapes.kind)
        self.noise: Noise = noise_from(np.random.default_rng(clip.texture_seed), device)
        self.cameras = torch.as_tensor(clip.world_from_camera, dtype=torch.float64, device=device)
        self.feet = torch.as_tensor(clip.feet(), dtype=torch.float32, device=device)
        sun = torch.tensor(clip.light.towards_sun, dtype=torch.float64, device=device)
        self.still_shadows: ShadowBins = shadow_bins(self.still, 1, sun)
        self.moving_shadows: ShadowBins = shadow_bins(self.moving, clip.frames, sun)
        self.still_top, self.moving_top = (_reach(table, sun) for table in (self.still, self.moving))


def _reach(table: Table, sun: Tensor) -> Tensor:
    """(R,) how far each shape reaches towards the sun, metres."""
    box, ball = (table.corners @ sun).amax(1), table.middle @ sun + table.radius
    return (torch.minimum(box, ball) + 1e-3).float()


@dataclass(frozen=True, kw_only=True)
class Part:
    """Frames of one reel."""

    reel: Reel
    frames: range

    def cut(self, values: Tensor) -> Tensor:
        """Of something that has a row per frame: those of these frames."""
        return values[self.frames.start : self.frames.stop]

    @property
    def moving(self) -> slice:
        """The rows of the reel's moving shapes."""
        return slice(self.frames.start * self.reel.per_frame, self.frames.stop * self.reel.per_frame)


class Take:
    """Frames of some clips, ready to be drawn; its table has the still shapes of each clip, then the moving ones."""

    def __init__(self, parts: Sequence[Part], view: View) -> None:
        self.parts, self.view = parts, view
        tables = [part.reel.still for part in parts] + [part.reel.moving.rows(part.moving) for part in parts]
        self.table = joined_tables(tables)
        self.device = self.table.device
        self.cameras = torch.cat([part.cut(part.reel.cameras) for part in parts])
        self.frames = len(self.cameras)
        sizes = [len(table.kind) for table in tables]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self.stage = self._stage(sizes, starts)
        self.bundle_P, self.row_P = self._pairs(starts)

    def _stage(self, sizes: list[int], starts: list[int]) -> Stage:
        reels, several = [part.reel for part in self.parts], len(self.parts) > 1
        places = places_of([reel.clip for reel in reels], self.device)
        clip_R = _repeated(sizes, self.device) % len(reels) if several else None
        most = max(reel.feet.shape[1] for reel in reels)
        top = [reel.still_top for reel in reels] + [part.reel.moving_top[part.moving] for part in self.parts]
        return Stage(
            table=self.table,
            places=places,
            noise=joined_noise([reel.noise for reel in reels]),
            clip_F=_repeated([len(part.frames) for part in self.parts], self.device) if several else None,
            eye=self.cameras[:, :3, 3].T.float().contiguous(),
            spread=1 / self.view.focal,
            shadows=self._shadows(starts),
            sunward=torch.stack(turned(self.table.geometry[:9], places.air(clip_R).towards_sun)),
            top=torch.cat(top),
            feet=torch.cat([_with_more_feet(part.cut(part.reel.feet), most) for part in self.parts]),
        )

    def _shadows(self, starts: list[int]) -> tuple[ShadowCells, ShadowCells]:
        """Of still and of moving shapes."""
        frames, count = [part.frames for part in self.parts], len(self.parts)
        shift = [start - part.moving.start for start, part in zip(starts[count:], self.parts, strict=False)]
        return (
            shadow_cells([part.reel.still_shadows for part in self.parts], frames, starts[:count]),
            shadow_cells([part.reel.moving_shadows for part in self.parts], frames, shift),
        )

    def _pairs(self, starts: list[int]) -> tuple[Tensor, Tensor]:
        """Tiles and the rows of the table that may be seen in them, as flat pairs."""
        frames, rows, first = [], [], 0
        for part, still, moving in zip(self.parts, starts, starts[len(self.parts) :], strict=False):
            here, always = first + np.arange(len(part.frames)), still + np.arange(len(part.reel.still.kind))
            frames += [here.repeat(len(always)), here.repeat(part.reel.per_frame)]
            rows += [np.tile(always, len(here)), moving + np.arange(len(here) * part.reel.per_frame)]
            first += len(here)
        frame = torch.as_tensor(np.concatenate(frames), device=self.device)
        row = torch.as_tensor(np.concatenate(rows), device=self.device)
        size = (self.view.height, self.view.width)
        ranges = screen_ranges(self.table, row, self.cameras[frame], self.view.focal, size)
        lines, columns = self.view.grid
        entry, line, column = covered(ranges, TILE, (lines, columns))
        return (frame[entry] * lines + line) * columns + column, row[entry]

    def tiles(self) -> Bundles:
        """One bundle per tile, frame by frame, line by line."""
        lines, columns = self.view.grid
        return self.some_tiles(torch.arange(self.frames * lines * columns, device=self.device))

    def some_tiles(self, number: Tensor) -> Bundles:
        """Of all tiles, those of these numbers."""
        lines, columns = self.view.grid
        frame, tile = number // (lines * columns), number % (lines * columns)
        offsets = torch.arange(TILE, device=self.device) + 0.5
        return self.rays(frame, tile % columns * TILE, tile // columns * TILE, offsets)

    def rays(self, frame: Tensor, x: Tensor, y: Tensor, offsets: Tensor) -> Bundles:
        """Bundles around pixel positions (x, y); directions advance 1 along the forward axis, so t is depth."""
        pose = self.cameras[:, :3].float().permute(2, 1, 0).contiguous().index_select(2, frame)
        right, down, forward, eye = pose
        u, v = (x - self.view.width / 2) / self.view.focal, (y - self.view.height / 2) / self.view.focal
        steps = offsets / self.view.focal
        base = forward + right * u + down * v
        return Bundles(frame=frame, origin=eye, base=base, right=right, down=down, across=steps, along=steps)


def _repeated(counts: list[int], device: torch.device) -> Tensor:
    """0 as often as the first count says, 1 as often as the second, ..."""
    return torch.as_tensor(np.repeat(np.arange(len(counts)), counts), device=device)


def _with_more_feet(feet_TS3: Tensor, most: int) -> Tensor:
    """As many feet as the clip with most has; those added stand nowhere."""
    nowhere = torch.tensor([1e9, 1e9, 1.0], device=feet_TS3.device).expand(len(feet_TS3), most - feet_TS3.shape[1], 3)
    return torch.cat([feet_TS3, nowhere], 1)
