"""The camera encoder, and how much of one view another camera sees."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hmcli.core.camera import CameraEncoder, Lens, camera_overlap, field_of_view_overlap, frustum_points, mean_poses

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


# --- overlap where it can be calculated by hand ----------------------------------------------------------------------

F64 = torch.float64
NEAR, FAR, FINE = 0.5, 20.0, 40


def lens(across: float, down: float) -> Tensor:
    """Intrinsics of views so many degrees wide and high."""
    fx, fy = (side / 2 / math.tan(math.radians(angle) / 2) for side, angle in ((80, across), (48, down)))
    return torch.tensor([fx, fy, 40.0, 24.0], dtype=F64)


def fine_overlap(a: Tensor, b: Tensor, of_a: Tensor, of_b: Tensor) -> float:
    return field_of_view_overlap(a, b, of_a, of_b, SIZE, near=NEAR, far=FAR, samples=FINE).item()


@given(wide=st.floats(20, 120), narrow=st.floats(10, 119))
def test_a_wide_view_holds_all_of_a_narrow_one_which_holds_its_share_of_the_image(wide: float, narrow: float):
    narrow = min(narrow, wide)
    here = pose().double()
    assert fine_overlap(here, here, lens(narrow, 30), lens(wide, 30)) == 1.0
    share = math.tan(math.radians(narrow) / 2) / math.tan(math.radians(wide) / 2)
    assert abs(fine_overlap(here, here, lens(wide, 30), lens(narrow, 30)) - share) <= 1 / FINE + 1e-9


@given(across=st.floats(10, 100), yaw=st.floats(0, 60))
def test_a_turn_keeps_the_columns_that_stay_in_view(across: float, yaw: float):
    """The other camera's image is so high that only columns count, and `far` is so far that depth does not."""
    half, turn = math.radians(across) / 2, math.radians(yaw)
    left = max(math.tan(turn - half), -math.tan(half))
    share = max(0.0, (math.tan(half) - left) / (2 * math.tan(half)))
    views = (pose().double(), pose(yaw).double(), lens(across, 1), lens(across, 170))
    got = field_of_view_overlap(*views, SIZE, near=0.5, far=500.0, samples=FINE).item()
    assert abs(got - share) <= 1 / FINE + 0.01


@given(across=st.floats(20, 100), right=st.floats(-30, 30))
def test_a_step_to_the_side_takes_away_the_more_the_nearer(across: float, right: float):
    """Columns kept at depth z: 1 - |step| / (2 z tan), at least 0; the mean over disparity from 1/far to 1/near."""
    slope = abs(right) / (2 * math.tan(math.radians(across) / 2))
    low, high = 1 / FAR, min(1 / NEAR, 1 / slope if slope else math.inf)
    kept = 0.0 if high <= low else (high - low) - slope * (high**2 - low**2) / 2
    got = fine_overlap(pose().double(), pose(0, right).double(), lens(across, 30), lens(across, 30))
    assert abs(got - kept / (1 / NEAR - 1 / FAR)) <= 2 / FINE


@given(back=st.floats(0, 40))
def test_what_lies_beyond_the_other_cameras_depths_was_not_seen(back: float):
    """From further back all of the picture is in view, but only depths up to far - back are near enough."""
    behind = pose().double()
    behind[2, 3] = -back
    share = (1 / NEAR - 1 / max(FAR - back, NEAR)) / (1 / NEAR - 1 / FAR)
    assert abs(fine_overlap(pose().double(), behind, lens(60, 40), lens(60, 40)) - share) <= 1 / FINE + 1e-9


def test_overlap_needs_both_to_look_the_same_way():
    up_side_down = pose().double()
    up_side_down[0, 0] = up_side_down[1, 1] = -1.0
    assert fine_overlap(pose().double(), up_side_down, lens(60, 40), lens(60, 40)) == 1.0
    assert fine_overlap(pose().double(), pose(180.0).double(), lens(170, 170), lens(170, 170)) == 0.0


# --- mean poses, and overlap of rows ---------------------------------------------------------------------------------


def turn(generator: torch.Generator, degrees: float) -> Tensor:
    """A random rotation by at most so many degrees."""
    axis = torch.randn(3, generator=generator, dtype=F64)
    x, y, z = (axis / axis.norm() * math.radians(degrees) * torch.rand(1, generator=generator, dtype=F64)).tolist()
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=F64))


def rows_of(rotations: Tensor, positions: Tensor) -> Tensor:
    return torch.cat([rotations, positions[..., None]], dim=-1).flatten(-2)


@given(seed=st.integers(0, 200))
def test_the_mean_of_one_pose_is_that_pose_and_of_two_turns_is_halfway(seed: int):
    generator = torch.Generator().manual_seed(seed)
    first, step = turn(generator, 180), turn(generator, 80)
    positions = torch.randn(2, 3, generator=generator, dtype=F64)
    rows = rows_of(torch.stack([first, first @ step @ step]), positions)
    single = mean_poses(rows)
    assert torch.allclose(single[:, :3].flatten(1), rows, atol=1e-12)
    assert torch.equal(single[:, 3], torch.tensor([[0.0, 0, 0, 1]] * 2, dtype=F64))
    mean = mean_poses(rows.mean(dim=0))
    assert torch.allclose(mean[:3, :3], first @ step, atol=1e-9)
    assert torch.allclose(mean[:3, 3], positions.mean(dim=0))


@given(seed=st.integers(0, 200), count=st.integers(2, 5))
def test_the_mean_rotation_is_the_nearest_proper_one_wherever_it_is_seen_from(seed: int, count: int):
    generator = torch.Generator().manual_seed(seed)
    rotations = torch.stack([turn(generator, 170) for _ in range(count)])
    mean = rotations.mean(dim=0)
    if torch.linalg.svdvals(mean)[-2] < 0.05:
        return  # rotations that cancel have no mean
    nearest = mean_poses(rows_of(mean, torch.zeros(3, dtype=F64)))[:3, :3]
    assert torch.linalg.det(nearest).item() == pytest.approx(1.0)
    for _ in range(20):
        assert (nearest - mean).norm() <= (turn(generator, 30) @ nearest - mean).norm() + 1e-12
    world = turn(generator, 180)
    moved = mean_poses(rows_of(world @ mean, torch.zeros(3, dtype=F64)))[:3, :3]
    assert torch.allclose(moved, world @ nearest, atol=1e-8)


def test_overlap_of_rows_is_that_of_each_pair_of_cameras():
    yaws = torch.tensor([[0.0, 12.0, 30.0], [5.0, -20.0, 9.0]])
    poses = torch.stack([torch.stack([pose(y, 0.1 * y) for y in row]) for row in yaws.tolist()]).double()
    rows = poses[..., :3, :].flatten(-2)
    both = torch.stack([lens(45, 30), lens(70, 50)])
    view = Lens(intrinsics_B4=both, size=SIZE, near=NEAR, far=FAR)
    got = camera_overlap(rows[:, :2].float(), rows.float(), view)
    assert got.shape == (2, 2, 3)
    for b, f, g in [(0, 0, 1), (1, 1, 2), (1, 0, 0), (0, 1, 2)]:
        wanted = field_of_view_overlap(poses[b, f], poses[b, g], both[b], both[b], SIZE, near=NEAR, far=FAR)
        assert got[b, f, g] == wanted
