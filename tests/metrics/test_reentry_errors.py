"""Errors of subjects that come back: hand-made cases whose answer is known, and damage that grows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hand_made import (
    AWAY,
    BACK,
    BODY,
    FOCAL,
    FPS,
    LENGTH,
    H,
    N,
    Path,
    T,
    W,
    cameras,
    moved,
    seen,
    subject,
    tracks,
    walk,
)  # fmt: skip

from hmcli import registry
from hmcli.metrics.contract import Detection, NothingToJudge

GREY = np.full((T, H, W, 3), 127, np.uint8)
FROZEN = (20.0, 32.0)
JUDGED = range(BACK, BACK + int(FPS))
NAMES = ("position-error", "position-error-degrees", "state-progress", "time-error", "velocity-error")


def of(name: str, detections: list[list[Detection]], **changed: Any) -> float | None:
    """The value of the one stretch; None: not judged."""
    given = {"tracks": tracks(subject(0)), "cameras": cameras(), "detections": detections} | changed
    try:
        (value,) = registry.find("metric", name)(prediction=GREY, reference=GREY, **given).values()
    except NothingToJudge:
        return None
    return float(value)


def frozen(t: int) -> tuple[float, float]:
    return FROZEN


def delayed(frames: int) -> Path:
    """It walks as it should, so many frames late, and comes into the picture as late."""
    return lambda t: walk(t - frames) if t >= BACK + frames else None


def test_the_truth_has_no_error_and_all_of_the_progress():
    found = [of(name, seen(walk)) for name in NAMES]
    assert found == [pytest.approx(value, abs=1e-6) for value in (0, 0, 1, 0, 0)]


def test_a_subject_put_elsewhere_is_as_far_off_as_it_was_put():
    away = seen(moved(0.75, -1.0))
    assert of("position-error", away) == pytest.approx(1.25)
    assert of("velocity-error", away) == pytest.approx(0, abs=1e-9)
    assert of("time-error", away) == 0
    degrees = []
    for t in JUDGED:
        x, y = walk(t)
        true, put = np.array([x - W / 2, y - H / 2, FOCAL]), np.array([x + 15 - W / 2, y - 20 - H / 2, FOCAL])
        degrees.append(math.degrees(math.acos(true @ put / np.linalg.norm(true) / np.linalg.norm(put))))
    assert of("position-error-degrees", away) == pytest.approx(np.mean(degrees))


def test_a_frozen_subject_made_no_progress_and_lacks_its_velocity():
    still = seen(frozen)
    assert of("state-progress", still) == pytest.approx(0, abs=1e-9)
    assert of("position-error", still) == pytest.approx(np.mean([(walk(t)[0] - FROZEN[0]) / BODY for t in JUDGED]))
    assert of("velocity-error", still) == pytest.approx(1.5 * FPS / BODY)  # a pixel and a half per frame


@pytest.mark.parametrize("share", [0.25, 0.5, 1.5])
def test_progress_is_the_share_of_the_way_from_frozen_to_true(share: float):
    def part_of_it(t: int) -> tuple[float, float]:
        x, y = walk(t)
        return FROZEN[0] + share * (x - FROZEN[0]), y

    assert of("state-progress", seen(part_of_it)) == pytest.approx(share)


def test_progress_off_its_axis_and_far_beyond_it():
    assert of("state-progress", seen(moved(0.0, 0.8))) == pytest.approx(1)  # across: no progress, and none lost
    assert (of("state-progress", seen(moved(20.0))), of("state-progress", seen(moved(-20.0)))) == (2, -1)


def test_whoever_stood_still_being_right_by_chance_is_not_judged_for_progress():
    stands = subject(0, lambda t: (30.0, 32.0))  # half a body length from where it was last seen
    assert of("state-progress", seen(walk), tracks=tracks(stands)) is None
    behind = subject(0)
    behind.position_A3[:3, 1] *= -1
    assert of("state-progress", seen(walk), tracks=tracks(behind)) is None
    never_seen = subject(0, first=0)
    assert of("state-progress", seen(walk), tracks=tracks(never_seen)) is None


def test_a_delay_is_told_in_frames_and_as_the_way_that_is_missing():
    for late in (1, 3, 6):
        assert of("time-error", seen(delayed(late))) == late
        assert of("position-error", seen(delayed(late))) == pytest.approx(late * 1.5 / BODY)
        assert of("velocity-error", seen(delayed(late))) == pytest.approx(0, abs=1e-9)


def test_too_early_is_as_wrong_as_too_late_and_a_flicker_is_no_return():
    assert of("time-error", seen(walk, since=BACK - 4)) == 4
    flicker = seen(walk)
    flicker[1] = flicker[BACK]
    assert of("time-error", flicker) == 0
    flicker[2] = flicker[BACK]
    assert of("time-error", flicker) == BACK - 1


def test_who_vanished_has_no_place_and_comes_after_the_last_frame():
    nobody: list[list[Detection]] = [[] for _ in range(T)]
    assert [of(name, nobody) for name in NAMES] == [None, None, None, T - BACK, None]


def test_a_subject_that_hides_again_is_judged_until_then():
    once, again = subject(0), subject(0, back=None, first=N + BACK + 5)
    for frame in range(N + BACK + 5, N + T):
        once.box_A4[frame] = np.nan
    both = dict(vars(once)) | {"stretches": (*once.stretches, *again.stretches)}
    given = tracks(type(once)(**both))
    jump = seen(lambda t: walk(t) if t < BACK + 5 else frozen(t))
    assert of("position-error", jump, tracks=given) == pytest.approx(0, abs=1e-9)
    assert of("time-error", [[] for _ in range(T)], tracks=given) == 5


def test_velocity_is_the_slope_of_a_line_through_shaken_places():
    rng = np.random.default_rng(0)
    shake = rng.normal(0, 4, (T, 2))
    shaken: Path = lambda t: (walk(t)[0] + shake[t, 0], walk(t)[1] + shake[t, 1])  # noqa: E731
    wrong = [np.polyfit(np.arange(len(JUDGED)) / FPS, shake[JUDGED, axis] / BODY, 1)[0] for axis in (0, 1)]
    assert of("velocity-error", seen(shaken)) == pytest.approx(math.hypot(*wrong))
    few = [found if t < BACK + 3 else [] for t, found in enumerate(seen(walk))]
    assert of("velocity-error", few) is None


def test_a_camera_that_turns_and_moves_adds_no_error():
    """The truth seen by another camera is the truth: boxes, tracks and cameras turn together."""
    given, angle = cameras(), np.linspace(0, 0.2, T)
    one = subject(0)
    for t in range(T):
        turn = np.array([[np.cos(angle[t]), np.sin(angle[t]), 0], [-np.sin(angle[t]), np.cos(angle[t]), 0], [0, 0, 1]])
        given.target_T44[t, :3, :3] = turn @ given.target_T44[t, :3, :3]
        given.target_T44[t, :3, 3] = [0.05 * t, 0.1 * t, 0]
        right, down, ahead = (one.position_A3[N + t] - given.target_T44[t, :3, 3]) @ given.target_T44[t, :3, :3]
        x, y, half = W / 2 + FOCAL * right / ahead, H / 2 + FOCAL * down / ahead, FOCAL * LENGTH / ahead / 2
        if t >= BACK:
            one.box_A4[N + t] = [x - half, y - half, x + half, y + half]
    true = [[Detection(box_4=box, score=0.9)] if np.isfinite(box).all() else [] for box in one.box_A4[N:]]
    found = [of(name, true, tracks=tracks(one), cameras=given) for name in NAMES]
    assert found == [pytest.approx(value, abs=1e-6) for value in (0, 0, 1, 0, 0)]
    assert given.target_T44[-1, 1, 3] < AWAY


@pytest.mark.parametrize(("name", "sign"), [("position-error", 1), ("state-progress", -1)])
def test_less_of_the_way_is_never_better(name: str, sign: int):
    def part(share: float) -> Path:
        return lambda t: (walk(t)[0] + share * (FROZEN[0] - walk(t)[0]), walk(t)[1])

    found = [sign * float(of(name, seen(part(share))) or 0) for share in np.linspace(0, 1, 7)]
    assert found == sorted(found)
    assert len(set(found)) == 7


def test_more_delay_and_more_shaking_are_never_better():
    late = [of("time-error", seen(delayed(k))) for k in range(8)]
    assert late == sorted(late, key=float)  # type: ignore[arg-type]
    shake = np.random.default_rng(1).normal(0, 2, T)
    slow = [of("velocity-error", seen(lambda t, k=k: (walk(t)[0] + k * shake[t], 32.0))) for k in range(5)]
    assert slow == sorted(slow, key=float)  # type: ignore[arg-type]
    assert slow[0] == pytest.approx(0, abs=1e-9)
