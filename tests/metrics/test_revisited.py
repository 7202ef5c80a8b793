"""PSNR of background that the context has shown, and of the phases of a stretch, against masks written by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from panning import FOCAL, H, W, boxes, cameras, depth, filmed, nobody

from hmcli.metrics.contract import NothingToJudge, Stretch, SubjectTrack, Tracks
from hmcli.metrics.inside import psnr_hidden, psnr_visible
from hmcli.metrics.revisited import background_revisited, revisited

HALF = float(np.arctan(W / 2 / FOCAL))  # radians to the edge of the picture
BEFORE = np.array([0.0, 0.05])


def place(yaw: float, context: np.ndarray = BEFORE) -> np.ndarray:
    """(H, W) of the one target frame of a camera that looks there."""
    return revisited(boxes(1), nobody(len(context), 1), cameras(context, np.array([yaw])), depth(len(context), 1))[0]


def test_what_the_context_has_shown_is_found_by_direction():
    assert place(0.0)[2:-2].all()
    assert not place(2 * HALF + 0.1).any()
    half = place(HALF + 0.05)  # to the right of all: its left half was seen by the second camera
    assert half[8:-8, : W // 2 - 3].all()
    assert not half[:, W // 2 + 3 :].any()


def test_another_surface_in_that_direction_was_not_seen():
    far, near = depth(2, 1, 10.0), depth(2, 1, 5.0)
    mixed = replace(far, target_THW=near.target_THW)
    given = (boxes(1), nobody(2, 1), cameras(BEFORE, np.zeros(1)))
    assert revisited(*given, far).mean() > 0.9
    assert not revisited(*given, mixed).any()
    assert revisited(*given, replace(far, target_THW=far.target_THW * 1.03)).mean() > 0.9


def subject(stretches: tuple[Stretch, ...] = (), box: tuple[float, ...] | None = None, frames: int = 3) -> SubjectTrack:
    seen = np.full((frames, 4), np.nan)
    if box:
        seen[:] = box
    return SubjectTrack(
        name="fox", number=1, family="fox", body_length=1.0, position_A3=np.zeros((frames, 3)),
        visible_A=np.ones(frames), box_A4=seen, stretches=stretches,
    )  # fmt: skip


def test_subjects_hide_what_is_behind_them_then_and_now():
    one = (slice(10, 20), slice(30, 50))
    view = cameras(np.zeros(1), np.zeros(1))
    now = revisited(boxes(1, (30, 10, 50, 20)), nobody(1, 1), view, depth(1, 1))[0]
    assert not now[one].any()
    assert now.sum() > 0.9 * (H * W - 200)
    somebody = replace(nobody(1, 1), subjects=(subject(box=(30, 10, 50, 20), frames=2),))
    then = revisited(boxes(1), somebody, view, depth(1, 1))[0]
    np.testing.assert_array_equal(then, now)


def test_errors_elsewhere_do_not_count_and_frames_with_little_of_it_are_not_judged():
    yaws = np.array([0.0, HALF + 0.05, 2 * HALF + 0.1])
    reference = filmed(yaws)
    given = {"reference": reference, "boxes": boxes(3), "tracks": nobody(2, 3), "cameras": cameras(BEFORE, yaws),
             "depth": depth(2, 3)}  # fmt: skip
    seen = revisited(given["boxes"], given["tracks"], given["cameras"], given["depth"])
    prediction = reference.copy()
    prediction[~seen] = 0
    right = background_revisited(prediction=prediction, **given)
    assert np.isinf(right[:2]).all()
    assert np.ma.getmaskarray(right).tolist() == [False, False, True]
    prediction[seen] = np.where(reference[seen] > 100, reference[seen] - 10, reference[seen] + 10)
    wrong = background_revisited(prediction=prediction, **given)
    assert wrong[:2].tolist() == pytest.approx([20 * math.log10(25.5)] * 2)
    given["cameras"] = cameras(BEFORE, np.full(3, 3.0))
    with pytest.raises(NothingToJudge, match="has shown"):
        background_revisited(prediction=prediction, **given)


# --- phases ----------------------------------------------------------------------------------------------------------


def phases(first: int, last: int, *, certified: bool = True) -> Tracks:
    """Two context frames, then a target of six; one subject with one stretch."""
    one = Stretch(
        subject=0, name="fox", first=first, last=last, back=None, reason="left the frame", certified=certified,
        absent=False, hidden_seconds=0.2,
    )  # fmt: skip
    return replace(nobody(2, 6), subjects=(subject((one,), frames=8),))


def random_pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 12, 16, 3), np.uint8), rng.integers(0, 256, (6, 12, 16, 3), np.uint8)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return 20 * math.log10(255) - 10 * math.log10(((a.astype(float) - b) ** 2).mean())


def test_frames_before_a_stretch_are_judged_inside_the_box_and_frames_of_it_as_a_whole():
    prediction, reference = random_pair()
    tracks = phases(4, 5)  # target frames 2 and 3
    visible = psnr_visible(prediction=prediction, reference=reference, boxes=boxes(6, (3, 2, 9, 7)), tracks=tracks)
    inside = (slice(2, 7), slice(3, 9))
    assert np.ma.getmaskarray(visible).tolist() == [False, False, True, True, True, True]
    assert visible[:2].tolist() == pytest.approx(
        [decibels(prediction[t][inside], reference[t][inside]) for t in (0, 1)]
    )
    hidden = psnr_hidden(prediction=prediction, reference=reference, tracks=tracks)
    assert np.ma.getmaskarray(hidden).tolist() == [True, True, False, False, True, True]
    assert hidden[2:4].tolist() == pytest.approx([decibels(prediction[t], reference[t]) for t in (2, 3)])


def test_without_a_certified_stretch_in_the_target_no_phase_is_judged():
    prediction, reference = random_pair()
    for tracks in (phases(4, 5, certified=False), phases(0, 1)):
        with pytest.raises(NothingToJudge):
            psnr_hidden(prediction=prediction, reference=reference, tracks=tracks)
        with pytest.raises(NothingToJudge):
            psnr_visible(prediction=prediction, reference=reference, boxes=boxes(6, (3, 2, 9, 7)), tracks=tracks)
    with pytest.raises(ValueError, match="tracks are of 6 frames, the reference has 5"):
        psnr_hidden(prediction=prediction[:5], reference=reference[:5], tracks=phases(4, 5))
