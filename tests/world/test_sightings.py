"""Who is out of sight when: from masks, and from check.json."""

from __future__ import annotations

import numpy as np

from hmcli.world.files.schema import Presence
from hmcli.world.hidden.sightings import absences, exit_and_entry, seen_in_check, seen_in_masks, why_gone


def masks() -> np.ndarray:
    """12 frames of 20 x 30: subject 2 walks out at the right and is back at frame 9, subject 1 is occluded."""
    labels = np.zeros((12, 20, 30), np.uint8)
    for frame in range(12):
        if frame < 5 or frame >= 9:
            left = min(20 + 2 * frame, 28) if frame < 5 else 25
            labels[frame, 5:15, left : left + 6] = 2
        if frame not in (3, 4):
            labels[frame, 8:12, 10:14] = 1
    return labels


def test_a_subject_last_seen_at_the_edge_left_the_frame_and_any_other_was_occluded():
    labels = masks()
    seen = seen_in_masks(labels, exact=True)
    gone = {n: absences(f"s{n}", s, why_gone(labels, n, s)) for n, s in seen.items()}
    assert [(g.first, g.last, g.reason) for g in gone[2]] == [(5, 8, "left the frame")]
    assert [(g.first, g.last, g.reason) for g in gone[1]] == [(3, 4, "occluded")]


def test_only_absences_that_cross_from_context_into_target_are_events():
    labels = masks()
    found = [g for n, s in seen_in_masks(labels, exact=True).items() for g in absences(f"s{n}", s)]
    assert [g.subject for g in exit_and_entry(found, 7, 12)] == ["s2"]
    assert exit_and_entry(found, 10, 12) == []


def test_noise_of_a_compressed_mask_is_no_subject():
    labels = np.zeros((2, 200, 300), np.uint8)
    labels[0, 3, 3:6] = 1
    assert not seen_in_masks(labels, exact=False)[1].any()
    assert seen_in_masks(labels, exact=True)[1].tolist() == [True, False]


def test_what_check_json_says_holds_until_its_next_word():
    rows = (
        Presence(part="context", actor="A", character="dog", frames=((3, False),)),
        Presence(part="target", actor="A", character="dog", frames=((2, True),)),
    )
    seen = seen_in_check(rows, 5, 4)["dog"]
    assert seen.tolist() == [True, True, True, False, False, False, False, True, True]


def test_who_comes_in_first_had_not_been_there():
    rows = [
        Presence(part="context", actor="dog_1", character="dog", frames=((2, True), (4, False))),
        Presence(part="target", actor="cat_1", character="cat", frames=()),
    ]
    seen = seen_in_check(rows, 5, 2)
    assert seen["dog"].tolist() == [False, False, True, True, False, False, False]
    assert seen["cat"].all()
