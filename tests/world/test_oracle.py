"""The oracle: it foretells what follows a law from what eyes saw of the visible track, and nothing that does not."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.world.hidden.eyes import SHARPNESS, seen_by_eyes, sharpness
from hmcli.world.hidden.oracle import FEWEST, Forecast, constant_velocity, forecast
from hmcli.world.staging.paths import PATHS, Gauge, walk

FPS, DRAWS = 15, 6


def eyes_of(frames: int) -> np.ndarray:
    return np.tile([0.0, -9.0, 1.8], (frames, 1))


def told_of(track: np.ndarray, frames: np.ndarray, at: list[int], seed: int = 0) -> Forecast:
    """What is foretold of a track that was seen in `frames`."""
    known, eye = track[frames], eyes_of(len(frames))
    seems = seen_by_eyes(known, eye, DRAWS, np.random.default_rng(seed))
    return forecast(frames, seems, sharpness(known, eye), np.array(at), FPS)


def some_walk(name: str, seed: int, frames: int = 100) -> np.ndarray:
    rng = np.random.default_rng(seed)
    course = PATHS[name](Gauge(speed=1.2, room=1.4), rng)
    return walk(course, frames, FPS, 1.2, rng.choice([0.0, np.pi]) + rng.uniform(-0.8, 0.8)).position[:, :2]


@pytest.mark.parametrize("name", list(PATHS))
def test_every_path_is_foretold_from_what_eyes_saw(name):
    seen, at = np.arange(60), 88
    right, straight = [], []
    for seed in range(6):
        track = some_walk(name, seed)
        errors = np.linalg.norm(told_of(track, seen, [at], seed).position[:, 0] - track[at], axis=1)
        right.append((errors < 0.85).mean())
        guess = constant_velocity(seen, track[:60], np.array([at]))[0]
        straight.append(np.linalg.norm(guess - track[at]) < 0.85)
    if name == "figure_eight":  # half a loop seldom tells where it ends
        assert np.mean(right) > 0.2
    else:
        assert np.mean(right) > 0.85
    if name not in ("straight", "pace_change", "arc"):
        assert np.mean(straight) < 0.7  # going straight on is no substitute


def test_eyes_are_less_sharp_for_distances_than_across():
    frames, eye = 400, eyes_of(400)
    track = np.zeros((frames, 2))
    seems = seen_by_eyes(track, eye, 5, np.random.default_rng(3)) - track
    across, along = seems[..., 0].std(), seems[..., 1].std()
    assert across == pytest.approx(9.0 * SHARPNESS, rel=0.1)
    assert along == pytest.approx((81 + 1.8**2) / 1.8 * SHARPNESS, rel=0.1)
    noises = np.einsum("nij,dnj->dni", sharpness(track, eye), seems)
    np.testing.assert_allclose(noises.std((0, 1)), 1.0, rtol=0.1)


def test_what_happens_after_the_track_changes_nothing():
    track = some_walk("loop", 0)
    told = told_of(track, np.arange(31), [44])
    stopped = track.copy()
    stopped[31:] = stopped[30]
    np.testing.assert_array_equal(told_of(stopped, np.arange(31), [44]).position, told.position)
    assert set(told.laws) <= {"steady, turning", "steady, spiralling"}


def test_a_turn_after_the_exit_that_nothing_foretold_is_missed():
    seconds = np.arange(61) / FPS
    track = np.stack([1.2 * seconds, 0 * seconds], -1)
    told = told_of(track, np.arange(31), [60]).position[:, 0]
    assert np.median(np.abs(told - track[60]), axis=0).max() < 0.1
    turned = track[30] + np.array([0.0, 1.2 * 2.0])
    assert np.linalg.norm(told - turned, axis=1).min() > 2.0


def test_a_track_with_a_gap_is_enough():
    angle = 0.9 * np.arange(70) / FPS
    track = 1.4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    told = told_of(track, np.delete(np.arange(50), slice(14, 19)), [56, 62]).position
    np.testing.assert_allclose(told, np.broadcast_to(track[[56, 62]], told.shape), atol=0.3)


def test_who_stands_still_is_foretold_to_stand_still():
    told = told_of(np.tile([2.0, -1.0], (40, 1)), np.arange(20), [39])
    np.testing.assert_allclose(told.position, np.broadcast_to([2.0, -1.0], told.position.shape), atol=0.2)
    assert max(told.laws, key=told.laws.count) == "standing"


def test_too_few_frames_are_refused():
    few = FEWEST - 1
    with pytest.raises(ValueError, match=f"{few} visible frames are too few"):
        told_of(np.zeros((20, 2)), np.arange(few), [15])
