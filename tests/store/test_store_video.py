"""Video files: the frames that were written are read, all of them, or the file is refused by name."""

from __future__ import annotations

import os
import time

import av
import numpy as np
import pytest

from hmcli.errors import DataError
from hmcli.store import video as v
from hmcli.store.hashing import Content, hash_file, read_content

T, H, W = 11, 34, 46


def smooth(frames: int = T, height: int = H, width: int = W) -> np.ndarray:
    t, y, x = np.mgrid[:frames, :height, :width].astype(np.float64)
    red, green = 128 + 90 * np.sin(x / 19 + t / 9), 128 + 90 * np.cos(y / 17)
    blue = 128 + 60 * np.sin((x + y) / 21 - t / 9)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def labels(frames: int = T, height: int = H, width: int = W, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (frames, height, width), dtype=np.uint8)
    values[0].flat[:256] = np.arange(256)  # every label there is
    return values


@pytest.fixture
def clip(tmp_path):
    v.write_video(tmp_path / "clip.mp4", smooth(), fps=15)
    return tmp_path / "clip.mp4"


def remux(source, target, *, index_first: bool, name: str = "mp4") -> None:
    options = {"movflags": "+faststart"} if index_first else {}
    with av.open(str(source)) as given, av.open(str(target), "w", format=name, options=options) as made:
        stream = given.streams.video[0]
        copy = made.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                made.mux(packet)


def test_a_near_lossless_video_keeps_its_frames_and_looks_the_same(clip):
    assert v.probe_video(clip) == v.VideoInfo(frames=T, height=H, width=W, fps=15.0)
    frames = v.read_video(clip)
    assert frames.shape == (T, H, W, 3)
    assert frames.dtype == np.uint8
    error = ((frames.astype(float) - smooth()) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 38  # dB
    assert sorted(p.name for p in clip.parent.iterdir()) == ["clip.mp4"]


def test_near_lossless_is_what_browsers_play(clip):
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        frame = next(container.decode(stream))
        assert (frame.format.name, int(frame.colorspace), int(frame.color_range)) == ("yuv420p", 5, 1)
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_decord_and_pyav_read_the_same_pixels(tmp_path, clip):
    pytest.importorskip("decord")
    v.write_video(tmp_path / "grey.mp4", labels(), fps=15, quality="lossless")
    v.write_video(tmp_path / "rgb.mp4", smooth(), fps=15, quality="lossless")
    for file in (clip, tmp_path / "grey.mp4", tmp_path / "rgb.mp4"):
        info = v.check_video(file)
        through_decord = v._read_decord(file, info, 0, T)
        assert through_decord is not None
        assert np.array_equal(through_decord, v._read_av(file, v.Display(), 0, T, labels=False))


@pytest.mark.parametrize("reader", ["first choice", "PyAV"])
@pytest.mark.parametrize(("height", "width"), [(H, W), (33, 47)])
def test_lossless_labels_are_bit_exact(tmp_path, height, width, reader, monkeypatch):
    if reader == "PyAV":
        monkeypatch.setattr(v, "_read_decord", lambda *arguments: None)
    written = labels(height=height, width=width)
    v.write_video(tmp_path / "mask.mp4", written, fps=15, quality="lossless")
    assert np.array_equal(v.read_labels(tmp_path / "mask.mp4"), written)


def test_lossless_colour_is_bit_exact(tmp_path):
    written = np.stack([labels(seed=seed) for seed in range(3)], axis=-1)
    v.write_video(tmp_path / "rgb.mp4", written, fps=15, quality="lossless")
    assert np.array_equal(v.read_video(tmp_path / "rgb.mp4"), written)


@pytest.mark.parametrize("quality", ["near-lossless", "lossless"])
def test_equal_frames_give_equal_bytes(tmp_path, quality):
    for name in ("one", "two"):
        v.write_video(tmp_path / f"{name}.mp4", iter(smooth()), fps=29.97, quality=quality)
        time.sleep(1.05 if name == "one" else 0)  # mp4 counts creation time in seconds
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert v.probe_video(tmp_path / "one.mp4").fps == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize("reader", ["first choice", "PyAV"])
def test_a_stretch_of_frames_is_exactly_that_stretch(clip, reader, monkeypatch):
    whole = v.read_video(clip)
    if reader == "PyAV":
        monkeypatch.setattr(v, "_read_decord", lambda *arguments: None)
    assert np.array_equal(v.read_video(clip, start=4, count=3), whole[4:7])
    assert np.array_equal(v.read_video(clip, start=9), whole[9:])
    for start, count in ((0, T + 1), (T, None), (9, 3), (-1, 2), (3, 0)):
        with pytest.raises(DataError, match="does not have these frames") as caught:
            v.read_video(clip, start=start, count=count)
        assert caught.value.where["has"] == f"{T} frames"


@pytest.mark.parametrize("share", [0.35, 0.7, 0.97])
def test_a_truncated_video_with_its_index_first_is_refused_with_both_counts(tmp_path, share):
    v.write_video(tmp_path / "whole.mp4", labels(), fps=15, quality="lossless")  # noise: no frame is small
    data = (tmp_path / "whole.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * share)])
    for reading in (v.probe_video, v.read_video, v.check_video):
        with pytest.raises(DataError, match="cut short") as caught:
            reading(cut)
        assert caught.value.where["file"] == cut
        assert caught.value.where["declared"] == f"{T} frames"
        assert 0 <= int(str(caught.value.where["decodable"]).split()[0]) < T
    with pytest.raises(DataError, match="cut short"):
        v.read_video(cut, start=0, count=1)


def test_a_truncated_video_with_its_index_last_is_refused(tmp_path, clip):
    remux(clip, tmp_path / "last.mp4", index_first=False)
    data = (tmp_path / "last.mp4").read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    assert len(v.read_video(tmp_path / "last.mp4")) == T
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(DataError, match=r"no readable video|no video stream") as caught:
        v.read_video(tmp_path / "cut.mp4")
    assert caught.value.where["file"] == tmp_path / "cut.mp4"


def test_a_truncated_matroska_is_refused(tmp_path):
    v.write_video(tmp_path / "whole.mp4", labels(), fps=15, quality="lossless")
    remux(tmp_path / "whole.mp4", tmp_path / "whole.mkv", index_first=False, name="matroska")
    assert np.array_equal(v.read_labels(tmp_path / "whole.mkv"), labels())
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cut short"):
        v.read_video(tmp_path / "cut.mkv")


def test_damage_that_players_conceal_is_refused_with_its_frame(tmp_path):
    v.write_video(tmp_path / "noise.mp4", np.repeat(labels()[..., None], 3, axis=-1), fps=15)
    data = bytearray((tmp_path / "noise.mp4").read_bytes())
    length = (len(data) - data.index(b"mdat")) // 3  # the middle third; a few bytes alone can go unnoticed in H.264
    data[-2 * length : -length] = bytes(255 - byte for byte in data[-2 * length : -length])
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(DataError, match=r"damaged") as caught:
        v.read_video(tmp_path / "bad.mp4")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n" * 50])
def test_what_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "x.mp4").write_bytes(content)
    for reading in (v.probe_video, v.read_video):
        with pytest.raises(DataError) as caught:
            reading(tmp_path / "x.mp4")
        assert ("0 bytes" in caught.value.what) == (content == b"")
        assert caught.value.where["file"] in (tmp_path / "x.mp4", str(tmp_path / "x.mp4"))
    with pytest.raises(DataError, match="missing"):
        v.read_video(tmp_path / "nowhere.mp4")
    with pytest.raises(DataError, match="missing"):
        v.read_video(tmp_path)


def test_a_file_with_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="no video stream") as caught:
        v.read_video(tmp_path / "sound.mp4")
    assert caught.value.where["found"] == "audio"


