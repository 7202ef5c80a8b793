"""Drawing: pictures do not depend on how the work is cut up, and masks, depth and cameras agree."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hmcli.recipe import WorldConfig
from hmcli.world.clip import ClipDescription, describe_clip
from hmcli.world.render import RenderedClip, draw, draw_clip
from hmcli.world.render.bins import Pairs, tile_pairs

SIZE = (24, 40)
WORLD = WorldConfig(context_frames=13, target_frames=17, fps=5, size=SIZE, subjects_per_clip=(1, 1))
FINGERPRINT = """
import hashlib, torch
from hmcli.recipe import WorldConfig
from hmcli.world.clip import describe_clip
from hmcli.world.render import draw_clip
torch.set_num_threads(2)
world = WorldConfig(context_frames=13, target_frames=17, fps=5, size=(24, 40), subjects_per_clip=(1, 1))
clip = describe_clip(world, 0, 1)
print(hashlib.sha256(draw_clip(clip, (24, 40)).rgb.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def clip() -> ClipDescription:
    return describe_clip(WORLD, 0, 1)


@pytest.fixture(scope="module")
def drawn(clip) -> RenderedClip:
    return draw_clip(clip, SIZE)


def same(first: RenderedClip, second: RenderedClip) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("rgb", "instances", "depth", "amodal")
    )


@pytest.mark.parametrize("frames", [1, 4, 30])
def test_pictures_do_not_depend_on_the_chunk(clip, drawn, frames):
    assert same(draw_clip(clip, SIZE, chunk_frames=frames), drawn)


def test_pictures_do_not_depend_on_the_number_of_threads(clip, drawn):
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert same(draw_clip(clip, SIZE), drawn)
    finally:
        torch.set_num_threads(before)


def test_another_process_draws_the_same_pictures(drawn):
    done = subprocess.run(
        [sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == hashlib.sha256(drawn.rgb.tobytes()).hexdigest()


def test_bins_save_work_without_changing_a_pixel(clip, drawn, monkeypatch):
    def everything(ranges: np.ndarray, rows: np.ndarray, tile: float, grid: tuple[int, int]) -> Pairs:
        if tile == draw.TILE:  # every shape in every tile; shadow cells stay as they are
            ranges = np.broadcast_to([-1.0, 1e4, -1.0, 1e4], ranges.shape)
        return tile_pairs(ranges, rows, tile, grid)

    monkeypatch.setattr(draw, "tile_pairs", everything)
    assert same(draw_clip(clip, SIZE), drawn)


def test_antialiasing_changes_edges_only(clip, drawn):
    sharp = draw_clip(clip, SIZE, antialias=False)
    np.testing.assert_array_equal(sharp.instances, drawn.instances)
    np.testing.assert_array_equal(sharp.depth, drawn.depth)
    changed = (sharp.rgb != drawn.rgb).any(-1).mean()
    assert 0.02 < changed < 0.7


def test_masks_follow_the_subject(clip, drawn):
    seen = (drawn.instances == 1).sum((1, 2))
    assert seen[0] > 0
    assert seen.min() == 0
    assert seen[-1] > 0
    assert set(np.unique(drawn.instances)) == {0, 1}
    assert not ((drawn.instances == 1) & ~drawn.amodal[0]).any()
    pose = clip.world_from_camera[0]
    middle = clip.actors[0].walk.position[0] + [0, 0, clip.actors[0].subject.tall / 2]
    x, y, z = pose[:3, :3].T @ (middle - pose[:3, 3])
    fx, _, cx, cy = clip.intrinsics(SIZE)
    assert drawn.instances[0, int(cy + fx * y / z), int(cx + fx * x / z)] == 1
    assert drawn.depth[0][drawn.instances[0] == 1].mean() == pytest.approx(z, abs=0.8)


def test_depth_reprojects_between_frames(clip, drawn):
    """Still surface points of frame 0 lie at the depth that frame 1 shows there."""
    fx, fy, cx, cy = clip.intrinsics(SIZE)
    v, u = np.nonzero((drawn.instances[0] == 0) & np.isfinite(drawn.depth[0]) & (drawn.depth[0] < 60))
    z = drawn.depth[0][v, u].astype(float)
    camera = np.stack([(u + 0.5 - cx) / fx * z, (v + 0.5 - cy) / fy * z, z], -1)
    first, second = clip.world_from_camera[0], clip.world_from_camera[1]
    x, y, z = ((camera @ first[:3, :3].T + first[:3, 3] - second[:3, 3]) @ second[:3, :3]).T
    u, v = np.floor(fx * x / z + cx).astype(int), np.floor(fy * y / z + cy).astype(int)
    inside = (u >= 0) & (u < SIZE[1]) & (v >= 0) & (v < SIZE[0])
    there = drawn.depth[1][v[inside], u[inside]]
    good = np.abs(there - z[inside]) < 0.12 * z[inside]  # the rest are edges, and ground that is steep to the eye
    assert good.mean() > 0.85


def test_pixels_on_the_ground_have_its_height(clip, drawn):
    fx, fy, cx, cy = clip.intrinsics(SIZE)
    pose, z = clip.world_from_camera[0], float(drawn.depth[0, -1, 0])
    bottom = pose[:3, :3] @ np.array([(0.5 - cx) / fx * z, (SIZE[0] - 0.5 - cy) / fy * z, z]) + pose[:3, 3]
    assert bottom[2] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("size", [(8, 16), (40, 24), (72, 104)])
def test_any_size_that_is_a_multiple_of_eight_works(size):
    clip = describe_clip(replace(WORLD, size=size), 3, 0)
    drawn = draw_clip(clip, size, chunk_frames=7)
    assert drawn.rgb.shape == (30, *size, 3)
    assert drawn.rgb.dtype == np.uint8
    assert drawn.rgb.std() > 10


@pytest.mark.gpu
def test_a_gpu_draws_the_same_scene(clip, drawn):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    other = draw_clip(clip, SIZE, "cuda")
    assert (other.instances != drawn.instances).mean() < 0.002
    assert np.abs(other.rgb.astype(int) - drawn.rgb).mean() < 0.5
