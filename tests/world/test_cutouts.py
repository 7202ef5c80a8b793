"""Cut-outs: a subject is pasted where it must be if it goes on as it went."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.views.cutouts import cut_out, paste

SIZE = (40, 60)
LENS = np.array([60.0, 60.0, 30.0, 20.0])
RED, GREY = (200, 20, 30), (90, 90, 90)


def pose(eye: tuple[float, float, float]) -> np.ndarray:
    """A camera that looks along +y: right is +x, down is -z."""
    found = np.eye(4)
    found[:3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]).T
    found[:3, 3] = eye
    return found


def board(place: np.ndarray, camera: np.ndarray, half: tuple[float, float] = (0.4, 0.8)) -> np.ndarray:
    """(H, W) bool: a board of 2 * half metres that stands upright at `place` and faces the camera."""
    x, y, z = (place - camera[:3, 3]) @ camera[:3, :3]
    u, v, scale = LENS[0] * x / z + LENS[2], LENS[1] * y / z + LENS[3], LENS[0] / z
    column, row = np.meshgrid(np.arange(SIZE[1]) + 0.5, np.arange(SIZE[0]) + 0.5)
    return (np.abs(column - u) <= half[0] * scale) & (np.abs(row - v) <= half[1] * scale)


def filmed(places: np.ndarray, eyes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frames, masks, depth and poses of a red board that goes from place to place."""
    poses = np.stack([pose(tuple(eye)) for eye in eyes])
    masks = np.stack([board(place, camera) for place, camera in zip(places, poses, strict=True)])
    frames = np.where(masks[..., None], RED, GREY).astype(np.uint8)
    depth = np.where(masks, (places[:, 1] - eyes[:, 1])[:, None, None], 30.0)
    return frames, masks, depth, poses


def middle(picture: np.ndarray) -> tuple[float, float, int]:
    """Middle of what is red: x, y, and how many pixels it has."""
    row, column = np.nonzero(picture[..., 0] > 145)
    return float(column.mean()) + 0.5, float(row.mean()) + 0.5, len(row)


def test_a_subject_that_goes_straight_on_is_pasted_where_it_truly_is():
    t = np.arange(50)[:, None]
    places = np.array([-1.2, 6.0, 0.9]) + t * np.array([0.03, 0.12, 0.0])
    eyes = np.array([0.0, 0.0, 1.0]) + t * np.array([0.01, 0.02, 0.0])
    frames, masks, depth, poses = filmed(places, eyes)
    cut = cut_out(frames[:20], masks[:20], depth[:20], poses[:20], LENS, fps=15)
    assert cut.frame == 19
    np.testing.assert_allclose(cut.velocity, [0.03, 0.12, 0.0], atol=0.004)  # whole pixels of 7 cm
    for later in (20, 35, 49):
        found = middle(paste(np.full((*SIZE, 3), GREY, np.uint8), [cut], later, poses[later], LENS))
        true = middle(frames[later])
        np.testing.assert_allclose(found[:2], true[:2], atol=1.2)
        assert found[2] == pytest.approx(true[2], rel=0.2)
        stands = middle(paste(np.full((*SIZE, 3), GREY, np.uint8), [cut.still(19)], later, poses[later], LENS))
        assert later == 20 or abs(stands[2] - true[2]) > 0.4 * true[2]


def test_it_is_cut_out_of_the_last_frame_that_shows_it_whole():
    t = np.arange(16)[:, None]
    places = np.array([0.0, 5.0, 1.0]) + t * np.array([0.2, 0.0, 0.0])  # out of the picture to the right
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (16, 1)))
    whole = [f for f in range(16) if masks[f].any() and not masks[f, :, -1].any()]
    cut = cut_out(frames, masks, depth, poses, LENS, fps=15)
    assert cut.frame == whole[-1] < 15
    np.testing.assert_allclose(cut.velocity, [0.2, 0, 0], atol=0.01)


def test_one_that_stops_stands_where_it_was_at_that_moment():
    t = np.arange(16)[:, None]
    places = np.array([-1.0, 6.0, 1.0]) + t * np.array([0.1, 0.0, 0.0])
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (16, 1)))
    cut = cut_out(frames[:8], masks[:8], depth[:8], poses[:8], LENS, fps=15).still(12)
    for later in (12, 15, 90):
        found = middle(paste(np.full((*SIZE, 3), GREY, np.uint8), [cut], later, poses[0], LENS))
        np.testing.assert_allclose(found[:2], middle(frames[12])[:2], atol=1)


