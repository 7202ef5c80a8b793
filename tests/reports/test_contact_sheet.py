"""Contact sheets show the right frames, once each, with their own pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hmcli.reports.contact_sheet import (
    LINE,
    MARGIN,
    contact_sheet,
    cut_strip,
    lay_out,
    load_strips,
    save_png,
    save_strips,
    spaced_frames,
)


def ramp(frames: int, height: int, width: int) -> np.ndarray:
    """Every frame one flat colour that names it."""
    colours = np.stack([np.arange(frames) * 3 + 10, np.arange(frames) + 100, 250 - np.arange(frames)], axis=1)
    return np.broadcast_to(colours[:, None, None, :], (frames, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("frames", "columns", "expected"),
    [(77, 3, [0, 38, 76]), (5, 5, [0, 1, 2, 3, 4]), (2, 8, [0, 1]), (1, 4, [0]), (9, 1, [0])],
)
def test_frames_are_evenly_spaced_from_first_to_last_without_repeats(frames, columns, expected):
    assert spaced_frames(frames, columns) == expected


def test_every_cell_holds_the_pixels_of_its_frame():
    video = ramp(33, 10, 14)
    sheet = contact_sheet([("one", video)], columns=4)
    for column, index in enumerate(spaced_frames(33, 4)):
        left = MARGIN + column * (14 + MARGIN)
        assert (sheet[LINE : LINE + 10, left : left + 14] == video[index]).all()


def test_rows_may_differ_in_length_and_size_and_stand_below_each_other():
    first, second = ramp(9, 10, 14), ramp(3, 20, 12)
    sheet = contact_sheet([("truth", first), ("made", second)], columns=4)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * (2 * LINE + 2 * MARGIN) + 10 + 20, 4 * (14 + MARGIN) + MARGIN, 3)
    top = 2 * LINE + 2 * MARGIN + 10 + LINE
    assert (sheet[top : top + 20, MARGIN : MARGIN + 12] == second[0]).all()


def test_labels_and_frame_numbers_are_drawn():
    video = ramp(3, 12, 90)
    named, nameless = contact_sheet([("a clip", video)], columns=3), contact_sheet([("", video)], columns=3)
    assert (named[:LINE] < 100).any()
    assert not (nameless[:LINE] < 100).any()
    assert (nameless[LINE + 12 :] < 100).any()


def test_a_long_label_is_shortened_and_stays_on_one_line():
    sheet = contact_sheet([("word\n" * 200, ramp(2, 12, 60))], columns=2)
    assert sheet.shape[1] == 2 * (60 + MARGIN) + MARGIN
    assert (sheet[:LINE, -MARGIN:] == 255).all()


def test_large_frames_are_scaled_down_and_keep_their_shape():
    sheet = contact_sheet([("wide", ramp(2, 48, 80))], columns=2, cell_width=40)
    assert sheet.shape == (2 * LINE + 2 * MARGIN + 24, 2 * (40 + MARGIN) + MARGIN, 3)


def test_an_empty_sheet_and_float_videos_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([])
    with pytest.raises(ValueError, match="'bad' must be"):
        contact_sheet([("bad", ramp(2, 4, 5) / 255.0)])


def test_a_saved_sheet_is_read_back_unchanged(tmp_path):
    sheet = contact_sheet([("x", ramp(3, 8, 12))], columns=3)
    save_png(sheet, tmp_path / "new" / "sheet.png")
    assert (np.asarray(Image.open(tmp_path / "new" / "sheet.png")) == sheet).all()


def test_strips_that_were_kept_make_the_same_sheet(tmp_path: Path):
    rng = np.random.default_rng(0)
    videos = {label: rng.integers(0, 256, (frames, 6, 9, 3), dtype=np.uint8) for label, frames in [("a", 12), ("b", 3)]}
    strips = {"clip": [cut_strip(label, video) for label, video in videos.items()]}
    save_strips(strips, tmp_path / "one.npz")
    save_strips(strips, tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    kept = load_strips((tmp_path / "one.npz").read_bytes())
    assert list(kept) == ["clip"]
    assert np.array_equal(lay_out(kept["clip"]), contact_sheet(list(videos.items())))


def test_frames_that_were_chosen_of_a_long_video_make_the_strip_of_all_of_it():
    video = np.random.default_rng(1).integers(0, 256, (50, 6, 9, 3), dtype=np.uint8)
    numbers = spaced_frames(50, 8)
    chosen, whole = cut_strip("x", video[numbers], numbers=numbers), cut_strip("x", video)
    assert chosen.frames == whole.frames
    assert np.array_equal(chosen.cells, whole.cells)
    with pytest.raises(ValueError, match="2 frames for 8 numbers"):
        cut_strip("x", video[:2], numbers=numbers)


def test_what_holds_no_strips_is_refused(tmp_path: Path):
    np.savez(tmp_path / "cells.npz", said=np.array('[["clip", "a", [0, 1]]]'), **{"cells 0": np.zeros((1, 2, 2, 3))})
    np.savez(tmp_path / "said.npz", said=np.array("[1]"))
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    np.savez(tmp_path / "code.npz", said=np.array([{}], dtype=object))
    for data in [b"", b"PK", b"text", *(file.read_bytes() for file in tmp_path.iterdir())]:
        with pytest.raises(ValueError):
            load_strips(data)
