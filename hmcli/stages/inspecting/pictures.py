"""Which pictures an inspection draws of one clip, and from which readings (docs/inspecting.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hmcli.contracts import TIME_STRIDE
from hmcli.reports.contact_sheet import spaced_frames
from hmcli.reports.memory_pictures import (
    Matrix,
    Picture,
    affinity_picture,
    frames_picture,
    numbers_picture,
    timeline_picture,
)
from hmcli.stages.inspecting.layout import CHARTS, FRAMES, TIMELINE, LayerRow, Measure, affinity_picture_name
from hmcli.stages.latents.view import LatentClip

if TYPE_CHECKING:
    import torch

    from hmcli.core.inspection import Recorded

DRAWN_STEPS = 3  # denoising steps whose affinity matrices are drawn: first, middle, last
DRAWN_FRAMES = 6  # query frames on the sheet of frames
NAMES: dict[Measure, str] = {
    "recall": "recall@K of slots that show the hidden subject",
    "precision": "precision of the K slots",
    "mass": "share of attention that goes to memory",
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was heard of one clip. Readings are those of the sampler, in the order of running."""

    clip: LatentClip
    seen: torch.Tensor | None  # (A, S) bool: subject seen in latent frame, of the history before the clip too
    readings: Sequence[Recorded]
    rows: Sequence[LayerRow]  # numbers of every reading
    relevant: np.ndarray | None  # (F, M) bool: slots that show the hidden subject
    context_video: np.ndarray  # (T, H, W, 3) uint8, decoded
    target_video: np.ndarray  # generated
    truth_video: np.ndarray | None

    @property
    def context(self) -> int:
        """Latent frames before the target, those of history before the clip among them."""
        return self.readings[0].num_context

    @property
    def earlier(self) -> int:
        """Latent frames of history before the clip."""
        return self.context - self.clip.context

    @property
    def slots(self) -> int:
        assert self.readings[0].near_FM is not None
        return int(self.readings[0].near_FM.shape[1])

    @property
    def spans(self) -> np.ndarray:
        assert self.readings[0].span_M2 is not None
        return self.readings[0].span_M2.numpy()

    @property
    def near(self) -> np.ndarray:
        assert self.readings[0].near_FM is not None
        return self.readings[0].near_FM.numpy()

    @property
    def first_frame(self) -> int:
        return self.readings[0].first_frame

    @property
    def steps(self) -> list[int]:
        """Denoising steps in which blocks ran (a cache may skip some)."""
        return sorted({reading.step for reading in self.readings})

    def drawn(self) -> list[Recorded]:
        """The readings that pictures show: those of the caption branch."""
        from hmcli.core.inspection import CAPTION

        return [reading for reading in self.readings if reading.branch == CAPTION]


def draw(look: Look) -> dict[str, np.ndarray]:
    """File name -> picture."""
    pictures = {
        affinity_picture_name(look.steps[i]): _affinity(look, look.steps[i])
        for i in spaced_frames(len(look.steps), DRAWN_STEPS)
    }
    return pictures | {TIMELINE: _timeline(look), FRAMES: _frames(look), CHARTS: _numbers(look)}


def chosen_slots(reading: Recorded, slots: int) -> np.ndarray:
    """(F, M) bool: which slots each query frame chose."""
    assert reading.slots_BFK is not None
    chosen = np.zeros((reading.slots_BFK.shape[1], slots), bool)
    np.put_along_axis(chosen, reading.slots_BFK[0].numpy(), True, axis=1)
    return chosen


def _affinity(look: Look, step: int) -> np.ndarray:
    matrices = [
        Matrix(
            title=f"layer {reading.block}", chosen_FM=chosen_slots(reading, look.slots), near_FM=look.near,
            scores_FM=None if reading.scores_BFM is None else reading.scores_BFM[0].float().numpy(),
            relevant_FM=look.relevant,
        )
        for reading in look.drawn()
        if reading.step == step
    ]  # fmt: skip
    title = f"{look.clip.id}: memory slots that query frames chose, denoising step {step} of 0 to {look.steps[-1]}"
    return affinity_picture(
        matrices, first_frame=look.first_frame, span_M2=look.spans, context=look.context, title=title
    )


# --- timeline --------------------------------------------------------------------------------------------------------