@pytest.mark.parametrize(
    ("frames", "quality", "match"),
    [
        (smooth(height=33), "near-lossless", "must be even"),
        (labels(), "near-lossless", "cannot be written near-lossless"),
        (smooth().astype(np.float32), "near-lossless", "float32"),
        (smooth()[:0], "lossless", "at least one frame"),
        (smooth()[..., :2], "lossless", "3 colours"),
        ([smooth()[0], smooth()[1, :20]], "near-lossless", "expected uint8"),
    ],
)
def test_frames_that_cannot_be_stored_as_asked_are_refused_and_leave_no_file(tmp_path, frames, quality, match):
    with pytest.raises(ValueError, match=match):
        v.write_video(tmp_path / "x.mp4", frames, fps=15, quality=quality)
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_is_checked_again(tmp_path, clip):
    assert len(v.read_video(clip)) == T
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 3 // 4])
    os.utime(clip, ns=(time.time_ns(), time.time_ns() + 1_000_000))
    with pytest.raises(DataError):
        v.read_video(clip)


def test_the_released_examples_read_in_full(shared):
    for file in sorted((shared / "data" / "hm-world-examples").glob("*.mp4")):
        info = v.probe_video(file)
        assert (info.frames, info.height, info.width, info.fps) == (77, 480, 832, 15.0)
        assert v.read_video(file, start=70, count=7).shape == (7, 480, 832, 3)


def test_a_video_decodes_from_its_bytes_as_from_its_file(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (7, 16, 24, 3), dtype=np.uint8)
    v.write_video(tmp_path / "a.mp4", frames, fps=5)
    content = read_content(tmp_path / "a.mp4")
    assert content.hash == hash_file(tmp_path / "a.mp4")
    expected = v.read_video(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").unlink()
    assert np.array_equal(v.read_video(content), expected)
    assert np.array_equal(v.read_video(content, start=2, count=3), expected[2:5])
    assert v.probe_video(content) == v.check_video(content)
    with pytest.raises(DataError, match="does not have these frames") as caught:
        v.read_video(content, count=9)
    assert caught.value.where["file"] == tmp_path / "a.mp4"
    for data in (b"", content.data[: len(content.data) // 2], b"no video"):
        with pytest.raises(DataError) as caught:
            v.read_video(Content(tmp_path / "a.mp4", data))
        assert caught.value.where["file"] == tmp_path / "a.mp4"
