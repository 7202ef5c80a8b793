"""The gallery: what stands in the page, and that a real browser plays it."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from hmcli.reports.gallery import GalleryClip, Lane, gallery
from hmcli.reports.top_down import SUBJECT_COLOURS, Walked, top_down
from hmcli.store.video import write_video

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def clip(name: str = "a", **changes) -> GalleryClip:
    given = {
        "id": name, "caption": "A fox <walks> & stops", "facts": (("scene", "beach"),), "frames": (9, 13),
        "videos": (f"{name}/context.mp4", f"{name}/target.mp4"), "pictures": (("contact sheet", f"{name}/sheet.png"),),
        "lanes": (Lane(subject="1: fox", hidden=((5, 11, "occluded"),)), Lane(subject="2: hen", hidden=())),
    }  # fmt: skip
    return GalleryClip(**(given | changes))


def test_the_page_says_everything_about_a_clip_and_escapes_it():
    page = gallery("my <clips>", [clip(), clip("b", videos=("b/context.mp4",), frames=(9, 0))])
    assert "my &lt;clips&gt;" in page
    assert "A fox &lt;walks&gt; &amp; stops" in page
    assert "out of sight, frames 5 to 11, occluded" in page
    assert '<rect x="5" y="2" width="7" height="10" fill="var(--away)">' in page
    assert 'data-context="9" data-total="22"' in page
    assert page.count("<article") == 2
    assert 'data-videos="a/context.mp4 a/target.mp4"' in page


def test_links_are_percent_encoded(tmp_path):
    names = ["50%25 off", "a b", "#1?x=2", 'q"uote', "été"]
    page = gallery("x", [clip(name, pictures=(("sheet", f"clips/{name}/sheet.png"),)) for name in names])
    links = re.findall(r'(?:src|data-videos)="([^"]+)"', page)
    assert len(links) == 3 * len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9%/._~ -]+", link) for link in links)
    for name in names:
        assert [unquote(part) for part in links[3 * names.index(name) + 1].split()] == [
            f"{name}/context.mp4", f"{name}/target.mp4",
        ]  # fmt: skip


def test_the_page_asks_the_network_for_nothing():
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", gallery("x", [clip()]))


def test_a_subjects_way_is_dotted_while_it_is_hidden():
    frames = 40
    poses = np.repeat(np.eye(4)[None], frames, axis=0)
    poses[:, :3, :3] = np.stack([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], axis=1)  # looks along +y
    place = np.stack([np.linspace(-3, 3, frames), np.full(frames, 6.0)], 1)
    hidden = np.zeros(frames, bool)

    def drawn(of: np.ndarray) -> int:
        picture = top_down(poses, [Walked(name="x", place=place, hidden=of)], context=20, field_of_view=0.6)
        plot = picture[: picture.shape[1]]  # without the legend
        return int((plot == SUBJECT_COLOURS[0]).all(-1).sum())

    seen = drawn(hidden)
    hidden[10:35] = True
    assert 0 < drawn(hidden) < seen


def test_dots_of_a_slow_walk_do_not_run_together():
    frames = 300
    poses = np.repeat(np.eye(4)[None], frames, axis=0)
    place = np.stack([np.linspace(-3, 3, frames), np.full(frames, 6.0)], 1)
    walked = [Walked(name="x", place=place, hidden=np.ones(frames, bool))]
    picture = top_down(poses, walked, context=20, field_of_view=0.6)
    columns = (picture[: picture.shape[1]] == SUBJECT_COLOURS[0]).all(-1).any(0)
    assert np.diff(columns.astype(int)).clip(0).sum() > 12  # dots with gaps between them


def test_cameras_alone_make_a_plot_that_says_so():
    poses = np.repeat(np.eye(4)[None], 7, axis=0)
    picture = top_down(poses, [], context=4, field_of_view=None)
    assert picture.dtype == np.uint8
    assert (picture != 255).any()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)")
def test_a_browser_plays_context_and_then_target(tmp_path: Path):
    rng = np.random.default_rng(0)
    for part, frames in (("context", 9), ("target", 13)):
        (tmp_path / "a").mkdir(exist_ok=True)
        write_video(tmp_path / "a" / f"{part}.mp4", rng.integers(0, 255, (frames, 32, 48, 3), dtype=np.uint8), fps=15)
    # the page counts as loaded, and is dumped, when the slow picture is there
    page = gallery("clips", [clip(), clip("b", videos=("b/none.mp4",))])
    (tmp_path / "index.html").write_text(page.replace("<main>", '<img src="/slow"><main>'), encoding="utf-8")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow":
                time.sleep(5)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        dumped = subprocess.run(
            [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
             f"--user-data-dir={tmp_path / 'profile'}", "--autoplay-policy=no-user-gesture-required",
             f"http://127.0.0.1:{server.server_port}/index.html#play"],
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    a, b = re.findall(r"<article[^>]*>", dumped)
    assert 'data-played="context target' in a, dumped[:2000]
    assert 'data-failed="b/none.mp4"' in b
