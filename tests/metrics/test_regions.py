"""PSNR in parts of the picture, against the definition written pixel by pixel, on hand-made subjects."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hmcli.metrics.contract import NothingToJudge, Stretch, SubjectBoxes, SubjectTrack, Tracks
from hmcli.metrics.inside import psnr_outside, psnr_stretch, psnr_subjects

T, H, W = 6, 8, 10
LEFT, RIGHT = (1, 2, 4, 6), (6.5, 0, 9, 3)  # boxes: left, top, right, bottom


def stretch(subject: int, back: int | None, *, first: int = 3, last: int = 11, certified: bool = True) -> Stretch:
    return Stretch(
        subject=subject, name=f"s{subject}", first=first, last=last, back=back, reason="left the frame",
        certified=certified, absent=back is None, hidden_seconds=0.6,
    )  # fmt: skip


def tracks(*stretches: tuple[Stretch, ...]) -> Tracks:
    """Ten context frames before the target."""
    subjects = tuple(
        SubjectTrack(
            name=f"s{number}", number=number + 1, family="fox", body_length=1.0, position_A3=np.zeros((10 + T, 3)),
            visible_A=np.ones(10 + T), box_A4=np.full((10 + T, 4), np.nan), stretches=of,
        )
        for number, of in enumerate(stretches)
    )  # fmt: skip
    return Tracks(subjects=subjects, context_N=np.arange(10), target_T=np.arange(10, 10 + T), fps=15.0)


def boxes(*places: tuple[float, ...]) -> SubjectBoxes:
    amodal = np.tile(np.array(places, float), (T, 1, 1))
    return SubjectBoxes(amodal_TS4=amodal, returned_TS=np.zeros((T, len(places)), bool))


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (T, H, W, 3), np.uint8), rng.integers(0, 256, (T, H, W, 3), np.uint8)


def by_hand(prediction: np.ndarray, reference: np.ndarray, inside: np.ndarray) -> float:
    squares = (prediction[inside].astype(float) - reference[inside]) ** 2
    return 20 * math.log10(255) - 10 * math.log10(squares.mean())


def test_every_stretch_is_judged_inside_the_box_of_its_own_subject_once_it_is_back():
    prediction, reference = pair()
    first, second = stretch(0, 2), stretch(1, 4)
    found = psnr_stretch(
        prediction=prediction, reference=reference, boxes=boxes(LEFT, RIGHT), tracks=tracks((first,), (second,))
    )
    one, other = np.zeros((H, W), bool), np.zeros((H, W), bool)
    one[2:6, 1:4] = other[0:3, 6:9] = True
    assert found == {
        first: pytest.approx(np.mean([by_hand(prediction[t], reference[t], one) for t in range(2, T)])),
        second: pytest.approx(np.mean([by_hand(prediction[t], reference[t], other) for t in range(4, T)])),
    }


def test_a_stretch_ends_where_the_subject_is_gone_again_and_others_are_not_judged():
    prediction, reference = pair()
    hides_again = stretch(0, None, first=14, last=15)
    given = tracks((stretch(0, 1), hides_again), (stretch(1, 2, certified=False),))
    changed = prediction.copy()
    changed[4:] = 255 - changed[4:]  # from clip frame 14 on
    judge = {"reference": reference, "boxes": boxes(LEFT, RIGHT), "tracks": given}
    found = psnr_stretch(prediction=prediction, **judge)
    assert list(found) == [given.subjects[0].stretches[0]]
    assert psnr_stretch(prediction=changed, **judge) == found
    changed[3] = 255 - changed[3]
    assert psnr_stretch(prediction=changed, **judge) != found


def test_a_stretch_ends_at_the_next_of_several_and_one_of_a_single_frame_is_judged():
    prediction, reference = pair()
    first, second, third = stretch(0, 1), stretch(0, 3, first=12, last=12), stretch(0, None, first=14, last=15)
    found = psnr_stretch(
        prediction=prediction, reference=reference, boxes=boxes(LEFT), tracks=tracks((first, second, third))
    )
    inside = np.zeros((H, W), bool)
    inside[2:6, 1:4] = True
    assert found == {
        first: pytest.approx(by_hand(prediction[1], reference[1], inside)),  # frame 1 is frame 11 of the clip
        second: pytest.approx(by_hand(prediction[3], reference[3], inside)),
    }


def test_nothing_is_judged_where_nobody_comes_back():
    prediction, reference = pair()
    with pytest.raises(NothingToJudge):
        psnr_stretch(prediction=prediction, reference=reference, boxes=boxes(LEFT), tracks=tracks((stretch(0, None),)))


def test_frames_without_a_box_are_left_out_of_a_stretchs_mean():
    prediction, reference = pair()
    given = boxes(LEFT)
    given.amodal_TS4[3:] = np.nan
    found = psnr_stretch(prediction=prediction, reference=reference, boxes=given, tracks=tracks((stretch(0, 2),)))
    inside = np.zeros((H, W), bool)
    inside[2:6, 1:4] = True
    assert list(found.values()) == [pytest.approx(by_hand(prediction[2], reference[2], inside))]


def test_masked_pixels_and_pixels_outside_boxes_are_judged_alone():
    prediction, reference = pair()
    masks = np.zeros((T, H, W), np.uint8)
    masks[1:, 3, 4:7] = 2
    values = psnr_subjects(prediction=prediction, reference=reference, masks=masks)
    assert values.mask.tolist() == [True] + [False] * (T - 1)
    assert values[2] == pytest.approx(by_hand(prediction[2], reference[2], masks[2] > 0))
    outside = np.ones((H, W), bool)
    outside[2:6, 1:4] = outside[0:3, 6:9] = False
    values = psnr_outside(prediction=prediction, reference=reference, boxes=boxes(LEFT, RIGHT))
    assert values.tolist() == [pytest.approx(by_hand(prediction[t], reference[t], outside)) for t in range(T)]
    with pytest.raises(NothingToJudge):
        psnr_subjects(prediction=prediction, reference=reference, masks=np.zeros_like(masks))
    with pytest.raises(NothingToJudge):
        psnr_outside(prediction=prediction, reference=reference, boxes=boxes((-1, -1, W, H)))
    with pytest.raises(ValueError, match="masks of shape"):
        psnr_subjects(prediction=prediction, reference=reference, masks=masks[1:])
