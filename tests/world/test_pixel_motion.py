"""Pixel motion: patches are found where they went, true cameras explain them, and nothing is claimed without motion."""

from __future__ import annotations

import numpy as np
import pytest
from world.test_field_of_view import panorama, turning_camera

from hmcli.world.views.pixel_motion import best_lens, explained, misses, patch_depths, watch

SIZE = (72, 120)
FOCAL = 0.5 / np.tan(np.deg2rad(40) / 2)
LENS = np.array([FOCAL, FOCAL, 0.5, SIZE[0] / SIZE[1] / 2])


@pytest.fixture(scope="module")
def turning() -> tuple[np.ndarray, np.ndarray]:
    poses = turning_camera(14, 16)
    return panorama(poses, 40, SIZE), poses


def test_patches_are_found_again_where_a_turning_camera_puts_them(turning):
    video, poses = turning
    for of in watch(video, [(0, 14)], None, 3):
        assert len(of.before) >= 20
        assert 0.05 < of.moved() < 0.2
        assert (misses(of, poses, LENS) < 1).mean() > 0.95


def test_true_cameras_explain_and_others_do_not(turning):
    video, poses = turning
    found = watch(video, [(0, 14)], None, 3)

    def share(cameras: np.ndarray, lens: np.ndarray = LENS) -> float:
        of = explained(found, cameras, lens, least=24)
        assert of is not None
        return of.share

    assert share(poses) > 0.95
    assert share(np.repeat(poses[:1], 14, axis=0)) == 0
    assert share(np.linalg.inv(poses)) < 0.05
    assert share(poses, LENS * [0.6, 0.6, 1, 1]) < 0.3
    lens, best = best_lens(found, poses, LENS * [0.6, 0.6, 1, 1], least=24)
    assert best > 0.9
    assert lens[0] == pytest.approx(FOCAL, rel=0.08)


def test_depth_puts_a_patch_at_one_place_and_without_it_anywhere_on_its_line(turning):
    video, _ = turning
    (of,) = watch(video, [(0, 3)], None, 1)
    aside = np.repeat(np.eye(4)[None], 14, axis=0)
    moved = float(np.median(of.after[:, 0] - of.before[:, 0]))
    aside[:, 0, 3] = -np.sign(moved) * np.arange(14) / (of.second - of.first)  # a metre to the side, in this pair
    far = FOCAL / abs(moved)
    count = len(of.before)
    assert (misses(of, aside, LENS) < 1).mean() > 0.9
    assert (misses(of, aside, LENS, np.full(count, far)) < 1).mean() > 0.8
    assert (misses(of, aside, LENS, np.full(count, far / 2)) < 1).mean() == 0
    aside[:, 0, 3] *= -1
    assert (misses(of, aside, LENS) < 1).mean() == 0


def test_nothing_is_said_where_nothing_moves_or_only_subjects_do(turning):
    video, _ = turning
    still = turning_camera(14, 0)
    picture = np.repeat(video[:1], 14, axis=0)
    assert explained(watch(picture, [(0, 14)], None, 3), still, LENS, least=24) is None
    walks = picture.copy()
    for frame in range(14):
        walks[frame, 20:60, 10 + 2 * frame : 50 + 2 * frame] = video[0, 20:60, 60:100]
    assert explained(watch(walks, [(0, 14)], None, 3), still, LENS, least=24) is None
    assert watch(np.full_like(video, 90), [(0, 14)], None, 3) == []
    assert watch(video, [(0, 14)], np.ones(video.shape[:3], np.uint8), 3) == []


def test_a_patch_of_two_surfaces_has_no_depth(turning):
    video, _ = turning
    of = watch(video, [(0, 14)], None, 1)[0]
    depth = np.full(SIZE, 5.0, np.float16)
    assert np.allclose(patch_depths(of, depth), 5)
    depth[:, ::2] = 9
    assert np.isnan(patch_depths(of, depth)).all()
