"""Blocks and outlines: figures as upright boxes, and who hides whom; compared with the same in plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hmcli.world.hidden.cover import (
    FILLS,
    LOOKED_AT,
    NEAREST,
    Covers,
    covered,
    covers,
    frames_on_end,
    things_that_cover,
)
from hmcli.world.hidden.events import longest_run
from hmcli.world.hidden.outlines import Outline, behind_any, long_enough, outline, seen_from, with_one_more
from hmcli.world.space.blocks import Block, blocks_of
from hmcli.world.space.shapes import BOX, CYLINDER, ELLIPSOID, Paint, ShapeList, Shapes, corners, turn_about_z
from hmcli.world.subjects import SUBJECTS
from hmcli.world.views.sight import Body
from hmcli.world.views.trajectories import CameraTrack

GREY = Paint(colour=(0.5, 0.5, 0.5))
FRAMES = 7


def camera(rng: np.random.Generator, frames: int = FRAMES) -> CameraTrack:
    """About ten metres south of the origin, looking north, moving and turning a little."""
    eye = np.array([0.0, -10.0, 1.6]) + rng.uniform(-0.4, 0.4, (frames, 3))
    return CameraTrack(eye=eye, yaw=np.pi / 2 + rng.uniform(-0.2, 0.2, frames))


def person(name: str, places_T2: np.ndarray, rng: np.random.Generator) -> Shapes:
    subject, frames = SUBJECTS[name](rng), len(places_T2)
    picks = np.arange(frames) % 12
    stride = subject.stride
    body = replace(stride, axes=stride.axes[picks], centre=stride.centre[picks], size=stride.size[picks])
    return body.placed(np.concatenate([places_T2, np.zeros((frames, 1))], 1), rng.uniform(-np.pi, np.pi, frames))


def pillars(rng: np.random.Generator) -> Shapes:
    """Things of several kinds between the camera and the origin, one of them behind the camera."""
    found = ShapeList()
    for x in (-1.5, 0.2, 1.6):
        wide = rng.uniform(0.3, 0.9)
        found.add(BOX, (x, -3.0, 1.4), (wide, 0.2, 1.4), GREY, turn_about_z(rng.uniform(-0.5, 0.5)))
        found.add(CYLINDER, (x + 0.5, -2.0, 1.5), (0.3, 0.3, 1.5), GREY)
    found.add(ELLIPSOID, (0.0, -4.5, 1.0), (0.5, 0.5, 1.0), GREY)
    found.add(BOX, (0.0, -14.0, 2.0), (9.0, 0.2, 9.0), GREY)
    return found.shapes()


# --- the plain form --------------------------------------------------------------------------------------------------


def seen_plainly(point: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, float]:
    """A point in the picture at focal length 1, and its depth."""
    right, down, ahead = pose[:3, :3].T @ (point - pose[:3, 3])
    return np.array([right, down]) / max(ahead, NEAREST), float(ahead)


def boxes_plainly(shapes: Shapes, pose: np.ndarray, frame: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each shape the eight corners of its box in the picture (8, 2), and their depths (8,)."""
    row = min(frame, shapes.centre.shape[0] - 1)
    found = []
    for part in corners(shapes)[row]:
        spots = [seen_plainly(corner, pose) for corner in part]
        found.append((np.array([spot for spot, _ in spots]), np.array([depth for _, depth in spots])))
    return found


def covered_plainly(body: Shapes, others: list[Shapes], pose: np.ndarray, frame: int) -> bool:
    """Is each corner, drawn in a little, of each part behind one shape of the others?"""
    rectangles = []
    for other in others:
        for kind, (spots, depths) in zip(other.kind.tolist(), boxes_plainly(other, pose, frame), strict=True):
            low, high = spots.min(0), spots.max(0)
            if depths.min() > NEAREST:
                rectangles.append(((low + high) / 2, FILLS[kind] * (high - low) / 2, depths.max()))
    for spots, depths in boxes_plainly(body, pose, frame):
        if depths.min() <= NEAREST:
            return False
        for spot in spots.mean(0) + 0.8 * (spots - spots.mean(0)):
            if not any((abs(spot - at) < half).all() and far < depths.min() for at, half, far in rectangles):
                return False
    return True


