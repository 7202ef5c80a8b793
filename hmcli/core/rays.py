"""World-ray positions (ours): rotary rows and columns that say where in the world a token looks, not where on screen.

Paper: none; docs/parity.md, "positions". A token's (row, column) become elevation and azimuth of the ray through its
centre, in the frame that camera rows are relative to (the anchor), counted in patches of the view: for the anchor's own
camera they are nearly the numbers of the screen. So what two cameras see of the same far thing sits at the same place.
Who walks sits at another place in every frame, and a head whose score is a sum over axes cannot ask for places along a
line through time and azimuth. With `moving-rays` half of the heads count azimuth in a frame that turns at a pace of its
own: there, who walks at that pace stands still.
Shape letters here: B batch, T frames or slots, R rows and K columns of tokens, H heads, D channels of one head, R
entries of a camera row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hmcli.core.camera import mean_poses
from hmcli.core.rope import angles, axis_split, frequencies, table_dtype

FASTEST = 0.03  # radians of azimuth per latent frame: at 15 frames a second, a walker some eight metres away


@dataclass(frozen=True, kw_only=True)
class PatchLens:
    """Which rays go through the patch tokens of a frame. Axes right, down, forward; angles in radians, float64."""

    intrinsics_B4: Tensor  # fx, fy, cx, cy in pixels
    size: tuple[int, int]  # height, width in pixels
    grid: tuple[int, int]  # rows and columns of patch tokens

    def extent(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Angles between the optical axis and the middles of the top and left edge, and those of one patch, (B,) each.

        A patch's angle is the whole field of view over the number of patches: at both edges of the image the positions
        are exactly those of the screen.
        """
        fx, fy, cx, cy = self.intrinsics_B4.double().unbind(-1)
        height, width = self.size
        above_B, left_B = torch.atan(cy / fy), torch.atan(cx / fx)
        row_B = (above_B + torch.atan((height - cy) / fy)) / self.grid[0]
        column_B = (left_B + torch.atan((width - cx) / fx)) / self.grid[1]
        return above_B, left_B, row_B, column_B

    def rays(self, row_R: Tensor, column_K: Tensor) -> Tensor:
        """Directions (B, R, K, 3) in the camera's frame through places on the token grid (its first token is 0, 0)."""
        fx, fy, cx, cy = (value[:, None] for value in self.intrinsics_B4.double().unbind(-1))
        down_BR = ((row_R + 0.5) * (self.size[0] / self.grid[0]) - cy) / fy
        right_BK = ((column_K + 0.5) * (self.size[1] / self.grid[1]) - cx) / fx
        R, K = down_BR.shape[1], right_BK.shape[1]
        right, down = right_BK[:, None].expand(-1, R, -1), down_BR[:, :, None].expand(-1, -1, K)
        return torch.stack([right, down, torch.ones_like(right)], dim=-1)


def cell_centres(cells: int, step: int) -> Tensor:
    """Middles of cells of `step` tokens as places on the token grid, (cells,) float64: 0, 1, 2 ... of single tokens."""
    return step * torch.arange(cells, dtype=torch.float64) + (step - 1) / 2


def ray_positions(
    camera_BTR: Tensor, lens: PatchLens, row_R: Tensor, column_K: Tensor, *, means: bool = True
) -> tuple[Tensor, Tensor]:
    """Elevation and azimuth in patches, (B, T, R, K) float64 each, of places on the token grid seen by cameras.

    `camera_BTR` are camera rows relative to the anchor, or, with `means`, means of several (see `mean_poses`), whose
    rotations take a decomposition each (slow on a GPU). Elevation grows downwards and azimuth to the right, as rows and
    columns do, and both count from the first token of the anchor's view. Azimuth jumps by a full turn behind the
    anchor; where straight up or down it is of no meaning.
    """
    rows = camera_BTR.double().unflatten(-1, (3, 4))
    anchor_from_camera = mean_poses(camera_BTR)[..., :3, :3] if means else rows[..., :3]
    rays_BTRK3 = torch.einsum("btij,brkj->btrki", anchor_from_camera, lens.rays(row_R, column_K))
    right, down, forward = rays_BTRK3.unbind(-1)
    above_B, left_B, row_B, column_B = (value[:, None, None, None] for value in lens.extent())
    elevation = torch.atan2(down, torch.hypot(right, forward))
    azimuth = torch.atan2(right, forward)
    return (elevation + above_B) / row_B - 0.5, (azimuth + left_B) / column_B - 0.5


def closing_frequencies(column_B: Tensor, channels: int) -> Tensor:
    """Radians per patch of azimuth, (B, channels / 2), of which a full turn makes whole turns, at least one.

    Each is the nearest to that of `rope.angles`, at most half a turn per full turn off; those that make less than half
    a turn are sped up to one.
    """
    patch_B1 = column_B[:, None]
    turns = (frequencies(channels, column_B.device) / patch_B1).round().clamp(min=1)
    return turns * patch_B1


def head_paces(heads: int) -> Tensor:
    """Radians of azimuth per latent frame at which the frame of each head turns, (H,) float64: `moving-rays`.

    The first half of the heads stands still; the others have evenly spread paces to both sides, FASTEST at most.
    """
    turning = heads // 2
    sides = torch.linspace(-1, 1, turning + turning % 2, dtype=torch.float64)[:turning]
    return torch.cat([torch.zeros(heads - turning, dtype=torch.float64), FASTEST * sides])


def ray_table(
    time_T: Tensor,
    camera_BTR: Tensor,
    lens: PatchLens,
    row_R: Tensor,
    column_K: Tensor,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    means: bool = True,
    pace_H: Tensor | None = None,
) -> Tensor:
    """(cos, sin) of the tokens at these places of every frame or slot, (B, T * R * K, D / 2, 2), as `rotary_table`.

    Computed in float64 where the cameras lie, and per sample, since every sample has its cameras and its lens. With
    `pace_H` (`head_paces`) every head has its own: (B, T * R * K, H, D / 2, 2).
    """
    elevation, azimuth = ray_positions(camera_BTR, lens, row_R, column_K, means=means)
    of_time, of_rows, of_columns = axis_split(head_dim)
    time_T = time_T.to(elevation.device)
    patch_B = lens.extent()[3]
    time_T111 = time_T[:, None, None, None]
    azimuth_BTRKH = azimuth[..., None]
    if pace_H is not None:
        azimuth_BTRKH = azimuth_BTRKH - time_T111 * (pace_H.to(azimuth.device) / patch_B[:, None, None, None, None])
    per_patch = closing_frequencies(patch_B, of_columns)[:, None, None, None, None]
    shape = azimuth_BTRKH.shape
    parts = (
        angles(time_T111, of_time).expand(*shape, -1),
        angles(elevation[..., None], of_rows).expand(*shape, -1),
        azimuth_BTRKH[..., None] * per_patch,
    )
    angle = torch.cat(parts, dim=-1).flatten(1, 3)
    if pace_H is None:
        angle = angle.squeeze(2)
    return torch.stack([angle.cos(), angle.sin()], dim=-1).to(device, table_dtype(dtype))
