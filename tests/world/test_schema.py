"""Schema: annotation files become dataclasses, and a file of another form is refused."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.world.files.schema import Event, Presence, parse_check, parse_events, parse_intrinsics, parse_subjects

INTRINSICS = {"fx": 100.0, "fy": 101.0, "cx": 56.0, "cy": 32, "width": 112, "height": 64}


def test_intrinsics_belong_to_one_size():
    np.testing.assert_array_equal(parse_intrinsics(INTRINSICS, (64, 112)), [100, 101, 56, 32])
    with pytest.raises(DataError, match="64x112 image, but the video is 480x832"):
        parse_intrinsics(INTRINSICS, (480, 832))


@pytest.mark.parametrize("change", [{"fx": 0}, {"fx": "100"}, {"cx": float("nan")}, {"skew": 0.0}, {"fy": True}])
def test_impossible_intrinsics_are_refused(change):
    with pytest.raises(DataError):
        parse_intrinsics({**INTRINSICS, **change}, (64, 112))


def test_check_lists_when_each_character_is_in_the_frame():
    content = {
        "cond_check": {"Actor1": {"Hero": [{"frame": 60, "inFrame": False}, {"frame": 0, "inFrame": True}]}},
        "tgt_check": {"Actor1": {"Hero": [{"frame": 9, "inFrame": True}]}},
    }
    assert parse_check(content) == (
        Presence(part="context", actor="Actor1", character="Hero", frames=((0, True), (60, False))),
        Presence(part="target", actor="Actor1", character="Hero", frames=((9, True),)),
    )


@pytest.mark.parametrize("row", [{"frame": -1, "inFrame": True}, {"frame": 1, "inFrame": 1}, {"frame": 1}, 3])
def test_check_rows_of_another_form_are_refused(row):
    with pytest.raises(DataError):
        parse_check({"cond_check": {"a": {"b": [row]}}})


def test_subjects_are_in_metres_in_our_world():
    content = {
        "cond_character": {"fox": {"0": [100, 200, 0], "1": [110, 200, 0]}},
        "tgt_character": {"fox": {"0": [120, 200, 5]}},
    }
    (fox,) = parse_subjects(content)
    assert fox.name == "fox"
    np.testing.assert_allclose(fox.context, [[1, -2, 0], [1.1, -2, 0]])
    np.testing.assert_allclose(fox.target, [[1.2, -2, 0.05]])


@pytest.mark.parametrize("frames", [{"1": [0, 0, 0]}, {"0": [0, 0]}, {"0": "x"}, {"0": [0, 0, float("inf")]}])
def test_subject_positions_that_are_none_are_refused(frames):
    with pytest.raises(DataError):
        parse_subjects({"cond_character": {"fox": frames}, "tgt_character": {"fox": {"0": [0, 0, 0]}}})


def test_events_are_in_order_of_time():
    rows = [
        {"part": "target", "subject": "fox", "kind": "entry", "frame": 3, "reason": "occluded"},
        {"part": "context", "subject": "fox", "kind": "exit", "frame": 20, "reason": "left the frame"},
    ]
    events = parse_events(rows)
    assert events[0] == Event(part="context", subject="fox", kind="exit", frame=20, reason="left the frame")
    assert [event.part for event in events] == ["context", "target"]
    with pytest.raises(DataError, match="kind is 'vanish'"):
        parse_events([{**rows[0], "kind": "vanish"}])