@pytest.mark.parametrize("seed", range(6))
def test_who_is_covered_is_who_is_covered_corner_by_corner(seed):
    rng = np.random.default_rng(seed)
    poses = camera(rng).world_from_camera()
    steps = np.stack([np.linspace(-2.0, 2.0, FRAMES), np.full(FRAMES, 0.5)], 1)
    small, large = person("schoolchild", steps, rng), person("elephant", steps[::-1] - (0.0, 2.0), rng)
    things, found = pillars(rng), []
    for body, others in ((small, [things]), (small, [large]), (small, [things, large]), (large, [things, small])):
        fast = covered(body, [covers(other, poses) for other in others], poses)
        assert fast.tolist() == [covered_plainly(body, others, pose, frame) for frame, pose in enumerate(poses)]
        found.append(fast)
    assert 0 < np.mean(found) < 1


def test_things_that_cover_stand_near_and_are_tall():
    found, poses = ShapeList(), camera(np.random.default_rng(0)).world_from_camera()
    found.add(BOX, (0.0, 0.0, 1.0), (0.5, 0.5, 1.0), GREY)
    found.add(BOX, (0.0, 14.0, 1.0), (0.5, 0.5, 1.0), GREY)  # too far away
    found.add(BOX, (1.0, 0.0, 0.25), (0.5, 0.5, 0.25), GREY)  # too low
    things = things_that_cover(found.shapes(), poses)
    assert things.middle.shape == (FRAMES, 1, 2)
    np.testing.assert_allclose(things.far[:, 0], covers(found.shapes(), poses).far[:, 0])


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_the_blocks_of_a_box_with_a_ball_on_top():
    """Two frames; in the second the box, the larger part, is moved ahead and lifted."""
    figure = ShapeList(2)
    figure.add(BOX, np.array([[0.1, 0.0, 0.5], [0.3, 0.0, 0.7]]), (0.5, 0.2, 0.5), GREY)
    figure.add(ELLIPSOID, np.array([[0.0, 0.3, 1.3], [0.0, 0.3, 1.3]]), (0.2, 0.2, 0.2), GREY)
    blocks = blocks_of(figure.shapes())
    assert vars(blocks.whole) == pytest.approx({"length": 0.8, "width": 0.5, "low": 0.0, "high": 1.5})
    assert vars(blocks.core) == pytest.approx({"length": 0.4, "width": 0.16, "low": 0.2, "high": 1.0})


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_whole_block_holds_the_figure_and_the_core_lies_within(name):
    subject = SUBJECTS[name](np.random.default_rng(1))
    whole, core = subject.blocks.whole, subject.blocks.core
    assert max(whole.length, whole.width) <= subject.radius + 1e-9
    assert subject.radius <= np.hypot(whole.length, whole.width) * 1.01
    assert whole.high == pytest.approx(subject.tall)
    assert 0 < core.length < whole.length
    assert 0 < core.width < whole.width
    assert 0 <= whole.low < core.low < core.high < whole.high


# --- outlines --------------------------------------------------------------------------------------------------------


def test_the_outline_of_a_slim_block_is_that_of_its_axis():
    rng = np.random.default_rng(3)
    track, way = camera(rng), Body(track=rng.uniform(-2, 2, (FRAMES, 2)), heading=np.zeros(FRAMES), radius=0.3, tall=1)
    seen = seen_from(track, way)
    screen = outline(Block(length=0.0, width=0.0, low=0.4, high=1.7), seen)
    for frame, pose in enumerate(track.world_from_camera()):
        for height, edge in ((0.4, screen.lower), (1.7, screen.upper)):
            spot, depth = seen_plainly(np.array([*way.track[frame], height]), pose)
            np.testing.assert_allclose([screen.left[frame], edge[frame], seen.ahead[frame]], [*spot, depth])
    np.testing.assert_array_equal(screen.left, screen.right)


