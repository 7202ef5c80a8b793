"""Motion, and whether it is the camera's: a far place filmed by a camera that turns has flow with known answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from panning import FOCAL, H, W, boxes, cameras, depth, filmed

from hmcli.metrics.contract import NothingToJudge
from hmcli.metrics.following import camera_followed, camera_following, implied_flow
from hmcli.metrics.motion import motion_amount, pair_flow

PAN = np.deg2rad(1.0)  # a frame, to the right
YAWS = PAN * np.arange(9)


def ask(prediction: np.ndarray, reference: np.ndarray, **more):
    given = {"boxes": boxes(9), "cameras": cameras(YAWS[:1], YAWS), "depth": depth(1, 9), "flow": pair_flow}
    return {"prediction": prediction, "reference": reference, **given, **more}


def followed(prediction: np.ndarray, **more) -> float:
    return camera_following.pooled(camera_following(**ask(prediction, filmed(YAWS), **more))[None])


def test_flow_is_what_a_turn_by_a_known_angle_makes():
    wanted = FOCAL * np.tan(PAN)  # in the middle, where the picture moves to the left: x grows back in time
    for flow in (pair_flow(filmed(YAWS)), implied_flow(cameras(YAWS[:1], YAWS), depth(1, 9))):
        assert flow.shape == (2, H, W, 2)
        middle = flow[:, H // 4 : -H // 4, W // 4 : -W // 4]
        assert np.median(middle[..., 0]) == pytest.approx(wanted, rel=0.05)
        assert abs(np.median(middle[..., 1])) < 0.1


def test_motion_is_a_share_of_the_width_and_nothing_in_a_still():
    reference = filmed(YAWS)
    amount = float(motion_amount(prediction=reference, flow=pair_flow))
    assert amount == pytest.approx(100 * FOCAL * np.tan(PAN) / W, rel=0.1)
    assert float(motion_amount(prediction=filmed(2 * YAWS), flow=pair_flow)) > 1.5 * amount
    assert float(motion_amount(prediction=np.repeat(reference[:1], 9, 0), flow=pair_flow)) < 0.01
    assert motion_amount.better == "neither"
    with pytest.raises(ValueError, match="at least 2"):
        motion_amount(prediction=reference[:1], flow=pair_flow)


def test_the_truth_follows_its_camera_a_still_does_not_and_the_other_way_is_worse():
    truth, still, other = followed(filmed(YAWS)), followed(filmed(0 * YAWS)), followed(filmed(-YAWS))
    assert truth > 0.9
    assert still == pytest.approx(0, abs=0.02)
    assert other < -0.8
    assert truth > followed(filmed(0.7 * YAWS)) > followed(filmed(0.3 * YAWS)) > still


def test_an_answer_about_many_clips_is_of_sums_and_the_gate_a_share_of_clips():
    parts = np.array([[0.1, 2.0], [1.0, 1.0], [4.0, 1.0]])
    assert camera_following.pooled(parts) == max(-1, 1 - 5.1 / 4)
    assert camera_followed.pooled(parts) == pytest.approx(1 / 3)
    assert camera_followed.pooled(np.array([[0.5, 1.0]])) == 1


def test_subjects_are_not_judged():
    moved = filmed(YAWS)
    moved[:, 20:40, 30:60] = filmed(-YAWS)[:, 20:40, 30:60]  # somebody walks against the pan
    assert followed(moved, boxes=boxes(9, (28, 18, 62, 42))) > followed(moved) + 0.05


def test_nothing_is_judged_where_the_camera_stands_or_the_truth_itself_does_not_follow():
    reference = filmed(YAWS)
    with pytest.raises(NothingToJudge, match="too little"):
        camera_following(**ask(filmed(0 * YAWS), filmed(0 * YAWS), cameras=cameras(YAWS[:1], 0 * YAWS)))
    with pytest.raises(NothingToJudge, match="nowhere"):
        camera_following(**ask(reference, np.full_like(reference, 90)))
    with pytest.raises(ValueError, match="depth of shape"):
        camera_following(**ask(reference, reference, depth=depth(1, 8)))
    wrong = dataclasses.replace(boxes(8))
    with pytest.raises(ValueError, match="boxes are of 8 frames"):
        camera_following(**ask(reference, reference, boxes=wrong))
