"""Framing: how a video of any size and length becomes one the model takes.

Sizes are (height, width) in pixels, frame counts 4k+1.  Intrinsics count from the image's top left corner, so the
centre of the first pixel is at (0.5, 0.5) and scaling is a plain factor (docs/conventions.md).
Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from hmcli.contracts import TIME_STRIDE
from hmcli.errors import DataError

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Fit = Literal["crop", "stretch"]
FrameRule = Literal["refuse", "trim", "pad"]


def source_box(source: tuple[int, int], size: tuple[int, int], fit: Fit) -> Box:
    """The part of a `source` image that fills `size`: all of it, or the largest centred part of the same shape."""
    height, width = source
    if fit == "stretch":
        return 0.0, 0.0, float(width), float(height)
    scale = min(height / size[0], width / size[1])  # source pixels per pixel
    tall, wide = min(size[0] * scale, float(height)), min(size[1] * scale, float(width))
    left, top = (width - wide) / 2, (height - tall) / 2
    return left, top, left + wide, top + tall


def resize_frames(video: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """(T, H, W, 3) uint8 -> (T, *size, 3) uint8: bicubic, antialiased when it shrinks, cut and scaled in one step."""
    return _resize(video, size, fit, Image.Resampling.BICUBIC)


def resize_labels(labels: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """(T, H, W) uint8 labels -> (T, *size) uint8 by nearest neighbour, framed as `resize_frames` does."""
    return _resize(labels, size, fit, Image.Resampling.NEAREST)


def resize_depth(depth: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """(T, H, W) -> (T, *size) float32 by nearest neighbour: a mean of two distances is where nothing is."""
    return _resize(depth.astype(np.float32), size, fit, Image.Resampling.NEAREST)


def _resize(frames: np.ndarray, size: tuple[int, int], fit: Fit, resample: Image.Resampling) -> np.ndarray:
    if frames.shape[1:3] == size:
        return frames
    box = source_box((frames.shape[1], frames.shape[2]), size, fit)
    out = np.empty((len(frames), *size, *frames.shape[3:]), dtype=frames.dtype)
    for index, frame in enumerate(frames):
        out[index] = np.asarray(Image.fromarray(frame).resize((size[1], size[0]), resample, box=box))
    return out


def resize_intrinsics(intrinsics: np.ndarray, source: tuple[int, int], size: tuple[int, int], fit: Fit) -> np.ndarray:
    """fx, fy, cx, cy of the source image -> of the framed one; all in pixels, float64."""
    left, top, right, bottom = source_box(source, size, fit)
    across, down = size[1] / (right - left), size[0] / (bottom - top)
    fx, fy, cx, cy = np.asarray(intrinsics, dtype=np.float64)
    return np.array([fx * across, fy * down, (cx - left) * across, (cy - top) * down])


def resize_boxes(boxes: np.ndarray, source: tuple[int, int], size: tuple[int, int], fit: Fit) -> np.ndarray:
    """(..., 4) left, top, right, bottom in pixels of a source video -> of the framed one, float64, not cut at its edge.

    NaN, for no box, stays.
    """
    left, top, right, bottom = source_box(source, size, fit)
    across, down = size[1] / (right - left), size[0] / (bottom - top)
    return (np.asarray(boxes, np.float64) - [left, top, left, top]) * [across, down, across, down]


def white_mask(video: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 with the subject white -> (T, H, W) bool; half grey is the border."""
    return video.astype(np.uint16).sum(axis=-1) >= 3 * 128


def red_mask(video: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 RGB with the subject red -> (T, H, W) bool.

    Red is, in OpenCV's 8-bit HSV: hue 0-10 or 160-180 (of 180), saturation and value at least 100.
    """
    red, green, blue = np.moveaxis(video.astype(np.int16), -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    saturation = np.rint(255.0 * spread / np.maximum(value, 1))
    hue = np.rint(30.0 * (green - blue) / np.maximum(spread, 1))  # right where red is largest; nothing else is red
    reddish = (red == value) & (hue >= -20) & (hue <= 10)
    return reddish & (saturation >= 100) & (value >= 100)


def frame_count(frames: int, rule: FrameRule) -> int:
    """How many frames are used of a video that has `frames`: the same if 4k+1, else what `rule` says, or DataError."""
    if frames < 1:
        raise ValueError(f"{frames} frames")
    if frames % TIME_STRIDE == 1:
        return frames
    shorter = (frames - 1) // TIME_STRIDE * TIME_STRIDE + 1
    if rule == "refuse":
        raise DataError(
            f"{frames} frames are not 4k+1",
            where={"nearest": f"{shorter} and {shorter + TIME_STRIDE}"},
            fix=f"set data.frames=trim to use {shorter}, data.frames=pad to repeat the last frame up to "
            f"{shorter + TIME_STRIDE}, or data.split to cut out other lengths",
        )
    return shorter if rule == "trim" else shorter + TIME_STRIDE


def to_frame_count(values: np.ndarray, count: int) -> np.ndarray:
    """The first `count` entries, the last one repeated where there are fewer."""
    short = count - len(values)
    return values[:count] if short <= 0 else np.concatenate([values, np.repeat(values[-1:], short, axis=0)])
