"""Events: exits and entries follow the masks to the frame, with their reason."""

from __future__ import annotations

import numpy as np

from hmcli.world.files.schema import Event
from hmcli.world.hidden.events import (
    Visibility,
    comes_back,
    covered_frames,
    find_events,
    hidden_stretches,
    longest_run,
    visibility,
)
from hmcli.world.staging.annotate import boxes


def track(seen: list[int], inside: list[int] | None = None) -> Visibility:
    return Visibility(subject="dog_1", seen=np.array(seen), inside=np.array(seen if inside is None else inside))


def test_leaving_and_coming_back_are_told_per_part():
    of = track([5, 4, 0, 0, 0, 0, 3, 6])
    assert find_events(of, context_frames=4) == [
        Event(part="context", subject="dog_1", kind="exit", frame=2, reason="left the frame"),
        Event(part="target", subject="dog_1", kind="entry", frame=2, reason="left the frame"),
    ]
    assert comes_back(of, 4)


def test_something_in_front_is_another_reason_than_the_edge_of_the_frame():
    of = track([5, 0, 2, 0, 0, 4], inside=[5, 6, 6, 0, 1, 4])
    assert [(gone.first, gone.last, gone.reason) for gone in hidden_stretches(of)] == [
        (1, 1, "occluded"),
        (3, 4, "left the frame"),
    ]
    assert [event.reason for event in find_events(of, 3)] == ["occluded", "occluded", "left the frame", "occluded"]


def test_frames_behind_something_count_on_end_and_only_once_the_subject_was_seen():
    assert covered_frames(track([0, 0, 0, 5, 0, 0, 3, 0], inside=[4, 4, 4, 5, 6, 6, 6, 0])) == 2
    assert (
        covered_frames(track([5, 0, 0, 0, 2], inside=[5, 0, 0, 3, 2])) == 1
    )  # it left, and came back behind something
    assert covered_frames(track([0, 0], inside=[3, 3])) == 0


def test_the_longest_run_may_touch_both_ends():
    assert longest_run(np.array([True, True, False, True])) == 2
    assert longest_run(np.array([False, True, True, True])) == 3
    assert longest_run(np.zeros(4, bool)) == 0


def test_a_subject_that_stays_away_or_was_never_there_does_not_come_back():
    assert not comes_back(track([5, 0, 0, 0]), 2)
    assert not comes_back(track([0, 0, 0, 4]), 2)
    assert not comes_back(track([5, 0, 5, 5]), 2)
    assert not comes_back(track([5, 5, 5, 5]), 2)
    assert hidden_stretches(track([0, 0])) == hidden_stretches(track([0, 0], [0, 0]))
    assert find_events(track([0, 0]), 1) == []


def test_a_few_pixels_are_not_clearly_visible():
    of = track([50, 9, 10, 0, 2, 60], inside=[50, 50, 50, 50, 2, 60])
    assert of.clear().tolist() == [True, False, True, False, False, True]
    assert not track([0, 0]).clear().any()


def test_pixels_are_counted_per_subject():
    instances = np.zeros((2, 3, 4), np.uint8)
    instances[0, 1, 1:3] = 2
    instances[0, 0, 0] = 1
    amodal = instances == 2
    amodal[0, 1, 3] = True
    of = visibility("deer_2", 2, instances, amodal)
    assert of.seen.tolist() == [2, 0]
    np.testing.assert_allclose(of.share(), [2 / 3, 0])


def test_boxes_are_tight_and_absent_where_nothing_is_seen():
    mask = np.zeros((2, 5, 7), bool)
    mask[1, 2:4, 3:6] = True
    assert boxes(mask) == (None, (3, 2, 6, 4))
