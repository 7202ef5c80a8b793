"""Reading: which full-resolution frames do query frames read, and where do these lie among a block's keys?

Paper: Eq. 5, docs/paper-map.md row "retrieval". Nothing here depends on queries, so it is made once for all blocks of a
run; its tensors lie where the model computes, and a block only indexes with them.
Shape letters here: B batch, F query frames, W frames of a window, N frames read everywhere, M memory slots, U frames of
memory's tail that are read, G frames with full-resolution keys. Frame numbers are absolute latent frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FramesRead:
    """Full-resolution frames that query frames read, as indices into the keys of a block.

    Those keys are of G frames, ascending: the frames of memory that anything reads, then all frames of the run itself.
    Without `windows_FW` and `everywhere_BN` every query frame reads all of them.
    """

    tail_U: Tensor  # frames of memory's tail that are read, by number in the tail; int64 on CPU, for tails on disk
    tail_rows_U: Tensor  # the same where the model computes
    table_rows_G: Tensor | None  # frames of the run's rotary table that the keys are of; None: all of them
    before: int  # absolute number of the first frame of that table
    windows_FW: Tensor | None = None
    everywhere_BN: Tensor | None = None  # instead: frames that every query frame of a sample reads, and then no slots

    def numbers(self, index: Tensor | None) -> Tensor | None:
        """Absolute numbers of frames given by their index in the keys, as `windows_FW` and `everywhere_BN` are."""
        if index is None or self.table_rows_G is None:
            return None if index is None else self.before + index
        return self.before + self.table_rows_G[index]


def frames_read(
    first_frame: int,
    frames: int,
    tail: int,
    device: torch.device,
    *,
    windows_FW: Tensor | None = None,
    everywhere_BN: Tensor | None = None,
) -> FramesRead:
    """Find frames, given by absolute numbers on the CPU, among the keys of a run of `frames` frames from `first_frame`.

    `tail` frames before them are kept at full resolution. Raises ValueError for an earlier frame (a policy that wants
    any frame needs `ALL_FRAMES`).
    """
    named = everywhere_BN if windows_FW is None else windows_FW
    before = first_frame - tail
    past_U = torch.arange(before, first_frame) if named is None else named[named < first_frame].unique()
    if len(past_U) and int(past_U[0]) < before:
        raise ValueError(
            f"frame {int(past_U[0])} is to be read, but memory keeps only the last {tail} before {first_frame}"
        )
    number_G = torch.cat([past_U, torch.arange(first_frame, first_frame + frames)])
    index = None if named is None else torch.searchsorted(number_G, named).to(device)
    tail_U = past_U - before
    return FramesRead(
        tail_U=tail_U, tail_rows_U=tail_U.to(device),
        table_rows_G=None if len(number_G) == tail + frames else (number_G - before).to(device),
        before=before, windows_FW=None if windows_FW is None else index,
        everywhere_BN=None if windows_FW is not None else index,
    )  # fmt: skip


def local_window(first_frame: int, frames: int, total_frames: int, window: int) -> tuple[Tensor, Tensor]:
    """First and last frame of the window around each of `frames` query frames, each (F,) int64.

    Windows are clamped at both ends of 0..total_frames - 1, so all have the same length; an even window reaches one
    frame further back than ahead; when fewer frames exist than the window holds, the window is all of them.
    """
    if window < 1 or frames < 1 or first_frame < 0 or first_frame + frames > total_frames:
        raise ValueError(f"no window of {window} for {frames} frames from {first_frame} on of {total_frames}")
    length = min(window, total_frames)
    first_F = (torch.arange(first_frame, first_frame + frames) - window // 2).clamp(0, total_frames - length)
    return first_F, first_F + length - 1


def window_frames(first_F: Tensor, last_F: Tensor) -> Tensor:
    """All frames of each window, (F, W)."""
    return first_F[:, None] + torch.arange(int(last_F[0] - first_F[0]) + 1)


def inside_window(span_M2: Tensor, first_F: Tensor, last_F: Tensor) -> Tensor:
    """(F, M) bool: slots wholly inside a window, whose frames are read at full resolution anyway."""
    return (span_M2[:, 0] >= first_F[:, None]) & (span_M2[:, 1] <= last_F[:, None])
