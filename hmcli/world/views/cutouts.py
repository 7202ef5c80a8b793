"""Cut-outs: a subject as it was last seen whole, pasted where it is if it goes on as it last went.

Where it was in a frame is the middle (median) of the surface that its mask and the depth show, in the world; how it
went is the straight line through these places over the last second. It is drawn larger or smaller as its distance says,
and never turned; nothing stands in front of it.
Shape letters: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmcli.world.views.warps import image_points, sampled, world_points

_WHOLE = 0.5  # share of the most pixels it ever has, from which on a subject counts as whole
_SECONDS = 1.0  # of its way that say how it goes
_LEAST_SECONDS = 0.2  # a shorter way says nothing: it stands
_NEAR = 0.3  # metres before the camera; what is nearer is not drawn


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """A subject cut out of frame `frame`. `ink` (h, w, 4): colour times opacity, and opacity (0..1); a clear rim."""

    ink: np.ndarray
    corner: tuple[int, int]  # x, y of its upper left pixel in the frame
    frame: int
    anchor: tuple[float, float, float]  # u, v and depth of `place` in the frame
    place: np.ndarray  # (3,) metres, in that frame
    velocity: np.ndarray  # (3,) metres per frame, level

    def at(self, frame: int) -> np.ndarray:
        """(3,) where it is in a frame, counted as `frame` is."""
        return np.asarray(self.place + self.velocity * (frame - self.frame))

    def still(self, frame: int) -> Cutout:
        """The same, but it stands where it is in a frame."""
        return replace(self, place=self.at(frame), velocity=np.zeros(3))


def cut_out(
    frames_THW3: np.ndarray, mask_THW: np.ndarray, depth_THW: np.ndarray, poses_T44: np.ndarray,
    intrinsics: np.ndarray, fps: float,
) -> Cutout:  # fmt: skip
    """The subject that `mask_THW` marks, as it was last seen whole: not cut by the left or right edge, with at least
    half of the most pixels it has so; the frame with most of it, where it never was whole.

    Raises ValueError where the masks are empty.
    """
    pixels = mask_THW.sum((1, 2))
    if not pixels.any():
        raise ValueError("the subject is in no frame")
    uncut = (pixels > 0) & ~mask_THW[:, :, [0, -1]].any((1, 2))
    whole = uncut & (pixels >= _WHOLE * np.where(uncut, pixels, 0).max())
    frame = int(np.flatnonzero(whole)[-1]) if whole.any() else int(pixels.argmax())
    watched = np.flatnonzero(whole[: frame + 1])
    watched = watched[watched > frame - _SECONDS * fps]
    places = np.array([_place(mask_THW[t], depth_THW[t], poses_T44[t], intrinsics) for t in watched]).reshape(-1, 3)
    place = _place(mask_THW[frame], depth_THW[frame], poses_T44[frame], intrinsics)
    u, v, z = (float(one[0]) for one in image_points(place[None], poses_T44[frame], intrinsics))
    ink, corner = _ink(frames_THW3[frame], mask_THW[frame])
    return Cutout(
        ink=ink, corner=corner, frame=frame, anchor=(u, v, z), place=place,
        velocity=_velocity(watched, places, _LEAST_SECONDS * fps),
    )  # fmt: skip


def _place(mask: np.ndarray, depth: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    return np.asarray(np.median(world_points(depth, pose, intrinsics)[mask], axis=0))


def _velocity(frames_n: np.ndarray, places_n3: np.ndarray, least: float) -> np.ndarray:
    """Slope of the straight line through the places, metres per frame; level ground: nothing rises or sinks."""
    if len(frames_n) < 2 or frames_n[-1] - frames_n[0] < least:
        return np.zeros(3)
    slope = np.polyfit(frames_n - frames_n[-1], places_n3, 1)[0]
    return np.asarray(slope * (1.0, 1.0, 0.0))


def _ink(frame: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """What of a frame the mask shows, with one clear pixel around it, and its upper left corner."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    opacity = mask[part].astype(np.float64)[..., None]
    ink = np.pad(np.concatenate([frame[part] * opacity, opacity], -1), ((1, 1), (1, 1), (0, 0)))
    return ink, (int(columns[0]) - 1, int(rows[0]) - 1)


def paste(
    picture: np.ndarray, cutouts: Sequence[Cutout], frame: int, pose: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """The picture (H, W, 3) with the subjects where they are in a frame, far ones first."""
    found = picture.astype(np.float64)
    seen = [(one, image_points(one.at(frame)[None], pose, intrinsics)) for one in cutouts]
    for one, (u, v, z) in sorted(seen, key=lambda pair: -float(pair[1][2][0])):
        if z[0] > _NEAR:
            _paste(found, one, float(u[0]), float(v[0]), one.anchor[2] / float(z[0]))
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _paste(picture: np.ndarray, cutout: Cutout, u: float, v: float, scale: float) -> None:
    """Paste it with its anchor at u, v, `scale` times as large."""
    height, width = cutout.ink.shape[:2]
    left = u + (cutout.corner[0] - cutout.anchor[0]) * scale
    top = v + (cutout.corner[1] - cutout.anchor[1]) * scale
    x = np.arange(max(0, int(left)), min(picture.shape[1], int(np.ceil(left + width * scale))))
    y = np.arange(max(0, int(top)), min(picture.shape[0], int(np.ceil(top + height * scale))))
    if not len(x) or not len(y):
        return
    column, row = np.meshgrid((x + 0.5 - left) / scale, (y + 0.5 - top) / scale)
    ink = sampled(cutout.ink, column.ravel(), row.ravel()).reshape(len(y), len(x), 4)
    part = picture[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    part[...] = part * (1 - ink[..., 3:]) + ink[..., :3]
