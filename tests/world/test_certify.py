"""Certificates: what a hidden stretch needs, and how wrong the simple guesses are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hmcli.world.hidden.certify import Certificate, Needs, certify
from hmcli.world.hidden.events import Hidden
from hmcli.world.staging.splits import SPLITS, is_held_out, on_side

FPS = 10
NEEDS = Needs(visible_frames=20, longest_frames=99, hidden_frames=15, context_frames=25)


def walked(turn: float = 0.0, frames: int = 50, speed: float = 1.2) -> np.ndarray:
    """(T, 2) at constant pace and turn rate (radians per second)."""
    heading = turn * np.arange(frames) / FPS
    return np.concatenate([[[0, 0]], np.stack([np.cos(heading), np.sin(heading)], -1)[:-1] * speed / FPS]).cumsum(0)


def judge(first: int, last: int, track: np.ndarray, body_length: float = 1.7, needs: Needs = NEEDS) -> Certificate:
    seen = np.ones(len(track), bool)
    seen[first : last + 1] = False
    stretch = Hidden(subject="fox_1", first=first, last=last, reason="left the frame")
    return certify(stretch, seen, seen, track, FPS, body_length, needs)


def test_errors_are_distances_at_re_entry():
    one = judge(22, 40, walked())
    assert one.certified
    assert one.frozen_error == pytest.approx(1.2 * 20 / FPS)  # from the last visible frame to the first again
    assert one.constant_velocity_error == pytest.approx(0, abs=1e-9)
    assert one.oracle_error == pytest.approx(0, abs=0.02)
    assert (one.visible_frames, one.hidden_frames) == (22, 19)
    assert not one.turns


def test_a_turn_is_foretold_by_the_oracle_and_not_by_going_straight_on():
    one = judge(22, 40, walked(turn=0.7))
    assert one.certified
    assert one.turns
    assert one.oracle_error < 0.1 < one.constant_velocity_error


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        (19, 40, "seen too short"),
        (22, 35, "hidden too short"),
        (22, 49, "does not come back"),
        (22, 47, "comes back too shortly before the end"),
        (25, 45, "leaves in the target"),
        (20, 24, "comes back with the target's first frame"),
    ],
)
def test_stretches_that_lack_something_are_not_certified(first, last, why):
    assert not judge(first, last, walked()).certified, why


def test_standing_almost_where_it_left_is_no_challenge():
    assert not judge(22, 40, walked(speed=0.8)).certified
    assert judge(22, 40, walked(speed=0.8), body_length=1.5).certified


def test_what_cannot_be_foretold_is_not_certified():
    track = walked()
    track[30:, 1] += np.linspace(0, 3, 20)  # a turn that begins unseen
    one = judge(22, 40, track)
    assert one.oracle_error > 1
    assert not one.certified


def test_where_there_is_nothing_to_measure_errors_are_none():
    gone, brief = judge(22, 49, walked()), judge(5, 40, walked())
    for one in (gone, brief):
        assert (one.frozen_error, one.constant_velocity_error, one.oracle_error) == (None, None, None)


def test_frames_seen_before_a_gap_count():
    track, seen = walked(), np.ones(50, bool)
    seen[[8, 9, *range(24, 42)]] = False
    stretch = Hidden(subject="fox_1", first=24, last=41, reason="left the frame")
    assert certify(stretch, seen, seen, track, FPS, 1.7, NEEDS).visible_frames == 22
    assert not certify(stretch, seen, seen, track, FPS, 1.7, replace(NEEDS, visible_frames=23)).certified


def test_frames_in_which_hardly_anything_is_seen_do_not_count():
    track, seen = walked(), np.ones(50, bool)
    seen[24:42] = False
    clear = seen.copy()
    clear[[3, 22, 23]] = False
    stretch = Hidden(subject="fox_1", first=24, last=41, reason="left the frame")
    one = certify(stretch, seen, clear, track, FPS, 1.7, NEEDS)
    assert one.visible_frames == 21
    assert one.frozen_error == pytest.approx(1.2 * 19 / FPS)  # but it was last seen just before it left
    assert not certify(stretch, seen, clear, track, FPS, 1.7, replace(NEEDS, visible_frames=22)).certified


def test_families_stay_on_their_side_when_others_are_added():
    some = ("street", "desert", "museum", "meadow", "bamboo")
    train, test = on_side(some, "train"), on_side(some, "test")
    assert set(train) | set(test) == set(some) == set(on_side(some, "all"))
    assert not set(train) & set(test)
    assert on_side((*some, "moon", "cellar"), "test")[: len(test)] == test
    assert all(is_held_out(name) for name in test)


def test_splits_say_what_they_ask_for():
    assert SPLITS["easy"].paths == ("straight",)
    assert SPLITS["hard"].turns
    assert "straight" not in SPLITS["hard"].paths
    assert SPLITS["crowd"].crowd
    assert len(SPLITS["mixed"].paths) == 10
