"""hm report: evaluations side by side in one file that opens from disk: the table, every clip, plots.

Nothing is computed of videos here: numbers are those of the evaluations, and what is missing is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hmcli.contracts import Reporter, StageResult
from hmcli.errors import UsageError
from hmcli.reports.comparison import Comparison, as_csv, as_latex, as_markdown
from hmcli.reports.report_page import MARK, MEDIA, ClipView, ReportPage, report_page
from hmcli.stages.reporting.clips import Browser
from hmcli.stages.reporting.comparing import compare
from hmcli.stages.reporting.evaluations import Evaluated
from hmcli.stages.reporting.media import Media
from hmcli.stages.reporting.memory import find_inspections
from hmcli.stages.reporting.origins import check_named, find_data, find_generation
from hmcli.stages.reporting.plots import plots_by_k, plots_of
from hmcli.stages.reporting.rows import Row, open_rows
from hmcli.stages.reporting.slices import slices_of
from hmcli.stages.reporting.verdicts import examples_of
from hmcli.stages.sampling.layout import Network
from hmcli.store.files import inside, write_bytes, write_text
from hmcli.store.manifest import made_by

KIND = "report"
INDEX = "index.html"
MOST = 24  # clips whose videos are in the file, unless named
TABLES = {"table.md": as_markdown, "table.csv": as_csv, "table.tex": as_latex}


def run(
    paths: Sequence[Path], *, out: Path | None, bundle: Path | None, tables: Path | None, clips: Sequence[str],
    generations: Sequence[Path], reference: Path | None, title: str, reporter: Reporter, groups: Sequence[str] = (),
    inspections: Sequence[Path] = (),
) -> StageResult:  # fmt: skip
    """Write the report; see `hm report --help`. Without `out` and `bundle`: ./report.html."""
    if out is not None and bundle is not None:
        raise UsageError("--out is one file, --bundle a folder", fix="give one of them")
    place = (bundle / INDEX) if bundle is not None else out or Path("report.html")
    _check_place(place, bundle)
    _check_tables(tables)
    rows = open_rows(paths, groups)
    evaluations = [one for row in rows for one in row.members]
    check_named(generations, evaluations)
    table = compare(rows)
    browser = Browser(
        rows, table, [find_generation(row.members[0], generations) for row in rows],
        find_data(evaluations, reference), Media(), find_inspections(rows, inspections),
    )  # fmt: skip
    played = _played(browser, clips, everything=bundle is not None)
    views = _views(browser, played, reporter)
    notes = [*_missing(browser), *_limit(browser, played)]
    plots, plots_note = plots_of(rows, table, {view.id: view.hidden_seconds for view in views})
    page = ReportPage(
        title=title, table=table, notes=tuple(notes), abouts=tuple(map(_about, rows)), plots=plots,
        plots_note=plots_note, by_k=tuple(plots_by_k(rows, table)), slices=tuple(slices_of(rows, table)),
        clips=tuple(views), examples=tuple(examples_of(browser)), made_by=_made_by(evaluations),
    )  # fmt: skip
    _write(page, browser.media, place, bundle)
    if tables is not None:
        _write_tables(table, tables)
    for line in [*(f"protocol cards differ: {card.text}" for card in table.cards), *table.notes, *notes]:
        reporter.note(line)
    reporter.note(f"{place}: {place.stat().st_size / 1e6:.1f} MB")
    counts = {"evaluations": len(evaluations), "clips": len(views), "played": len(played)}
    return StageResult(path=place if bundle is None else bundle, kind=KIND, counts=counts)


def _views(browser: Browser, played: Sequence[str], reporter: Reporter) -> list[ClipView]:
    views = []
    with reporter.progress("gathering", len(browser.clips), "clip") as advance:
        for view in browser.views(frozenset(played)):
            views.append(view)
            advance(1)
    return views


def _played(browser: Browser, named: Sequence[str], everything: bool) -> list[str]:
    """The clips whose videos are shown."""
    known = browser.clips
    if missing := [clip for clip in named if clip not in known]:
        raise UsageError(f"no evaluation here has a clip {', '.join(map(repr, missing))}")
    return list(dict.fromkeys(named)) or (known if everything else known[:MOST])


def _missing(browser: Browser) -> list[str]:
    """Sentences on what cannot be shown of any clip."""
    said = [one for one in browser.generations if isinstance(one, str)]
    said += [browser.dataset] if isinstance(browser.dataset, str) else []
    for one, generated in zip(browser.rows, browser.generations, strict=True):
        if len(one.members) > 1:
            said.append(
                f"of {one.name} ({len(one.members)} seeds) the videos are those of the first, the numbers of all"
            )
        if not isinstance(generated, str) and generated.count > 1:
            said.append(
                f"of {one.name} ({generated.count} samples of a clip) the first is shown, the numbers are of all"
            )
    return [f"{text[0].upper()}{text[1:]}." for text in said]


def _limit(browser: Browser, played: Sequence[str]) -> list[str]:
    more = len(browser.clips) - len(played)
    if not more:
        return []
    return [f"Videos of {len(played)} of {len(browser.clips)} clips are here; the other {more} are listed with their "
            "numbers (--clips names others, --bundle takes all)."]  # fmt: skip


def _about(row: Row) -> tuple[tuple[str, str], ...]:
    """What a row is, in lines."""
    return tuple(line for one in row.members for line in _about_one(one))


def _about_one(one: Evaluated) -> tuple[tuple[str, str], ...]:
    judged = one.about.generation
    sample = judged.recipe.get("sample", {})
    memory = judged.recipe.get("model", {}).get("memory", {})
    lines = [
        ("evaluation", f"{one.path.absolute().name}, {one.manifest.fingerprint}"),
        ("made by", f"no model: the row {judged.model_free}" if judged.model_free else judged.inputs.get("model", "")),
        ("generation", one.manifest.inputs.get("generation", "")),
        *_network(judged.network),
        ("clips", str(one.scores.clips)),
        ("seed", str(judged.seed)),
        *((f"sample.{name}", str(value)) for name, value in sample.items()),
        *((f"model.memory.{name}", str(value)) for name, value in memory.items()),
        ("frames x height x width", ", ".join("x".join(map(str, shape)) for shape in judged.shapes)),
        ("seconds per clip", "" if judged.seconds_per_clip is None else f"{judged.seconds_per_clip:.2f} (median)"),
    ]
    return tuple((name, value) for name, value in lines if value)


def _network(of: Network | None) -> list[tuple[str, str]]:
    if of is None:
        return []
    return [
        ("parameters", f"{of.parameters:,}"),
        ("memory policy", of.policy),
        ("memory slots read (K)", str(of.top_k)),
    ]


def _made_by(evaluations: Sequence[Evaluated]) -> str:
    count = len(evaluations)
    return f"{count} evaluation{'s' * (count != 1)}; made by hm {made_by()['hmcli']}"


# --- writing ---------------------------------------------------------------------------------------------------------


def _check_place(place: Path, bundle: Path | None) -> None:
    """Raise UsageError where something else than a report would be replaced, or where a table seems to be meant."""
    if place.suffix in {Path(name).suffix for name in TABLES}:
        raise UsageError(
            f"--out is a page of HTML, not {place.suffix}", where={"out": place},
            fix="name a file .html; tables as markdown, CSV and LaTeX: --tables FOLDER",
        )  # fmt: skip
    if bundle is not None and bundle.exists() and not bundle.is_dir():
        raise UsageError("--bundle is a folder, this is a file", where={"bundle": bundle})
    other = bundle is not None and bundle.is_dir() and any(bundle.iterdir()) and not place.is_file()
    if place.is_dir() or other or (place.is_file() and not _begins_with(place, MARK)):
        raise UsageError(f"{bundle or place} holds something else", fix="choose another name")


def _check_tables(tables: Path | None) -> None:
    """Tables replace those of another report, and nothing else: the table in markdown tells."""
    if tables is None or not any((tables / name).exists() for name in TABLES):
        return
    if not (tables / "table.md").is_file() or not _begins_with(tables / "table.md", _TABLE_MARK):
        raise UsageError(f"{tables} holds tables that are not of a report", fix="choose another folder with --tables")


_TABLE_MARK = "<!-- made by hm report -->\n"


def _begins_with(file: Path, mark: str) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(mark)) == mark.encode()


def _write(page: ReportPage, media: Media, place: Path, bundle: Path | None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if bundle is not None:
        (bundle / MEDIA).mkdir(exist_ok=True)
        for name, data in media.files.items():
            write_bytes(inside(bundle, f"{MEDIA}/{name}"), data)
    write_text(place, report_page(page, media.files, embed=bundle is None))


def _write_tables(table: Comparison, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TABLES.items():
        write_text(folder / name, (_TABLE_MARK if name == "table.md" else "") + text(table))
