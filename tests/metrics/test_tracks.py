"""Which detection is which subject: on hand-made clips, against every assignment tried."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hand_made import BACK, BODY, FOCAL, H, T, W, box, cameras, moved, seen, subject, tracks, walk

from hmcli.metrics.appearance import unlike_colours
from hmcli.metrics.contract import Detection
from hmcli.metrics.tracks import NOBODY, body_pixels, found_tracks


def test_who_stands_where_the_truth_is_is_found_there():
    found = found_tracks(seen(walk), tracks(subject(0)), cameras())
    (one,) = found.subjects
    assert one.found.tolist() == [t >= BACK for t in range(T)]
    assert one.clear_T.tolist() == one.found.tolist()
    np.testing.assert_allclose(one.off_T2[BACK:], 0, atol=1e-12)
    np.testing.assert_allclose(one.degrees_T[BACK:], 0, atol=1e-6)
    np.testing.assert_allclose(one.centre[BACK:], [walk(t) for t in range(BACK, T)])
    assert np.isnan(one.distance[:BACK]).all()
    assert one.score_T.tolist() == [0.99 if t >= BACK else 0.0 for t in range(T)]
    assert found.nobodys == ((),) * T


@pytest.mark.parametrize(("right", "down"), [(1.0, 0.0), (-0.5, 0.25), (3.0, 0.0)])
def test_how_far_off_it_is_is_told_in_body_lengths_and_degrees(right: float, down: float):
    (one,) = found_tracks(seen(moved(right, down)), tracks(subject(0)), cameras()).subjects
    np.testing.assert_allclose(one.pixels_T2, BODY)
    np.testing.assert_allclose(one.off_T2[BACK:], [(right, down)] * (T - BACK), atol=1e-9)
    np.testing.assert_allclose(one.distance[BACK:], math.hypot(right, down), atol=1e-9)
    x, y = walk(BACK)
    rays = [np.array([px - W / 2, py - H / 2, FOCAL]) for px, py in ((x, y), (x + right * BODY, y + down * BODY))]
    cosine = rays[0] @ rays[1] / np.linalg.norm(rays[0]) / np.linalg.norm(rays[1])
    assert one.degrees_T[BACK] == pytest.approx(math.degrees(math.acos(cosine)))
    assert one.within(math.hypot(right, down) + 1e-6).tolist() == [t >= BACK for t in range(T)]
    assert not one.within(math.hypot(right, down) - 1e-6).any()


def test_copies_and_whoever_should_be_hidden_are_nobodys():
    found = found_tracks(seen(moved(2.0), walk, since=0), tracks(subject(0)), cameras())
    assert found.subjects[0].which_T.tolist() == [1 if t >= BACK else NOBODY for t in range(T)]
    assert found.nobodys == tuple((0,) if t >= BACK else (0, 1) for t in range(T))


def test_a_subject_that_nobody_is_taken_for_is_not_found():
    found = found_tracks(seen(walk), tracks(subject(0), subject(1, moved(3.0))), cameras())
    assert [of.found.any() for of in found.subjects] == [True, False]
    found = found_tracks([[]] * T, tracks(subject(0)), cameras())
    assert not found.subjects[0].found.any()
    assert found_tracks(seen(walk), tracks(), cameras()).nobodys == tuple((0,) * (t >= BACK) for t in range(T))


@pytest.mark.parametrize("seed", range(6))
def test_the_sum_of_distances_is_the_least_of_all_assignments(seed: int):
    rng = np.random.default_rng(seed)
    places = rng.uniform(10, 50, (3, 2))
    given = tracks(*(subject(k, lambda t, at=tuple(at): at) for k, at in enumerate(places)))
    painted = [tuple(at) for at in rng.uniform(10, 50, (4, 2))]
    found = found_tracks(seen(*(lambda t, at=at: at for at in painted)), given, cameras())

    def cost(chosen: tuple[int, ...]) -> float:
        return sum(math.dist(painted[d], places[s]) for s, d in enumerate(chosen))

    least = min(itertools.permutations(range(4), 3), key=cost)
    assert tuple(int(of.which_T[-1]) for of in found.subjects) == least


def test_what_is_seen_too_little_of_is_not_clear():
    one = subject(0)
    one.box_A4[-1] = [0, 20, 5, 45]  # 125 pixels
    one.box_A4[-2] = [0, 20, 5, 46]
    one.visible_A[-3] = 0.4
    (found,) = found_tracks(seen(walk), tracks(one), cameras()).subjects
    assert found.clear_T[-3:].tolist() == [False, True, False]


def test_a_body_length_is_smaller_further_away_and_none_behind_the_camera():
    one = subject(0)
    one.position_A3[-1, 1] *= 2
    one.position_A3[-2, 1] *= -1
    pixels = body_pixels(one, tracks(one), cameras())
    np.testing.assert_allclose(pixels[-1], BODY / 2)
    assert np.isnan(pixels[-2]).all()
    (found,) = found_tracks(seen(walk), tracks(one), cameras()).subjects
    assert found.which_T[-2] == NOBODY


RED, BLUE = (220, 30, 30), (30, 30, 220)


def painted(*places: tuple[tuple[float, float], tuple[int, int, int]]) -> np.ndarray:
    """The same picture in all frames: squares of a colour on grey."""
    video = np.full((T, H, W, 3), 127, np.uint8)
    for at, colour in places:
        left, top, right, bottom = (int(side) for side in box(*at))
        video[:, top:bottom, left:right] = colour
    return video


def test_where_several_subjects_are_shown_looks_decide_between_places_that_are_alike_far():
    left, right = (40.0, 32.0), (100.0, 32.0)
    given = tracks(subject(0, lambda t: left), subject(1, lambda t: right))
    reference = painted((left, RED), (right, BLUE))
    between = (68.0, 32.0)  # nearer to the left one, which is red
    prediction, detections = painted((between, BLUE)), seen(lambda t: between)
    unlike = unlike_colours(prediction, detections, reference, given)
    np.testing.assert_allclose(unlike[-1], [[1, 0]], atol=1e-6)
    assert unlike[0].shape == (0, 2)
    by_place, by_looks = (found_tracks(detections, given, cameras(), of) for of in (None, unlike))
    assert [bool(of.found[-1]) for of in by_place.subjects] == [True, False]
    assert [bool(of.found[-1]) for of in by_looks.subjects] == [False, True]


def test_one_subject_alone_is_found_whatever_it_looks_like():
    given = tracks(subject(0))
    unlike = unlike_colours(painted((walk(8), BLUE)), seen(walk), painted((walk(8), RED)), given)
    assert all(not of.any() for of in unlike)
    (one,) = found_tracks(seen(walk), given, cameras(), unlike).subjects
    assert one.found.tolist() == [t >= BACK for t in range(T)]


def test_lengths_that_disagree_are_refused():
    with pytest.raises(ValueError, match="detections are of 19 frames"):
        found_tracks(seen(walk)[1:], tracks(subject(0)), cameras())


def test_a_box_beside_the_picture_has_no_colour():
    given = tracks(subject(0), subject(1, moved(2.0)))
    beside = [[Detection(box_4=box(-50, 32), score=1.0)]] * T
    np.testing.assert_allclose(unlike_colours(painted(), beside, painted(), given)[-1], 1)
