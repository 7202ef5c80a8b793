"""Strips: the context plays first, then the targets at one time, in their own pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hmcli.reports.contact_sheet import LINE
from hmcli.reports.strip import GAP, StripRow, animate, save_animation, stills

NAMES = ("context", "truth", "ours")


def flat(frames: int, base: int) -> np.ndarray:
    """(frames, 8, 12, 3): every frame one grey that names it."""
    return np.broadcast_to(base + np.arange(frames)[:, None, None, None], (frames, 8, 12, 3)).astype(np.uint8)


def row(context: int = 4, target: int = 3) -> StripRow:
    return StripRow(context=flat(context, 100), targets=(flat(target, 150), flat(target, 200)))


def colours(frames: np.ndarray, columns: int = 3, scale: int = 1) -> list[list[int]]:
    """The colour of each column's video, frame by frame."""
    at = [(LINE + 4 * scale, column * (12 * scale + GAP) + 6 * scale) for column in range(columns)]
    return [[int(frame[y, x, 0]) for y, x in at] for frame in frames]


@pytest.mark.parametrize("scale", [1, 3])
def test_the_context_plays_alone_then_the_targets_play_together_and_stand(scale):
    shown = colours(animate([row()], NAMES, fps=5, scale=scale), scale=scale)
    dim = [int(value * 0.35) for value in (103, 150, 200)]
    assert shown[:4] == [[100 + at, *dim[1:]] for at in range(4)]
    assert shown[4:7] == [[dim[0], 150 + at, 200 + at] for at in range(3)]
    assert shown[7:] == [[dim[0], 152, 202]] * 4


def test_clips_of_other_lengths_wait_for_the_longest():
    frames = animate([row(), row(context=2, target=1)], NAMES, fps=5)
    lower = frames[:, 8 + GAP :]
    assert [one[0] for one in colours(lower)][:4] == [100, 101, 101, 101]
    assert [one[1] for one in colours(lower)][4:7] == [150] * 3


def test_a_picture_has_a_line_for_every_video_with_its_first_and_last_frames():
    picture = stills([row(9, 5)], NAMES)
    high = 8 + LINE + GAP
    for line, (first, last) in enumerate(((100, 108), (150, 154), (200, 204))):
        y = line * high + LINE + 4
        assert (int(picture[y, 2, 0]), int(picture[y, -2, 0])) == (first, last)


@pytest.mark.parametrize("name", ["s.webp", "s.gif"])
def test_an_animation_loops_at_the_clips_rate_and_fits(name, tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (8, 24, 40, 3), np.uint8)
    frames = np.concatenate([frames, frames[-1:], frames[-1:]])
    size = save_animation(frames, 10, tmp_path / name, 2**20)
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.info["loop"], image.size) == (name[2:].upper(), 0, frames.shape[2:0:-1])
        lasts = []
        for number in range(image.n_frames):  # equal ones are one that lasts longer
            image.seek(number)
            image.load()
            lasts.append(image.info["duration"])
        assert lasts[:6] == [100] * 6  # frame by frame
        assert sum(lasts) == 100 * len(frames)
    assert size == (tmp_path / name).stat().st_size


def test_what_does_not_fit_is_refused_with_its_size_and_nothing_stays(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (9, 128, 128, 3), np.uint8)
    with pytest.raises(ValueError, match=r"MiB, at most 0.03"):
        save_animation(noise, 10, tmp_path / "s.webp", round(0.03 * 2**20))
    assert list(tmp_path.iterdir()) == []


def test_quality_is_lowered_until_it_fits(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    best = save_animation(noise, 10, tmp_path / "best.webp", 2**20)
    assert save_animation(noise, 10, tmp_path / "less.webp", best - 1) < best


def test_videos_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        StripRow(context=flat(4, 0), targets=(flat(3, 0), flat(2, 0)))
    with pytest.raises(ValueError, match="differ in size"):
        StripRow(context=flat(4, 0), targets=(flat(3, 0)[:, :4],))
    with pytest.raises(ValueError, match="2 labels"):
        animate([row()], NAMES[:2], fps=5)
    with pytest.raises(ValueError, match="uint8"):
        StripRow(context=flat(4, 0).astype(np.float32), targets=())
