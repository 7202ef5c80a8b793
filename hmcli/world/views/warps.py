"""Warps: what earlier views tell of a frame that a camera takes later.

A homography moves a view as if all that it shows were infinitely far away, which is exact where a camera only turns. A
warp by depth moves every pixel by itself, which is exact where nothing moves. A view is near when its camera is turned
little and has moved little: degrees + METRES_COUNT * metres.
Pixels a view does not show (holes) are filled from the next nearest views, then from the nearest view's edge.
Shape letters: N views, H rows, W columns, n pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

METRES_COUNT = 2.0  # degrees that a metre counts
_NEIGHBOURS = 4  # of the views after the nearest, every so many are looked into: those between show the same
_SKY = 1e4  # metres: where what is infinitely far away is put
_IN_FRONT = 1e-6  # metres
_SURE = 0.4  # share of a pixel that something must cover, to hide what is behind it ...
_LITTLE = 0.02  # ... and where nothing else is to be seen
_SAME_SURFACE = 1.05  # farther away than the nearest by this factor, something else is seen


@dataclass(frozen=True, kw_only=True)
class Views:
    """N frames of one camera. `depth` (N, H, W) in metres along its forward axis, infinite for the sky, or unknown."""

    frames: np.ndarray  # (N, H, W, 3) uint8; what `hidden` marks is filled from the nearest pixel
    poses: np.ndarray  # (N, 4, 4) world_from_camera, metres
    intrinsics: np.ndarray  # (4,) fx, fy, cx, cy in pixels
    hidden: np.ndarray  # (N, H, W) bool: pixels whose content is not to be shown
    depth: np.ndarray | None


def views_of(
    frames: np.ndarray, poses: np.ndarray, intrinsics: np.ndarray, *, depth: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
) -> Views:  # fmt: skip
    if hidden is None:
        hidden = np.zeros(frames.shape[:3], bool)
    filled = np.stack([_filled(frame, mask) for frame, mask in zip(frames, hidden, strict=True)])
    return Views(frames=filled, poses=poses, intrinsics=intrinsics, hidden=hidden, depth=depth)


def widened(masks_NHW: np.ndarray, pixels: int) -> np.ndarray:
    """The masks, so many pixels wider all around."""
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(masks_NHW, np.ones((1, 3, 3), bool), iterations=pixels))


def _filled(frame: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Hidden pixels take the colour of the nearest one that is not; a frame without any stays."""
    from scipy.ndimage import distance_transform_edt

    if not hidden.any() or hidden.all():
        return frame
    row, column = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return np.asarray(frame[row, column])


def farness(pose: np.ndarray, poses_N44: np.ndarray) -> np.ndarray:
    """(N,) how far away each camera is from one: degrees turned + METRES_COUNT * metres moved."""
    metres = np.linalg.norm(poses_N44[:, :3, 3] - pose[:3, 3], axis=-1)
    cosine = (np.einsum("ij,nij->n", pose[:3, :3], poses_N44[:, :3, :3]) - 1) / 2
    return np.asarray(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))) + METRES_COUNT * metres)


def by_farness(pose: np.ndarray, poses_N44: np.ndarray) -> list[int]:
    """The nearest view, then every fourth of the others from near to far."""
    order = np.argsort(farness(pose, poses_N44), kind="stable").tolist()
    return [order[0], *(number for number in order[1:] if number % _NEIGHBOURS == 0)]


# --- by homography ---------------------------------------------------------------------------------------------------


