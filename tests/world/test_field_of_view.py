"""Field of view from pixel motion: measured right where the angle is known, and nothing claimed where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from hmcli.world.views.field_of_view import measure, usable_pairs


def turning_camera(frames: int, degrees: float, *, aside: float = 0.0) -> np.ndarray:
    """A camera that turns about its up axis by `degrees` in all, and moves `aside` metres a frame."""
    poses = np.repeat(np.eye(4)[None], frames, axis=0)
    for frame, angle in enumerate(np.deg2rad(np.linspace(0, degrees, frames))):
        cos, sin = np.cos(angle), np.sin(angle)
        poses[frame, :3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        poses[frame, 0, 3] = aside * frame
    return poses


def panorama(poses: np.ndarray, field_of_view: float, size: tuple[int, int]) -> np.ndarray:
    """What a camera sees of a textured sphere around it, (T, H, W, 3) uint8."""
    texture = gaussian_filter(np.random.default_rng(3).random((400, 800)), 2.0, mode="wrap")
    texture = (texture - texture.min()) / np.ptp(texture) * 255
    height, width = size
    focal = width / 2 / np.tan(np.deg2rad(field_of_view) / 2)
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(x - width / 2) / focal, (y - height / 2) / focal, np.ones_like(x)], -1)
    frames = []
    for pose in poses:
        world = rays @ pose[:3, :3].T
        yaw, pitch = np.arctan2(world[..., 0], world[..., 2]), np.arctan2(world[..., 1], np.hypot(*world[..., ::2].T).T)
        at = [200 + pitch * 400 / np.pi, 400 + yaw * 800 / (2 * np.pi)]
        frames.append(np.repeat(map_coordinates(texture, at, order=1)[..., None], 3, -1))
    return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize("angle", [28.0, 37.0, 63.0])
def test_the_angle_of_a_camera_that_turns_is_measured_within_a_degree(angle: float):
    poses = turning_camera(9, 12)
    found = measure(panorama(poses, angle, (96, 160)), poses)
    assert found is not None
    assert found.degrees == pytest.approx(angle, abs=1.0)
    assert found.focal(160) == pytest.approx(80 / np.tan(np.deg2rad(angle) / 2), rel=0.05)


def test_nothing_is_said_of_a_still_camera_a_blank_picture_or_one_that_moves_aside():
    still = turning_camera(6, 0)
    assert measure(panorama(still, 40, (48, 80)), still) is None
    turning = turning_camera(6, 8)
    assert measure(np.full((6, 48, 80, 3), 90, np.uint8), turning) is None
    assert usable_pairs(turning_camera(6, 8, aside=0.2), 5) == []


def test_a_moving_subject_is_left_out_by_its_mask():
    poses = turning_camera(6, 10)
    video = panorama(poses, 40, (96, 160))
    masks = np.zeros(video.shape[:3], np.uint8)
    rng = np.random.default_rng(0)
    for frame in range(6):
        video[frame, 20:80, 40:120] = rng.integers(0, 255, (60, 80, 1))
        masks[frame, 20:80, 40:120] = 1
    found = measure(video, poses, masks=masks)
    assert found is not None
    assert found.degrees == pytest.approx(40, abs=1.5)


def test_the_published_clips_have_36_to_38_degrees(shared):
    from hmcli.recipe.sections import DataConfig, PosesConfig, SplitConfig
    from hmcli.stages.data.loading import load_clip
    from hmcli.stages.data.opening import open_dataset

    clips = open_dataset(shared / "data" / "hm-world-examples", PosesConfig(repair="reference")).clips
    data = DataConfig(size=(240, 416), split=SplitConfig(context=37, target=37))
    for source in clips[:2]:
        clip = load_clip(source, data)
        assert clip.context_poses is not None
        assert clip.target_poses is not None
        video = np.concatenate([clip.context, clip.target])
        found = measure(video, np.concatenate([clip.context_poses, clip.target_poses]))
        assert found is not None
        assert 35.5 < found.degrees < 38
