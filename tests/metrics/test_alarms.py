"""False alarms while a subject is gone: hand-made cases whose share is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hand_made import BACK, H, Path, T, W, cameras, moved, seen, subject, tracks, walk

from hmcli.metrics.alarms import false_alarms
from hmcli.metrics.contract import Detection, NothingToJudge, SubjectTrack

GREY = np.full((T, H, W, 3), 127, np.uint8)
Detected = list[list[Detection]]


def shares(detections: Detected, *subjects: SubjectTrack, true: Detected | None = None) -> list[float]:
    return list(
        false_alarms(
            prediction=GREY, reference=GREY, detections=detections, true_detections=true or seen(), cameras=cameras(),
            tracks=tracks(*subjects),
        ).values()
    )  # fmt: skip


def absent(path: Path = walk) -> SubjectTrack:
    """Gone for good, and certainly elsewhere; its stretch is not certified."""
    of = subject(0, path, back=None)
    (stretch,) = of.stretches
    return dataclasses.replace(of, stretches=(dataclasses.replace(stretch, certified=False),))


def test_of_an_absent_subject_every_frame_with_somebody_counts_once():
    assert shares(seen(), absent()) == [0.0]
    assert shares(seen(walk, since=0), absent()) == [1.0]
    assert shares(seen(walk, moved(2.0), since=T // 2), absent()) == [0.5]
    for since in range(T):
        assert shares(seen(walk, since=since), absent()) == [pytest.approx((T - since) / T)]


def test_of_one_who_comes_back_the_frames_before_count_and_no_others():
    assert shares(seen(walk, since=BACK), subject(0)) == [0.0]
    assert shares(seen(walk, since=BACK - 3), subject(0)) == [0.5]
    assert shares(seen(walk, moved(3.0), since=BACK), subject(0)) == [0.0]


def test_who_is_truly_there_is_no_alarm_and_a_second_one_is():
    other = subject(1, moved(3.0), back=0, certified=False)
    assert shares(seen(moved(3.0), since=0), absent(), other) == [0.0]
    assert shares(seen(moved(3.0), moved(-2.0), since=0), absent(), other) == [1.0]


def test_what_the_detector_takes_for_somebody_in_the_truth_is_left_out():
    cactus: Path = lambda t: (130.0, 32.0)  # noqa: E731
    assert shares(seen(cactus, since=0), absent(), true=seen(cactus, since=0)) == [0.0]
    assert shares(seen(cactus, walk, since=0), absent(), true=seen(cactus, since=0)) == [1.0]


def test_stretches_that_watch_nobody_are_not_judged():
    with pytest.raises(NothingToJudge, match="certified or absent"):
        shares(seen(walk), subject(0, certified=False))
    with pytest.raises(NothingToJudge):
        shares(seen(walk), subject(0, back=0))
