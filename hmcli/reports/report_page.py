"""The page of a report: one HTML file that opens from disk, or the index of a static site.

Its parts stand in templates/: report.html.j2 (escaped by jinja2), report.css, report.js. Ids and captions come from
others: they reach the page as escaped text, or as JSON that the script shows as text.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from hmcli.reports import comparison
from hmcli.reports.comparison import Comparison

MARK = "<!doctype html><!-- made by hm report -->"  # how the file begins: what may be replaced
MEDIA = "media"  # folder of a site's videos and pictures
_TYPES = {".mp4": "video/mp4", ".png": "image/png"}


@dataclass(frozen=True, kw_only=True)
class Span:
    """Frames in a row that are alike: in truth a subject is `visible`, `hidden` or `returned` in them; in a row it was
    found in its `place`, or `off` it, or was `missed`."""

    state: str
    first: int
    count: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One subject of a clip's timeline."""

    subject: str
    family: str
    spans: tuple[Span, ...]


Metres = tuple[float, float]  # on the ground: x, y


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A clip from above, by the frames shown: cameras and where they look, and every subject's true places."""

    eyes: tuple[Metres, ...]
    ahead: tuple[Metres, ...]  # unit vectors
    angle: float  # the horizontal field of view, radians
    walks: tuple[tuple[str, tuple[Metres, ...]], ...]  # subject, places


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a row made of a subject: spans, and its places in the target frames (None: nobody was found)."""

    subject: str
    spans: tuple[Span, ...]
    places: tuple[Metres | None, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryRead:
    """What a row's model read of its memory, by target latent frame: F frames, M slots.

    `starts` are the first of the target's video frames that each stands for; `recall` is by who chooses, null where it
    is not known, `mass` the share of attention that goes to slots.
    """

    starts: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]  # of each slot: first and last latent frame
    share: tuple[tuple[float, ...], ...]  # (F, M) of the readings (a layer in a step) that chose the slot
    inside: tuple[tuple[int, ...], ...]  # by frame: slots wholly inside its window, which are read anyway
    relevant: tuple[tuple[int, ...], ...] | None  # by frame: slots that show a subject that is back; None: not known
    readings: int
    recall: Mapping[str, float | None]
    mass: float | None


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One clip of the browser; videos by their names, None where there is none.

    `values` has for each row and column the clip's value (None: none) and what became of it, `verdicts` for each row
    the subjects that should be back and the verdict on each, `sights` for each row who was found where, as far as that
    is known (there the subject without a name is who was taken for none), `memory` what its model read.
    """

    id: str
    caption: str
    split: str
    hidden_seconds: float | None
    reasons: tuple[str, ...]
    frames: tuple[int, int]
    fps: float
    context: str | None
    truth: str | None
    rows: tuple[str | None, ...]
    ground: Ground | None
    lanes: tuple[Lane, ...]
    sights: tuple[tuple[Sight, ...], ...]
    memory: tuple[MemoryRead | None, ...]
    values: tuple[tuple[tuple[float | None, str], ...], ...]
    verdicts: tuple[tuple[tuple[str, str], ...], ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For the script: an infinite value is the text that Number() takes."""
        values = [[[_number(value), said] for value, said in row] for row in self.values]
        return {**asdict(self), "values": values}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawn plot: SVG of ours, safe as it is."""

    title: str
    svg: str
    series: tuple[str, ...] = ()  # whose colours these are, where they are not the table's rows


@dataclass(frozen=True, kw_only=True)
class SliceCell:
    """A score of one class: of so many values (frames, stretches or clips) of so many clips."""

    value: float | None
    values: int
    clips: int


@dataclass(frozen=True, kw_only=True)
class SliceClass:
    """By row of the table and column of the slice; None where it has no score."""

    name: str
    cells: tuple[tuple[SliceCell | None, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Scores by one thing that clips or stretches differ in; `columns` are indices of the table's."""

    name: str
    columns: tuple[int, ...]
    classes: tuple[SliceClass, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A stretch that got a verdict: truth above what a row made of it, as the bytes of a PNG."""

    verdict: str
    row: str
    clip: str
    subject: str
    picture: bytes

    @property
    def address(self) -> str:
        return _data_uri("example.png", self.picture)


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """Everything the page shows. `abouts` are lines (name, value) of each row."""

    title: str
    table: Comparison
    notes: tuple[str, ...]
    abouts: tuple[tuple[tuple[str, str], ...], ...]
    plots: tuple[Plot, ...]
    plots_note: str
    by_k: tuple[Plot, ...]
    slices: tuple[Slice, ...]
    clips: tuple[ClipView, ...]
    examples: tuple[Example, ...]
    made_by: str


def report_page(page: ReportPage, media: Mapping[str, bytes], *, embed: bool) -> str:
    """The HTML; with `embed` the videos are in it, else they lie in MEDIA beside it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    folder = files("hmcli.reports") / "templates"
    parts = {name: Markup((folder / f"report.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    environment = Environment(
        loader=PackageLoader("hmcli.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        page=page, table=page.table, lines=comparison, groups=comparison.groups(page.table), head=_heads(page.table),
        data=_data(page, embed),
        media={name: _data_uri(name, data) for name, data in media.items()} if embed else {},
        mark=Markup(MARK), svg=Markup, **parts,
    )  # fmt: skip


def _heads(table: Comparison) -> Sequence[set[int]]:
    return [comparison.best_rows(table, index) for index in range(len(table.columns))]


def _data(page: ReportPage, embed: bool) -> dict[str, Any]:
    """What the script reads."""
    columns = [
        {"label": one.label, "unit": one.unit, "better": one.better, "digits": comparison.digits(one)}
        for one in page.table.columns
    ]
    rows = [{"name": row.name, "title": row.title} for row in page.table.rows]
    return {
        "columns": columns, "rows": rows, "clips": [clip.to_json() for clip in page.clips],
        "folder": "" if embed else f"{MEDIA}/",
    }  # fmt: skip


def _data_uri(name: str, data: bytes) -> str:
    kind = _TYPES[name[name.rindex(".") :]]
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"
