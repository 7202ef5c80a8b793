"""Schema: annotation files become dataclasses, and a file of another form is refused."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.world.files.schema import (
    Event,
    HiddenStretch,
    Presence,
    SubjectState,
    SubjectTrack,
    check_json,
    events_json,
    intrinsics_json,
    parse_check,
    parse_events,
    parse_intrinsics,
    parse_states,
    parse_subjects,
    states_json,
    subjects_json,
)

INTRINSICS = {"fx": 100.0, "fy": 101.0, "cx": 56.0, "cy": 32, "width": 112, "height": 64}


def test_intrinsics_belong_to_one_size():
    np.testing.assert_array_equal(parse_intrinsics(INTRINSICS, (64, 112)), [100, 101, 56, 32])
    with pytest.raises(DataError, match="64x112 image, but the video is 480x832"):
        parse_intrinsics(INTRINSICS, (480, 832))


def test_intrinsics_of_stored_frames_are_stretched_as_their_pixels_are():
    wide = parse_intrinsics(INTRINSICS, (64, 168), stretched_from=(64, 112))
    np.testing.assert_allclose(wide, [150, 101, 84, 32])
    tall = parse_intrinsics(INTRINSICS, (96, 112), stretched_from=(64, 112))
    np.testing.assert_allclose(tall, [100, 151.5, 56, 48])
    shown = parse_intrinsics({**INTRINSICS, "width": 168}, (64, 168), stretched_from=(64, 112))
    np.testing.assert_array_equal(shown, [100, 101, 56, 32])
    with pytest.raises(DataError, match="64x112 image, but the video is 64x168 with square pixels, stored as 64x126"):
        parse_intrinsics(INTRINSICS, (64, 168), stretched_from=(64, 126))


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


# --- written and read back -------------------------------------------------------------------------------------------


def on_disk(content):
    return json.loads(json.dumps(content))


def test_intrinsics_checks_and_events_read_back_as_they_were_written():
    lens = np.array([100.5, 101.0, 56.0, 32.0])
    np.testing.assert_array_equal(parse_intrinsics(on_disk(intrinsics_json(lens, (64, 112))), (64, 112)), lens)
    seen = (
        Presence(part="context", actor="subject 1", character="fox", frames=((4, False), (7, True))),
        Presence(part="context", actor="subject 2", character="fox", frames=()),
        Presence(part="target", actor="subject 1", character="fox", frames=((0, False),)),
    )
    assert parse_check(on_disk(check_json(seen))) == seen
    events = (Event(part="target", subject="fox", kind="entry", frame=3, reason="occluded"),)
    assert parse_events(on_disk(events_json(events))) == events


def test_places_of_subjects_read_back_as_they_were_written():
    rng = np.random.default_rng(0)
    fox = SubjectTrack(name="fox", context=rng.normal(size=(5, 3)), target=rng.normal(size=(4, 3)))
    (read,) = parse_subjects(on_disk(subjects_json([fox])))
    np.testing.assert_allclose(read.context, fox.context, rtol=1e-15)
    np.testing.assert_allclose(read.target, fox.target, rtol=1e-15)


def test_states_of_subjects_read_back_as_they_were_written():
    errors = {"frozen": 0.5, "oracle": None}
    gone = HiddenStretch(
        first=1, last=2, reason="occluded", certified=True, absent=False, visible_seconds=1.0, shown_seconds=0.5,
        hidden_seconds=0.2, error_degrees=errors, error_metres=errors, error_bodies=errors, law="still",
    )  # fmt: skip
    state = SubjectState(
        name="subject 1", number=1, family="fox", kind="animal", height=0.4, body_length=0.9, radius=0.2, path="line",
        speed=1.5, position=np.arange(9.0).reshape(3, 3), heading=np.arange(3.0), phase=np.ones(3),
        box=((0, 1, 5, 6), None, None), amodal_box=((0, 1, 5, 7), (0, 1, 5, 6), None), visible=np.array([0.5, 0, 0]),
        hidden=(gone,),
    )  # fmt: skip
    (read,) = parse_states(on_disk(states_json([state])))
    for name, value in vars(state).items():
        found = getattr(read, name)
        assert np.array_equal(found, value) if isinstance(value, np.ndarray) else found == value, name
    older = {k: v for k, v in asdict(gone).items() if k not in ("absent", "shown_seconds", "error_degrees")}
    content = on_disk(states_json([state]))
    content["subject 1"]["hidden"] = [older]
    assert parse_states(content)[0].hidden[0].absent is None
    content["subject 1"]["hidden"] = [{k: v for k, v in older.items() if k != "law"}]
    with pytest.raises(DataError, match="the keys are"):
        parse_states(content)
