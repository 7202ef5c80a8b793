"""Framing: crops, masks and lengths."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.world.views.framing import (
    frame_count,
    red_mask,
    resize_boxes,
    resize_frames,
    resize_intrinsics,
    resize_labels,
    source_box,
    to_frame_count,
    white_mask,
)


def test_crop_takes_the_largest_centred_part_of_the_right_shape():
    assert source_box((40, 100), (20, 30), "crop") == (20.0, 0.0, 80.0, 40.0)
    assert source_box((100, 40), (20, 40), "crop") == (0.0, 40.0, 40.0, 60.0)
    assert source_box((40, 100), (20, 30), "stretch") == (0.0, 0.0, 100.0, 40.0)


def test_a_point_and_its_intrinsics_move_together():
    video = np.zeros((2, 60, 100, 3), dtype=np.uint8)
    video[:, 27:33, 67:73] = 255  # centre at x 70, y 30
    intrinsics = np.array([120.0, 110.0, 50.0, 30.0])
    ray = (70 - intrinsics[2]) / intrinsics[0], (30 - intrinsics[3]) / intrinsics[1]
    for fit in ("crop", "stretch"):
        small = resize_frames(video, (24, 32), fit)[0, :, :, 0].astype(float)
        rows, columns = np.mgrid[0.5:24, 0.5:32]
        x, y = (np.sum(axis * small) / small.sum() for axis in (columns, rows))
        fx, fy, cx, cy = resize_intrinsics(intrinsics, (60, 100), (24, 32), fit)
        assert (x - cx) / fx == pytest.approx(ray[0], abs=1e-3)
        assert (y - cy) / fy == pytest.approx(ray[1], abs=1e-3)


def test_a_box_moves_with_the_picture_inside_it():
    box = np.array([22.0, 10.0, 46.0, 34.0])
    video = np.zeros((1, 60, 100, 3), dtype=np.uint8)
    video[0, 10:34, 22:46] = 255
    for fit in ("crop", "stretch"):
        small = resize_frames(video, (30, 40), fit)[0, :, :, 0].astype(float) / 255
        left, top, right, bottom = resize_boxes(box, (60, 100), (30, 40), fit)
        rows, columns = np.mgrid[0.5:30, 0.5:40]
        assert (columns * small).sum() / small.sum() == pytest.approx((left + right) / 2, abs=0.02)
        assert (rows * small).sum() / small.sum() == pytest.approx((top + bottom) / 2, abs=0.02)
        assert small.sum() == pytest.approx((right - left) * (bottom - top), rel=0.02)
    none = np.full((2, 4), np.nan)
    assert np.isnan(resize_boxes(none, (60, 100), (30, 40), "crop")).all()
    np.testing.assert_array_equal(resize_boxes(box, (60, 100), (60, 100), "crop"), box)


def test_shrinking_is_antialiased_and_the_same_size_changes_nothing():
    stripes = np.zeros((1, 32, 48, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 200
    small = resize_frames(stripes, (8, 12), "crop").astype(int)
    assert abs(small - 100).max() <= 12  # stripes average out; without antialiasing they would be 0 or 200
    assert resize_frames(stripes, (32, 48), "crop") is stripes


def test_resizing_labels_invents_no_label():
    labels = np.zeros((1, 20, 30), dtype=np.uint8)
    labels[0, 10:, :] = 3
    small = resize_labels(labels, (4, 6), "crop")
    np.testing.assert_array_equal(small[0], np.repeat([[0], [0], [3], [3]], 6, axis=1))


def test_red_is_what_opencv_calls_red():
    values = (0, 60, 99, 100, 101, 140, 180, 220, 255)
    pixels = np.array([(r, g, b) for r in values for g in values for b in values], dtype=np.uint8)
    wanted = []
    for red, green, blue in pixels.astype(float) / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        hue, saturation, value = round(hue * 180), round(saturation * 255), round(value * 255)
        wanted.append((hue <= 10 or 160 <= hue <= 180) and saturation >= 100 and value >= 100)
    got = red_mask(pixels.reshape(1, 1, -1, 3))[0, 0]
    np.testing.assert_array_equal(got & (pixels.max(axis=1) > pixels.min(axis=1)), got)  # grey is never red
    assert 20 < sum(wanted) < len(wanted) / 2
    np.testing.assert_array_equal(got, wanted)


def test_white_is_brighter_than_half_grey():
    video = np.array([0, 100, 127, 128, 255], dtype=np.uint8).reshape(1, 1, 5, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(white_mask(video)[0, 0], [False, False, False, True, True])


def test_other_lengths_than_4k_plus_1_are_refused_with_both_neighbours():
    assert [frame_count(frames, "refuse") for frames in (1, 5, 77)] == [1, 5, 77]
    with pytest.raises(DataError, match="78 frames are not 4k") as refused:
        frame_count(78, "refuse")
    assert "77 and 81" in str(refused.value)
    assert "data.frames=trim" in refused.value.fix
    assert "data.frames=pad" in refused.value.fix
    assert (frame_count(78, "trim"), frame_count(78, "pad")) == (77, 81)
    assert (frame_count(4, "trim"), frame_count(4, "pad")) == (1, 5)


def test_padding_repeats_the_last_entry():
    np.testing.assert_array_equal(to_frame_count(np.arange(3), 5), [0, 1, 2, 2, 2])
    np.testing.assert_array_equal(to_frame_count(np.arange(7), 5), np.arange(5))