def homography_warp(views: Views, pose: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: each pixel of the frame from where K R_view^T R K^-1 finds it in a view."""
    order = by_farness(pose, views.poses)
    size = views.frames.shape[1:3]
    picture, missing = np.zeros((*size, 3)), np.ones(size, bool)
    for number in order:
        found, seen = _turned(views, number, pose, missing)
        picture[missing] = np.where(seen[:, None], found, picture[missing])
        missing[missing] = ~seen
        if not missing.any():
            break
    else:
        picture[missing], _ = _turned(views, order[0], pose, missing)  # its edge: coordinates stop there
    return _as_bytes(picture)


def _turned(views: Views, number: int, pose: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (n, 3) of the wanted pixels from one view, and whether it shows them (n,)."""
    fx, fy, cx, cy = views.intrinsics
    height, width = wanted.shape
    ray = rays(views.intrinsics, wanted.shape)[wanted]
    x, y, z = (ray @ (views.poses[number, :3, :3].T @ pose[:3, :3]).T).T
    far = np.maximum(z, _IN_FRONT)
    u, v = fx * x / far + cx, fy * y / far + cy
    inside = (z > _IN_FRONT) & (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
    column, row = (np.clip(a, 0, size - 1).astype(int) for a, size in ((u, width), (v, height)))
    return sampled(views.frames[number], u, v), inside & ~views.hidden[number, row, column]


def rays(intrinsics: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(H, W, 3) directions through the pixels' middles, in the camera, 1 along its forward axis."""
    fx, fy, cx, cy = intrinsics
    x, y = (np.arange(size[1]) + 0.5 - cx) / fx, (np.arange(size[0]) + 0.5 - cy) / fy
    return np.stack([*np.meshgrid(x, y), np.ones(size)], -1)


def sampled(picture: np.ndarray, u_n: np.ndarray, v_n: np.ndarray) -> np.ndarray:
    """(n, C) values of an (H, W, C) picture at image points, in between by both neighbours, at its edge beyond it."""
    height, width = picture.shape[:2]
    x, y = np.clip(u_n - 0.5, 0, width - 1), np.clip(v_n - 0.5, 0, height - 1)
    left, top = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left)[:, None], (y - top)[:, None]
    upper = picture[top, left] * (1 - across) + picture[top, right] * across
    lower = picture[below, left] * (1 - across) + picture[below, right] * across
    return np.asarray(upper * (1 - down) + lower * down)


# --- by depth --------------------------------------------------------------------------------------------------------


def depth_warp(views: Views, pose: np.ndarray, wanted: np.ndarray | None = None) -> np.ndarray:
    """(H, W, 3) uint8: every pixel of the views where its depth puts it in the frame, nearest surfaces in front.

    What no view shows is taken from `homography_warp`. Pixels outside of `wanted` (H, W) are left black.
    """
    size = views.frames.shape[1:3]
    picture, missing = np.zeros((*size, 3)), np.ones(size, bool) if wanted is None else wanted.copy()
    for number in by_farness(pose, views.poses):
        if not missing.any():
            break
        found, seen = _splatted(views, number, pose)
        picture[seen & missing] = found[seen & missing]
        missing &= ~seen
    if missing.any():
        picture[missing] = homography_warp(views, pose)[missing]
    return _as_bytes(picture)


def world_points(depth: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """(H, W, 3) metres in the world: where the pixels of an (H, W) depth map are."""
    in_camera = rays(intrinsics, depth.shape) * np.minimum(depth.astype(np.float64), _SKY)[..., None]
    return np.asarray(in_camera @ pose[:3, :3].T + pose[:3, 3])


def image_points(points_n3: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, ...]:
    """u, v in pixels and depth in metres (each (n,)) of points in the world; u, v mean nothing behind the camera."""
    fx, fy, cx, cy = intrinsics
    x, y, z = ((points_n3 - pose[:3, 3]) @ pose[:3, :3]).T
    far = np.maximum(z, _IN_FRONT)
    return fx * x / far + cx, fy * y / far + cy, z


def _splatted(views: Views, number: int, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (H, W, 3) that one view's pixels give the frame, and where there are any (H, W)."""
    assert views.depth is not None
    height, width = size = views.frames.shape[1:3]
    shown = ~views.hidden[number]
    points = world_points(views.depth[number], views.poses[number], views.intrinsics)[shown]
    u, v, z = image_points(points, pose, views.intrinsics)
    inside = (z > _IN_FRONT) & (u > -0.5) & (u < width + 0.5) & (v > -0.5) & (v < height + 0.5)
    x, y, z = u[inside] - 0.5, v[inside] - 0.5, z[inside]
    colour = views.frames[number][shown][inside].astype(np.float64)
    pixel, weight, source = _corners(x, y, size)
    front = _front(pixel, weight, z[source], height * width)
    use = z[source] <= front[pixel] * _SAME_SURFACE
    pixel, weight, source = pixel[use], weight[use], source[use]
    total = np.bincount(pixel, weight, height * width)
    sums = [np.bincount(pixel, weight * colour[source, c], height * width) for c in range(3)]
    seen = total > 0
    return (np.stack(sums, -1) / np.where(seen, total, 1.0)[:, None]).reshape(*size, 3), seen.reshape(size)


def _corners(x_n: np.ndarray, y_n: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The four pixels around each point, where they lie in the picture: their numbers, shares, and whose they are."""
    left, top = np.floor(x_n).astype(int), np.floor(y_n).astype(int)
    found = []
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - np.abs(x_n - column)) * (1 - np.abs(y_n - row))
        keep = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0]) & (weight >= _LITTLE)
        found.append((row[keep] * size[1] + column[keep], weight[keep], np.flatnonzero(keep)))
    pixel, weight, source = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pixel, weight, source


def _front(pixel: np.ndarray, weight: np.ndarray, z: np.ndarray, count: int) -> np.ndarray:
    """(count,) depth of the nearest surface in each pixel: of those that cover a good part of it, if there are any."""
    nearest = np.full(count, np.inf)
    sure = weight >= _SURE
    np.minimum.at(nearest, pixel[sure], z[sure])
    empty = np.isinf(nearest)[pixel]
    np.minimum.at(nearest, pixel[empty], z[empty])
    return nearest


def _as_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
