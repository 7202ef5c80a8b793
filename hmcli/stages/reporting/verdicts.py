"""Examples of verdicts: for each word a stretch of a clip that got it, drawn as a strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hmcli.errors import DataError
from hmcli.reports.contact_sheet import contact_sheet
from hmcli.reports.report_page import Example
from hmcli.stages.data import pieces
from hmcli.stages.reporting.clips import Browser
from hmcli.stages.reporting.media import frames_of, generated_video, png
from hmcli.stages.reporting.rows import Row, Said
from hmcli.stages.sampling.generations import Generated

FRAMES, WIDTH = 6, 160  # of a strip, and pixels of one, at most


def examples_of(browser: Browser) -> Iterator[Example]:
    """A strip of each verdict: of the first stretch that got it and whose videos are there."""
    known = [said for of in browser.rows for said in of.verdicts]
    for verdict in sorted({said.verdict for said in known}, key=_usual):
        example = next(filter(None, (_strip(browser, row, said) for row, said in _with(browser.rows, verdict))), None)
        if example is not None:
            yield example


def _usual(verdict: str) -> tuple[bool, str]:
    """What is right comes last."""
    return verdict == "right", verdict


def _with(rows: Sequence[Row], verdict: str) -> Iterator[tuple[int, Said]]:
    for number, row in enumerate(rows):
        yield from ((number, said) for said in row.verdicts if said.verdict == verdict)


def _strip(browser: Browser, row: int, said: Said) -> Example | None:
    """Truth above what was made of it, from when the subject is back; None where a video cannot be had."""
    generated, source, data = browser.generations[row], browser.source(said.clip), browser.data
    if not isinstance(generated, Generated) or source is None or data is None:
        return None
    try:
        truth = pieces.target_video(source, data)
        made = frames_of(generated_video(generated, said.clip))
        back = int(np.searchsorted(pieces.target_frames(source, data), said.last, side="right"))
    except DataError:
        return None
    if not (made.shape == truth.shape and back < len(truth)):
        return None
    title = browser.table.rows[row].title
    sheet = contact_sheet([("truth", truth[back:]), (title, made[back:])], FRAMES, cell_width=WIDTH)
    return Example(verdict=said.verdict, row=title, clip=said.clip, subject=said.subject, picture=png(sheet))
