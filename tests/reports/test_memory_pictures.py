"""Pictures of memory: every mark is where the data says, labels keep apart, and colours keep their order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hmcli.reports.canvas import CHOSEN, HATCH, HATCHED, INK, SUBJECT, Canvas, heat, ticks, width_of
from hmcli.reports.memory_pictures import (
    GREY,
    GUTTER,
    Matrix,
    Picture,
    affinity_picture,
    frames_picture,
    numbers_picture,
    row_shares,
    timeline_picture,
)  # fmt: skip

FRAMES, SLOTS = 4, 6
SPANS = np.stack([np.arange(0, 12, 2), np.arange(1, 13, 2)], axis=1)


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (pixels == colour).all(axis=-1)


def matrix(**changes) -> Matrix:
    chosen, near = np.zeros((FRAMES, SLOTS), bool), np.zeros((FRAMES, SLOTS), bool)
    chosen[1, 2] = near[3, 5] = True
    scores = np.arange(FRAMES * SLOTS, dtype=np.float32).reshape(FRAMES, SLOTS)
    given = {"title": "layer 0", "scores_FM": scores, "chosen_FM": chosen, "near_FM": near, "relevant_FM": None}
    return Matrix(**(given | changes))


def field(*matrices: Matrix) -> np.ndarray:
    """Everything below the legend of an affinity picture, from the left of the first matrix on."""
    picture = affinity_picture(matrices, first_frame=8, span_M2=SPANS, context=8, title="a clip")
    rows = 5 + (matrices[0].relevant_FM is not None)
    return picture[2 * 16 + 16 * (rows + 1) + 2 * 16 :, GUTTER:]


def test_heat_gets_darker_with_more():
    light = [sum(heat(share)) for share in np.linspace(0, 1, 21)]
    assert all(before > after for before, after in itertools.pairwise(light))
    assert heat(-1) == heat(0)
    assert heat(2) == heat(1)


def test_labels_of_ticks_never_touch():
    for count, step in ((40, 7), (300, 5), (9, 22), (1000, 3)):
        labels = [str(number) for number in range(count)]
        places = ticks(labels, step)
        assert places[0] == 0
        for before, after in itertools.pairwise(places):
            ends = (before * step + width_of(labels[before]) / 2, after * step - width_of(labels[after]) / 2)
            assert ends[0] < ends[1]


def test_rows_are_compared_within_themselves_and_without_the_window():
    scores = np.array([[1.0, 3.0, 2.0, 99.0], [5.0, 5.0, 5.0, 5.0], [np.nan, 0.0, 1.0, 2.0]])
    free = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    np.testing.assert_allclose(row_shares(scores, free), [[0, 1, 0.5, 1], [0.5] * 4, [np.nan, 0, 0.5, 1]])


def test_the_chosen_slot_is_framed_and_the_window_is_hatched():
    pixels, cell = field(matrix()), 18
    framed = np.argwhere(has(pixels, CHOSEN))
    assert framed.min(axis=0).tolist() == [1 * cell, 2 * cell]
    assert framed.max(axis=0).tolist() == [2 * cell - 1, 3 * cell - 1]
    hatched = pixels[3 * cell + 1 : 4 * cell - 1, 5 * cell + 1 : 6 * cell - 1]
    assert (has(hatched, HATCH) | has(hatched, HATCHED)).all()
    assert not has(pixels[: 3 * cell, : 5 * cell], HATCH).any()


def test_slots_that_show_the_hidden_subject_carry_a_dot():
    relevant = np.zeros((FRAMES, SLOTS), bool)
    relevant[2, 1] = True
    differ = (field(matrix(relevant_FM=relevant)) != field(matrix(relevant_FM=np.zeros_like(relevant)))).any(axis=-1)
    places = np.argwhere(differ)
    assert (places.min(axis=0) > [2 * 18, 1 * 18]).all()
    assert (places.max(axis=0) < [3 * 18, 2 * 18]).all()


def test_a_policy_without_scores_leaves_cells_grey():
    pixels = field(matrix(scores_FM=None))
    assert has(pixels, GREY)[1:17, 1:17].all()
    assert not has(field(matrix()), GREY).any()


def test_many_layers_are_put_below_each_other_and_stay_apart():
    one, thirty = (
        affinity_picture([matrix()] * n, first_frame=8, span_M2=SPANS, context=8, title="t") for n in (1, 30)
    )
    assert thirty.shape[1] <= 1500
    assert thirty.shape[0] > one.shape[0]
    assert has(thirty, CHOSEN).sum() > 20 * 4 * 8


def timeline(**changes) -> np.ndarray:
    seen = np.ones((12, 1), bool)
    seen[3:9] = False
    read = np.zeros((2, 12))
    read[0, 4] = 1.0
    given = {
        "read_LA": read, "read_FA": np.zeros((4, 12)), "window_FA": np.zeros((4, 12), bool), "first_frame": 8,
        "context": 8, "earlier": 0, "seen_AS": seen, "title": "a clip",
    }  # fmt: skip
    return timeline_picture(**(given | changes))


def test_subjects_are_drawn_where_they_are_seen():
    pixels = timeline()[90:]  # without the legend
    columns = np.flatnonzero(has(pixels, SUBJECT).any(axis=0))
    cell, left = 22, 96
    inside = {(column - left) // cell for column in columns}
    assert inside == {0, 1, 2, 9, 10, 11}


def test_a_subject_is_back_only_after_it_was_seen():
    def marks(seen: np.ndarray) -> tuple[set[int], set[int]]:
        drawn = [timeline(seen_AS=np.zeros((12, 1), bool))[90:], timeline(seen_AS=seen)[90:]]
        return tuple(
            {(column - 96 + 5) // 22 for column in np.flatnonzero((has(drawn[1], c) & ~has(drawn[0], c)).any(axis=0))}
            for c in (CHOSEN, INK)
        )  # type: ignore[return-value]

    seen = np.zeros((12, 1), bool)
    seen[3:6] = True
    assert marks(seen) == ({6}, set())
    seen[9:] = True
    assert marks(seen) == ({6}, {9})


def test_a_frame_that_is_always_read_is_darkest():
    pixels = timeline()[90:]
    rows, columns = np.nonzero(has(pixels, heat(1.0)))
    assert (columns.min() - 96) // 22 == (columns.max() - 96) // 22 == 4
    assert rows.max() - rows.min() < 14


def test_a_clip_without_masks_says_so_and_history_before_it_has_no_subjects():
    assert not has(timeline(seen_AS=None)[90:], SUBJECT).any()
    seen = np.zeros((12, 1), bool)
    seen[6:] = True
    pixels = timeline(earlier=6, seen_AS=seen)[90:]
    assert not has(pixels, CHOSEN).any()
    assert np.flatnonzero(has(pixels, SUBJECT).any(axis=0)).min() >= 96 + 6 * 22


def test_marked_frames_get_a_border_and_labels_fit():
    flat = np.full((10, 20, 3), 90, np.uint8)
    lines = ("slot 123, frames 456-457", "30 of 30 layers")
    assert width_of(lines[0]) < 150
    rows = [[Picture(pixels=flat, lines=lines), Picture(pixels=flat, lines=lines, marked=True)]]
    pixels = frames_picture(rows, title="t", legend="l")[56:]
    columns = np.flatnonzero(has(pixels, CHOSEN).any(axis=0))
    assert columns.min() > 150
    assert (pixels == 90).all(axis=-1).sum() > 2 * 140 * 70


def test_numbers_that_are_not_known_stay_white():
    values = np.array([[0.25, np.nan], [1.0, 0.0]])
    pixels = numbers_picture({"recall": values}, captions={"recall": "mean"}, steps=["0", "1"], title="t")
    cell, high, left, top = 44, 22, 60, 2 * 16 + 3 * 4 + 2 * 16
    assert tuple(pixels[top + 3, left + 3]) == heat(0.25)
    assert tuple(pixels[top + high + 3, left + 3]) == heat(1.0)
    assert (pixels[top + 1 : top + high - 1, left + cell + 1 : left + 2 * cell - 1] == 255).all()


@pytest.mark.parametrize(("steps", "layers"), [(1, 1), (50, 30)])
def test_fields_of_numbers_do_not_overlap(steps: int, layers: int):
    panels = {name: np.full((layers, steps), 0.5) for name in ("a long name of a number", "b", "c")}
    pixels = numbers_picture(
        panels, captions=dict.fromkeys(panels, "mean: model 0.64, random 0.43, oracle 1.00"),
        steps=[str(n) for n in range(steps)], title="t",
    )  # fmt: skip
    assert pixels.shape[1] < 1900
    row = has(pixels, heat(0.5))[2 * 16 + 3 * 4 + 2 * 16 + 2]
    runs = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])) == 1)
    assert len(runs) == 3


def test_a_colour_bar_ends_where_it_says():
    canvas = Canvas(300, 20)
    end = canvas.colour_bar(4, 2, "0", "1")
    inked = np.flatnonzero((canvas.pixels() != 255).any(axis=(0, 2)))
    assert inked.max() <= end
