"""PSNR of returned subjects sees their boxes and nothing else, and says where there is nothing to see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hmcli.metrics.contract import NothingToJudge, SubjectBoxes
from hmcli.metrics.inside import psnr_returned
from hmcli.metrics.pixel import psnr

T, H, W = 3, 7, 11
NO_BOX = (math.nan,) * 4


def boxes(*subjects: tuple[list[tuple[float, ...]], list[bool]]) -> SubjectBoxes:
    """From (box, is it back?) per frame of each subject."""
    return SubjectBoxes(
        amodal_TS4=np.array([of for of, _ in subjects], float).swapaxes(0, 1),
        returned_TS=np.array([back for _, back in subjects]).swapaxes(0, 1),
    )


def restated(prediction: np.ndarray, reference: np.ndarray, given: SubjectBoxes) -> list[float | None]:
    """The definition, pixel by pixel."""
    values: list[float | None] = []
    for t in range(len(reference)):
        squares = []
        for y in range(reference.shape[1]):
            for x in range(reference.shape[2]):
                covered = any(
                    back and left < x + 1 and x < right and top < y + 1 and y < bottom
                    for (left, top, right, bottom), back in zip(
                        given.amodal_TS4[t], given.returned_TS[t], strict=True
                    )
                )  # fmt: skip
                if covered:
                    squares += [(int(prediction[t, y, x, c]) - int(reference[t, y, x, c])) ** 2 for c in range(3)]
        mse = sum(squares) / len(squares) if squares else None
        values.append(None if mse is None else math.inf if mse == 0 else 20 * math.log10(255) - 10 * math.log10(mse))
    return values


def judged(prediction: np.ndarray, reference: np.ndarray, given: SubjectBoxes) -> list[float | None]:
    return psnr_returned(prediction=prediction, reference=reference, boxes=given).tolist()


def pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (T, H, W, 3), np.uint8), rng.integers(0, 256, (T, H, W, 3), np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_definition_written_pixel_by_pixel(seed: int):
    rng = np.random.default_rng(seed)
    subjects = []
    for _ in range(3):
        first = rng.uniform(-3, 7, (T, 2))
        of = np.concatenate([first, first + rng.uniform(0.3, 6, (T, 2))], axis=1)
        of[rng.random(T) < 0.3] = math.nan
        subjects.append((of.tolist(), (rng.random(T) < 0.6).tolist()))
    given = boxes(*subjects)
    prediction, reference = pair(seed)
    expected = restated(prediction, reference, given)
    assert any(value is not None for value in expected)
    assert judged(prediction, reference, given) == [v if v is None else pytest.approx(v, rel=1e-12) for v in expected]


def test_an_error_inside_the_box_counts_and_one_outside_does_not():
    reference = pair()[1] // 2
    given = boxes(([(2, 1, 6, 5)] * T, [True] * T))
    inside, outside = reference.copy(), reference.copy()
    inside[:, 1:5, 2:6] += 8
    outside += 50
    outside[:, 1:5, 2:6] -= 50
    assert judged(inside, reference, given) == pytest.approx([20 * math.log10(255 / 8)] * T, rel=1e-12)
    assert judged(outside, reference, given) == [math.inf] * T


@pytest.mark.parametrize(
    ("y", "x", "counts"),
    [(1, 2, True), (4, 5, True), (0, 2, False), (5, 2, False), (1, 1, False), (1, 6, False)],
)
def test_the_edges_of_a_box_are_where_it_says(y: int, x: int, counts: bool):
    reference = np.zeros((1, H, W, 3), np.uint8)
    wrong = reference.copy()
    wrong[0, y, x] = 255
    value = judged(wrong, reference, boxes(([(2, 1, 6, 5)], [True])))[0]
    assert value == (pytest.approx(10 * math.log10(16)) if counts else math.inf)


def test_a_box_over_the_whole_frame_is_psnr():
    prediction, reference = pair()
    whole = boxes(([(0, 0, W, H)] * T, [True] * T))
    expected = psnr(prediction=prediction, reference=reference)
    assert judged(prediction, reference, whole) == pytest.approx(list(expected), rel=1e-12)
    beyond = boxes(([(-5, -4, W + 3, H + 9)] * T, [True] * T))
    assert judged(prediction, reference, beyond) == pytest.approx(list(expected), rel=1e-12)
    upright = boxes(([(0, 0, H, W)] * T, [True] * T))
    turned = (video.swapaxes(1, 2) for video in (prediction, reference))
    assert judged(*turned, upright) == pytest.approx(list(expected), rel=1e-12)


def test_a_box_that_the_edge_of_the_picture_cuts_is_judged_inside_the_picture():
    reference = np.zeros((1, H, W, 3), np.uint8)
    wrong = reference.copy()
    wrong[0, 0, 0] = 255  # one of the four pixels of the box that are inside
    assert judged(wrong, reference, boxes(([(-3, -2, 2, 2)], [True])))[0] == pytest.approx(10 * math.log10(4))


def test_of_two_subjects_pixels_that_both_cover_count_once():
    reference = np.zeros((1, H, W, 3), np.uint8)
    wrong = reference.copy()
    wrong[0, 2, 3] = 255
    two = boxes(([(2, 1, 4, 3)], [True]), ([(3, 2, 5, 4)], [True]))
    assert judged(wrong, reference, two)[0] == pytest.approx(10 * math.log10(7))  # 4 + 4 - 1 pixels
    one = boxes(([(2, 1, 4, 3)], [True]), ([(3, 2, 5, 4)], [False]))
    assert judged(wrong, reference, one)[0] == pytest.approx(10 * math.log10(4))


def test_frames_before_it_is_back_and_after_it_is_gone_are_not_judged():
    prediction, reference = pair()
    back_then_gone = boxes(([(2, 1, 6, 5), (2, 1, 6, 5), NO_BOX], [False, True, True]))
    found = judged(prediction, reference, back_then_gone)
    assert [value is None for value in found] == [True, False, True]
    beside = boxes(([(2, 1, 6, 5), (W, 1, W + 4, 5), (2, -6, 6, 0)], [True] * T))
    assert [value is None for value in judged(prediction, reference, beside)] == [False, True, True]


def test_a_box_scaled_onto_a_pixels_edge_does_not_reach_into_the_next_by_rounding():
    reference = np.zeros((1, H, W, 3), np.uint8)
    wrong = reference.copy()
    wrong[0, 1, 2] = 255
    given = boxes(([(2 - 1e-12, 1 - 1e-12, 4 + 1e-12, 3 + 1e-12)], [True]))
    assert judged(wrong, reference, given)[0] == pytest.approx(10 * math.log10(4))


def test_where_nobody_returns_or_nothing_of_them_is_inside_there_is_nothing_to_judge():
    prediction, reference = pair()
    with pytest.raises(NothingToJudge, match="no subject comes back"):
        judged(prediction, reference, boxes(([(2, 1, 6, 5)] * T, [False] * T)))
    with pytest.raises(NothingToJudge, match="inside the compared frames"):
        judged(prediction, reference, boxes(([NO_BOX] * T, [True] * T)))
    nobody = SubjectBoxes(amodal_TS4=np.zeros((T, 0, 4)), returned_TS=np.zeros((T, 0), bool))
    with pytest.raises(NothingToJudge, match="no subject comes back"):
        judged(prediction, reference, nobody)


def test_boxes_of_another_number_of_frames_are_refused():
    prediction, reference = pair()
    with pytest.raises(ValueError, match="boxes are of 2 frames, the reference has 3"):
        judged(prediction, reference, boxes(([(2, 1, 6, 5)] * 2, [True] * 2)))
