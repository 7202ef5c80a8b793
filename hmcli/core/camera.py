"""Cameras: how the model is told where each frame was taken, and how much two cameras see of the same place.

Paper: Eq. 2, docs/paper-map.md row "camera". Known differences: docs/parity.md, "camera".
Shape letters here: B batch, F latent frames, C channels, S frustum samples; `...` any leading axes.
"""

from __future__ import annotations

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
    """Share of what camera A sees between `near` and `far` (metres) that also projects inside B's image.

    Poses are (..., 4, 4) with camera axes right, down, forward, metres; intrinsics (..., 4) as fx, fy, cx, cy in
    pixels of an image of `size` (height, width); leading axes broadcast. Returns (...) in [0, 1]: 1 for one and the
    same camera, 0 for two back to back. Walls are not considered: this is geometry without a scene. Not symmetric.
    """
    points = frustum_points(intrinsics_a, size, near, far, samples)
    b_from_a = torch.linalg.inv(world_from_b) @ world_from_a
    seen = points @ b_from_a[..., :3, :3].mT + b_from_a[..., None, :3, 3]
    z = seen[..., 2]
    ahead = z > 0
    safe = torch.where(ahead, z, torch.ones_like(z))
    fx, fy, cx, cy = (value[..., None] for value in intrinsics_b.unbind(-1))
    x, y = fx * seen[..., 0] / safe + cx, fy * seen[..., 1] / safe + cy
    inside = ahead & (x >= 0) & (x <= size[1]) & (y >= 0) & (y <= size[0])
    return inside.to(points.dtype).mean(dim=-1)
