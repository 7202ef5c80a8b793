"""hm report in a real browser: it opens from disk, its players are in step, keys, sorting and filters work."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Page
from verdict_words import NAMES, make_known

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.bench import rows as bench_rows
from hmcli.stages.reporting import report
from hmcli.stages.scoring import evaluate

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)"),
]
ROWS = ("last-frame", "frozen")
LISTED = "[...document.querySelectorAll('#list button')].map(one => one.dataset.clip)"
FRAMES = "players.map(one => [one.first, now(one)])"
READY = "players.length > 0 && players.every(one => one.video.readyState >= 2 && !one.video.seeking)"
PICTURES = os.environ.get("HM_REPORT_PICTURES")  # folder for screenshots that a person wants to look at


@pytest.fixture(scope="module")
def files(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two rows of three clips: one file, and a site."""
    root = tmp_path_factory.mktemp("browser")
    bench_rows.run(clips, out=root / "rows", rows=ROWS, reporter=Silent())
    with pytest.MonkeyPatch.context() as patch:
        make_known(patch)
        for row in ROWS:
            evaluate.run(
                load_recipe(), generation=root / "rows" / row, reference=None,
                metrics=("psnr", "psnr-returned", *NAMES), out=root / f"{row}.evaluation", reporter=Silent(),
            )  # fmt: skip
    given = {"tables": None, "clips": (), "generations": (), "reference": None, "title": "t", "reporter": Silent()}
    paths = [root / f"{row}.evaluation" for row in ROWS]
    report.run(paths, out=root / "r.html", bundle=None, **given)
    report.run(paths, out=None, bundle=root / "site", **given)
    return root


@pytest.fixture(params=["r.html", "site/index.html"])
def page(request: pytest.FixtureRequest, files: Path, tmp_path: Path) -> Iterator[Page]:
    with Page((files / request.param).as_uri(), tmp_path / "profile") as opened:
        opened.until(READY)
        yield opened


def values(page: Page) -> dict[str, list[float]]:
    """psnr of every clip, a number per row."""
    clips = page.evaluate("data.clips")
    return {clip["id"]: [row[0][0] for row in clip["values"]] for clip in clips}


def test_it_opens_from_disk_and_fetches_nothing_else_from_anywhere(page):
    for _ in range(2):
        page.press("ArrowRight")
        page.until(READY)
    assert page.failed == []
    assert {address.split(":")[0] for address in page.asked} <= {"file", "blob", "data", "about"}
    assert page.evaluate("document.querySelectorAll('[data-failed]').length") == 0


def test_arrow_keys_change_the_clip_and_stop_at_both_ends(page):
    order = page.evaluate(LISTED)
    assert page.evaluate("current.id") == order[0]
    for key, wanted in (
        ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowRight", 2), ("ArrowLeft", 1),
    ):  # fmt: skip
        page.press(key)
        assert page.evaluate("document.getElementById('id').textContent") == order[wanted]
        assert page.evaluate("document.querySelector('[aria-current=true]').dataset.clip") == order[wanted]


def test_players_step_scrub_and_pause_in_lockstep(page):
    def together(frame: int) -> None:
        page.until(READY)
        for first, shown in page.evaluate(FRAMES):
            assert shown == min(max(frame - first, 0), 20)

    assert page.evaluate("players.length") == 4
    together(21)  # the target begins
    page.press(".")
    page.press(".")
    together(23)
    page.press(",")
    together(22)
    page.choose("scrub", "5")
    together(5)
    page.choose("scrub", "22")  # far from the end, which it would stop at
    page.press(" ")
    page.until("frame >= 24")
    apart = [page.evaluate("players.filter(active).map(now)") for _ in range(5)]
    assert max(max(shown) - min(shown) for shown in apart) <= 2
    page.press(" ")
    frame = page.evaluate("frame")
    assert page.evaluate("playing") is False
    together(frame)


def test_the_view_from_above_and_the_timeline_follow_the_players(page):
    page.choose("scrub", "0")
    places = "['.true.here', '.view'].map(of => document.querySelector(`#above ${of}`).outerHTML)"
    before = page.evaluate(places)
    page.choose("scrub", "35")
    after = page.evaluate(places)
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert page.evaluate("document.querySelector('#timeline .sight .head').getAttribute('x1')") == "35.5"
    lanes = page.evaluate("[...document.querySelectorAll('#timeline .sight')].map(one => one.firstChild.title)")
    told = zip(ROWS, page.evaluate("current.verdicts"), strict=True)
    assert {f"{subject} by {row} · {verdict}" for row, of in told for subject, verdict in of} <= {*lanes}


def test_playing_goes_through_context_and_target_and_ends_at_the_last_frame(page):
    page.choose("scrub", "0")
    page.press(" ")
    page.until("frame > 24")
    page.until("!playing")
    assert page.evaluate("frame") == 41


def test_sorting_by_the_worst_of_a_column_and_filters(page):
    found = values(page)
    page.choose("sort", "0")
    assert page.evaluate(LISTED) == sorted(found, key=lambda clip: min(found[clip]))
    page.choose("of", "1")
    assert page.evaluate(LISTED) == sorted(found, key=lambda clip: found[clip][1])
    page.choose("sort", "")
    hidden = {clip["id"]: clip["hidden_seconds"] for clip in page.evaluate("data.clips")}
    middle = float(np.median(list(hidden.values())))
    page.choose("least", str(middle))
    assert page.evaluate(LISTED) == [clip for clip, seconds in hidden.items() if seconds >= middle]
    page.choose("least", "1000")
    assert page.evaluate(LISTED) == []
    assert page.evaluate("document.getElementById('clip').hidden") is True
    page.choose("least", "")
    reasons = {clip["id"]: clip["reasons"] for clip in page.evaluate("data.clips")}
    for reason in {reason for of in reasons.values() for reason in of}:
        page.choose("reason", reason)
        assert page.evaluate(LISTED) == [clip for clip, of in reasons.items() if reason in of]
    page.choose("reason", "")
    said = {clip["id"]: {verdict for _, verdict in clip["verdicts"][0]} for clip in page.evaluate("data.clips")}
    for verdict in set().union(*said.values()):
        page.choose("verdict", verdict)
        assert page.evaluate(LISTED) == [clip for clip, of in said.items() if verdict in of]
    page.choose("verdict", "")
    page.choose("text", "00001")
    assert page.evaluate(LISTED) == ["s5-00001"]
    assert page.evaluate("current.id") == "s5-00001"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_sticks_out_at_any_width(files, tmp_path, dark):
    with Page((files / "r.html").as_uri(), tmp_path / "profile", dark=dark) as page:
        page.until(READY)
        for width in (400, 1200, 2000):
            page.resize(width, 900)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
            if PICTURES:
                page.picture(Path(PICTURES) / f"{width}-{'dark' if dark else 'light'}.png")
        ground, ink = page.evaluate("(of => [of.backgroundColor, of.color])(getComputedStyle(document.body))")
        assert (brightness(ground) < brightness(ink)) is dark


def brightness(colour: str) -> int:
    return sum(json.loads(f"[{colour.removeprefix('rgb(').removesuffix(')')}]"))
