"""Do a clip's cameras explain its video? What its poses, intrinsics and depth say of motion, against its pixels.

Thresholds are measured (docs/datasets.md): on what share of patches true and wrong cameras explain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hmcli.world.views import pixel_motion
from hmcli.world.views.cameras import field_of_view, focal_length

PAIRS = 6  # of frames, in each of context and target
CLIP, PART, DEPTH = 0.5, 0.3, 0.4  # least share of patches explained: by poses in all, in one part, by poses and depth
ENOUGH, PLENTY = 24, 40  # patches that decide about a clip; about one part of it, or about its depth
_OTHER_LENS = 0.65  # a lens that explains so much is the right one, where the written one does not
_CLOSE = 0.03  # of the way a camera goes: nothing is closer to it, whatever the unit
_GUESS = np.deg2rad(37.0)  # field of view from which the search starts where none is written


@dataclass(kw_only=True)
class Explanation:
    """What does not fit, what could not be looked at, and the shares that were found."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    cameras: float | None = None
    depth: float | None = None


def explain(
    video: np.ndarray, poses: np.ndarray, context: int, *, lens: np.ndarray | None, masks: np.ndarray | None,
    depth: np.ndarray | None,
) -> Explanation:  # fmt: skip
    """Hold (T, 4, 4) poses against (T, H, W, 3) uint8 frames, of which `context` come first.

    `lens` is fx, fy, cx, cy in pixels, `masks` (T, H, W) non-zero on subjects, `depth` (T, H, W) metres.
    """
    said = Explanation()
    spans = [("context", 0, context), ("target", context, len(poses))]
    found = pixel_motion.watch(video, [(a, b) for _, a, b in spans if b - a > 1], masks, PAIRS)
    height, width = video.shape[1:3]
    if lens is None:
        focal = focal_length(_GUESS, 1.0)
        used, _ = pixel_motion.best_lens(found, poses, np.array([focal, focal, 0.5, height / width / 2]), least=ENOUGH)
    else:
        used = lens / width
    whole = pixel_motion.explained(found, poses, used, least=ENOUGH)
    if whole is None:
        said.unchecked.append("cameras against pixels: too few patches move, or can be found again")
        return said
    said.cameras = whole.share
    if (
        whole.share < CLIP
        and depth is None
        and (other := _in_other_units(found, poses, used, written=lens is not None)) is not None
    ):
        said.cameras = other
        said.unchecked.append(f"lengths: surfaces would be closer than {pixel_motion.NEAR} m; are the poses in metres?")
        return said
    if whole.share < CLIP:
        said.problems.append(_blame("this video", found, poses, used, whole, written=lens is not None))
        return said
    for name, first, end in spans:
        part = [of for of in found if first <= of.first < end]
        own = pixel_motion.explained(part, poses, used, least=PLENTY)
        if own is not None and own.share < PART:
            said.problems.append(_blame(f"the {name} video", part, poses, used, own, written=lens is not None))
    if depth is None or said.problems:
        return said
    near = [pixel_motion.patch_depths(of, depth[of.first]) for of in found]
    if (deep := pixel_motion.explained(found, poses, used, least=PLENTY, depths=near)) is None:
        said.unchecked.append("depth against pixels: too few patches move, or show one surface")
        return said
    said.depth = deep.share
    if deep.share < DEPTH:
        said.problems.append(f"depth, cameras and intrinsics together do not explain this video: {_share(deep)}")
    return said


def _in_other_units(
    found: list[pixel_motion.Matches], poses: np.ndarray, lens: np.ndarray, *, written: bool
) -> float | None:
    """What cameras explain if their unit is no metre (COLMAP and nerfstudio do not know it); None: too little."""
    way = float(np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0)))
    near = _CLOSE * way
    if not 0 < near < pixel_motion.NEAR:
        return None
    if not written:
        lens, _ = pixel_motion.best_lens(found, poses, lens, least=ENOUGH, near=near)
    of = pixel_motion.explained(found, poses, lens, least=ENOUGH, near=near)
    return of.share if of is not None and of.share >= _OTHER_LENS else None


def _blame(
    what: str, found: list[pixel_motion.Matches], poses: np.ndarray, lens: np.ndarray, of: pixel_motion.Explained,
    *, written: bool,
) -> str:  # fmt: skip
    """Is it the lens?"""
    other, share = pixel_motion.best_lens(found, poses, lens, least=ENOUGH)
    if written and share >= _OTHER_LENS:
        said, better = (np.rad2deg(field_of_view(one[0], 1.0)) for one in (lens, other))
        return (
            f"these intrinsics do not explain {what}: {_share(of)}; a field of view of {better:.0f} degrees "
            f"(written: {said:.0f}) explains {share:.0%}"
        )
    return f"these cameras do not explain {what}: {_share(of)}"


def _share(of: pixel_motion.Explained) -> str:
    return f"{of.share:.0%} of {of.patches} patches that moved lie where they may, frames {of.first} to {of.last}"
