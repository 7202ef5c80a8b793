"""Camera presets: words become the way they say, from where the camera stands, and what is not understood is said."""

from __future__ import annotations

import numpy as np
import pytest

from hmcli.errors import UsageError
from hmcli.world.views.presets import fastest_turn, parse_preset, preset_poses
from hmcli.world.views.trajectories import TRAJECTORIES


def way(text: str, frames: int = 24) -> np.ndarray:
    return preset_poses(parse_preset(text), frames)


def degrees(poses: np.ndarray) -> np.ndarray:
    """(T,) to the left of where the camera looks first."""
    yaw = np.rad2deg(np.unwrap(np.arctan2(poses[:, 1, 2], poses[:, 0, 2])))
    return np.asarray(yaw - yaw[0])


@pytest.mark.parametrize("name", sorted(TRAJECTORIES))
def test_every_trajectory_is_a_preset_that_moves_and_returns(name):
    gone, back = (way(name.replace("_", "-") + ending) for ending in ("", "-return"))
    for poses in (gone, back):
        assert poses.shape == (25, 4, 4)
        np.testing.assert_allclose(
            poses[:, :3, :3] @ poses[:, :3, :3].mT, np.broadcast_to(np.eye(3), (25, 3, 3)), atol=1e-9
        )
        np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1)
    assert np.abs(gone[-1] - gone[0]).max() > 0.2
    np.testing.assert_allclose(back[-1], back[0], atol=1e-9)
    np.testing.assert_allclose(back[12], gone[-1], atol=1e-9)


@pytest.mark.parametrize(("text", "turn"), [("pan-left:30deg", 30), ("pan-right:50deg", -50), ("pan_right", -40)])
def test_a_pan_turns_as_far_as_it_says_and_stays_where_it_is(text, turn):
    poses = way(text)
    assert degrees(poses)[-1] == pytest.approx(turn)
    np.testing.assert_allclose(poses[:, :3, 3], np.tile(poses[0, :3, 3], (25, 1)))


def test_slides_are_measured_by_the_distance_to_the_scene_and_go_to_the_side_they_say():
    near, far = way("truck-left:2m"), way("truck-left:4m")
    moved = near[-1, :3, 3] - near[0, :3, 3]
    left = -near[0, :3, 0]
    assert moved @ left == pytest.approx(2 * (0.50 + 0.68) / 2)  # the middle of the trajectory's range
    np.testing.assert_allclose(far[-1, :3, 3] - far[0, :3, 3], 2 * moved, atol=1e-12)
    assert (way("truck-right:2m")[-1, :3, 3] - near[0, :3, 3]) @ left < -1
    forward = way("dolly-in-left:2m")
    assert (forward[-1, :3, 3] - forward[0, :3, 3]) @ forward[0, :3, 2] > 0.9


def test_words_follow_one_another_from_where_the_last_one_ended():
    poses = way("pan-left:30deg + still + pan-right:30deg", 30)
    turned = degrees(poses)
    np.testing.assert_allclose(turned[10:21], 30, atol=1e-9)
    assert turned[-1] == pytest.approx(0)
    both = way("pan-left:90deg+truck-left:2m", 20)  # the left of a camera that has turned left is behind where it began
    assert (both[-1, :3, 3] - both[0, :3, 3]) @ both[0, :3, 2] < -1


def test_the_fastest_turn_is_an_eased_one():
    assert fastest_turn(way("pan-left:30deg", 30), 15) == pytest.approx(1.5 * 15, rel=0.01)
    assert fastest_turn(way("still"), 15) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pan", "pan-left"), ("pan-up", "unknown camera move"), ("", "unknown camera move"), ("still-return", "still"),
        ("pan-left:40", "no amount"), ("pan-left:-4deg", "no amount"), ("pan-left:400deg", "no amount"),
        ("pan-left:0m", "no amount"), ("pan-left+", "unknown"), ("pan-left:nandeg", "no amount"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_what_is(text, says):
    with pytest.raises(UsageError) as refused:
        parse_preset(text)
    assert says in str(refused.value)


def test_more_words_than_frames_are_refused():
    with pytest.raises(UsageError, match="3 camera moves"):
        way("still+still+still", 2)
