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

from hmcli.recipe.sections import WorldConfig
from hmcli.world.render import RenderedClip, draw_clip, draw_clips, reel, shade
from hmcli.world.space.shapes import BOX, Paint, ShapeList
from hmcli.world.staging.clip import ClipDescription, describe_clip

SIZE = (24, 40)
PLACES = ("night_city", "beach", "museum", "playground")  # lamps, mirrors, none of both, many patches
WORLD = WorldConfig(context_frames=13, target_frames=17, fps=5, size=SIZE, subjects_per_clip=(1, 1))
HIDDEN = ShapeList()  # a scene of nothing but a box under the ground
HIDDEN.add(BOX, (0, 0, -5), (1, 1, 1), Paint(colour=(0.5, 0.5, 0.5)))
FINGERPRINT = """
import hashlib, torch
from hmcli.recipe.sections import WorldConfig
from hmcli.world.staging.clip import describe_clip
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
    def everywhere(table, rows: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.tensor([[-1.0, 1e4, -1.0, 1e4]]).expand(len(rows), 4)

    monkeypatch.setattr(reel, "screen_ranges", everywhere)
    assert same(draw_clip(clip, SIZE), drawn)


def test_shadows_are_those_of_testing_every_shape(clip, drawn, monkeypatch):
    still, moving = len(clip.scene.shapes.kind), len(clip.actors[0].shapes().kind)

    def every_pair(cells, points: torch.Tensor, _: object) -> tuple[torch.Tensor, torch.Tensor]:
        rows = cells.rows.unique()
        if rows[-1] >= still:  # moving shapes: those of the frame that is drawn
            rows = torch.arange(still, still + moving)
        return torch.arange(points.shape[1]).repeat_interleave(len(rows)), rows.repeat(points.shape[1])

    monkeypatch.setattr(shade, "shadow_pairs", every_pair)
    assert same(draw_clip(clip, SIZE, chunk_frames=1), drawn)


@pytest.mark.parametrize("frames", [0, 9, 37])
def test_clips_drawn_together_are_those_drawn_one_by_one(frames):
    """Of different places, with different numbers of subjects, patches and lamps."""
    world = replace(WORLD, subjects_per_clip=(1, 3))
    clips = [describe_clip(replace(world, scenes=(name,)), 1, number) for number, name in enumerate(PLACES)]
    assert len({len(clip.actors) for clip in clips}) > 1
    one_by_one = [draw_clip(clip, SIZE) for clip in clips]
    together = draw_clips(clips, SIZE, chunk_frames=frames)
    assert all(same(*pair) for pair in zip(one_by_one, together, strict=True))


def test_clips_of_different_fields_of_view_are_not_drawn_together(clip):
    with pytest.raises(ValueError, match="one field of view"):
        draw_clips([clip, replace(clip, field_of_view=50.0)], SIZE)


def test_smooth_edges_look_like_pictures_drawn_larger_and_shrunk(clip, drawn):
    height, width = SIZE
    large = draw_clip(clip, (2 * height, 2 * width), antialias=False).rgb.astype(float)
    shrunk = large.reshape(-1, height, 2, width, 2, 3).mean((2, 4))
    sharp = draw_clip(clip, SIZE, antialias=False).rgb
    assert np.abs(drawn.rgb - shrunk).mean() < 0.5 * np.abs(sharp - shrunk).mean()


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


def reprojected(clip: ClipDescription, drawn: RenderedClip, first: int, second: int) -> np.ndarray:
    """Of still surface points of one frame that lie within another one: depth shown there over depth expected."""
    fx, fy, cx, cy = clip.intrinsics(drawn.depth.shape[1:])
    v, u = np.nonzero((drawn.instances[first] == 0) & (drawn.depth[first] < 60))
    z = drawn.depth[first][v, u].astype(float)
    camera = np.stack([(u + 0.5 - cx) / fx * z, (v + 0.5 - cy) / fy * z, z], -1)
    one, two = clip.world_from_camera[first], clip.world_from_camera[second]
    x, y, z = ((camera @ one[:3, :3].T + one[:3, 3] - two[:3, 3]) @ two[:3, :3]).T
    u, v = np.floor(fx * x / z + cx).astype(int), np.floor(fy * y / z + cy).astype(int)
    inside = (z > 0.1) & (u >= 0) & (u < drawn.depth.shape[2]) & (v >= 0) & (v < drawn.depth.shape[1])
    still = drawn.instances[second][v[inside], u[inside]] == 0
    return (drawn.depth[second][v[inside], u[inside]] / z[inside])[still]


@pytest.mark.parametrize("place", PLACES)
def test_depth_reprojects_between_frames(place):
    """Still points of frame 0 lie at the depth that later frames show there; the rest are edges and what these hide."""
    clip = describe_clip(replace(WORLD, scenes=(place,), size=(48, 80)), 4, 0)
    drawn = draw_clip(clip, (48, 80), antialias=False)
    for later in (1, 4):
        ratio = reprojected(clip, drawn, 0, later)
        assert len(ratio) > 500
        assert (np.abs(ratio - 1) < 0.08).mean() > 0.85
        assert np.median(np.abs(ratio - 1)) < 0.02


@pytest.mark.parametrize("place", PLACES)
def test_masks_depth_and_amodal_masks_agree(place):
    """Each subject is seen where it is in front; in front of it there are only things that are nearer."""
    clip = describe_clip(replace(WORLD, scenes=(place,), subjects_per_clip=(3, 3)), 2, 0)
    drawn = draw_clip(clip, SIZE)
    assert set(np.unique(drawn.instances)) <= {0, 1, 2, 3}
    for actor, amodal in zip(clip.actors, drawn.amodal, strict=True):
        seen = drawn.instances == actor.number
        assert not (seen & ~amodal).any()
        alone = draw_clip(replace(clip, actors=(actor,), scene=replace(clip.scene, shapes=HIDDEN.shapes())), SIZE)
        np.testing.assert_array_equal(alone.instances == actor.number, amodal)
        np.testing.assert_array_equal(drawn.depth[seen], alone.depth[seen])
        assert (drawn.depth[amodal & ~seen] <= alone.depth[amodal & ~seen]).all()


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
def test_a_gpu_draws_the_same_scenes(clip, drawn):
    """All but a few pixels at edges, where the last bit of a product decides which shape is met."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    other = replace(clip, texture_seed=clip.texture_seed + 1)
    together = draw_clips([clip, other], SIZE, "cuda")
    assert same(draw_clip(clip, SIZE, "cuda", chunk_frames=4), together[0])
    assert (together[0].instances != drawn.instances).mean() < 0.002
    assert (np.abs(together[0].rgb.astype(int) - drawn.rgb) > 2).mean() < 0.01
    seen = np.isfinite(drawn.depth) & np.isfinite(together[0].depth)
    assert (np.abs(together[0].depth / drawn.depth - 1)[seen] > 1e-3).mean() < 0.005
