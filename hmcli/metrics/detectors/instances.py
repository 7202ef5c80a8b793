"""From maps to subjects: which pixels belong to one subject, by the middles that they point to.

Pixels that touch are one subject unless they point to two middles; parts that something in front cuts apart are one
subject where they point to the same middle. Shape letters: H rows, W columns, n pixels.
"""

from __future__ import annotations

import numpy as np
from skimage.measure import label

from hmcli.metrics.contract import Detection

LEAST_PIXELS = 24  # a smaller spot is nobody
SPECK = 4  # pixels: a smaller part belongs to nobody
SAME = 0.45  # of a subject's size (the root of its pixels): parts whose middles are nearer are one subject
APART = 0.6  # of the smaller one's size: pixels of one spot that point to middles further apart are two subjects ...
TWO_HEAPS = 4.0  # ... where the middles are also so many times as far apart as the pixels of each disagree
_SHARE = 0.2  # of a spot's pixels, that the smaller of two subjects in it has at least
_ROUNDS = 8  # of two-means


def subjects_in(chance_HW: np.ndarray, ways_2HW: np.ndarray, threshold: float) -> list[Detection]:
    """The subjects of one frame, the surest first: `chance_HW` that a pixel shows one, `ways_2HW` to its middle."""
    rows, columns = np.nonzero(chance_HW >= threshold)
    middles_n2 = np.stack([columns, rows], 1) + ways_2HW[:, rows, columns].T
    spots_n = label(chance_HW >= threshold, connectivity=2)[rows, columns]
    parts = [part for number in np.unique(spots_n) for part in _split(np.flatnonzero(spots_n == number), middles_n2)]
    found = []
    for part in _joined(parts, middles_n2):
        if len(part) < LEAST_PIXELS:
            continue
        mask = np.zeros(chance_HW.shape, bool)
        mask[rows[part], columns[part]] = True
        box = np.array([columns[part].min(), rows[part].min(), columns[part].max() + 1, rows[part].max() + 1], float)
        found.append(Detection(box_4=box, score=float(chance_HW[mask].mean()), mask_HW=mask))
    return sorted(found, key=lambda one: -one.score)


def _split(part: np.ndarray, middles_n2: np.ndarray) -> list[np.ndarray]:
    """A spot as one subject, or as two and more where its pixels point to middles far apart."""
    if len(part) < 2 * LEAST_PIXELS:
        return [part]
    points = middles_n2[part]
    centred = points - points.mean(0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    second = centred @ axis > 0
    for _ in range(_ROUNDS):
        if second.all() or not second.any():
            return [part]
        one, two = points[~second].mean(0), points[second].mean(0)
        nearer = ((points - two) ** 2).sum(1) < ((points - one) ** 2).sum(1)
        if (nearer == second).all():
            break
        second = nearer
    if not (_SHARE <= second.mean() <= 1 - _SHARE and _are_two(points[~second], points[second])):
        return [part]
    return [*_split(part[~second], middles_n2), *_split(part[second], middles_n2)]


def _are_two(one_n2: np.ndarray, two_n2: np.ndarray) -> bool:
    """Are these two heaps of middles, and not one that was cut in halves?"""
    way = two_n2.mean(0) - one_n2.mean(0)
    apart = float(np.linalg.norm(way))
    along = np.concatenate([heap @ way - heap.mean(0) @ way for heap in (one_n2, two_n2)]) / max(apart, 1e-9)
    least = APART * float(np.sqrt(min(len(one_n2), len(two_n2))))
    return apart >= max(least, TWO_HEAPS * float(along.std()))


def _joined(parts: list[np.ndarray], middles_n2: np.ndarray) -> list[np.ndarray]:
    """Parts that point to one middle, that of the largest of them, together; specks are left out."""
    sized = sorted((part for part in parts if len(part) >= SPECK), key=len, reverse=True)
    middles = np.array([np.median(middles_n2[part], axis=0) for part in sized]).reshape(-1, 2)
    reach = SAME * np.sqrt([len(part) for part in sized])
    whole: dict[int, list[np.ndarray]] = {}
    for number, part in enumerate(sized):
        firsts = np.fromiter(whole, int, len(whole))
        near = firsts[np.linalg.norm(middles[firsts] - middles[number], axis=1) < reach[firsts]]
        whole.setdefault(int(near[0]) if len(near) else number, []).append(part)
    return [np.concatenate(together) for together in whole.values()]
