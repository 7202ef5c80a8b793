"""Families of subjects are told apart at a glance: the nearest neighbour of a crop is of its own family.

A crop is described by what a glance takes in: where the subject is within its square (outline), what colour it is there
(a small picture without background) and how much of each colour it has. Crops are mirrored, so left and right are one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from portraits import portraits

from hmcli.world.subjects import SUBJECTS

SIDE = 20  # pixels of the small square a crop is shrunk to
BINS = 4  # of a colour histogram, per channel


def shrunk(values: np.ndarray) -> np.ndarray:
    """(H, W, C) in the middle of its square, averaged down to (SIDE, SIDE, C)."""
    height, width, _ = values.shape
    side = max(height, width)
    square = np.zeros((side, side, values.shape[2]), np.float32)
    top, left = side - height, (side - width) // 2  # subjects stand at the bottom
    square[top : top + height, left : left + width] = values
    small = torch.nn.functional.interpolate(
        torch.as_tensor(square).permute(2, 0, 1)[None], (SIDE, SIDE), mode="bilinear", antialias=True
    )
    return small[0].permute(1, 2, 0).numpy()


def histogram(rgb_n3: np.ndarray) -> np.ndarray:
    """(BINS^3,) shares of softly binned colours."""
    place = np.clip(rgb_n3 * BINS - 0.5, 0, BINS - 1)
    low = np.minimum(place.astype(int), BINS - 2)
    part = place - low
    found = np.zeros(BINS**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        index = (low + corner) @ np.array([BINS * BINS, BINS, 1])
        np.add.at(found, index, weight)
    return found / len(rgb_n3)


def described(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Outline, small picture and colours of a crop, (D,), as if every light were equally bright."""
    colour = rgb.astype(np.float32) / 255
    bright = np.quantile(colour[mask] @ np.array([0.3, 0.6, 0.1], np.float32), 0.9)
    colour = np.clip(colour * (0.8 / max(float(bright), 0.05)), 0, 1)
    small = shrunk(np.concatenate([mask[..., None], colour * mask[..., None]], -1))
    outline, picture = small[..., :1] / SIDE, small[..., 1:] / SIDE
    return np.concatenate([outline.ravel(), 2 * picture.ravel(), 0.4 * np.sqrt(histogram(colour[mask]))])


def crops(family: str, draws: range, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors (draws x views, D) of a family's crops and of their mirror images, seen from all round."""
    plain, mirrored = [], []
    for draw in draws:
        start = np.random.default_rng([draw, len(family)]).uniform(0, 2 * np.pi)
        for portrait in portraits(family, draw, start + 2 * np.pi * np.arange(views) / views):
            rgb, mask = portrait.crop()
            plain.append(described(rgb, mask))
            mirrored.append(described(rgb[:, ::-1], mask[:, ::-1]))
    return np.stack(plain), np.stack(mirrored)


def recognised(families: tuple[str, ...], known: range, asked: range, views: int) -> tuple[float, dict[str, int]]:
    """Share of the asked draws' crops whose nearest known crop is of their family; what the others were taken for."""
    gallery = {family: np.concatenate(crops(family, known, views)) for family in families}
    everyone = np.concatenate(list(gallery.values()))
    square = (everyone**2).sum(1)
    owner = np.repeat(np.arange(len(families)), [len(rows) for rows in gallery.values()])
    right, total, confused = 0, 0, {}
    for number, family in enumerate(families):
        query, _ = crops(family, asked, views)
        nearest = owner[(square[None] - 2 * query @ everyone.T).argmin(1)]
        right, total = right + int((nearest == number).sum()), total + len(query)
        for other in nearest[nearest != number]:
            pair = f"{family} taken for {families[other]}"
            confused[pair] = confused.get(pair, 0) + 1
    return right / total, confused


def test_a_few_families_are_told_apart():
    share, confused = recognised(("walker", "wizard", "builder", "zebra", "penguin"), range(3), range(3, 4), 3)
    assert share >= 0.9, confused


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_families_are_told_apart():
    assert len(SUBJECTS) == 49
    share, confused = recognised(tuple(SUBJECTS), range(8), range(8, 11), 5)
    assert share >= 0.95, confused
