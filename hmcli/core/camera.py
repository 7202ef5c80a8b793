"""Cameras: how the model is told where each frame was taken, and how much two cameras see of the same place.

Paper: Eq. 2, docs/paper-map.md row "camera". Known differences: docs/parity.md, "camera".
Shape letters here: B batch, F and G cameras (latent frames, or slots), R entries of a camera row, C channels, S frustum
samples; `...` any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

CAMERA_ROW = 12  # [R | t] of a relative pose, row by row; t in metres


class CameraEncoder(nn.Module):
    """One linear map for context cameras, one for target cameras; both start at zero and change nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.context = nn.Linear(CAMERA_ROW, dim)
        self.target = nn.Linear(CAMERA_ROW, dim)
        for layer in (self.context, self.target):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, camera_BFR: Tensor, num_context: int) -> Tensor:
        """(B, F, 12) camera rows, the first `num_context` of them context -> (B, F, C), added to all of a frame."""
        if torch.compiler.is_exporting():  # some runtimes take no tensor of no rows
            if num_context == 0:
                return self.target(camera_BFR)
            if num_context == camera_BFR.shape[1]:
                return self.context(camera_BFR)
        return torch.cat([self.context(camera_BFR[:, :num_context]), self.target(camera_BFR[:, num_context:])], dim=1)


def frustum_points(intrinsics: Tensor, size: tuple[int, int], near: float, far: float, samples: int = 8) -> Tensor:
    """Points a camera sees, in its own coordinates (right, down, forward), metres: (..., S, 3).

    `samples` x `samples` pixels at cell centres over the whole image, each at `samples` depths evenly spaced in
    disparity between `near` and `far` (so that every depth moves by about the same number of pixels when the camera
    shifts). `intrinsics` is (..., 4): fx, fy, cx, cy in pixels; `size` is (height, width) in pixels.
    """
    if not 0 < near < far:
        raise ValueError(f"need 0 < near < far, got near={near}, far={far}")
    centre = (torch.arange(samples, dtype=intrinsics.dtype, device=intrinsics.device) + 0.5) / samples
    depth = 1 / (1 / far + centre * (1 / near - 1 / far))
    y, x, z = (axis.flatten() for axis in torch.meshgrid(centre * size[0], centre * size[1], depth, indexing="ij"))
    fx, fy, cx, cy = (value[..., None] for value in intrinsics.unbind(-1))
    return torch.stack([(x - cx) / fx * z, (y - cy) / fy * z, z.expand(fx.shape[:-1] + z.shape)], dim=-1)


def field_of_view_overlap(
    world_from_a: Tensor,
    world_from_b: Tensor,
    intrinsics_a: Tensor,
    intrinsics_b: Tensor,
    size: tuple[int, int],
    *,
    near: float,
    far: float,
    samples: int = 8,
) -> Tensor:
    """Share of what camera A sees between `near` and `far` (metres) that B sees too: in its image and before `far`.

    Poses are (..., 4, 4) with camera axes right, down, forward, metres; intrinsics (..., 4) as fx, fy, cx, cy in
    pixels of an image of `size` (height, width); leading axes broadcast. Returns (...) in [0, 1]: 1 for one and the
    same camera, 0 for two back to back. Walls are not considered: this is geometry without a scene. Not symmetric: a
    wide view holds all of a narrow one, which holds a part of it.
    """
    points = frustum_points(intrinsics_a, size, near, far, samples)
    b_from_a = torch.linalg.inv(world_from_b) @ world_from_a
    seen = points @ b_from_a[..., :3, :3].mT + b_from_a[..., None, :3, 3]
    z = seen[..., 2]
    within = (z > 0) & (z <= far)
    safe = torch.where(within, z, torch.ones_like(z))
    fx, fy, cx, cy = (value[..., None] for value in intrinsics_b.unbind(-1))
    x, y = fx * seen[..., 0] / safe + cx, fy * seen[..., 1] / safe + cy
    inside = within & (x >= 0) & (x <= size[1]) & (y >= 0) & (y <= size[0])
    return inside.to(points.dtype).mean(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Lens:
    """What a camera sees of what lies around it, apart from where it stands."""

    intrinsics_B4: Tensor  # fx, fy, cx, cy in pixels
    size: tuple[int, int]  # height, width in pixels
    near: float  # metres
    far: float  # metres


def camera_overlap(a_BFR: Tensor, b_BGR: Tensor, lens: Lens) -> Tensor:
    """`field_of_view_overlap` of all cameras A with all cameras B of a sample, given as camera rows: (B, F, G) float64.

    Rows may be means of several rows (those of a memory slot): see `mean_poses`. Computed in float64, so that which of
    two cameras overlaps more does not depend on a model's type, and one frame F at a time to bound the memory.
    """
    a_BF44, b_BG44 = mean_poses(a_BFR), mean_poses(b_BGR)
    intrinsics_B14 = lens.intrinsics_B4.to(a_BF44)[:, None]
    rows = [
        field_of_view_overlap(
            a_BF44[:, f, None], b_BG44, intrinsics_B14, intrinsics_B14, lens.size, near=lens.near, far=lens.far
        )
        for f in range(a_BF44.shape[1])
    ]
    return torch.stack(rows, dim=1)


def mean_poses(camera: Tensor) -> Tensor:
    """Poses (..., 4, 4) float64 of camera rows (..., 12), or of means of several cameras' rows.

    The mean of several poses is their mean position and the rotation nearest to the mean of their rotations (in the
    Frobenius norm), which is the rotation halfway for two. It depends on the frame that the rows are relative to
    no more than each pose does. Rotations that cancel (two turned half around from each other) have no mean.
    """
    rows = camera.double().unflatten(-1, (3, 4))
    pose = torch.zeros(*rows.shape[:-2], 4, 4, dtype=rows.dtype, device=rows.device)
    pose[..., :3, :3] = nearest_rotation(rows[..., :3])
    pose[..., :3, 3] = rows[..., 3]
    pose[..., 3, 3] = 1
    return pose


_SQUARINGS = 14  # the wanted vector stands out by a power of 2^14 of its lead, however small that is


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The proper rotations nearest to matrices (..., 3, 3) float64 of norm 3 at most, such as means of rotations.

    The unit quaternion of the largest eigenvalue of Davenport's matrix, which is found by squaring: only products of
    matrices, so that a GPU neither waits nor takes them apart one by one, as in a singular value decomposition.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrix.unbind(-2))
    entries = (
        xx + yy + zz, zy - yz, xz - zx, yx - xy,
        zy - yz, xx - yy - zz, xy + yx, xz + zx,
        xz - zx, xy + yx, yy - xx - zz, yz + zy,
        yx - xy, xz + zx, yz + zy, zz - xx - yy,
    )  # fmt: skip
    power = torch.stack(entries, dim=-1).unflatten(-1, (4, 4))
    power = power + 3 * torch.eye(4, dtype=power.dtype, device=power.device)  # no eigenvalue below 0
    for _ in range(_SQUARINGS):
        power = power @ power
        power = power / power.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    largest = power.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)[..., None, None].expand(*power.shape[:-1], 1)
    column = power.gather(-1, largest).squeeze(-1)
    w, x, y, z = (column / column.norm(dim=-1, keepdim=True)).unbind(-1)
    turned = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(turned, dim=-1).unflatten(-1, (3, 3))
