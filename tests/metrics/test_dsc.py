"""DSC against its definition written pair by pair, and on hand-made subjects: kept, moved, changed, gone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hmcli.metrics.contract import NothingToJudge, SubjectTrack, Tracks
from hmcli.metrics.dsc import dsc_ctx, dsc_gt
from hmcli.registry import find

N, T, H, W = 3, 4, 40, 60
NOWHERE = (np.nan,) * 4
ONE, OTHER = (4, 6, 12, 28), (30, 5, 47, 20)  # left, top, right, bottom: upright, and wider than high


def box_track(*boxes: Any) -> SubjectTrack:
    return SubjectTrack(
        name="s", number=1, family="fox", body_length=1.0, position_A3=np.zeros((N + T, 3)), visible_A=np.ones(N + T),
        box_A4=np.array(boxes, np.float64), stretches=(),
    )  # fmt: skip


def tracks(*subjects: SubjectTrack) -> Tracks:
    return Tracks(subjects=subjects, context_N=np.arange(N), target_T=np.arange(N, N + T), fps=15.0)


def shown(*subjects: tuple[SubjectTrack, tuple[int, int, int]]) -> np.ndarray:
    """(N + T, H, W, 3): striped subjects of these colours on green."""
    video = np.full((N + T, H, W, 3), (20, 120, 40), np.uint8)
    for track, colour in subjects:
        for frame, box in enumerate(track.box_A4):
            if np.isfinite(box).all():
                left, top, right, bottom = box.astype(int)
                video[frame, top:bottom, left:right] = colour
                video[frame, top + 4 : bottom : 8, left:right] //= 2
    return video


def features(frames: np.ndarray) -> np.ndarray:
    """Colours of a frame's quarters: what a crop is laid on, and where in it, shows."""
    half = frames.shape[1] // 2
    parts = [frames[:, rows, columns].mean(axis=(1, 2)) for rows in (slice(half), slice(half, None))
             for columns in (slice(half), slice(half, None))]  # fmt: skip
    return np.concatenate(parts, axis=1).astype(np.float32) - 60


def noise(frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, H, W, 3), np.uint8)


def by_hand(frame: np.ndarray, box: tuple[int, int, int, int]) -> list[float]:
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    picture = np.full((1, side, side, 3), 127, np.uint8)
    for y in range(top, bottom):
        for x in range(left, right):
            dy, dx = (side - (bottom - top)) // 2, (side - (right - left)) // 2
            picture[0, y - top + dy, x - left + dx] = frame[y, x]
    return features(picture)[0].tolist()


