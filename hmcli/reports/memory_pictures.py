"""Pictures of what memory was read: affinity matrices, slots on the clip's timeline, the frames they stand for.

Everything comes as arrays; docs/inspecting.md shows and explains each picture. Shape letters here: F query frames,
A latent frames of the clip, M slots, L layers, N denoising steps, S subjects. Frame numbers are latent frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hmcli.reports.canvas import CHOSEN, FAINT, SUBJECT, Box, Canvas, heat, on, ticks, width_of
from hmcli.reports.contact_sheet import INK, LINE, MARGIN, TEXT

WIDEST = 1500  # pixels: panels are put below each other beyond this
GUTTER = 40  # pixels: left of a matrix, for frame numbers
LEGEND = 2 * LINE  # pixels: height of title or legend
GREY = (205, 205, 205)  # a cell without a score


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What one layer chose at one step. F query frames, M slots."""

    title: str
    scores_FM: np.ndarray | None  # None for a policy that gives no scores
    chosen_FM: np.ndarray  # bool
    near_FM: np.ndarray  # bool: slots wholly inside the query frame's window
    relevant_FM: np.ndarray | None  # bool: slots that show the hidden subject; None where that is not known


# --- affinity matrices -----------------------------------------------------------------------------------------------


def affinity_picture(
    matrices: Sequence[Matrix], *, first_frame: int, span_M2: np.ndarray, context: int, title: str
) -> np.ndarray:
    """One panel per layer, query frames down, slots across; colours compare slots within a row."""
    F, M = matrices[0].chosen_FM.shape
    cell = int(np.clip(700 // max(M, 1), 8, 18 if len(matrices) <= 12 else 12))
    wide = GUTTER + M * cell + 6 * MARGIN
    high = 2 * LINE + F * cell + 6 * MARGIN
    legend = _affinity_legend(matrices[0])
    columns = max(1, min(len(matrices), WIDEST // wide))
    rows = -(-len(matrices) // columns)
    widest = max(columns * wide, width_of(title) + 2 * MARGIN, max(width_of(text) for _, text in legend) + 60)
    top = 2 * LINE + LINE * (len(legend) + 1)
    canvas = Canvas(widest, top + rows * high)
    canvas.text(MARGIN, MARGIN, title)
    _draw_legend(canvas, legend, LINE + 2 * MARGIN)
    for index, matrix in enumerate(matrices):
        left, upper = index % columns * wide + GUTTER, top + index // columns * high
        _draw_matrix(canvas, matrix, left, upper, cell, first_frame, span_M2, context)
    return canvas.pixels()


def _affinity_legend(matrix: Matrix) -> list[tuple[str, str]]:
    if matrix.scores_FM is None:
        rows = [("grey", "the policy gives slots no scores")]
    else:
        rows = [("heat", "score of a slot, each row for itself: lowest to highest among slots outside the window")]
    rows += [
        ("chosen", "chosen by the query frame"),
        ("near", "wholly inside the query frame's own window, which is read anyway"),
    ]
    if matrix.relevant_FM is not None:
        rows.append(("relevant", "shows a subject that was hidden and is back in the query frame, before it hid"))
    rows.append(("divider", "behind it: slots and query frames of the target"))
    return [*rows, ("", "across: memory slots, by their first latent frame; down: query frames, by their latent frame")]


def _draw_legend(canvas: Canvas, rows: Sequence[tuple[str, str]], top: int) -> None:
    for index, (kind, text) in enumerate(rows):
        box = (MARGIN + 10, top + index * LINE, MARGIN + 24, top + index * LINE + 14)
        _draw_sample(canvas, kind, box)
        canvas.text(MARGIN + 44, box[1] + 1, text)


def _draw_sample(canvas: Canvas, kind: str, box: Box) -> None:
    left, top, _, bottom = box
    if kind == "heat":
        for step in range(3):
            canvas.cell((left - 10 + 13 * step, top, left + 3 + 13 * step, bottom), heat(step / 2))
    elif kind == "chosen":
        canvas.cell(box, heat(0.3))
        canvas.frame(box, CHOSEN)
    elif kind == "near":
        canvas.hatch(box)
    elif kind == "relevant":
        canvas.cell(box, heat(0.3))
        canvas.dot(box, INK)
    elif kind == "grey":
        canvas.cell(box, GREY)
    elif kind == "divider":
        canvas.line(left + 7, top, left + 7, bottom, INK, 2)
    elif kind in ("exit", "back"):
        canvas.triangle(left + 7, (top + bottom) // 2, CHOSEN if kind == "exit" else INK, up=kind == "back")
    elif kind == "seen":
        canvas.cell((left - 8, top + 2, box[2] + 8, bottom - 2), SUBJECT)


def _draw_matrix(
    canvas: Canvas, matrix: Matrix, left: int, top: int, cell: int, first_frame: int, span_M2: np.ndarray, context: int
) -> None:
    F, M = matrix.chosen_FM.shape
    canvas.text(left, top, matrix.title)
    upper = top + 2 * LINE
    shares = None if matrix.scores_FM is None else row_shares(matrix.scores_FM, ~matrix.near_FM)
    for f in range(F):
        for m in range(M):
            box = (left + m * cell, upper + f * cell, left + (m + 1) * cell, upper + (f + 1) * cell)
            if matrix.near_FM[f, m]:
                canvas.hatch(box)
            else:
                canvas.cell(box, GREY if shares is None else heat(shares[f, m]))
            if matrix.relevant_FM is not None and matrix.relevant_FM[f, m]:
                canvas.dot(box, INK)
            if matrix.chosen_FM[f, m]:
                canvas.frame(box, CHOSEN)
    canvas.frame((left - 1, upper - 1, left + M * cell + 1, upper + F * cell + 1), FAINT, 1)
    _draw_axes(canvas, (left, upper), cell, F, first_frame, span_M2)
    _draw_dividers(canvas, (left, upper), cell, F, first_frame, span_M2, context)


def _draw_axes(
    canvas: Canvas, corner: tuple[int, int], cell: int, frames: int, first_frame: int, span_M2: np.ndarray
) -> None:
    left, upper = corner
    labels = [str(first) for first in span_M2[:, 0]]
    for m in ticks(labels, cell):
        canvas.text(left + m * cell + cell // 2, upper - LINE + 1, labels[m], FAINT, anchor="ma")
    every = max(1, -(-(TEXT + 1) // cell))
    for f in range(0, frames, every):
        canvas.text(left - 5, upper + f * cell + (cell - TEXT) // 2 - 1, str(first_frame + f), FAINT, anchor="ra")


def _draw_dividers(
    canvas: Canvas,
    corner: tuple[int, int],
    cell: int,
    frames: int,
    first_frame: int,
    span_M2: np.ndarray,
    context: int,
) -> None:
    """Where the target begins: among the slots, and among the query frames where they begin in the context."""
    left, upper = corner
    if len(later := np.flatnonzero(span_M2[:, 0] >= context)):
        x = left + int(later[0]) * cell
        canvas.line(x, upper - 3, x, upper + frames * cell + 2, INK, 2)
    if first_frame < context < first_frame + frames:
        y = upper + (context - first_frame) * cell
        canvas.line(left - 3, y, left + len(span_M2) * cell + 2, y, INK, 2)


def row_shares(scores_FM: np.ndarray, free_FM: np.ndarray) -> np.ndarray:
    """Scores brought to 0..1 within each row by its free slots; a row of equal scores is 0.5."""
    scores = np.where(free_FM, scores_FM.astype(np.float64), np.nan)
    shares = np.full(scores.shape, 0.5)
    for row, values in enumerate(scores):
        known = values[np.isfinite(values)]
        if len(known) and known.max() > known.min():
            shares[row] = np.clip((scores_FM[row] - known.min()) / (known.max() - known.min()), 0, 1)
    return shares


# --- timeline --------------------------------------------------------------------------------------------------------


def timeline_picture(
    *,
    read_LA: np.ndarray,
    read_FA: np.ndarray,
    window_FA: np.ndarray,
    first_frame: int,
    context: int,
    earlier: int,
    seen_AS: np.ndarray | None,
    title: str,
) -> np.ndarray:
    """Subjects, and how often each latent frame was read through a slot, along the clip.

    `read_LA`: per layer, the share of target query frames (and steps) that chose a slot which covers the frame;
    `read_FA`: the same per query frame, the share of layers and steps; `window_FA`: bool, the query frame's window.
    The clip itself begins at frame `earlier`, after history whose subjects are not known.
    """
    A = read_LA.shape[1]
    cell, left = int(np.clip(900 // A, 7, 22)), 96
    subjects = 0 if seen_AS is None else seen_AS.shape[1]
    rows = _timeline_legend(seen_AS is not None)
    top = 2 * LINE + len(rows) * LINE + 2 * MARGIN
    bands = [max(subjects, 1) * 18 + LINE, len(read_LA) * 14 + 2 * LINE, len(read_FA) * 14 + 2 * LINE]
    width = max(left + A * cell + 2 * MARGIN, width_of(title) + 2 * MARGIN, max(width_of(t) for _, t in rows) + 60)
    canvas = Canvas(width, top + sum(bands) + LINE + 2 * MARGIN)
    canvas.text(MARGIN, MARGIN, title)
    _draw_legend(canvas, rows, LINE + 2 * MARGIN)
    _draw_parts(canvas, left, top, cell, earlier, context)
    canvas.line(left + context * cell, top, left + context * cell, top + LINE + 18 * subjects, INK, 2)
    lower = _draw_subjects(canvas, left, top + LINE, cell, earlier, seen_AS)
    names = [f"layer {layer}" for layer in range(len(read_LA))]
    by_layer = Band(title="by layer: share of target frames and steps", names=names, shares=read_LA)
    lower = _draw_band(canvas, by_layer, left, lower + LINE, cell, context)
    names = [f"frame {first_frame + f}" for f in range(len(read_FA))]
    by_frame = Band(title="by query frame: share of layers and steps", names=names, shares=read_FA, hatched=window_FA)
    lower = _draw_band(canvas, by_frame, left, lower + LINE, cell, context)
    for frame in ticks([str(a) for a in range(A)], cell):
        canvas.text(left + frame * cell + cell // 2, lower + 2, str(frame), FAINT, anchor="ma")
    canvas.text(left - 5, lower + 2, "latent frame", FAINT, anchor="ra")
    return canvas.pixels()


def _timeline_legend(subjects: bool) -> list[tuple[str, str]]:
    rows = [("heat", "read through a memory slot: never to always"), ("near", "inside the query frame's own window")]
    if subjects:
        rows += [("seen", "subject is seen"), ("exit", "it goes out of sight"), ("back", "it is back")]
    return rows


def _draw_parts(canvas: Canvas, left: int, top: int, cell: int, earlier: int, context: int) -> None:
    """Where history from before the clip (if any), the clip's context and its target begin."""
    if earlier:
        canvas.text(left + 2, top, "history")
        canvas.line(left + earlier * cell, top, left + earlier * cell, top + LINE, FAINT)
    canvas.text(left + earlier * cell + 3, top, "context")
    canvas.text(left + context * cell + 5, top, "target")


def _draw_subjects(canvas: Canvas, left: int, top: int, cell: int, earlier: int, seen_AS: np.ndarray | None) -> int:
    """One bar per subject with its exits and re-entries; returns where the bars end."""
    if seen_AS is None:
        canvas.text(left, top + 2, "which subjects are seen is not known: the clip has no masks", FAINT)
        return top + LINE
    for s in range(seen_AS.shape[1]):
        middle = top + 18 * s + 9
        canvas.text(left - 5, middle - 7, f"subject {s + 1}", anchor="ra")
        canvas.line(left + earlier * cell, middle, left + len(seen_AS) * cell - 1, middle, FAINT)
        for a in np.flatnonzero(seen_AS[:, s]).tolist():
            canvas.cell((left + a * cell, middle - 5, left + (a + 1) * cell, middle + 5), SUBJECT)
        for a in range(earlier + 1, len(seen_AS)):
            back, before = bool(seen_AS[a, s]), bool(seen_AS[:a, s].any())
            if before and back != seen_AS[a - 1, s]:  # who is seen for the first time is not back
                canvas.triangle(left + a * cell, middle, INK if back else CHOSEN, up=back)
    return top + 18 * seen_AS.shape[1]


@dataclass(frozen=True, kw_only=True)
class Band:
    """Heat rows below each other: `shares` (rows, A) in 0..1, one name per row, and which cells are hatched instead."""

    title: str
    names: Sequence[str]
    shares: np.ndarray
    hatched: np.ndarray | None = None


def _draw_band(canvas: Canvas, band: Band, left: int, top: int, cell: int, context: int) -> int:
    """Draw a title and heat rows, a line where the target begins; returns where they end."""
    rows, frames = band.shares.shape
    canvas.text(left, top, band.title)
    upper, high = top + LINE, 14
    for row, name in enumerate(band.names):
        canvas.text(left - 5, upper + row * high, name, FAINT, anchor="ra")
        for a in range(frames):
            box = (left + a * cell, upper + row * high, left + (a + 1) * cell, upper + (row + 1) * high)
            if band.hatched is not None and band.hatched[row, a]:
                canvas.hatch(box)
            else:
                canvas.cell(box, heat(band.shares[row, a]))
    lower = upper + rows * high
    canvas.frame((left - 1, upper - 1, left + frames * cell + 1, lower + 1), FAINT, 1)
    canvas.line(left + context * cell, upper, left + context * cell, lower, INK, 2)
    return lower


# --- frames ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One cell of a sheet: a frame (H, W, 3) uint8 and two lines of text; `marked` gets a border."""

    pixels: np.ndarray
    lines: tuple[str, str]
    marked: bool = False


def frames_picture(rows: Sequence[Sequence[Picture]], *, title: str, legend: str, cell_width: int = 150) -> np.ndarray:
    """Query frames down; across the generated frame and the frames its slots stand for."""
    from PIL import Image

    height, width = rows[0][0].pixels.shape[:2]
    cell_height = max(1, round(height * cell_width / width))
    step, row_height = cell_width + 2 * MARGIN, cell_height + 2 * LINE + 3 * MARGIN
    wide = max(max(map(len, rows)) * step + MARGIN, width_of(title) + 2 * MARGIN, width_of(legend) + 60)
    top = 3 * LINE + MARGIN
    canvas = Canvas(wide, top + len(rows) * row_height)
    canvas.text(MARGIN, MARGIN, title)
    canvas.frame((MARGIN + 10, LINE + 2 * MARGIN, MARGIN + 34, LINE + 2 * MARGIN + 14), CHOSEN, 3)
    canvas.text(MARGIN + 44, LINE + 2 * MARGIN + 1, legend)
    for index, row in enumerate(rows):
        for column, picture in enumerate(row):
            left, upper = MARGIN + column * step, top + index * row_height
            image = Image.fromarray(picture.pixels).resize((cell_width, cell_height), Image.Resampling.BICUBIC)
            canvas.paste(np.asarray(image), left, upper)
            if picture.marked:
                canvas.frame((left - 2, upper - 2, left + cell_width + 2, upper + cell_height + 2), CHOSEN, 3)
            for line, text in enumerate(picture.lines):
                canvas.text(left, upper + cell_height + 3 + line * LINE, text)
    return canvas.pixels()


# --- numbers ---------------------------------------------------------------------------------------------------------


def numbers_picture(
    panels: Mapping[str, np.ndarray], *, captions: Mapping[str, str], steps: Sequence[str], title: str
) -> np.ndarray:
    """For each number a field of layers (down) by denoising steps (across), (L, N) in 0..1; NaN is left white."""
    L, N = next(iter(panels.values())).shape
    cell, high = int(np.clip(420 // N, 8, 44)), int(np.clip(420 // L, 15, 22))
    wide = 60 + max(N * cell, *(width_of(text) for text in (*panels, *captions.values()))) + 5 * MARGIN
    top = 2 * LINE + 3 * MARGIN + LINE
    canvas = Canvas(max(len(panels) * wide, width_of(title) + 2 * MARGIN), top + L * high + 5 * LINE)
    canvas.text(MARGIN, MARGIN, title)
    canvas.colour_bar(MARGIN, LINE + 2 * MARGIN, "0", "1")
    for index, (name, values_LN) in enumerate(panels.items()):
        left = index * wide + 60
        canvas.text(left, top, name)
        for layer in range(L):
            canvas.text(left - 5, top + LINE + layer * high + (high - TEXT) // 2, f"layer {layer}", FAINT, anchor="ra")
            for step in range(N):
                box = (left + step * cell, top + LINE + layer * high, left + (step + 1) * cell, 0)
                _draw_number(canvas, (*box[:3], box[1] + high), float(values_LN[layer, step]))
        lower = top + LINE + L * high
        canvas.frame((left - 1, top + LINE - 1, left + N * cell + 1, lower + 1), FAINT, 1)
        for step in ticks(steps, cell):
            canvas.text(left + step * cell + cell // 2, lower + 2, steps[step], FAINT, anchor="ma")
        canvas.text(left - 5, lower + 2, "step", FAINT, anchor="ra")
        canvas.text(left, lower + LINE + 4, captions[name])
    return canvas.pixels()


def _draw_number(canvas: Canvas, box: Box, value: float) -> None:
    if not np.isfinite(value):
        return
    colour = heat(value)
    canvas.cell(box, colour)
    if box[2] - box[0] >= 26:
        text = "1" if value >= 0.995 else f"{value:.2f}".removeprefix("0")
        canvas.text((box[0] + box[2]) // 2, (box[1] + box[3] - TEXT) // 2 - 1, text, on(colour), anchor="ma")