def _timeline(look: Look) -> np.ndarray:
    frames, readings = look.context + look.clip.target, look.drawn()
    start = max(0, look.context - look.first_frame)
    covers_MA = _covers(look.spans, frames)
    layers = sorted({reading.block for reading in readings})
    read_LFA = np.zeros((len(layers), len(look.near), frames))
    for reading in readings:
        read_LFA[layers.index(reading.block)] += chosen_slots(reading, look.slots) @ covers_MA > 0
    counts = [sum(reading.block == layer for reading in readings) for layer in layers]
    read_LFA /= np.array(counts)[:, None, None]
    window_FA = np.zeros(read_LFA.shape[1:], bool)
    if (frames_FW := readings[0].frames_FW) is not None:
        np.put_along_axis(window_FA, frames_FW.numpy(), True, axis=1)
    return timeline_picture(
        read_LA=read_LFA[:, start:].mean(axis=1), read_FA=read_LFA[:, start:].mean(axis=0),
        window_FA=window_FA[start:], first_frame=look.first_frame + start, context=look.context, earlier=look.earlier,
        seen_AS=None if look.seen is None else look.seen.numpy(),
        title=f"{look.clip.id}: latent frames read through memory by the target, {len(look.steps)} denoising steps",
    )  # fmt: skip


def _covers(spans_M2: np.ndarray, frames: int) -> np.ndarray:
    """(M, A) int: 1 where a slot stands for a frame."""
    frame_A = np.arange(frames)
    return ((frame_A >= spans_M2[:, :1]) & (frame_A <= spans_M2[:, 1:])).astype(int)


# --- frames ----------------------------------------------------------------------------------------------------------


def _frames(look: Look) -> np.ndarray:
    """Generated query frames beside the frames that the most often chosen slots of the last step stand for."""
    last = [reading for reading in look.drawn() if reading.step == look.steps[-1]]
    votes_FM = np.sum([chosen_slots(reading, look.slots) for reading in last], axis=0)
    rows = [_sheet_row(look, f, votes_FM[f], len(last), last[0].top_k) for f in _shown_frames(look)]
    title = f"{look.clip.id}: last denoising step; slots by the number of layers that chose them"
    legend = (
        "the slot shows, before it hid, a subject that is back in the query frame"
        if look.relevant is not None
        else "not used: which slots show a hidden subject is not known"
    )
    return frames_picture(rows, title=title, legend=legend)


def _shown_frames(look: Look) -> list[int]:
    """Rows of target query frames: those in which a hidden subject is back, else all; evenly spaced."""
    start = max(0, look.context - look.first_frame)
    back = np.flatnonzero(look.relevant.any(axis=1)) if look.relevant is not None else np.array([], int)
    among = back if len(back) else np.arange(start, len(look.near))
    return [int(among[i]) for i in spaced_frames(len(among), DRAWN_FRAMES)]


def _sheet_row(look: Look, row: int, votes_M: np.ndarray, layers: int, top_k: int) -> list[Picture]:
    frame = look.first_frame + row
    cells = [Picture(pixels=_pixels(look, frame), lines=(f"frame {frame}", "generated"))]
    if look.truth_video is not None:
        truth = look.truth_video[TIME_STRIDE * (frame - look.context)]
        cells.append(Picture(pixels=truth, lines=(f"frame {frame}", "true target, decoded")))
    best = np.argsort(-votes_M, kind="stable")[:top_k]
    for slot in best[votes_M[best] > 0]:
        first, end = (int(frame) for frame in look.spans[slot])
        span = f"frame {first}" if first == end else f"frames {first}-{end}"
        cells.append(
            Picture(
                pixels=_pixels(look, min((first + end) // 2, look.context + look.clip.target - 1)),  # a guess may go on
                lines=(f"slot {slot}, {span}", f"{votes_M[slot]} of {layers} layers"),
                marked=look.relevant is not None and bool(look.relevant[row, slot]),
            )
        )
    return cells


def _pixels(look: Look, frame: int) -> np.ndarray:
    """The last video frame of a latent frame: decoded context, or what was generated; grey for earlier history."""
    if frame < look.earlier:
        return np.full_like(look.context_video[0], 205)
    target = frame >= look.context
    video, within = (look.target_video, frame - look.context) if target else (look.context_video, frame - look.earlier)
    pixels: np.ndarray = video[TIME_STRIDE * within]
    return pixels


# --- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(look: Look) -> np.ndarray:
    """Recall, precision and attention mass of the model's own choice, by layer and step; the others' means below."""
    from hmcli.core.inspection import CAPTION, MODEL

    rows = [row for row in look.rows if row.branch == CAPTION]
    layers = 1 + max(row.layer for row in rows)
    panels, captions = {}, {}
    for measure, name in NAMES.items():
        values = np.full((layers, len(look.steps)), np.nan)
        means: dict[str, list[float]] = {}
        for row in rows:
            means.setdefault(row.choice, []).append(row.measure(measure))
            if row.choice == MODEL:
                values[row.layer, look.steps.index(row.step)] = row.measure(measure)
        panels[name] = values
        shown = ", ".join(f"{who} {np.mean(found):.2f}" for who, found in means.items())
        captions[name] = f"mean: {shown}" if np.isfinite(values).any() else "not known: no subject is back"
    title = f"{look.clip.id}: the model's choice by layer and denoising step, K = {look.readings[0].top_k}"
    return numbers_picture(panels, captions=captions, steps=[str(n) for n in look.steps], title=title)
