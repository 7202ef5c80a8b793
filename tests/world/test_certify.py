"""Certificates: what a hidden stretch needs, and how wrong the simple guesses are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hmcli.world.hidden.certify import Certificate, Needs, Watched, certify
from hmcli.world.hidden.events import Hidden
from hmcli.world.staging.splits import SPLITS, is_held_out, on_side
from hmcli.world.views.trajectories import CameraTrack

FPS = 10
NEEDS = Needs(visible_frames=20, longest_frames=99, hidden_frames=15, context_frames=25)


def walked(turn: float = 0.0, frames: int = 50, speed: float = 1.2) -> np.ndarray:
    """(T, 2) at constant pace and turn rate (radians per second)."""
    heading = turn * np.arange(frames) / FPS
    return np.concatenate([[[0, 0]], np.stack([np.cos(heading), np.sin(heading)], -1)[:-1] * speed / FPS]).cumsum(0)


def watched(track: np.ndarray, seen: np.ndarray, body_length: float = 1.7, **more: Any) -> Watched:
    """Filmed from ten metres away, from eyes two metres high that look at where it walks."""
    frames = len(track)
    eye = np.tile([1.5, -10.0, 2.0], (frames, 1))
    flags = {"clear_T": seen, "half_T": seen} | more
    return Watched(
        track_T2=track, seen_T=seen, camera=CameraTrack(eye=eye, yaw=np.full(frames, np.pi / 2)), half_angle=0.32,
        body_length=body_length, fps=FPS, **flags,
    )  # fmt: skip


def judge(
    first: int, last: int, track: np.ndarray, body_length: float = 1.7, needs: Needs = NEEDS, **more: Any
) -> Certificate:
    seen = np.ones(len(track), bool)
    seen[first : last + 1] = False
    stretch = Hidden(subject="fox_1", first=first, last=last, reason="left the frame")
    return certify(stretch, watched(track, seen, body_length, **more), needs, np.random.default_rng(0))


def test_errors_are_distances_half_a_second_after_re_entry():
    one = judge(22, 40, walked())
    assert one.certified
    assert one.metres["frozen"] == pytest.approx(1.2 * 25 / FPS)  # from the last visible frame to 0.5 s after re-entry
    assert one.metres["constant_velocity"] == pytest.approx(0, abs=1e-9)
    assert 0.01 < one.metres["oracle"] < 0.6  # its eyes are not perfectly sharp
    assert one.metres["picture_centre"] == pytest.approx(1.2 * 46 / FPS - 1.5)
    assert one.degrees["picture_centre"] == pytest.approx(np.rad2deg(np.arctan((1.2 * 46 / FPS - 1.5) / 10)))
    assert (one.visible_frames, one.shown_frames, one.hidden_frames) == (22, 22, 19)
    assert not one.turns


def test_a_turn_is_foretold_by_the_oracle_and_not_by_going_straight_on():
    one = judge(32, 46, walked(turn=0.7, frames=60), needs=replace(NEEDS, context_frames=35))
    assert one.certified
    assert one.turns
    assert one.metres["oracle"] < 0.85 < one.metres["constant_velocity"]


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


@pytest.mark.parametrize(
    ("first", "last", "needs", "beyond"),
    [
        (22, 40, {"visible_frames": 22}, {"needs": {"visible_frames": 23}}),
        (22, 36, {}, {"last": 35}),  # hidden for 15 frames
        (22, 40, {"context_frames": 23}, {"needs": {"context_frames": 22}}),  # leaves with the context's last frame
        (22, 25, {"hidden_frames": 3}, {"last": 24}),  # is still hidden in the target's first frame
        (22, 46, {}, {"last": 47}),  # is seen again in the last three frames
    ],
)
def test_what_is_just_enough_is_certified_and_one_frame_less_is_not(first, last, needs, beyond):
    def certified(first: int = first, last: int = last, needs: dict[str, int] = needs) -> bool:
        return judge(first, last, walked(), body_length=1.1, needs=replace(NEEDS, **needs)).certified

    assert certified()
    assert not certified(**beyond)


def test_standing_almost_where_it_left_is_no_challenge():
    assert not judge(22, 40, walked(speed=0.6)).certified
    assert judge(22, 40, walked(speed=0.6), body_length=1.4).certified


def test_what_cannot_be_foretold_is_not_certified():
    track = walked()
    track[30:, 1] += np.linspace(0, 3, 20)  # a turn that begins unseen
    one = judge(22, 40, track)
    assert one.metres["oracle"] > 1
    assert not one.certified


def test_what_can_be_foretold_only_by_perfect_eyes_is_not_certified():
    needs = replace(NEEDS, visible_frames=10)
    assert judge(22, 40, walked(speed=0.9), body_length=1.2, needs=needs).certified
    briefly = np.arange(50) >= 12  # ten frames of a slow walker do not tell its pace well enough
    one = judge(22, 40, walked(speed=0.9), body_length=1.2, needs=needs, clear_T=briefly)
    assert one.metres["oracle"] > 0.6
    assert not one.certified


def test_half_of_a_certified_subject_was_seen_for_a_second():
    half = np.arange(50) < 10
    assert judge(22, 40, walked(), half_T=half).certified
    assert not judge(22, 40, walked(), half_T=np.arange(50) < 9).certified


def test_where_there_is_nothing_to_measure_errors_are_none():
    gone, brief = judge(22, 49, walked()), judge(5, 40, walked())
    for one in (gone, brief):
        assert one.metres is one.degrees is None


def test_frames_seen_before_a_gap_count():
    track, seen = walked(), np.ones(50, bool)
    seen[[8, 9, *range(24, 42)]] = False
    stretch = Hidden(subject="fox_1", first=24, last=41, reason="left the frame")
    of, rng = watched(track, seen), np.random.default_rng(1)
    assert certify(stretch, of, NEEDS, rng).visible_frames == 22
    assert not certify(stretch, of, replace(NEEDS, visible_frames=23), rng).certified


def test_frames_in_which_hardly_anything_is_seen_do_not_count():
    clear = np.ones(50, bool)
    clear[[3, 20, 21]] = False
    one = judge(22, 40, walked(), clear_T=clear)
    assert one.visible_frames == 19
    assert one.metres["frozen"] == pytest.approx(1.2 * 25 / FPS)  # but it was last seen just before it left
    assert not one.certified
    assert judge(22, 40, walked(), clear_T=clear, needs=replace(NEEDS, visible_frames=19)).certified


def left_for_good(speed: float = 1.6, back: int = 41, first: int = 22) -> Certificate:
    """Somebody walks out to the right; the camera looks away, and at frame `back` again to where it was."""
    track, frames = walked(speed=speed, frames=60), np.arange(60)
    of = watched(track, frames < first)
    away = (frames >= first) & (frames < back)
    looks = replace(of, camera=replace(of.camera, yaw=np.where(away, np.pi, np.pi / 2)))
    stretch = Hidden(subject="fox_1", first=first, last=59, reason="left the frame")
    return certify(stretch, looks, NEEDS, np.random.default_rng(0))


def test_an_empty_place_is_certified_where_the_subject_must_be_elsewhere():
    one = left_for_good()
    assert one.absent
    assert not one.certified
    assert not left_for_good(speed=1.2).absent  # it may still be at the picture's edge
    assert not left_for_good(back=57).absent  # the camera hardly looks there again
    assert not left_for_good(first=19).absent  # too little was seen of it


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