def test_one_that_was_never_whole_is_cut_out_where_most_of_it_was_seen_and_stands():
    places = np.array([[2.3, 5.0, 1.0], [2.1, 5.0, 1.0], [2.2, 5.0, 1.0]])
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (3, 1)))
    assert masks[:, :, -1].any((1,)).all()
    cut = cut_out(frames, masks, depth, poses, LENS, fps=15)
    assert cut.frame == 1
    assert not cut.velocity.any()
    with pytest.raises(ValueError, match="no frame"):
        cut_out(frames, masks & False, depth, poses, LENS, fps=15)


def test_a_turn_before_the_last_second_says_nothing_of_how_it_goes():
    steps = np.concatenate([np.tile([0.1, 0.0, 0.0], (20, 1)), np.tile([-0.02, 0.05, 0.0], (16, 1))])
    places = np.array([-2.0, 8.0, 1.0]) + steps.cumsum(0)
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (36, 1)))
    cut = cut_out(frames, masks, depth, poses, LENS, fps=15)
    np.testing.assert_allclose(cut.velocity, [-0.02, 0.05, 0.0], atol=0.006)


def test_one_that_something_hides_in_part_is_not_whole():
    t = np.arange(16)[:, None]
    places = np.array([-1.0, 5.0, 1.0]) + t * np.array([0.1, 0.0, 0.0])
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (16, 1)))
    masks[12:, :20] = False  # its upper half, behind something
    masks[12:, :, 35:] = False
    assert masks[12:].any((1, 2)).all()
    cut = cut_out(frames, masks, depth, poses, LENS, fps=15)
    assert cut.frame == 11
    np.testing.assert_allclose(cut.velocity, [0.1, 0, 0], atol=0.01)


def test_a_way_of_a_fifth_of_a_second_says_how_it_goes_and_a_shorter_one_nothing():
    places = np.array([-1.0, 5.0, 1.0]) + np.arange(4)[:, None] * np.array([0.1, 0.0, 0.0])
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (4, 1)))
    assert not cut_out(frames[:3], masks[:3], depth[:3], poses[:3], LENS, fps=15).velocity.any()
    assert cut_out(frames, masks, depth, poses, LENS, fps=15).velocity[0] == pytest.approx(0.1, abs=0.01)


def test_the_ground_is_level_nobody_rises():
    t = np.arange(16)[:, None]
    places = np.array([-1.0, 6.0, 0.6]) + t * np.array([0.05, 0.0, 0.05])  # as if: more and more of it is seen
    frames, masks, depth, poses = filmed(places, np.tile([0.0, 0.0, 1.0], (16, 1)))
    np.testing.assert_allclose(cut_out(frames, masks, depth, poses, LENS, fps=15).velocity, [0.05, 0, 0], atol=0.005)


def test_who_has_come_within_a_step_of_the_camera_or_behind_it_is_not_drawn():
    frames, masks, depth, poses = filmed(np.array([[0.0, 4.0, 1.0]]), np.array([[0.0, 0.0, 1.0]]))
    cut, empty = cut_out(frames, masks, depth, poses, LENS, fps=15), np.full((*SIZE, 3), GREY, np.uint8)
    for distance, drawn in ((0.5, True), (0.2, False), (-3.0, False)):
        found = paste(empty, [cut], 0, pose((0, 4 - distance, 1)), LENS)
        assert (found != empty).any() == drawn


def test_the_nearer_of_two_is_pasted_in_front_and_none_behind_the_camera():
    eyes = np.tile([0.0, 0.0, 1.0], (1, 1))
    cuts = []
    for colour, distance in ((RED, 4.0), ((20, 30, 220), 7.0)):
        frames, masks, depth, poses = filmed(np.array([[0.0, distance, 1.0]]), eyes)
        frames[masks] = colour
        cuts.append(cut_out(frames, masks, depth, poses, LENS, fps=15))
    empty = np.full((*SIZE, 3), GREY, np.uint8)
    for order in (cuts, cuts[::-1]):
        assert tuple(paste(empty, order, 0, pose((0, 0, 1)), LENS)[20, 30]) == RED
    assert tuple(paste(empty, cuts, 0, pose((0, 5, 1)), LENS)[20, 30]) == (20, 30, 220)
    np.testing.assert_array_equal(paste(empty, cuts, 0, pose((0, 9, 1)), LENS), empty)