@pytest.mark.parametrize(("degrees", "half"), [(0, 0.2), (90, 0.9), (180, 0.2), (45, 1.1 * np.sqrt(0.5))])
def test_a_block_is_as_wide_as_its_side_that_it_shows(degrees, half):
    track = CameraTrack(eye=np.array([[0.0, -10.0, 1.5]]), yaw=np.array([np.pi / 2 + 0.1]))
    heading = np.array([np.pi / 2 + np.deg2rad(degrees)])  # 0: it walks away from the camera
    seen = seen_from(track, Body(track=np.array([[0.0, 0.0]]), heading=heading, radius=0.9, tall=1.5))
    screen = outline(Block(length=0.9, width=0.2, low=0.0, high=1.5), seen)
    assert (screen.right - screen.left).item() == pytest.approx(2 * half / (10 * np.cos(0.1)))
    assert (screen.right + screen.left).item() / 2 == pytest.approx(np.tan(0.1))  # the camera looks to the left of it


def rectangles(rng: np.random.Generator, *shape: int) -> Outline:
    x, y, wide, high = rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape), *rng.uniform(0.1, 0.9, (2, *shape))
    return Outline(left=x - wide, right=x + wide, upper=y - high, lower=y + high)


def test_what_is_behind_one_of_those_that_cover_is_within_it_and_further_away():
    rng, ways, things = np.random.default_rng(5), 40, 3
    some = Covers(
        middle=rng.uniform(-0.5, 0.5, (FRAMES, things, 2)), half=rng.uniform(0.5, 1.5, (FRAMES, things, 2)),
        far=rng.uniform(2, 8, (FRAMES, things)), usable=rng.random((FRAMES, things)) < 0.7,
    )  # fmt: skip
    extra, ahead = rectangles(rng, FRAMES), rng.uniform(0, 8, FRAMES)
    ahead[2] = NEAREST / 2
    every = with_one_more(some, extra, ahead)
    body, nearest = rectangles(rng, ways, FRAMES), rng.uniform(2, 9, (ways, FRAMES))
    plain = np.zeros((ways, FRAMES), bool)
    for way, frame in np.ndindex(ways, FRAMES):
        left, right, upper, lower = (side[way, frame] for side in vars(body).values())
        for thing in range(things):
            (x, y), (wide, high) = some.middle[frame, thing], some.half[frame, thing]
            if some.usable[frame, thing] and some.far[frame, thing] < nearest[way, frame]:
                plain[way, frame] |= x - wide < left < right < x + wide and y - high < upper < lower < y + high
        if NEAREST < ahead[frame] < nearest[way, frame]:
            beside = extra.left[frame] < left and right < extra.right[frame]
            plain[way, frame] |= beside and extra.upper[frame] < upper and lower < extra.lower[frame]
    found = behind_any(body, nearest, every)
    np.testing.assert_array_equal(found, plain)
    assert (found & ~behind_any(body, nearest, some)).any()
    assert 0.02 < found.mean() < 0.9


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
def test_long_enough_is_a_run_of_so_many_frames(frames):
    hidden = np.random.default_rng(7).random((5, 6, 8)) < 0.6
    plain = np.array([[longest_run(row) >= frames for row in rows] for rows in hidden])
    np.testing.assert_array_equal(long_enough(hidden, frames), plain)


@pytest.mark.parametrize("frames", range(1, 12))
def test_half_of_the_frames_on_end_are_looked_at(frames):
    """A stretch of so many frames holds so many of those looked at, or one less, wherever it begins."""
    looked_at = range(20)[LOOKED_AT]
    held = [sum(first <= frame < first + frames for frame in looked_at) for first in (0, 1)]
    assert max(held) == frames_on_end(frames)
    assert min(held) >= frames_on_end(frames) - 1
