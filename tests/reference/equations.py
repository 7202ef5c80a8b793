"""The equations written slowly and plainly, one number at a time; the fast forms in hmcli.core must agree."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def axis_split(head_dim: int) -> tuple[int, int, int]:
    rows = columns = 2 * math.floor(head_dim / 6)
    return head_dim - rows - columns, rows, columns


def rotate(vector: list[float], position: tuple[float, float, float]) -> list[float]:
    """One head of one token at (time, row, column)."""
    turned: list[float] = []
    start = 0
    for part, where in zip(axis_split(len(vector)), position, strict=True):
        for i in range(0, part, 2):
            angle = where / 10000 ** (i / part)
            a, b = vector[start + i], vector[start + i + 1]
            turned.append(a * math.cos(angle) - b * math.sin(angle))
            turned.append(a * math.sin(angle) + b * math.cos(angle))
        start += part
    return turned


def window(frame: int, frames: int, size: int) -> list[int]:
    """`size` frames around one frame, shifted inwards at the ends; all frames when there are fewer."""
    if frames <= size:
        return list(range(frames))
    start = frame - size // 2
    while start < 0:
        start += 1
    while start + size > frames:
        start -= 1
    return list(range(start, start + size))


def released_span(slot: int, frames: int, slots: int) -> tuple[int, int]:
    """Which frames the released code believes a slot stands for; round half to even by hand."""
    if slots == 1:
        return 0, 1
    exact = (frames - 2) / (slots - 1)
    low = math.floor(exact)
    stride = low if exact - low < 0.5 or (exact - low == 0.5 and low % 2 == 0) else low + 1
    stride = max(1, stride)
    return slot * stride, slot * stride + 1


def pooled_score(query_PC: Tensor, keys_QC: Tensor) -> float:
    """Dot product of the mean query of a frame and the mean key of a slot."""
    channels = query_PC.shape[1]
    mean_query = [float(sum(query_PC[:, c])) / len(query_PC) for c in range(channels)]
    mean_key = [float(sum(keys_QC[:, c])) / len(keys_QC) for c in range(channels)]
    return sum(a * b for a, b in zip(mean_query, mean_key, strict=True))


def spatial_score(query_RKC: Tensor, keys_RKC: Tensor, kernel: tuple[int, int]) -> float:
    """Eq. 4: sum over the slot's grid of <pooled query, key>, over sqrt(C)."""
    total = 0.0
    for row in range(keys_RKC.shape[0]):
        for column in range(keys_RKC.shape[1]):
            top, left = row * kernel[0], column * kernel[1]
            cell = query_RKC[top : top + kernel[0], left : left + kernel[1]].reshape(-1, query_RKC.shape[-1])
            total += float(cell.mean(dim=0) @ keys_RKC[row, column])
    return total / math.sqrt(query_RKC.shape[-1])


def choose(scores: list[float], spans: list[tuple[int, int]], near: list[int], keep: int) -> list[int]:
    """The best `keep` slots, those wholly inside the window last, earlier slots first on a tie."""
    masked = [
        -1e9 if first >= near[0] and end <= near[-1] else s for s, (first, end) in zip(scores, spans, strict=True)
    ]
    return sorted(range(len(scores)), key=lambda slot: (-masked[slot], slot))[:keep]


def tokenize(x_FRKC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Eq. 3 cell by cell; leftovers are dropped. Returns (M, rows, columns, C)."""
    kt, kh, kw = weight.shape[2:]
    F, R, K, C = x_FRKC.shape
    out = torch.zeros(F // kt, R // kh, K // kw, C, dtype=x_FRKC.dtype)
    for m in range(F // kt):
        for row in range(R // kh):
            for column in range(K // kw):
                value = bias.clone()
                for t in range(kt):
                    for i in range(kh):
                        for j in range(kw):
                            token = x_FRKC[m * kt + t, row * kh + i, column * kw + j]
                            value = value + weight[:, :, t, i, j] @ token
                out[m, row, column] = value
    return out


def attend(query_D: Tensor, keys_ND: Tensor, values_ND: Tensor) -> Tensor:
    """One query of one head over its keys."""
    scores = [float(query_D @ key) / math.sqrt(len(query_D)) for key in keys_ND]
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    return sum(w / total * value for w, value in zip(weights, values_ND, strict=True))  # type: ignore[return-value]


def noised(clean: float, noise: float, sigma: float) -> float:
    return (1 - sigma) * clean + sigma * noise


def shifted_sigmas(steps: int, shift: float) -> list[float]:
    even = [1 - i / steps for i in range(steps)]
    return [shift * s / (1 + (shift - 1) * s) for s in even]
