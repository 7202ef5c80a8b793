"""Video files: probe, read and write, without ever losing a frame in silence.

Frames are uint8 RGB (T, H, W, 3). Every file is first checked with PyAV, which compares the frames its header declares
with those that are there and decodes each one (0.3 s for 77 frames of 832x480), because players and decord conceal
damage; what the decoder does not notice either (H.264 has no checksums) goes through. Then decord reads the pixels
where both are known to give the same values; PyAV where decord is absent or fails, and of every video that is turned,
interlaced, of variable rate, of other than square pixels or 8 bits (hmcli.store.display says what becomes of them).

Two qualities are written, both H.264 in mp4, byte-identical for equal input. `near-lossless`: yuv420p, crf 10, BT.601
limited range and tagged so; browsers play it; even sides only. `lossless`: qp 0, as full-range grey for (T, H, W)
labels 0..255 and as RGB for (T, H, W, 3); bit-exact in both readers, but not every browser plays it.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hmcli.errors import DataError
from hmcli.store.display import Display, deinterlaced, display_of
from hmcli.store.hashing import Content

UNEVEN = 0.5  # of the usual distance of frames: what differs by more is no rounding
Quality = Literal["near-lossless", "lossless"]
_FIX = "replace the file with a whole copy, or leave the clip out"
_BT601 = {"colorspace": 5, "color_primaries": 6, "color_trc": 6}  # SMPTE 170M, as ITU-T H.273 numbers them
_LIMITED, _FULL = 1, 2  # AVColorRange


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Size in pixels as shown, number of frames, frames per second (the mean, where it varies)."""

    frames: int
    height: int
    width: int
    fps: float
    varies: bool = False  # are frames further apart here than there?
    notes: tuple[str, ...] = ()  # what is done to its pictures, and what varies
    stretched_from: tuple[int, int] | None = None  # stored height, width, where pictures are those with square pixels
    times: tuple[float, ...] = field(default=(), repr=False, compare=False)  # seconds from the first frame to each


Video = Path | str | Content  # a file, or its bytes as they were read


def probe_video(path: Video) -> VideoInfo:
    """Size and number of frames, from the packets rather than the header alone; decodes the first frame.

    Raises DataError when the file is missing, no video, empty, or shorter than its header says.
    """
    return _looked(path)


def plays_in_browsers(path: Video) -> bool:
    """Is it H.264 of 8 bits with halved colours (what `near-lossless` writes), which every browser plays?"""
    with _opened(path) as container:
        context = container.streams.video[0].codec_context
        return bool(context.name == "h264" and context.pix_fmt == "yuv420p" and "mp4" in container.format.name)


def frame_times(path: Video) -> np.ndarray:
    """(T,) seconds from the first frame to each, as the file says when they are shown."""
    return np.array(_looked(path).times)


def _looked(path: Video) -> VideoInfo:
    with _opened(path) as container:
        stream, where = container.streams.video[0], _where(path)
        stream.codec_context.thread_count = 1  # the first frame after as few packets as can be
        declared, found, damaged, lead = stream.frames, 0, 0, 0
        shown: list[int] = []
        first = None
        try:
            for packet in container.demux(stream):
                found += packet.size > 0
                damaged += packet.size > 0 and packet.is_corrupt
                lead += packet.size > 0 and packet.is_discard
                if packet.pts is not None and packet.size > 0 and not packet.is_discard:
                    shown.append(packet.pts)
                first = first or _first_of(packet)
        except _av_errors() as error:
            raise _short(path, declared, found, error) from error
        if damaged or found < declared or found == 0 or _ends_early(stream, shown):
            raise _short(path, declared or "more", found - damaged)
        fps = stream.average_rate or stream.guessed_rate
        if not fps:
            raise DataError("the video has no frame rate", where=where, fix=_FIX)
        times = _seconds(shown, found - lead, float(fps), stream.time_base)
        display = Display() if first is None else display_of(stream, first, where=where)
        stored = (stream.codec_context.height, stream.codec_context.width)
        height, width = display.size(*stored)
        stretched = display.pixel != 1 and not display.turned
        varies = _varies(times)
        if varies:
            fps = (len(times) - 1) / times[-1]
        said = (f"frames are {np.diff(times).min():.3f} to {np.diff(times).max():.3f} s apart",) if varies else ()
        return VideoInfo(
            frames=found - lead, height=height, width=width, fps=float(fps), varies=varies,
            notes=(*display.notes, *said), times=tuple(times.tolist()),
            stretched_from=stored if stretched else None,
        )  # fmt: skip


def _first_of(packet: Any) -> Any:
    """A frame that this packet completes; None where there is none, or it is damaged (`check_video` says it)."""
    try:
        return next(iter(packet.decode()), None)
    except _av_errors():
        return None


