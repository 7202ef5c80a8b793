"""Resampling in time, only when data.fps asks for it: which of a file's frames are taken.

Nothing is mixed or made up: the frames taken are those whose times lie nearest to 0, 1/fps, 2/fps ... seconds, and all
that belongs to a frame (its pose, mask, depth, subjects) is taken with it. Shape letter: N frames taken.
"""

from __future__ import annotations

import numpy as np

from hmcli.errors import DataError
from hmcli.store.video import VideoInfo

_ROUNDED = 5e-4  # relative: 23.98 is how people write 24000/1001; 30 is another rate than 30000/1001
_ROUNDING = 1e-6  # seconds


def taken(info: VideoInfo, fps: float | None) -> np.ndarray:
    """(N,) numbers of the frames that are taken; all of them unless another rate is asked for.

    Raises DataError for a rate above the video's, or above what it has in a gap: no frame is shown twice.
    """
    if fps is None or info.frames < 2:
        return np.arange(info.frames)
    measured = (info.frames - 1) / info.times[-1]  # what a file says counts how long its last frame stays, too
    if not info.varies and min(abs(fps / rate - 1) for rate in (info.fps, measured)) <= _ROUNDED:
        return np.arange(info.frames)
    if fps > (most := max(info.fps, measured)):
        raise DataError(
            f"data.fps={fps:g}, but the video has {most:.5g} frames per second: none can be made up",
            fix=f"set data.fps to at most {most:.5g}, or leave the clip out",
        )
    # of a constant rate, times that a container rounds to milliseconds are not taken at their word
    times = np.array(info.times) if info.varies else np.arange(info.frames) / measured
    wanted = np.arange(int((times[-1] + _ROUNDING) * fps) + 1) / fps
    frames = _nearest(times, wanted)
    if len(twice := np.flatnonzero(np.diff(frames) == 0)):
        gap = times[max(frames[twice[0]] - 1, 0)], times[min(frames[twice[0]] + 1, len(times) - 1)]
        raise DataError(
            f"data.fps={fps:g} would show frame {frames[twice[0]]} twice: it is the only one between "
            f"{gap[0]:.3f} and {gap[1]:.3f} s",
            fix="set a lower data.fps, or leave the clip out",
        )
    return frames


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Numbers of the times (two or more) nearest to those wanted, both rising; of two as near, the earlier."""
    after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    earlier = wanted - times[after - 1] <= times[after] - wanted + _ROUNDING
    return np.where(earlier, after - 1, after)


def said(name: str, info: VideoInfo, fps: float | None) -> list[str]:
    """What is done to a video, for whoever reads it."""
    if (count := len(taken(info, fps))) == info.frames:
        return []
    return [f"{name}: {count} of {info.frames} frames are taken, from {info.fps:.5g} to {fps:g} per second (data.fps)"]