def alike(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


TWO = tracks(
    box_track(ONE, NOWHERE, ONE, NOWHERE, ONE, ONE, ONE), box_track(OTHER, OTHER, OTHER, OTHER, NOWHERE, NOWHERE, OTHER)
)


def test_dsc_with_the_context_is_the_definition_written_pair_by_pair():
    context, prediction = noise(N, 0), noise(T, 1)
    one = [alike(by_hand(context[n], ONE), by_hand(prediction[t], ONE)) for n in (0, 2) for t in (1, 2, 3)]
    other = [alike(by_hand(context[n], OTHER), by_hand(prediction[t], OTHER)) for n in (0, 1, 2) for t in (0, 3)]
    found = dsc_ctx(prediction=prediction, context=context, tracks=TWO, backbone=features)
    assert found == pytest.approx((np.mean(one) + np.mean(other)) / 2, rel=1e-6)


def test_dsc_with_the_truth_is_the_definition_written_frame_by_frame():
    reference, prediction = noise(T, 2), noise(T, 3)
    one = [alike(by_hand(reference[t], ONE), by_hand(prediction[t], ONE)) for t in (1, 2, 3)]
    other = [alike(by_hand(reference[t], OTHER), by_hand(prediction[t], OTHER)) for t in (0, 3)]
    found = dsc_gt(prediction=prediction, reference=reference, tracks=TWO, backbone=features)
    assert found == pytest.approx((np.mean(one) + np.mean(other)) / 2, rel=1e-6)


def both(prediction: np.ndarray, true: np.ndarray, given: Tracks, backbone: Any = features) -> tuple[float, float]:
    shared = {"prediction": prediction, "tracks": given, "backbone": backbone}
    return dsc_ctx(context=true[:N], **shared), dsc_gt(reference=true[N:], **shared)


RED, BLUE = (200, 30, 30), (30, 30, 200)
STAYS = box_track(*[ONE] * (N + T))


@pytest.mark.parametrize("backbone", ["handmade", "effnet-lite0"])
def test_a_subject_kept_is_alike_one_of_other_colours_less_and_one_that_is_gone_less(backbone: str):
    used = features if backbone == "handmade" else find("backbone", backbone)("", "cpu")
    true = shown((STAYS, RED))
    kept = both(true[N:], true, tracks(STAYS), used)
    swapped = both(shown((STAYS, BLUE))[N:], true, tracks(STAYS), used)
    gone = both(shown()[N:], true, tracks(STAYS), used)
    assert kept == pytest.approx((1, 1), abs=1e-5)
    assert max(swapped) < 0.97
    assert max(gone) < 0.97


def test_where_in_the_picture_a_subject_is_does_not_matter():
    moved = [(4 + 5 * step, 6, 12 + 5 * step, 28) for step in range(N + T)]
    walks = box_track(*moved)
    true = shown((walks, RED))
    assert both(true[N:], true, tracks(walks)) == pytest.approx((1, 1), abs=1e-6)


def test_truth_is_compared_at_its_own_time_and_context_at_every_time():
    changes = shown((STAYS, RED))
    changes[N : N + 2] = shown((STAYS, BLUE))[N : N + 2]
    late = changes[N:][::-1]
    (ctx, gt), (ctx_late, gt_late) = both(changes[N:], changes, tracks(STAYS)), both(late, changes, tracks(STAYS))
    assert gt == pytest.approx(1, abs=1e-6)
    assert gt_late < 0.8
    assert ctx_late == pytest.approx(ctx)


def test_subjects_weigh_alike_however_often_they_are_seen():
    rare = box_track(*[OTHER] * N, OTHER, NOWHERE, NOWHERE, NOWHERE)
    true, predicted = shown((STAYS, RED), (rare, RED)), shown((STAYS, RED), (rare, BLUE))
    alone = both(predicted[N:], true, tracks(rare))
    together = both(predicted[N:], true, tracks(STAYS, rare))
    assert together == pytest.approx([(1 + value) / 2 for value in alone], abs=1e-6)


@pytest.mark.parametrize("where", [(0, 0, 8, 11), (0, -12, 8, 11), (W, 0, W + 9, 30), NOWHERE])
def test_boxes_too_low_or_outside_the_picture_are_not_judged(where: Any):
    true, small = noise(N + T, 4), box_track(*[where] * (N + T))
    for metric, given in ((dsc_ctx, {"context": true[:N]}), (dsc_gt, {"reference": true[N:]})):
        with pytest.raises(NothingToJudge, match="no subject is 12 pixels high"):
            metric(prediction=true[N:], tracks=tracks(small), backbone=features, **given)
    assert both(true[N:], true, tracks(small, STAYS)) == both(true[N:], true, tracks(STAYS))


def test_a_subject_never_seen_before_has_no_dsc_with_the_context():
    true, new = noise(N + T, 5), box_track(*[NOWHERE] * N, *[ONE] * T)
    with pytest.raises(NothingToJudge, match="both in the context and in the target"):
        dsc_ctx(prediction=true[N:], context=true[:N], tracks=tracks(new), backbone=features)
    assert dsc_gt(prediction=true[N:], reference=true[N:], tracks=tracks(new), backbone=features) == pytest.approx(1)


def test_lengths_and_sizes_that_do_not_belong_together_are_errors():
    true, given = noise(N + T, 6), {"tracks": tracks(STAYS), "backbone": features}
    with pytest.raises(ValueError, match="4 target frames, the prediction has 3"):
        dsc_gt(prediction=true[:3], reference=true[:3], **given)
    with pytest.raises(ValueError, match="a context of shape"):
        dsc_ctx(prediction=true[N:], context=true[: N - 1], **given)
    with pytest.raises(ValueError, match="a context of shape"):
        dsc_ctx(prediction=true[N:], context=true[:N, :-1], **given)
    with pytest.raises(ValueError, match="not finite"):
        dsc_gt(prediction=true[N:], reference=true[N:], tracks=tracks(STAYS),
               backbone=lambda frames: features(frames) * np.inf)  # fmt: skip


def test_what_finds_the_subjects_stands_in_the_name():
    assert dsc_ctx.label("hog") == "dsc-ctx (hog, truth)"
    assert dsc_gt.label("effnet-lite0", "identity AUC .95") == "dsc-gt (effnet-lite0, truth, identity AUC .95)"
    assert replace(dsc_gt, finder="").label("hog") == "dsc-gt (hog)"