def _seconds(shown: list[int], frames: int, fps: float, unit: Fraction | None) -> np.ndarray:
    """(T,) seconds from the first frame on; as the rate says, where not every frame has a time."""
    if len(shown) != frames or unit is None:
        return np.arange(frames) / fps
    times = np.sort(np.array(shown)) * float(unit)
    return np.asarray(times - times[0])


def _varies(times: np.ndarray) -> bool:
    """Do frames come at other than one rate? Times that are rounded to their unit differ by less."""
    apart = np.diff(times)
    return len(apart) > 1 and bool(np.abs(apart - np.median(apart)).max() > UNEVEN * np.median(apart))


def check_video(path: Video) -> VideoInfo:
    """Decode every frame. Raises DataError when one is missing or damaged; what it returns can be read in full."""
    return _known(path)[0]


def _known(path: Video) -> tuple[VideoInfo, Display]:
    """The same, and how its frames are shown."""
    if isinstance(path, Content):
        return _decoded(path)
    place = Path(path)
    try:
        stat = place.stat()
    except OSError:
        probe_video(place)  # raises
        raise
    return _checked(place, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=4096)
def _checked(path: Path, identity: tuple[int, ...]) -> tuple[VideoInfo, Display]:
    """`identity` is there for the cache: a file that was replaced is another file."""
    return _decoded(path)


def _decoded(path: Video) -> tuple[VideoInfo, Display]:
    info, where = probe_video(path), _where(path)
    decoded, display, interlaced, stored = 0, Display(), False, (0, 0)
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # with more, whether damage is noticed is a matter of luck
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise DataError("a frame of the video is damaged", where={**where, "frame": decoded}, fix=_FIX)
                if not decoded:
                    display, stored = display_of(stream, frame, where=where), (frame.height, frame.width)
                if (frame.height, frame.width) != stored:
                    what = f"the video changes its size from {stored[1]}x{stored[0]} to {frame.width}x{frame.height}"
                    raise DataError(what, where={**where, "frame": decoded}, fix=_FIX)
                interlaced |= bool(frame.interlaced_frame)
                decoded += 1
        except _av_errors() as error:
            raise _short(path, info.frames, decoded, error) from error
    if decoded != info.frames:
        raise _short(path, info.frames, decoded)
    return info, replace(display, interlaced=interlaced)


def read_video(path: Video, *, start: int = 0, count: int | None = None, labels: bool = False) -> np.ndarray:
    """Frames start..start+count (to the end by default) as uint8 (T, H, W, 3) RGB; exactly that many, or DataError.

    `labels` are numbers: where pixels are stretched, they are not mixed.
    """
    info, display = _known(path)
    stop = info.frames if count is None else start + count
    if not 0 <= start < stop <= info.frames:
        where: dict[str, object] = {
            "file": _place(path),
            "asked": f"frames {start} to {stop - 1}",
            "has": f"{info.frames} frames",
        }
        raise DataError("the video does not have these frames", where=where)
    frames = _read_decord(path, info, start, stop) if display.plain and not info.varies else None
    if frames is None:
        frames = _read_av(path, display, start, stop, labels)
    if frames.shape != (stop - start, info.height, info.width, 3):
        raise _short(path, stop - start, len(frames))
    return frames


def read_labels(path: Video, *, start: int = 0, count: int | None = None) -> np.ndarray:
    """The same for label or mask videos: uint8 (T, H, W), exact for what `write_video(..., "lossless")` wrote."""
    return read_video(path, start=start, count=count, labels=True)[..., 0].copy()


def _read_decord(path: Video, info: VideoInfo, start: int, stop: int) -> np.ndarray | None:
    """Pixels through decord; None where it is not installed, fails, or counts other frames than PyAV does."""
    try:
        import decord
    except (ImportError, OSError):  # OSError: installed, but its library does not load here
        return None
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(io.BytesIO(path.data) if isinstance(path, Content) else str(path))
        if len(reader) != info.frames:
            return None
        return np.asarray(reader.get_batch(range(start, stop)).asnumpy())
    except (RuntimeError, decord.DECORDError):
        return None


def _read_av(path: Video, display: Display, start: int, stop: int, labels: bool) -> np.ndarray:
    pictures: list[np.ndarray] = []
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        if display.interlaced:
            frames = deinterlaced(frames, stream)
        try:
            for frame in itertools.islice(frames, start, stop):
                pictures.append(display.shown(frame.to_ndarray(format="rgb24"), labels=labels))
        except _av_errors() as error:
            raise _short(path, stop - start, len(pictures), error) from error
    if len(pictures) != stop - start:
        raise _short(path, stop - start, len(pictures))
    return np.stack(pictures)


def _av_errors() -> tuple[type[BaseException], ...]:
    import av

    return (av.error.FFmpegError,)


