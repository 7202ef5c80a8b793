"""Videos as cameras make them: turned, mirrored, of other than square pixels, interlaced, of ten bits, of uneven times.

Every file is made here, and read with decord and without: it means one thing.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.store import video as v

T, H, W = 5, 48, 80  # what is stored
ONE, WHOLE = 1 << 16, 1 << 30  # 16.16 and 2.30 fixed point
COLOURS = np.array([[200, 40, 40], [40, 180, 40], [40, 40, 200], [200, 200, 40]])  # of the quarters of a picture


def pictures() -> np.ndarray:
    """(T, H, W, 3): four quarters, the first of them brighter from frame to frame."""
    frames = np.empty((T, H, W, 3), np.uint8)
    for quarter, colour in enumerate(COLOURS):
        rows, columns = slice(quarter // 2 * H // 2, None), slice(quarter % 2 * W // 2, None)
        frames[:, rows, columns] = colour
    frames[:, : H // 2, : W // 2] = (COLOURS[0] + 10 * np.arange(T)[:, None])[:, None, None]
    return frames


def write(
    path: Path, *, codec: str = "libx264", pixels: str = "yuv420p", times: list[float] | None = None,
    options: dict[str, str] | None = None, frames: np.ndarray | None = None, **context: Any,
) -> Path:  # fmt: skip
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width, stream.pix_fmt = H, W, pixels
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for number, picture in enumerate(pictures() if frames is None else frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                stream.codec_context.time_base = frame.time_base = Fraction(1, 1000)
                frame.pts = round(1000 * times[number])
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """The track header of an mp4 says where (x, y) is shown: at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    fixed = [round(value * ONE) for value in (a, b, 0, c, d, 0, 0, 0)]
    content[at : at + 36] = struct.pack(">9i", *fixed, WHOLE)
    path.write_bytes(content)
    return path


