"""The camera encoder, and how much of one view another camera sees."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hmcli.core.camera import CameraEncoder, field_of_view_overlap, frustum_points

SIZE = (48, 80)
FX = 80 / 2 / math.tan(math.radians(45) / 2)  # 45 degrees across
INTRINSICS = torch.tensor([FX, FX, 40.0, 24.0])


def pose(yaw_degrees: float = 0.0, right: float = 0.0) -> Tensor:
    """A level camera turned to its right by `yaw_degrees` and moved `right` metres."""
    angle = math.radians(yaw_degrees)
    matrix = torch.eye(4)
    matrix[0, 0] = matrix[2, 2] = math.cos(angle)
    matrix[0, 2], matrix[2, 0] = math.sin(angle), -math.sin(angle)
    matrix[0, 3] = right
    return matrix


def overlap(a: Tensor, b: Tensor) -> Tensor:
    return field_of_view_overlap(a, b, INTRINSICS, INTRINSICS, SIZE, near=0.5, far=20.0)


def test_fresh_encoders_change_nothing_and_each_reads_its_own_frames():
    encoder, camera = CameraEncoder(5), torch.ones(2, 7, 12)
    assert (encoder(camera, 4) == 0).all()
    with torch.no_grad():
        encoder.context.bias.fill_(1.0)
        encoder.target.bias.fill_(2.0)
    assert encoder(camera, 4)[1, :, 0].tolist() == [1.0] * 4 + [2.0] * 3


@given(yaw=st.floats(-180, 180), right=st.floats(-50, 50))
def test_a_camera_sees_all_that_it_sees(yaw: float, right: float):
    assert overlap(pose(yaw, right), pose(yaw, right)).item() == 1.0


def test_overlap_shrinks_as_a_camera_turns_away_and_ends_at_its_field_of_view():
    turned = torch.stack([pose(yaw) for yaw in (0.0, 10.0, 20.0, 40.0, 50.0, 180.0)])
    values = overlap(pose(), turned).tolist()
    assert values[0] == 1.0
    assert all(a > b for a, b in pairwise(values[:5]))
    assert values[4] == values[5] == 0.0


@given(yaw=st.floats(-180, 180), origin=st.floats(-180, 180), right=st.floats(-3, 3))
def test_only_relative_pose_matters_up_to_samples_on_the_edge(yaw: float, origin: float, right: float):
    moved = pose(origin, 7.0)
    plain, other = overlap(pose(), pose(yaw, right)), overlap(moved, moved @ pose(yaw, right))
    assert abs(plain - other) < 0.05


def test_sampled_points_project_back_into_their_image():
    points = frustum_points(INTRINSICS.expand(3, 4), SIZE, 1.0, 9.0, samples=5)
    assert points.shape == (3, 125, 3)
    x = INTRINSICS[0] * points[..., 0] / points[..., 2] + INTRINSICS[2]
    assert ((x > 0) & (x < 80)).all()
    assert ((points[..., 2] > 1.0) & (points[..., 2] < 9.0)).all()


def test_a_depth_range_that_is_none_is_refused():
    with pytest.raises(ValueError, match="near"):
        frustum_points(INTRINSICS, SIZE, 2.0, 1.0)
