"""From decoded frames to the pictures a video shows: turned or mirrored as its tags say, with square pixels, whole.

Cameras store what their sensor read, and say beside it how it was held; tape and DVD store pixels that are not square,
and two half pictures in one. Players undo all that, and so does every reader here, whatever decodes.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from hmcli.errors import DataError

_SQUARE = Fraction(1)
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic
_MATRIX = struct.Struct("=9i")  # a b u, c d v, x y w: where (x, y) of the frame is shown (ISO/IEC 14496-12, 8.3.2)
_ALIKE = frozenset({"yuv420p", "yuvj420p", "yuv444p", "yuvj444p", "gray", "gbrp"})  # every decoder's pixels are equal


@dataclass(frozen=True, kw_only=True)
class Display:
    """How stored frames are to be shown: pixels made square, then the axes exchanged, then mirrored."""

    pixel: Fraction = _SQUARE  # width of a stored pixel over its height
    exchanged: bool = False  # rows are columns
    rows_mirrored: bool = False  # of the exchanged picture, top for bottom
    columns_mirrored: bool = False
    interlaced: bool = False
    curve: str = ""  # of high dynamic range: PQ or HLG
    alike: bool = True  # do all decoders make the same pixels of this format?

    @property
    def turned(self) -> bool:
        return self.exchanged or self.rows_mirrored or self.columns_mirrored

    @property
    def plain(self) -> bool:
        """Are the stored frames the pictures, with any decoder?"""
        return self.alike and not self.turned and not self.interlaced and self.pixel == _SQUARE

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the pictures: the longer side of a pixel is kept, the shorter one stretched."""
        if self.pixel > 1:
            width = round(width * self.pixel)
        elif self.pixel < 1:
            height = round(height / self.pixel)
        return (width, height) if self.exchanged else (height, width)

    def shown(self, frame: np.ndarray, *, labels: bool = False) -> np.ndarray:
        """The picture (H', W', 3) of a frame (H, W, 3); `labels` are not mixed when they are stretched."""
        if self.pixel != _SQUARE:
            height, width = Display(pixel=self.pixel).size(*frame.shape[:2])
            resample = Image.Resampling.NEAREST if labels else Image.Resampling.BICUBIC
            frame = np.asarray(Image.fromarray(frame).resize((width, height), resample))
        if self.exchanged:
            frame = frame.swapaxes(0, 1)
        if self.rows_mirrored:
            frame = frame[::-1]
        if self.columns_mirrored:
            frame = frame[:, ::-1]
        return np.ascontiguousarray(frame)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done to the frames, for whoever reads them."""
        made = []
        if self.pixel != _SQUARE:
            made.append(f"pixels of {self.pixel.numerator}:{self.pixel.denominator} are made square")
        if self.turned:
            made.append(f"pictures are {self._turn}, as the file says")
        if self.interlaced:
            made.append("interlaced pictures are deinterlaced")
        if self.curve:
            made.append(f"colours of high dynamic range ({self.curve}) are taken without tone mapping")
        return tuple(made)

    @property
    def _turn(self) -> str:
        turns = {
            (True, False, True): "turned by 90 degrees", (True, True, False): "turned by 270 degrees",
            (False, True, True): "turned by 180 degrees",
        }  # fmt: skip
        return turns.get((self.exchanged, self.rows_mirrored, self.columns_mirrored), "mirrored")


def display_of(stream: Any, frame: Any, *, where: dict[str, object]) -> Display:
    """How the frames of a PyAV stream are shown, from one of them. Raises DataError for a tag nobody could follow."""
    pixel = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or _SQUARE
    matrix = next((bytes(side) for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
    turned = {} if matrix is None else _turned(matrix, where)
    return Display(
        pixel=Fraction(pixel.numerator, pixel.denominator), interlaced=bool(frame.interlaced_frame),
        alike=frame.format.name in _ALIKE, curve=_HDR.get(int(frame.color_trc), ""), **turned,
    )  # fmt: skip


def _turned(matrix: bytes, where: dict[str, object]) -> dict[str, bool]:
    """A frame's (x, y) is shown at (a x + c y, b x + d y), up to where the picture begins."""
    a, b, _, c, d, *_ = _MATRIX.unpack(matrix[: _MATRIX.size])
    if a and d and not b and not c:
        return {"rows_mirrored": d < 0, "columns_mirrored": a < 0}
    if b and c and not a and not d:
        return {"exchanged": True, "rows_mirrored": b < 0, "columns_mirrored": c < 0}
    raise DataError(
        "the video says that it is turned by no quarter of a turn", where={**where, "display matrix": (a, b, c, d)},
        fix="write it upright (ffmpeg -i IN OUT turns the pictures themselves)",
    )  # fmt: skip


def deinterlaced(frames: Iterable[Any], stream: Any) -> Iterator[Any]:
    """PyAV frames, one for each: those of two half pictures are made whole (yadif)."""
    import av

    graph = av.filter.Graph()
    nodes = (
        graph.add_buffer(template=stream),
        graph.add("yadif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    )
    for one, other in itertools.pairwise(nodes):
        one.link_to(other)
    graph.configure()
    for frame in (*frames, None):
        graph.push(frame)
        while True:
            try:
                yield graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
