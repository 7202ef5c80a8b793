"""The page of a report as text: what it says, that it is well formed, and that nothing from outside acts in it."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hmcli.reports.comparison import (
    CardDifference,
    Cell,
    Column,
    Comparison,
    Cost,
    Difference,
    TableRow,
    as_csv,
    as_latex,
    as_markdown,
    best_rows,
    groups,
)
from hmcli.reports.line_plot import Point, Series, line_plot
from hmcli.reports.report_page import (
    ClipView,
    Example,
    Lane,
    Plot,
    ReportPage,
    Slice,
    SliceCell,
    SliceClass,
    Span,
    report_page,
)

HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028 {{ 7*7 }} \"'&"
VOID = {"meta", "input", "img", "br", "link"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed where it should be; keeps the attributes of all, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[self.seen[-1][1].get("id") or ""] = data


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def cell(mean: float | None, **changes) -> Cell:
    given = {"low": None, "high": None, "clips": 3, "failed": 0, "not_judged": 0}
    return Cell(mean=mean, **{**given, **changes})


def comparison(name: str = "ours", **changes) -> Comparison:
    gap = Difference(mean=-1.5, low=-2.0, high=-1.0, clips=3)
    given = {
        "columns": (
            Column(label="psnr", unit="dB", better="higher"), Column(label="lpips (alex)", unit="", better="lower"),
        ),
        "rows": (
            TableRow(name=name, model_free="", cells=(cell(20.25, low=19.0, high=21.0), cell(0.25))),
            TableRow(
                name="b_1 50%", model_free="last-frame",
                cells=(cell(18.75, difference=gap, failed=1), None),
            ),
        ),
        "cards": (), "notes": (),
    }  # fmt: skip
    return Comparison(**(given | changes))


def view(clip: str = "c1", **changes) -> ClipView:
    given = {
        "id": clip, "caption": "a fox", "split": "test", "hidden_seconds": 1.2, "reasons": ("occluded",),
        "frames": (9, 5), "fps": 10.0, "context": "a.mp4", "truth": None, "rows": ("b.mp4", None),
        "ground": None, "sights": ((), ()), "memory": (None, None),
        "lanes": (Lane(subject="fox", family="fox", spans=(Span(state="hidden", first=0, count=14, reason="x"),)),),
        "values": (((20.25, "ok"), (math.inf, "ok")), ((None, "failed"), (None, "not scored"))), "missing": (),
        "verdicts": ((("fox", "frozen"),), ()),
    }  # fmt: skip
    return ClipView(**(given | changes))


def page(table: Comparison | None = None, clips=(), **changes) -> ReportPage:
    given = {
        "title": "t", "notes": (), "abouts": ((("seed", "0"),), (("seed", "1"),)), "plots": (), "plots_note": "",
        "by_k": (), "slices": (), "made_by": "hm", "examples": (),
    }  # fmt: skip
    return ReportPage(table=table or comparison(), clips=tuple(clips), **(given | changes))


FILES = {"a.mp4": b"\0video", "b.mp4": b"another"}


def test_the_page_is_well_formed_and_asks_the_network_for_nothing():
    html = report_page(page(clips=[view()]), FILES, embed=True)
    found = parsed(html)
    links = [value for _, attributes in found.seen for key, value in attributes.items() if key in ("src", "href")]
    assert links == [] or all(link is None or not re.match(r"(https?:)?//", link) for link in links)
    assert "http" not in re.sub(r"http-equiv|http://www\.w3\.org/2000/svg", "", html)


def test_what_comes_from_others_is_text_everywhere():
    table = comparison(HOSTILE, notes=(HOSTILE,), cards=(CardDifference(place=HOSTILE, said=((HOSTILE, (HOSTILE,)),)),))
    clip = view(HOSTILE, caption=HOSTILE, split=HOSTILE, reasons=(HOSTILE,), missing=(HOSTILE,))
    plot = Plot(title=HOSTILE, svg=line_plot(
        [Series(name=HOSTILE, points=(Point(at=0, mean=1, low=0, high=2, count=3),))], [HOSTILE], x=HOSTILE, y=HOSTILE
    ))  # fmt: skip
    given = {"title": HOSTILE, "notes": (HOSTILE,), "abouts": (((HOSTILE, HOSTILE),), ()), "plots": (plot,)}
    html = report_page(page(table, [clip], plots_note=HOSTILE, made_by=HOSTILE, **given), FILES, embed=True)
    found = parsed(html)
    assert not [attributes for _, attributes in found.seen if "onerror" in attributes]
    assert "<img src=x" not in html
    data = json.loads(found.scripts["data"])
    assert data["clips"][0]["id"] == HOSTILE
    assert data["rows"][0]["name"] == HOSTILE


def test_the_script_gets_values_and_infinite_ones_as_text():
    html = report_page(page(clips=[view()]), FILES, embed=True)
    clip = json.loads(parsed(html).scripts["data"])["clips"][0]
    assert clip["values"] == [[[20.25, "ok"], ["Infinity", "ok"]], [[None, "failed"], [None, "not scored"]]]
    assert clip["lanes"][0]["spans"][0]["state"] == "hidden"


def test_videos_are_in_the_file_or_beside_it():
    inside, beside = (report_page(page(clips=[view()]), FILES, embed=embed) for embed in (True, False))
    scripts = parsed(inside).scripts
    assert scripts["media-a.mp4"].strip() == "data:video/mp4;base64,AHZpZGVv"
    assert scripts["media-b.mp4"].strip() == "data:video/mp4;base64,YW5vdGhlcg=="
    assert not any(name.startswith("media-") for name in parsed(beside).scripts)
    assert json.loads(parsed(beside).scripts["data"])["folder"] == "media/"


def test_differences_of_protocol_cards_stand_above_the_table():
    card = CardDifference(place="Reference, resize", said=(("to 8x8", ("ours",)), ("to 16x16", ("b",))))
    html = report_page(page(comparison(cards=(card,))), {}, embed=True)
    assert html.index("The protocol cards differ") < html.index("to 16x16") < html.index("<table")
    assert "cards differ" not in report_page(page(), {}, embed=True)
    assert "do not compare as they stand" in as_markdown(comparison(cards=(card,)))
    assert "% Reference, resize: ours: to 8x8; b: to 16x16" in as_latex(comparison(cards=(card,)))


def test_what_differs_by_rounding_alone_is_neither_better_nor_told_apart():
    assert not Difference(mean=1e-16, low=1e-16, high=2e-16, clips=3).told_apart
    assert Difference(mean=-0.1, low=-0.2, high=-1e-3, clips=3).told_apart
    column = Column(label="psnr", unit="dB", better="higher")
    rows = tuple(
        TableRow(name=name, model_free=free, cells=(cell(mean),))
        for name, free, mean in (("a", "", 20.25), ("b", "", 20.25 + 1e-14), ("c", "", 20.2), ("d", "frozen", 30.0))
    )
    assert best_rows(Comparison(columns=(column,), rows=rows, cards=(), notes=()), 0) == {0, 1}
    neither = replace(column, better="neither")
    assert best_rows(Comparison(columns=(neither,), rows=rows, cards=(), notes=()), 0) == set()
    assert (column.title, neither.title) == ("psnr [dB] ↑", "psnr [dB]")


def test_the_table_as_markdown():
    assert as_markdown(comparison()).splitlines()[-3:] == [
        "| --- | --- | --- |",
        "| ours | 20.250 [19.000, 21.000] | 0.2500 |".replace("| ours", "| ours"),
        "| b_1 50% (no model: last-frame) | 18.750 Δ −1.500 [−2.000, −1.000] (1 failed) | - |",
    ]


def test_the_table_as_latex_escapes_what_latex_reads():
    text = as_latex(comparison())
    assert "b\\_1 50\\% (no model: last-frame)" in text
    assert "psnr [dB] $\\uparrow$ & lpips (alex) $\\downarrow$ \\\\" in text
    assert "$\\Delta$ $-$1.500" in text
    assert text.count("\\begin{tabular}{lcc}") == text.count("\\end{tabular}") == 1
    assert as_latex(comparison("a\\b{c}")).count("a\\textbackslash{}b\\{c\\}")


def test_the_table_as_csv_has_numbers_in_full():
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison()))))
    assert [(row["row"], row["metric"], float(row["mean"])) for row in rows] == [
        ("ours", "psnr", 20.25), ("ours", "lpips (alex)", 0.25), ("b_1 50%", "psnr", 18.75),
    ]  # fmt: skip
    assert (rows[2]["difference"], rows[2]["difference_low"], rows[0]["difference"]) == ("-1.5", "-2.0", "")


def test_a_plot_leaves_out_what_is_infinite_and_refuses_what_has_nothing_to_draw():
    points = (Point(at=0, mean=1, low=0, high=2, count=3), Point(at=1, mean=math.inf, low=1, high=math.inf, count=1))
    assert line_plot([Series(name="a", points=points)], ["x", "y"], x="s", y="dB").count("<circle") == 1
    with pytest.raises(ValueError, match="no finite value"):
        line_plot([Series(name="a", points=points[1:])], ["x"], x="s", y="dB")


COSTS = (
    Cost(name="parameters", unit="million", values=(2.5, None), notes=("cpu", "")),
    Cost(name="seconds a clip", unit="s", values=(0.25, 123.4), notes=("cpu", "")),
)


def test_what_rows_took_stands_beside_their_scores_in_every_form():
    table = comparison(costs=COSTS)
    html = report_page(page(table), {}, embed=True)
    parsed(html)
    assert re.findall(r'<td class="cost">([^<]*)', html) == ["2.5", "0.25", "-", "123"]
    assert 'class="group">cost</th>' in html
    first, second = as_markdown(table).splitlines()[-2:]
    assert first.endswith("| 2.5 | 0.25 |")
    assert second.endswith("| - | 123 |")
    assert "\\begin{tabular}{lcccc}" in as_latex(table)
    assert "& 2.5 & 0.25 \\\\" in as_latex(table)
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    costs = [(row["row"], row["unit"], float(row["mean"])) for row in rows if row["metric"].startswith(("par", "sec"))]
    assert costs == [("ours", "million", 2.5), ("ours", "s", 0.25), ("b_1 50%", "s", 123.4)]
    assert "cost" not in report_page(page(), {}, embed=True).partition("</table>")[0].partition("<table")[2]


def test_slices_stand_by_class_and_row_with_how_much_they_are_of():
    cells = ((SliceCell(value=12.345, values=8, clips=2),), (None,))
    one = SliceClass(name="left the <frame>", cells=cells)
    html = report_page(page(slices=(Slice(name="reason", columns=(0,), classes=(one,)),)), {}, embed=True)
    parsed(html)
    body = html.partition('id="slices"')[2].partition("</section>")[0]
    assert '<th scope="rowgroup" rowspan="2">left the &lt;frame&gt;</th>' in body
    assert '<span class="mean">12.345</span><span class="range">n = 8, 2 clips</span>' in body
    assert body.count('<span class="soft">-</span>') == 1
    assert "psnr [dB] ↑" in body
    assert "lpips" not in body


def test_verdicts_stand_under_one_head_and_each_has_a_strip():
    columns = (
        Column(label="psnr", unit="dB", better="higher"),
        Column(label="verdict-right (x)", unit="share", better="higher", group="verdicts (x)", short="right"),
        Column(label="verdict-frozen (x)", unit="share", better="lower", group="verdicts (x)", short="frozen"),
    )
    row = TableRow(name="ours", model_free="", cells=(cell(20.0), cell(0.75), cell(0.25)))
    strip = Example(verdict="frozen", row="<ours>", clip="c1", subject="fox", picture=b"png")
    html = report_page(page(comparison(columns=columns, rows=(row,)), examples=(strip,), abouts=((),)), {}, embed=True)
    parsed(html)
    assert groups(comparison(columns=columns, rows=(row,))) == [("", 1), ("verdicts (x)", 2)]
    assert '<th colspan="2" scope="colgroup" class="group">verdicts (x)</th>' in html
    assert ">frozen [share] ↓</th>" in html
    assert "verdict-frozen (x) [share]" not in html.partition("<tbody>")[0]
    assert "<strong>frozen</strong> &lt;ours&gt;, c1, fox" in html
    assert f'src="data:image/png;base64,{base64.b64encode(b"png").decode()}"' in html
    without = report_page(page(), {}, embed=True)
    assert ('class="group"' in without, 'id="verdicts"' in without) == (False, False)
