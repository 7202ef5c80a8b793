"""The page of hm play in a real browser: keys move the camera, the map follows, strangers get nothing."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Page
from play_session import opened

from hmcli.stages.playing import server as serving
from hmcli.stages.playing.server import Server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in serving.PACKAGES), reason="needs hmcli[play]"
    ),
]
PICTURES = os.environ.get("HM_PLAY_PICTURES")  # folder for screenshots that a person wants to look at
HASH = "((d) => { let h = 0; for (let i = 0; i < d.length; i += 7) h = (h * 31 + d[i]) | 0; return h; })"


def drawn(page: Page, canvas: str) -> int:
    """A number that changes when the canvas does."""
    of = f"document.getElementById('{canvas}')"
    return page.evaluate(f"{HASH}({of}.getContext('2d').getImageData(0, 0, {of}.width, {of}.height).data)")


@pytest.fixture(scope="module")
def server(run: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("played")
    server = Server(opened(run, clips, place / "w"), place / "walks", name="tiny")
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(60)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_walk_by_keys(server: Server, tmp_path: Path, dark: bool):
    with Page(server.address, tmp_path / "profile", dark=dark) as page:
        page.until("walk.about !== null && arriving.length === 0 && ahead() === 0 && walk.shown >= 20")
        before, picture, map_before = page.evaluate("walk.frames.at(-1).pose"), drawn(page, "view"), drawn(page, "map")
        frames = page.evaluate("walk.frames.length")
        page.press("ArrowLeft" if dark else "a")
        page.until(f"walk.frames.length > {frames} && arriving.length === 0 && ahead() === 0")
        after = page.evaluate("walk.frames.at(-1).pose")
        assert np.sin(after[2] - before[2]) > 0, "it turned to the left"
        assert page.evaluate("walk.frames.length") == frames + page.evaluate("walk.about.chunk")
        page.until("current === walk.frames.at(-1)")
        assert drawn(page, "view") != picture
        assert drawn(page, "map") != map_before
        assert page.evaluate("current.reads.length") > 0
        assert page.evaluate("walk.about.subjects.length") > 0
        assert float(page.evaluate("document.getElementById('rate').textContent")) > 0
        assert float(page.evaluate("document.getElementById('wait').textContent")) >= 0
        page.press("m")
        page.until("!walk.memory")
        page.press("ArrowUp")
        page.until("!walk.frames.at(-1).memory && arriving.length === 0 && ahead() === 0")
        page.until("!document.getElementById('lost').hidden")
        if PICTURES:
            page.picture(Path(PICTURES) / f"play-{'dark' if dark else 'light'}.png")
        page.press("m")
        page.until("walk.memory")
        page.evaluate("document.getElementById('save').click()")
        page.until("document.getElementById('says').textContent.startsWith('Saved')")
        assert (server.saved[-1] / "tgt.mp4").is_file()
        page.press("r")
        page.until("replaying > 0")
        page.until("replaying < 0 && current === walk.frames.at(-1)")
        assert page.failed == []
        own = server.address.split("/?")[0]
        assert {address.split("/", 3)[2] for address in page.asked if not address.startswith(("data", "about"))} == {
            own.split("//")[1]
        }


def test_a_finger_on_a_button_steers_too(server: Server, tmp_path: Path):
    with Page(server.address, tmp_path / "profile") as page:
        page.resize(400, 800)
        page.until("walk.about !== null && arriving.length === 0 && ahead() === 0")
        frames = page.evaluate("walk.frames.length")
        page.evaluate(
            "(() => { const of = document.querySelector('[data-key=ahead]'); of.setPointerCapture = () => {};"
            " for (const kind of ['pointerdown', 'pointerup']) of.dispatchEvent(new PointerEvent(kind)); })()"
        )
        page.until(f"walk.frames.length > {frames}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a narrow screen"
        assert page.failed == []


def test_a_second_page_without_the_token_gets_nothing(server: Server, tmp_path: Path):
    opens = (
        f"new Promise(done => {{ const wire = new WebSocket('ws://127.0.0.1:{server.port}/walkTOKEN');"
        " wire.onopen = () => done('open'); wire.onerror = () => done('refused'); })"
    )
    token = f"?token={server.token}"
    with Page(server.address.split("?")[0], tmp_path / "stranger") as page:  # the browser says that it found nothing
        assert page.evaluate("document.title") != "hm play"
        assert page.evaluate("[typeof walk, document.querySelectorAll('canvas').length]") == ["undefined", 0]
        assert page.evaluate(opens.replace("TOKEN", "")) == "refused"
        assert page.evaluate(opens.replace("TOKEN", token)) == "refused", "its Origin is none"
    with Page(server.address, tmp_path / "own") as page:
        page.until("walk.about !== null")
        assert page.evaluate(opens.replace("TOKEN", "")) == "refused", "the Origin alone is not enough"
        assert page.evaluate(opens.replace("TOKEN", token)) == "open"
        page.until("document.getElementById('veil').textContent.includes('another page')")