@pytest.fixture(params=["decord", "PyAV"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "decord":
        pytest.importorskip("decord")
    else:
        monkeypatch.setattr(v, "_read_decord", lambda *arguments: None)
    return request.param


def near(found: np.ndarray, wanted: np.ndarray, most: float = 6) -> bool:
    """Alike but for the compression: the middles of the quarters agree."""
    assert found.shape == wanted.shape
    height, width = found.shape[1:3]
    spots = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return all(np.abs(found[:, y, x].astype(int) - wanted[:, y, x]).max() <= most for y, x in spots)


TURNS = {  # how a phone says that it was held, and the picture that its owner saw
    "90": ((0, 1, -1, 0), lambda frames: np.rot90(frames, -1, axes=(1, 2))),
    "180": ((-1, 0, 0, -1), lambda frames: frames[:, ::-1, ::-1]),
    "270": ((0, -1, 1, 0), lambda frames: np.rot90(frames, 1, axes=(1, 2))),
    "mirrored": ((-1, 0, 0, 1), lambda frames: frames[:, :, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda frames: frames[:, ::-1]),
    "mirrored and turned": ((0, 1, 1, 0), lambda frames: frames.swapaxes(1, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_video_is_read_upright(tmp_path: Path, reader: str, turn: str):
    matrix, upright = TURNS[turn]
    file = with_matrix(write(tmp_path / "phone.mp4"), *matrix)
    wanted = upright(pictures())
    info = v.probe_video(file)
    assert (info.height, info.width) == wanted.shape[1:3]
    assert len(info.notes) == 1
    assert near(v.read_video(file), wanted)
    assert near(v.read_video(file, start=2, count=2), wanted[2:4])


def test_an_untouched_matrix_changes_nothing(tmp_path: Path, reader: str):
    file = with_matrix(write(tmp_path / "plain.mp4"), 1, 0, 0, 1)
    assert v.probe_video(file).notes == ()
    assert near(v.read_video(file), pictures())


def test_a_turn_that_is_no_quarter_is_refused(tmp_path: Path):
    file = with_matrix(write(tmp_path / "tilted.mp4"), 0.9, 0.4, -0.4, 0.9)
    for reading in (v.probe_video, v.read_video):
        with pytest.raises(DataError, match="no quarter of a turn"):
            reading(file)


@pytest.mark.parametrize(("ratio", "size"), [(Fraction(4, 3), (H, 107)), (Fraction(1, 2), (2 * H, W))])
def test_pixels_that_are_not_square_are_made_square(tmp_path: Path, reader: str, ratio: Fraction, size: tuple):
    file = write(tmp_path / "wide.mp4", sample_aspect_ratio=ratio)
    info = v.probe_video(file)
    assert (info.height, info.width) == size
    assert "made square" in info.notes[0]
    assert near(v.read_video(file), _stretched(pictures(), size))


def test_the_stored_size_is_told_where_stretching_is_all_that_is_done(tmp_path: Path):
    wide = write(tmp_path / "wide.mp4", sample_aspect_ratio=Fraction(4, 3))
    assert v.probe_video(wide).stretched_from == (H, W)
    turned = with_matrix(write(tmp_path / "both.mp4", sample_aspect_ratio=Fraction(2)), 0, 1, -1, 0)
    assert v.probe_video(turned).stretched_from is None  # whether poses are turned too, nobody says
    assert v.probe_video(write(tmp_path / "plain.mp4")).stretched_from is None


def _stretched(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows = np.arange(size[0]) * H // size[0]
    return frames[:, rows][:, :, np.arange(size[1]) * W // size[1]]


def test_labels_are_not_mixed_when_their_pixels_are_stretched(tmp_path: Path):
    labels = np.zeros((T, H, W, 3), np.uint8)
    labels[:, :, W // 3 :] = 200
    file = write(tmp_path / "labels.mp4", codec="libx264rgb", pixels="rgb24", options={"qp": "0"}, frames=labels,
                 sample_aspect_ratio=Fraction(4, 3))  # fmt: skip
    assert set(np.unique(v.read_labels(file))) == {0, 200}


def test_a_turned_picture_of_wide_pixels_is_stretched_before_it_is_turned(tmp_path: Path, reader: str):
    file = with_matrix(write(tmp_path / "both.mp4", sample_aspect_ratio=Fraction(2)), 0, 1, -1, 0)
    assert near(v.read_video(file), np.rot90(_stretched(pictures(), (H, 2 * W)), -1, axes=(1, 2)))


@pytest.mark.parametrize(
    ("codec", "pixels", "options"),
    [
        ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}), ("libx264", "yuv422p", {}),
        ("libx264", "yuv444p", {}), ("libx264", "yuvj420p", {}), ("libvpx-vp9", "yuv420p", {}),
    ],
)  # fmt: skip
def test_pixels_of_every_format_have_one_meaning(
    tmp_path: Path, codec: str, pixels: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    file = write(tmp_path / "video.mp4", codec=codec, pixels=pixels, options=options)
    first = v.read_video(file)
    monkeypatch.setattr(v, "_read_decord", lambda *arguments: None)
    assert np.array_equal(first, v.read_video(file))
    assert near(first, pictures(), most=12)


def test_interlaced_pictures_are_made_whole_alike(tmp_path: Path, reader: str):
    """A bar that moves between the half pictures of a frame leaves combs where nobody undoes it."""
    still = np.full((T, H, W, 3), 60, np.uint8)
    for number in range(T):
        for half in range(2):
            left = 8 * (2 * number + half)
            still[number, half::2, left : left + 12] = 220
    flags = av.codec.context.Flags
    file = write(tmp_path / "tape.mpg", codec="mpeg2video", frames=still, bit_rate=8_000_000,
                 flags=flags.interlaced_dct | flags.interlaced_me)  # fmt: skip
    assert v.probe_video(file).notes == ("interlaced pictures are deinterlaced",)
    found = v.read_video(file)
    assert found.shape == still.shape

    def combs(frames: np.ndarray) -> float:
        grey = frames[1:-1].mean(axis=-1)
        return float(np.abs(2 * grey[:, 1:-1] - grey[:, :-2] - grey[:, 2:]).mean())

    assert combs(found) < 0.35 * combs(still)
    assert np.array_equal(v.read_video(file, start=1, count=2), found[1:3])


UNEVEN = [0.0, 0.1, 0.16, 0.5, 0.56]


@pytest.mark.parametrize(("name", "codec"), [("v.mp4", "libx264"), ("v.webm", "libvpx"), ("v.mkv", "libx264")])
def test_every_frame_of_a_variable_rate_is_read_once_with_its_time(tmp_path: Path, reader: str, name: str, codec: str):
    file = write(tmp_path / name, codec=codec, times=UNEVEN)
    info = v.probe_video(file)
    assert (info.frames, info.varies) == (T, True)
    assert info.fps == pytest.approx((T - 1) / UNEVEN[-1], rel=1e-2)
    assert "apart" in info.notes[0]
    np.testing.assert_allclose(v.frame_times(file), UNEVEN, atol=2e-3)
    assert near(v.read_video(file), pictures(), most=16)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_constant_rate_is_none_that_varies_however_times_are_rounded(tmp_path: Path, name: str):
    file = tmp_path / name
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30000, 1001))
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        for picture in np.concatenate([pictures()] * 3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    info = v.probe_video(file)
    assert (info.varies, info.notes) == (False, ())
    assert info.fps == pytest.approx(29.97, abs=0.01)
    np.testing.assert_allclose(v.frame_times(file), np.arange(3 * T) * 1001 / 30000, atol=1e-3)


def test_half_of_a_phones_file_is_said_to_be_cut(tmp_path: Path, reader: str):
    file = write(tmp_path / "phone.mkv", frames=np.concatenate([pictures()] * 4))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    for reading in (v.probe_video, v.read_video):
        with pytest.raises(DataError, match="cut short"):
            reading(file)


def test_sound_alone_is_no_video(tmp_path: Path):
    file = tmp_path / "sound.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="no video stream"):
        v.probe_video(file)


@pytest.mark.parametrize(("number", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_named_and_an_ordinary_curve_is_not(tmp_path: Path, number: int, name: str):
    (note,) = v.probe_video(write(tmp_path / "phone.mp4", pixels="yuv420p10le", color_trc=number)).notes
    assert f"({name}) are taken without tone mapping" in note
    assert v.probe_video(write(tmp_path / "plain.mp4", pixels="yuv420p10le", color_trc=1)).notes == ()
