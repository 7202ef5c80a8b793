"""What a metric may return for a clip: what it promised, and nothing else counts as a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.metrics.contract import Metric
from hmcli.stages.scoring.clip import INPUTS, OF_COLUMN, Found, as_found, mean_found, reads_reference
from hmcli.stages.scoring.layout import StretchRow


def metric(**changes: Any) -> Metric:
    said = {"name": "m", "function": lambda: None, "needs": (), "unit": "dB", "definition": "d"} | changes
    return Metric(**said)


def masked(*values: float | None) -> np.ma.MaskedArray:
    return np.ma.masked_invalid([np.nan if value is None else value for value in values])


@pytest.mark.parametrize(
    ("changes", "returned", "message"),
    [
        ({}, masked(1.0, None), "m has no value in a frame, and does not say that there may be none"),
        ({"per": "clip", "partial": True}, masked(None), "m has no value in a clip"),
        ({}, [1.0, float("nan")], "m is not a number in frame 1"),
        ({"per": "stretch"}, {}, "m returned no stretch"),
        ({"per": "clip", "parts": ("a", "b")}, [1.0], r"of shape \(1,\) for a clip, it promised \(2,\)"),
        ({"per": "clip"}, [1.0, 2.0], r"of shape \(2,\) for a clip, it promised \(1,\)"),
    ],
)
def test_what_is_no_value_or_not_what_was_promised_is_refused(changes: dict[str, Any], returned: Any, message: str):
    with pytest.raises(DataError, match=message):
        as_found(metric(**changes), returned)


def test_a_partial_metric_may_leave_frames_out_and_infinity_is_a_value():
    found = as_found(metric(partial=True), masked(1.0, None, 3.0))
    assert found.values.tolist() == [1.0, None, 3.0]
    assert found.stretches is None
    assert as_found(metric(), [1.0, float("inf")]).values.tolist() == [1.0, float("inf")]
    assert as_found(metric(per="clip", parts=("a", "b")), [1.0, 2.0]).values.tolist() == [1.0, 2.0]
    assert as_found(metric(per="clip"), 4.0).values.tolist() == [4.0]


def test_samples_of_a_clip_are_averaged_place_by_place_where_they_are_judged():
    samples = [Found(values=masked(1.0, None, 3.0)), Found(values=masked(5.0, None, 4.0))]
    assert mean_found(samples).values.tolist() == [3.0, None, 3.5]
    with pytest.raises(DataError, match="judged in different frames"):
        mean_found([samples[0], Found(values=masked(1.0, 2.0))])


def stretch(first: int) -> StretchRow:
    return StretchRow(subject="s", first=first, last=first + 5, reason="occluded", absent=False, hidden_seconds=0.5)


def test_a_stretch_is_averaged_over_the_samples_that_have_it():
    one, other = stretch(3), stretch(20)
    samples = [
        Found(values=masked(1.0), stretches=(one,)),
        Found(values=masked(2.0, 5.0), stretches=(other, one)),
        Found(values=masked(6.0), stretches=(one,)),
    ]
    found = mean_found(samples)
    assert dict(zip(found.stretches or (), found.values.tolist(), strict=True)) == {one: 4.0, other: 2.0}


@pytest.mark.parametrize("name", INPUTS)
def test_what_is_not_of_the_generation_is_read_from_the_reference(name: str):
    of_run = (*OF_COLUMN, "unsure")  # what the detector half sees, in whatever it is given
    assert reads_reference(metric(needs=("detections", name))) == (name not in of_run)
