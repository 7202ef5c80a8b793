"""Places of who was found: seen from the camera where the box is, at the true distance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hand_made import BACK, FOCAL, LENGTH, N, T, W, cameras, moved, seen, subject, tracks, walk

from hmcli.metrics.places import seen_places
from hmcli.metrics.tracks import found_tracks


@pytest.mark.parametrize("right", [0.0, 1.5, -0.5])
def test_who_is_seen_so_many_body_lengths_beside_the_truth_stands_as_many_beside_it(right: float):
    known, lens = tracks(subject(0)), cameras()
    (one,) = found_tracks(seen(moved(right, 0.3)), known, lens).subjects
    places = seen_places(one, known, lens)
    true = known.subjects[0].position_A3[N:, :2]
    assert np.isnan(places[:BACK]).all()
    np.testing.assert_allclose(places[BACK:], true[BACK:] + np.array([right * LENGTH, 0]), atol=1e-9)


def test_the_place_is_seen_where_the_box_is_by_a_camera_that_turned():
    turn = 0.2  # radians to the left, about the world's upward axis
    spin = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    known, lens = tracks(subject(0)), cameras()
    pose = lens.target_T44.copy()
    pose[:, :3, :3] = spin @ pose[:, :3, :3]
    lens = replace(lens, target_T44=pose)
    position = known.subjects[0].position_A3

    def pixel(place_3: np.ndarray, t: int) -> float:
        x, _, z = pose[t, :3, :3].T @ place_3
        return float(W / 2 + FOCAL * x / z)

    true = tuple(pixel(position[N + t], t) for t in range(T))
    box_A4 = known.subjects[0].box_A4.copy()
    box_A4[N + BACK :, [0, 2]] += (np.array(true) - [walk(t)[0] for t in range(T)])[BACK:, None]
    known = replace(known, subjects=(replace(known.subjects[0], box_A4=box_A4),))
    (one,) = found_tracks(seen(lambda t: (true[t] + 12, 32.0)), known, lens).subjects
    for t, place in enumerate(seen_places(one, known, lens)):
        if t >= BACK:
            assert pixel(np.array([*place, position[N + t, 2]]), t) == pytest.approx(true[t] + 12)
