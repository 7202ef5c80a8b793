"""How far apart samples put a subject that is back: hand-made samples with a known spread."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hand_made import BACK, FPS, H, T, W, cameras, moved, seen, subject, tracks, walk

from hmcli.metrics.contract import Detection, Metric, NothingToJudge
from hmcli.metrics.spread import reentry_spread

GREY = np.full((T, H, W, 3), 127, np.uint8)


def spread(*samples: list[list[Detection]]) -> float:
    (value,) = reentry_spread(
        prediction=GREY, reference=GREY, detections=samples[0], tracks=tracks(subject(0)), cameras=cameras(),
        other_samples=[(GREY, of) for of in samples[1:]],
    ).values()  # fmt: skip
    return float(value)


def test_samples_that_agree_have_none_wherever_they_are():
    assert spread(seen(walk), seen(walk), seen(walk)) == pytest.approx(0, abs=1e-9)
    assert spread(seen(moved(2.0)), seen(moved(2.0))) == pytest.approx(0, abs=1e-9)


def test_it_is_the_deviation_over_samples_of_both_axes_in_body_lengths():
    places = [(0.0, 0.0), (1.0, 0.5), (-0.5, 0.25), (0.25, -0.75)]
    found = spread(*(seen(moved(*at)) for at in places))
    wanted = math.sqrt(sum(statistics.variance(axis) for axis in zip(*places, strict=True)))
    assert found == pytest.approx(wanted)


def test_frames_are_averaged_and_those_of_one_sample_alone_left_out():
    def drifts(t: int) -> tuple[float, float]:
        x, y = walk(t)
        return x + 2 * (t - BACK), y

    judged = range(BACK, BACK + int(FPS))
    wanted = [abs(2 * (t - BACK)) / 20 / math.sqrt(2) for t in judged]
    assert spread(seen(walk), seen(drifts)) == pytest.approx(statistics.mean(wanted))
    late = seen(drifts, since=BACK + 4)
    assert spread(seen(walk), late) == pytest.approx(statistics.mean(wanted[4:]))
    nobody: list[list[Detection]] = [[] for _ in range(T)]
    assert spread(seen(walk), late, nobody) == pytest.approx(statistics.mean(wanted[4:]))
    with pytest.raises(NothingToJudge):
        spread(seen(walk), nobody)


def test_samples_further_apart_are_never_less_spread():
    found = [spread(seen(moved(-k / 4)), seen(moved(k / 4))) for k in range(6)]
    assert found == sorted(found)
    assert len(set(found)) == 6


def test_samples_are_compared_by_what_was_detected_in_them():
    changed = {"name": "m", "function": len, "needs": ("other_samples",), "unit": "", "definition": ""}
    with pytest.raises(ValueError, match="beside detections"):
        Metric(**changed)  # type: ignore[arg-type]
