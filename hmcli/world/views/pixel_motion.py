"""Pixel motion: where do patches of one frame lie in another, and can a camera's poses explain it?

Patches are found again by correlation, whatever the poses say. Poses allow each of them a piece of a line: where it
would lie from infinitely far away to close by (the epipolar line), or, where its depth is known, one point. A camera
explains a patch that lies where it allows. Patches without texture, on moving subjects or that look alike in more than
one place are left out. Nothing is learned.
Shapes: T frames, H rows, W columns, n patches. Image points are x, y in shares of the picture's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.world.views.field_of_view import detail

WIDTH = 208  # pixels: frames are compared at about this width
_ACROSS, _LEAST_SIDE = 9, 11  # patches side by side in a row, and pixels of a patch
_ENOUGH = 36  # patches
_REACH = (0.27, 0.12)  # share of the width by which a patch may move across and down
_ALIKE, _CLEARLY = 0.75, 0.08  # correlation of a patch found again, and how much less any other place has
_TEXTURE = 1.2  # grey levels: the least standard deviation of a patch
_MOVES = 0.06  # share of the width: pairs are chosen so that patches move at least so much, if they ever do
_GAPS = (1, 2, 4, 7, 12, 20, 30)  # frames between the two of a pair
_EARLIER = 8  # frames before the end at which the last pair starts
NEAR = 0.3  # metres: nothing is closer to a camera
_BEHIND = 1e-3
MISS = (0.008, 1.2)  # share of the width, or pixels at which frames are compared, by which a patch may miss its place
_MOST = 0.5  # of the patches of a pair
_FACTORS = np.geomspace(0.3, 3.0, 19)
_SKY, _ONE_SURFACE = 1e4, 1.25  # metres, where what is infinitely far is put; how much a patch's depth may vary
_TELLS = 3.0  # times as far as it may miss its place
LEAST_PATCHES = 6  # that decide about a pair


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Patches of frame `first` found again in frame `second`."""

    first: int
    second: int
    before: np.ndarray  # (n, 2) their middles
    after: np.ndarray  # (n, 2)
    pixel: float  # share of the width that one compared pixel is

    def moved(self) -> float:
        """Median distance."""
        return float(np.median(np.linalg.norm(self.after - self.before, axis=1)))


def watch(frames: np.ndarray, spans: list[tuple[int, int]], masks: np.ndarray | None, pairs: int) -> list[Matches]:
    """Matches of up to `pairs` pairs of frames in each span [first, end) of (T, H, W, 3) uint8 frames.

    `masks` (T, H, W) is non-zero on moving subjects. The second frame of a pair is the first one later by which the
    patches have moved clearly; where they never do, the farthest one.
    """
    step = max(1, round(frames.shape[2] / WIDTH))
    small: dict[int, np.ndarray] = {}

    def seen(frame: int) -> np.ndarray:
        if frame not in small:
            small[frame] = detail(frames[frame], step)
        return small[frame]

    found = []
    for first, end in spans:
        for start in np.unique(np.linspace(first, max(first, end - 1 - _EARLIER), pairs).round().astype(int)):
            hidden = None if masks is None else masks[start][::step, ::step] != 0
            if (best := _clear_pair(seen, int(start), end, hidden)) is not None:
                found.append(best)
    return found


def _clear_pair(
    seen: Callable[[int], np.ndarray], start: int, end: int, hidden: np.ndarray | None
) -> Matches | None:  # fmt: skip
    """Matches of a frame with a later one before `end` by which its patches have moved clearly."""
    best: Matches | None = None
    for gap in _GAPS:
        if start + gap >= end or (now := _matches(seen(start), seen(start + gap), hidden, start, gap)) is None:
            break
        best = now
        if now.moved() >= _MOVES:
            break
    return best


def _matches(a: np.ndarray, b: np.ndarray, hidden: np.ndarray | None, first: int, gap: int) -> Matches | None:
    """Where the patches of picture a lie in picture b; None when too few can be told."""
    width = a.shape[1]
    side = max(_LEAST_SIDE, round(width / _ACROSS))
    before, after = [], []
    for y, x in _corners(a.shape, side):
        patch = a[y : y + side, x : x + side]
        if patch.std() < _TEXTURE or (hidden is not None and hidden[y : y + side, x : x + side].any()):
            continue
        if (place := _found_again(patch, b, y, x)) is not None:
            before.append((x + side / 2, y + side / 2))
            after.append((place[1] + side / 2, place[0] + side / 2))
    if len(before) < LEAST_PATCHES:
        return None
    return Matches(
        first=first, second=first + gap, before=np.array(before) / width, after=np.array(after) / width, pixel=1 / width
    )


