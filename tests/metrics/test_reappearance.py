"""Who comes back, by recall and precision: hand-made cases whose answer is known, and damage that grows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hand_made import BACK, FPS, H, N, Path, T, W, cameras, moved, seen, subject, tracks, walk

from hmcli.metrics.contract import Detection, NothingToJudge, SubjectTrack
from hmcli.metrics.reappearance import precision, reappearance_precision, reappearance_recall

GREY = np.full((T, H, W, 3), 127, np.uint8)
JUDGED = int(FPS)  # frames of the first second
Detected = list[list[Detection]]


def recall(detections: Detected, *subjects: SubjectTrack) -> list[float]:
    given = {"tracks": tracks(*subjects or [subject(0)]), "cameras": cameras(), "detections": detections}
    return list(reappearance_recall(prediction=GREY, reference=GREY, **given).values())


def parts(detections: Detected, *subjects: SubjectTrack) -> list[float]:
    given = {"tracks": tracks(*subjects or [subject(0)]), "cameras": cameras(), "detections": detections}
    return list(reappearance_precision(prediction=GREY, reference=GREY, **given))


def never(t: int) -> None:
    return None


@pytest.mark.parametrize(
    ("damage", "detections", "share", "right", "claimed"),
    [
        ("none", seen(walk), 1.0, JUDGED, JUDGED),
        ("a little off", seen(moved(0.9)), 1.0, JUDGED, JUDGED),
        ("elsewhere", seen(moved(1.1)), 0.0, 0, JUDGED),
        ("frozen where it was last seen", seen(lambda t: (20.0, 32.0)), 0.0, 0, JUDGED),
        ("vanished", seen(never), 0.0, 0, 0),
        ("three frames late", seen(walk, since=BACK + 3), 0.7, JUDGED - 3, JUDGED - 3),
        ("two frames early", seen(walk, since=BACK - 2), 1.0, JUDGED, JUDGED + 2),
        ("doubled", seen(walk, moved(2.0)), 1.0, JUDGED, 2 * JUDGED),
        ("tripled", seen(walk, moved(2.0), moved(-2.0)), 1.0, JUDGED, 3 * JUDGED),
    ],
)
def test_each_damage_has_its_numbers(damage: str, detections: Detected, share: float, right: int, claimed: int):
    assert recall(detections) == [pytest.approx(share)]
    assert parts(detections) == [right, claimed]


def test_the_frames_after_the_first_second_are_not_judged():
    assert recall([of if t < BACK + JUDGED else [] for t, of in enumerate(seen(walk))]) == [1.0]
    assert recall([of if t < BACK + JUDGED - 1 else [] for t, of in enumerate(seen(walk))]) == [0.9]
    assert parts([of if t < BACK + JUDGED else of * 3 for t, of in enumerate(seen(walk))]) == [JUDGED, JUDGED]


def test_someone_there_while_nobody_should_be_is_a_false_alarm_and_one_who_never_returns_is_only_that():
    gone = subject(0, back=None)
    with pytest.raises(NothingToJudge):
        recall(seen(walk), gone)
    assert parts(seen(walk), gone) == [0, T - BACK]
    assert parts(seen(never), gone) == [0, 0]


def test_an_uncertified_stretch_asks_for_nobody():
    with pytest.raises(NothingToJudge):
        recall(seen(walk), subject(0, certified=False))
    with pytest.raises(NothingToJudge):
        parts(seen(walk), subject(0, certified=False))


def test_frames_that_show_too_little_of_it_are_no_miss():
    sliver = subject(0)
    sliver.box_A4[N + BACK : N + BACK + 4, 2] = sliver.box_A4[N + BACK : N + BACK + 4, 0] + 3  # three columns
    late = seen(walk, since=BACK + 4)
    assert recall(late, sliver) == [1.0]
    assert parts(late, sliver) == [JUDGED, JUDGED]
    hidden = subject(0)
    hidden.visible_A[N + BACK :] = 0.2
    with pytest.raises(NothingToJudge):
        recall(seen(walk), hidden)


def test_two_subjects_are_two_stretches_and_another_one_that_never_hides_is_no_claim():
    other = subject(1, moved(3.0))
    assert recall(seen(walk, moved(3.0)), subject(0), other) == [1.0, 1.0]
    assert recall(seen(walk), subject(0), other) == [1.0, 0.0]
    assert parts(seen(walk, moved(3.0)), subject(0), other) == [2 * JUDGED, 2 * JUDGED]
    stays = subject(1, moved(3.0), back=0, first=2, certified=False)
    early = seen(walk, moved(3.0), since=0)
    assert parts(early, subject(0), stays) == [JUDGED, JUDGED + BACK]


def by_hand(detections: Detected) -> tuple[float, float]:
    """Recall and precision of one subject of a clip, written out for boxes that are always clear."""
    hits, claims = [], 0
    for t, frame in enumerate(detections):
        away = [math.dist(np.add(of.box_4[:2], of.box_4[2:]) / 2, walk(t)) / 20 for of in frame]
        if t < BACK:
            claims += len(frame)
        elif t < BACK + JUDGED:
            hits.append(bool(away) and min(away) <= 1)
            claims += len(frame)
    return sum(hits) / len(hits), sum(hits) / claims if claims else math.nan


@pytest.mark.parametrize("seed", range(5))
def test_they_are_what_their_definition_says(seed: int):
    rng = np.random.default_rng(seed)
    shaken: Path = lambda t: tuple(np.array(walk(t)) + rng.normal(0, 20, 2))  # noqa: E731
    detections = [of[: rng.integers(len(of) + 1)] for of in seen(shaken, moved(2.5), since=2)]
    share, right = by_hand(detections)
    assert recall(detections) == [pytest.approx(share)]
    assert precision(np.array([parts(detections)])) == pytest.approx(right, nan_ok=True)


def test_more_damage_is_never_better():
    shares = [recall(seen(walk, since=BACK + late))[0] for late in range(JUDGED + 1)]
    assert shares == sorted(shares, reverse=True)
    assert (shares[0], shares[-1]) == (1, 0)
    copies = [precision(np.array([parts(seen(walk, *[moved(2.0 + k) for k in range(of)]))])) for of in range(4)]
    assert copies == [pytest.approx(1 / (1 + of)) for of in range(4)]
    off = [recall(seen(moved(0.25 * of)))[0] for of in range(8)]
    assert off == sorted(off, reverse=True)


def test_precision_is_of_sums_and_has_no_value_where_nobody_is_claimed():
    assert precision(np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 3.0]])) == pytest.approx(4 / 5)
    assert math.isnan(precision(np.array([[0.0, 0.0]])))