def _opened(path: Video) -> Any:
    """A PyAV container with a video stream. Raises DataError saying what the file is instead."""
    import av

    av.logging.set_level(None)  # what FFmpeg would print is in the errors
    place = _place(path)
    if not isinstance(path, Content) and not place.is_file():
        raise DataError("the video file is missing", where={"file": place})
    if (len(path.data) if isinstance(path, Content) else place.stat().st_size) == 0:
        raise DataError("the video file is empty (0 bytes)", where={"file": place}, fix=_FIX)
    try:
        container = av.open(io.BytesIO(path.data) if isinstance(path, Content) else str(place))
    except (av.error.FFmpegError, OSError) as error:
        what = "the file is no readable video (cut short before its index, or of another type)"
        raise DataError(what, where={"file": place, "at": error}, fix=_FIX) from error
    if not container.streams.video:
        found = ", ".join(stream.type for stream in container.streams) or "nothing"
        container.close()
        raise DataError("the file has no video stream", where={"file": place, "found": found}, fix=_FIX)
    return container


def _ends_early(stream: Any, shown: list[int]) -> bool:
    """Does a container without a frame count (Matroska) end before the duration it declares for this track?"""
    declared = stream.metadata.get("DURATION")
    if stream.frames or not declared or not stream.average_rate or len(shown) < 2:
        return False
    hours, minutes, seconds = declared.split(":")
    length = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    times = np.sort(np.array(shown)) * float(stream.time_base)
    usual = max(np.diff(times).max(), 1 / float(stream.average_rate))
    return bool(length - times[-1] > 2.5 * usual)


def _where(path: Video) -> dict[str, object]:
    return {"file": _place(path)}


def _place(path: Video) -> Path:
    return path.path if isinstance(path, Content) else Path(path)


def _short(path: Video, declared: object, found: int, error: BaseException | None = None) -> DataError:
    where: dict[str, object] = {"file": _place(path), "declared": f"{declared} frames", "decodable": f"{found} frames"}
    if error is not None:
        where["at"] = error
    return DataError("the video is cut short or damaged", where=where, fix=_FIX)


_LOSSLESS = {"qp": "0"}
# x264's look-ahead for weighted prediction and mbtree may choose differently from run to run on one machine.
_NEAR_LOSSLESS = {"crf": "10", "x264-params": "weightp=0:mbtree=0"}


def write_video(
    path: Path | str, frames: np.ndarray | Iterable[np.ndarray], *, fps: float, quality: Quality = "near-lossless"
) -> None:
    """Write uint8 frames, (T, H, W, 3) or one by one, by rename; `lossless` also takes (T, H, W) labels.

    Raises ValueError for frames that cannot be stored as asked (odd sides, another dtype, no frame at all).
    """
    place = Path(path)
    arriving = iter(frames)
    if (first := next(arriving, None)) is None:
        raise ValueError(f"{place.name}: a video needs at least one frame")
    _check_frame(first, first.shape, quality, place.name)
    temporary = place.with_name(f".tmp-{os.getpid()}-{place.name}")
    try:
        _encode(temporary, chain([first], arriving), first.shape, fps, quality, place.name)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(
    path: Path, frames: Iterator[np.ndarray], shape: tuple[int, ...], fps: float, quality: Quality, name: str
) -> None:
    import av
    from av.video.reformatter import VideoReformatter

    lossless, grey = quality == "lossless", len(shape) == 2
    source = "gray" if grey else "rgb24"
    options = {"movflags": "+faststart", "fflags": "+bitexact"}  # index first: browsers start at once
    with av.open(str(path), "w", format="mp4", options=options) as container:
        rate = Fraction(float(fps)).limit_denominator(1001)
        encoder = "libx264rgb" if lossless and not grey else "libx264"
        stream: Any = container.add_stream(encoder, rate=rate, options=_LOSSLESS if lossless else _NEAR_LOSSLESS)
        stream.height, stream.width = shape[:2]
        stream.pix_fmt = source if lossless else "yuv420p"
        context = stream.codec_context
        context.thread_count = 1  # the same bytes on every machine
        context.color_range = _FULL if lossless else _LIMITED
        for key, value in ({} if lossless else _BT601).items():
            setattr(context, key, value)
        convert: Any = VideoReformatter()  # one of a frame's own is set up again for every frame
        for frame in frames:
            _check_frame(frame, shape, quality, name)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=source)
            if not lossless:
                picture = convert.reformat(picture, format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _check_frame(frame: np.ndarray, shape: tuple[int, ...], quality: Quality, name: str) -> None:
    if frame.dtype != np.uint8 or frame.shape != shape:
        raise ValueError(f"{name}: a frame is {frame.dtype} {frame.shape}, expected uint8 {shape}")
    if len(shape) != 3 and not (len(shape) == 2 and quality == "lossless"):
        raise ValueError(f"{name}: frames of shape {shape} cannot be written {quality}")
    if len(shape) == 3 and shape[2] != 3:
        raise ValueError(f"{name}: frames must have 3 colours, not {shape[2]}")
    if quality == "near-lossless" and (shape[0] % 2 or shape[1] % 2):
        raise ValueError(f"{name}: sides {shape[0]}x{shape[1]} must be even")