def _corners(size: tuple[int, ...], side: int) -> Iterator[tuple[int, int]]:
    """Top left corners of patches side by side; where they would be few, they overlap by half."""
    step = side if (size[0] // side) * (size[1] // side) >= _ENOUGH else side // 2
    for y in range(0, size[0] - side + 1, step):
        for x in range(0, size[1] - side + 1, step):
            yield y, x


def _found_again(patch: np.ndarray, b: np.ndarray, y: int, x: int) -> tuple[float, float] | None:
    """Row and column of the place that looks like the patch; None when no place does, or several do."""
    from skimage.feature import match_template

    side, width = len(patch), b.shape[1]
    across, down = (round(share * width) for share in _REACH)
    top, left = max(0, y - down), max(0, x - across)
    scores = match_template(b[top : y + side + down, left : x + side + across], patch)
    row, column = np.unravel_index(int(np.argmax(scores)), scores.shape)
    best = scores[row, column]
    others = scores.copy()
    near = max(2, side // 3)
    others[max(0, row - near) : row + near + 1, max(0, column - near) : column + near + 1] = -1
    if best < _ALIKE or best - others.max() < _CLEARLY:
        return None
    return top + row + _between(scores[:, column], int(row)), left + column + _between(scores[row], int(column))


def _between(scores: np.ndarray, best: int) -> float:
    """How far beside the best of several scores in a row the peak is, -0.5 to 0.5."""
    if best in (0, len(scores) - 1):
        return 0.0
    left, middle, right = scores[best - 1 : best + 2]
    bend = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def tells(of: Matches, world_from_camera: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """(n,) bool: has the patch moved, or should it have, by clearly more than it may miss its place?"""
    turn = world_from_camera[of.second, :3, :3].T @ world_from_camera[of.first, :3, :3]
    ray = np.concatenate([(of.before - lens[2:]) / lens[:2], np.ones((len(of.before), 1))], 1) @ turn.T
    far = ray[:, :2] / np.maximum(ray[:, 2:], _BEHIND) * lens[:2] + lens[2:]
    moved, wanted = (np.linalg.norm(point - of.before, axis=1) for point in (of.after, far))
    return np.asarray(np.maximum(moved, wanted) > _TELLS * may_miss(of))


def may_miss(of: Matches) -> float:
    """By how much a patch may miss its place, in shares of the width."""
    return max(MISS[0], MISS[1] * of.pixel)


def misses(
    of: Matches, world_from_camera: np.ndarray, lens: np.ndarray, depth: np.ndarray | None = None, near: float = NEAR
) -> np.ndarray:
    """(n,) how far each patch lies from where the poses (T, 4, 4) allow it, in units of what it may miss by.

    `lens` (4,) is fx, fy, cx, cy in shares of the width; `depth` (n,) metres of the patches in the first frame, or any
    depth from `near` on.
    """
    first, second = world_from_camera[of.first], world_from_camera[of.second]
    turn = second[:3, :3].T @ first[:3, :3]
    shift = second[:3, :3].T @ (first[:3, 3] - second[:3, 3])
    fx, fy, cx, cy = lens
    scale, centre = np.array([fx, fy]), np.array([cx, cy])
    ray = np.concatenate([(of.before - centre) / scale, np.ones((len(of.before), 1))], 1) @ turn.T
    wanted = (of.after - centre) / scale  # x / z and y / z of where it is
    closer = _nearness(ray, shift, wanted, 1 / near) if depth is None else 1 / depth
    point = ray + closer[:, None] * shift
    ahead = point[:, 2] > _BEHIND
    seen = point[:, :2] / np.where(ahead, point[:, 2], 1.0)[:, None]
    off = np.linalg.norm((seen - wanted) * scale, axis=1)
    return np.where(ahead, off, np.inf) / may_miss(of)


def _nearness(ray: np.ndarray, shift: np.ndarray, wanted: np.ndarray, most: float) -> np.ndarray:
    """(n,) inverse depths from 0 to `most` at which points along the rays are seen closest to where they are wanted."""
    along = shift[:2] - wanted * shift[2]
    lacking = wanted * ray[:, 2:] - ray[:, :2]
    size = (along**2).sum(1)
    return np.clip((along * lacking).sum(1) / np.where(size > 0, size, 1.0), 0.0, most)


# --- a whole clip ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Explained:
    """How many of the patches that tell something lie where the poses allow them."""

    share: float
    patches: int
    first: int  # frames they were looked at in
    last: int


def explained(
    found: Sequence[Matches], world_from_camera: np.ndarray, lens: np.ndarray, *, least: int,
    depths: Sequence[np.ndarray] | None = None, near: float = NEAR,
) -> Explained | None:  # fmt: skip
    """Over pairs of frames in which most patches have moved, or should have; None when they are fewer than `least`.

    `depths` has metres per patch and pair, NaN where they are not known. Where most patches rest, those that move may
    well be subjects that nobody masked.
    """
    hits: list[np.ndarray] = []
    pairs: list[Matches] = []
    for number, of in enumerate(found):
        telling = tells(of, world_from_camera, lens)
        if telling.mean() < _MOST:
            continue
        depth = None if depths is None else depths[number]
        if depth is not None:
            telling &= np.isfinite(depth)
        hits.append((misses(of, world_from_camera, lens, depth, near) < 1)[telling])
        pairs.append(of)
    every = np.concatenate(hits) if hits else np.zeros(0, bool)
    if len(every) < least:
        return None
    return Explained(
        share=float(every.mean()), patches=len(every), first=min(of.first for of in pairs),
        last=max(of.second for of in pairs),
    )  # fmt: skip


def best_lens(
    found: Sequence[Matches], world_from_camera: np.ndarray, lens: np.ndarray, *, least: int, near: float = NEAR
) -> tuple[np.ndarray, float]:
    """The lens with the focal length, times a factor, that explains most, and the share it explains."""
    tried = []
    for factor in _FACTORS:
        other = lens * [factor, factor, 1, 1]
        of = explained(found, world_from_camera, other, least=least, near=near)
        tried.append((0.0 if of is None else of.share, other))
    share, best = max(tried, key=lambda one: one[0])
    return best, share


def patch_depths(of: Matches, depth: np.ndarray) -> np.ndarray:
    """(n,) metres of the patches' middles in the (H, W) depth of their first frame; NaN where it is not one surface."""
    width = depth.shape[1]
    reach = max(_LEAST_SIDE * of.pixel, 1 / _ACROSS) / 2  # half a patch
    reach = max(2, round(reach * width))
    found = []
    for x, y in (of.before * width).astype(int):
        part = depth[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].astype(np.float64)
        low, middle, high = np.quantile(np.minimum(part, _SKY), (0.05, 0.5, 0.95))
        found.append(middle if low > 0 and high <= _ONE_SURFACE * low else np.nan)
    return np.array(found)
