"""Pictures and places: where cameras see points of the world, and what of them their pixels show.

Cameras look along their third axis, right and down are the first two; image points are in pixels, and a pixel's middle
is half a pixel from its corner. Shape letters: H rows, W columns, n points.
"""

from __future__ import annotations

import numpy as np

IN_FRONT = 1e-6  # metres: what is nearer, or behind, a camera does not see
SKY = 1e5  # metres: as far away as what is infinitely far


def lifted(depth_HW: np.ndarray, world_from_camera: np.ndarray, intrinsics_4: np.ndarray) -> np.ndarray:
    """(H, W, 3) metres in the world: what every pixel's middle shows, by its depth along the forward axis."""
    fx, fy, cx, cy = intrinsics_4
    height, width = depth_HW.shape
    x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy)
    ray = np.stack([x, y, np.ones_like(x)], axis=-1)
    in_camera = ray * np.minimum(depth_HW.astype(np.float64), SKY)[..., None]
    return np.asarray(in_camera @ world_from_camera[:3, :3].T + world_from_camera[:3, 3])


def projected(
    points_n3: np.ndarray, world_from_camera: np.ndarray, intrinsics_4: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image points (..., 2), x and y, NaN behind the camera, and metres along its forward axis (...)."""
    fx, fy, cx, cy = intrinsics_4
    seen_n3 = (points_n3 - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    z = seen_n3[..., 2]
    far = np.where(z > IN_FRONT, z, np.nan)
    return np.stack([fx * seen_n3[..., 0] / far + cx, fy * seen_n3[..., 1] / far + cy], axis=-1), z


def pixels_at(points_n2: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of the pixel that holds each image point, and whether the picture has it; 0, 0 otherwise."""
    inside = np.isfinite(points_n2).all(axis=-1)
    x, y = (np.floor(np.where(inside, points_n2[..., axis], -1)) for axis in (0, 1))
    inside &= (x >= 0) & (x < width) & (y >= 0) & (y < height)
    row, column = (np.where(inside, at, 0).astype(int) for at in (y, x))
    return row, column, inside
