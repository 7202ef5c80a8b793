"""The oracle: it foretells what follows a law from the visible track alone, and nothing that does not."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.hidden.oracle import FEWEST, constant_velocity, forecast
from hmcli.world.staging.paths import PATHS, Gauge, walk

FPS, SEEN, AGAIN = 15, 36, 64


def errors(name: str, seed: int) -> tuple[float, float]:
    """Metres by which the oracle and constant velocity miss a walk at re-entry."""
    rng = np.random.default_rng(seed)
    track = walk(PATHS[name](Gauge(speed=1.2, room=1.4), rng), 80, FPS, 1.2, rng.uniform(0, 6)).position[:, :2]
    seconds = np.arange(80) / FPS
    at = seconds[AGAIN : AGAIN + 1]
    told = forecast(seconds[:SEEN], track[:SEEN], at).position[0]
    straight = constant_velocity(seconds[:SEEN], track[:SEEN], at)[0]
    return float(np.linalg.norm(told - track[AGAIN])), float(np.linalg.norm(straight - track[AGAIN]))


@pytest.mark.parametrize("name", list(PATHS))
def test_every_path_can_be_foretold_most_of_the_time(name):
    found = np.array([errors(name, seed) for seed in range(20)])
    assert np.median(found[:, 0]) < 0.5
    assert (found[:, 0] < 0.85).mean() >= 0.7
    if name not in ("straight", "pace_change", "arc"):
        assert np.median(found[:, 1]) > 2 * np.median(found[:, 0])  # going straight on is no substitute


def test_what_happens_after_the_track_changes_nothing():
    rng = np.random.default_rng(0)
    track = walk(PATHS["loop"](Gauge(speed=1.2, room=1.4), rng), 60, FPS, 1.2, 0.0).position[:, :2]
    seconds, at = np.arange(60) / FPS, np.array([2.9])
    told = forecast(seconds[:31], track[:31], at)
    stopped = track.copy()
    stopped[31:] = stopped[30]
    np.testing.assert_array_equal(forecast(seconds[:31], stopped[:31], at).position, told.position)
    assert told.law == "steady, turning"


def test_a_turn_after_the_exit_that_nothing_foretold_is_missed():
    seconds = np.arange(31) / FPS
    track = np.stack([1.2 * seconds, 0 * seconds], -1)
    told = forecast(seconds, track, np.array([4.0])).position[0]
    np.testing.assert_allclose(told, [4.8, 0.0], atol=1e-3)
    turned = track[-1] + np.array([0.0, 1.2 * (4.0 - seconds[-1])])
    assert np.linalg.norm(told - turned) > 2.0


def test_a_track_with_a_gap_is_enough():
    seconds = np.delete(np.arange(40) / FPS, slice(14, 19))
    angle = 0.9 * seconds
    track = 1.4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    at = np.array([3.6, 4.0])
    told = forecast(seconds, track, at).position
    np.testing.assert_allclose(told, 1.4 * np.stack([np.cos(0.9 * at), np.sin(0.9 * at)], -1), atol=0.05)


def test_who_stands_still_is_foretold_to_stand_still():
    told = forecast(np.arange(20) / FPS, np.tile([2.0, -1.0], (20, 1)), np.array([3.0]))
    np.testing.assert_array_equal(told.position, [[2.0, -1.0]])
    assert told.law == "standing"


def test_too_few_frames_are_refused():
    few = FEWEST - 1
    with pytest.raises(ValueError, match=f"{few} visible frames are too few"):
        forecast(np.arange(few) / FPS, np.zeros((few, 2)), np.array([3.0]))
