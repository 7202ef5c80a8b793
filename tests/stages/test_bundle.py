"""hm play --bundle: a folder that walks in the browser alone, and (slow, in Chromium) the walk that Python makes."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chromium import CHROMIUM, Page
from play_session import opened
from warm import WarmCommand, ok

from hmcli.core.sampler import start_noise
from hmcli.stages.exporting.running import WRITES, Graph
from hmcli.stages.playing.layout import KIND, RUNTIME_FILES
from hmcli.stages.playing.motion import Pace, Speed, moved
from hmcli.stages.sampling.samples import chunk_seed
from hmcli.store.manifest import read_manifest
from hmcli.world.views.cameras import relative_camera_rows
from hmcli.world.views.presets import parse_preset, preset_poses

MISSING = [name for name in WRITES if importlib.util.find_spec(name) is None]
ORT_WEB = os.environ.get("HM_ORT_WEB", "")  # folder of the npm package onnxruntime-web
needs_them = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)} (hmcli[onnx])")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian package chromium)")
needs_runtime = pytest.mark.skipif(not ORT_WEB, reason="needs HM_ORT_WEB, a folder of onnxruntime-web (npm)")
SETTINGS = ("sample.steps=2", "sample.anchor_radius=0.5", "sample.max_history=16")
SCRIPTS = Path(__file__).parents[2] / "hmcli" / "stages" / "playing"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder that looks like the npm package; nothing in it runs."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / name).write_text("// nothing")
    (folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.30.0"}')
    return folder


# --- what is refused -------------------------------------------------------------------------------------------------


@needs_them
def test_without_the_runtime_the_way_to_it_is_named(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    words = ["play", run, latents, "--bundle", tmp_path / "walk"]
    done = hm(*words)
    assert done.returncode == 5
    assert "npm install onnxruntime-web@" in done.stderr
    (tmp_path / "dist").mkdir()
    done = hm(*words, "--runtime", tmp_path)
    assert done.returncode == 5
    assert "no folder of the npm package onnxruntime-web" in done.stderr
    assert "dist/ort.wasm.min.js" in done.stderr
    assert not (tmp_path / "walk").exists()


@needs_them
def test_another_package_or_an_unreadable_one_is_refused(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path, runtime: Path
):
    words = ["play", run, latents, "--bundle", tmp_path / "walk", "--runtime", runtime]
    (runtime / "package.json").write_text('{"name": "left-pad", "version": "1"}')
    done = hm(*words)
    assert (done.returncode, "this is the package 'left-pad'" in done.stderr) == (5, True)
    (runtime / "package.json").write_text("[]")
    done = hm(*words)
    assert (done.returncode, "package.json cannot be read" in done.stderr) == (3, True)


@needs_them
def test_a_model_that_graphs_cannot_walk_in_is_refused(
    hm: WarmCommand, run: Path, joint_run: Path, latents: Path, tmp_path: Path, runtime: Path
):
    other = tmp_path / "fov"
    ok(hm("convert", run, "--out", other, "--set", "model.memory.policy=fov"))
    for model, said in ((other, "policy fov reads far"), (joint_run, "model.memory.context is joint")):
        done = hm("play", model, latents, "--bundle", tmp_path / "walk", "--runtime", runtime)
        assert done.returncode == 2
        assert said in done.stderr
    assert not (tmp_path / "walk").exists()


@needs_them
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "sample.guidance=2"], "cannot do sample.guidance=2"),
        (["--set", "sample.scheduler=heun"], "cannot do sample.scheduler=heun"),
        (["--device", "cuda"], "graphs are written on the CPU"),
        (["--port", "80"], "--port: nothing is served with --bundle"),
        (["--out", "walks"], "--out: nothing is served with --bundle"),
    ],
)
def test_what_a_page_without_a_server_cannot_do_is_refused_by_its_name(
    hm: WarmCommand, run: Path, latents: Path, tmp_path: Path, runtime: Path, words: list[str], said: str
):
    done = hm("play", run, latents, "--bundle", tmp_path / "walk", "--runtime", runtime, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "walk").exists()


def test_options_of_a_folder_are_refused_without_one(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    done = hm("play", run, latents, "--runtime", tmp_path, "--force")
    assert done.returncode == 2
    assert "--runtime, --force: there is no folder without --bundle" in done.stderr


@needs_them
def test_a_dry_run_writes_nothing(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path, runtime: Path):
    done = hm("play", run, latents, "--bundle", tmp_path / "walk", "--runtime", runtime, "--dry-run")
    assert done.returncode == 0
    assert "in the browser" in done.stderr
    assert not (tmp_path / "walk").exists()


# --- its scripts, without a model ------------------------------------------------------------------------------------


def evaluated(page: Page, script: str) -> Any:
    """The value of an expression beside what `walking.js` defines."""
    source = (SCRIPTS / "walking.js").read_text(encoding="utf-8")
    return page.evaluate(f"(async () => {{ {source}; return {script}; }})()")


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page("about:blank", tmp_path_factory.mktemp("blank")) as page:
        yield page


@needs_browser
@pytest.mark.browser
def test_the_camera_moves_as_in_python(blank: Page):
    pace, pose, speed = Pace(), preset_poses(parse_preset("still"), 1)[0], Speed()
    tilt = np.eye(4)
    tilt[:3, :3] = [[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]]
    pose = pose @ tilt
    about = {"frames": 9, "fps": 10, "pace": {"turn": pace.turn, "walk": pace.walk, "settle": pace.settle}}
    start: dict[str, Any] = {"pose": pose.flatten().tolist(), "speed": {"turn": 0, "ahead": 0, "aside": 0}}
    for keys in (["left", "ahead"], ["right", "aside-left", "back"], []):
        poses, speed = moved(pose, speed, keys, frames=9, fps=10, pace=pace)
        given = json.dumps([start["pose"], start["speed"], keys, about])
        found = evaluated(blank, f"moved(...{given})")
        np.testing.assert_allclose(np.reshape(found["poses"], (9, 4, 4)), poses, atol=1e-12)
        assert found["speed"] == pytest.approx({"turn": speed.turn, "ahead": speed.ahead, "aside": speed.aside})
        anchor = np.diag([1.0, 1.1, 0.9, 1.0]) @ pose  # foreign cameras are not exactly rigid
        rows = evaluated(blank, f"[...cameraRows(moved(...{given}).poses, {anchor.flatten().tolist()})]")
        np.testing.assert_allclose(np.reshape(rows, (9, 12)), relative_camera_rows(poses, anchor), atol=1e-6)
        pose, start = poses[-1], {"pose": found["poses"][-1], "speed": found["speed"]}


@needs_browser
@pytest.mark.browser
def test_the_oldest_stretches_are_forgotten_and_far_ones_wait(blank: Page):
    def walk(positions: list[float], then: str, radius: float = 0) -> Any:
        """Chunks of two latent frames that stand at these places, after a start of four at 0; places for 4 slots."""
        return evaluated(blank, f"""(() => {{
            const at = x => [1, 0, 0, x, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
            const settings = {{ slot: 2, places: 4, radius: {radius}, window: 3, blocks: 1 }};
            const past = new Past(settings, {{ latents: 0, poses: Array(4).fill(at(0)) }}, () => null);
            for (const x of {positions}) {{ past.comeTo([at(x), at(x)]); past.add(0, [at(x), at(x)]); }}
            return {then};
        }})()""")  # fmt: skip

    assert walk([0, 0], "past.inside.map(of => of.first)") == [0, 4, 6]
    assert walk([0, 0, 0], "past.inside.map(of => of.first)") == [4, 6, 8], "room for four slots: the start is gone"
    far = "(past.comeTo([at(0), at(0)]), past.inside.map(of => [of.first, of.gap]))"
    assert walk([5, 5], far, radius=1) == [[0, 2], [6, 0]], (
        "the first chunk is out of reach, and what is before it older"
    )
    assert walk([5, 5], "past.inside.map(of => of.first)", radius=1) == [0, 4, 6], "the start was in the window"


@needs_browser
@pytest.mark.browser
def test_noise_is_normal_and_comes_from_its_seed(blank: Page):
    found = np.asarray(evaluated(blank, "[...normal(20000, 3)]"))
    np.testing.assert_allclose([found.mean(), found.std(), (found**3).mean()], [0, 1, 0], atol=0.05)
    assert evaluated(
        blank, "normal(4, 3).join() === normal(4, 3).join() && normal(4, 3).join() !== normal(4, 4).join()"
    )


# --- a whole one -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(hm: WarmCommand, run: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "walk"
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return ok(hm("play", run, clips, "--bundle", out, "--runtime", ORT_WEB, *sets))


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """A host of plain files, as `python -m http.server` is one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(bundle)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join(60)


@needs_them
@needs_runtime
@pytest.mark.slow
def test_the_folder_is_an_artifact_that_names_no_other_place(
    hm: WarmCommand, run: Path, clips: Path, bundle: Path, place: Path
):
    manifest = read_manifest(bundle, kinds=(KIND,))
    about: Any = manifest.attributes
    assert max(about["apart"].values()) <= 1e-4
    assert (about["start"], about["chunk"], about["slots"]) == (6, 2, 8)
    assert Graph(bundle / "step-on.onnx").names[:4] == ("latents", "timestep", "text", "camera")
    for file in (one for one in bundle.rglob("*") if one.is_file()):
        assert str(place).encode() not in file.read_bytes(), file
    for name in ("index.html", "bundle.js", "engine.js", "walking.js", "isolate.js"):
        assert "http" not in (bundle / name).read_text().replace("http-equiv", "")
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    again = hm("play", run, clips, "--bundle", bundle, "--runtime", ORT_WEB, *sets)
    assert "written already: kept" in again.stderr


def until(page: Page, script: str) -> None:
    """As `Page.until`, of a page that may load itself anew meanwhile."""
    end = time.monotonic() + 120
    while True:
        try:
            if page.evaluate(f"typeof walk !== 'undefined' && ({script})"):
                return
        except AssertionError:
            assert time.monotonic() < end, f"never true: {script}"
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.1)


SHOWN = "walk.about !== null && arriving.length === 0 && ahead() === 0"


@needs_them
@needs_runtime
@needs_browser
@pytest.mark.slow
@pytest.mark.browser
def test_the_browser_walks_as_python_does(run: Path, clips: Path, address: str, tmp_path: Path):
    """From the same noise, along the same keys, over new anchors, with memory and without."""
    session = opened(run, clips, tmp_path / "w", *SETTINGS)
    shape = (1, session.on.network.config.in_channels, 1 + (session.length - 1) // 4, *session.on.view.latent_size)
    given = len(session.context_frames)
    with Page(f"{address}?threads=1", tmp_path / "profile") as page:
        until(page, f"{SHOWN} && walk.shown >= {given - 1}")
        for number, (keys, on) in enumerate(
            [(["ahead"], True), (["ahead", "left"], True), (["left"], False), (["back"], True), ([], True)]
        ):
            if session.memory != on:
                session.memory = on
                page.evaluate(f"tell({{ type: 'memory', on: {json.dumps(on)} }})")
            made = session.step(keys)
            seed = chunk_seed(session.on.recipe.seed, session.clip.id, 1, number)
            noise = start_noise(shape, [torch.Generator().manual_seed(seed)]).flatten().tolist()
            page.evaluate(f"tell({json.dumps({'type': 'noise', 'noise': noise})})")
            page.evaluate(f"tell({json.dumps({'type': 'step', 'keys': keys})})")
            first = given + number * session.length
            until(page, f"walk.error || (walk.frames.length === {first + session.length} && arriving.length === 0)")
            assert page.evaluate("walk.error") == ""
            pictures = page.evaluate(f"walk.frames.slice({first}).map(frame => [...frame.picture.data])")
            found = np.asarray(pictures, dtype=int).reshape(*made.frames.shape[:3], 4)[..., :3]
            apart = np.abs(found - made.frames)
            assert apart.max() <= 1, f"chunk {number}: a level of 255, where a value lies between two"
            assert (apart > 0).mean() < 0.01
            reads = page.evaluate(f"walk.frames.slice({first}).filter((_, i) => i % 4 === 0).map(frame => frame.reads)")
            for mine, theirs in zip(made.reads, reads, strict=True):
                assert [(of.first, of.last) for of in mine] == [(of["first"], of["last"]) for of in theirs]
                assert [of.weight for of in mine] == pytest.approx([of["weight"] for of in theirs])
            assert bool(reads[0]) == on
            assert page.evaluate("walk.frames.at(-1).memory") == on
            assert page.evaluate("walk.frames.at(-1).chunk") == number
        assert page.failed == []


@needs_them
@needs_runtime
@needs_browser
@pytest.mark.slow
@pytest.mark.browser
def test_keys_walk_on_several_threads_and_nothing_comes_from_elsewhere(address: str, tmp_path: Path):
    with Page(f"{address}?threads=2", tmp_path / "profile") as page:
        until(page, f"crossOriginIsolated && walk.about !== null && walk.about.threads === 2 && {SHOWN}")
        frames, pose = page.evaluate("walk.frames.length"), page.evaluate("walk.frames.at(-1).pose")
        page.press("a")
        until(page, f"walk.error || (walk.frames.length > {frames} && {SHOWN})")
        assert page.evaluate("walk.error") == ""
        assert np.sin(page.evaluate("walk.frames.at(-1).pose")[2] - pose[2]) > 0, "it turned to the left"
        assert page.evaluate("current.reads.length") > 0
        assert page.evaluate("document.getElementById('save').hidden")
        assert float(page.evaluate("document.getElementById('rate').textContent")) > 0
        page.press("m")
        until(page, "!walk.memory")
        page.press("ArrowUp")
        until(page, f"!walk.frames.at(-1).memory && {SHOWN}")
        page.press("r")
        until(page, "replaying > 0")
        until(page, "replaying < 0 && current === walk.frames.at(-1)")
        assert page.failed == []
        host = address.split("/")[2]
        assert {asked.split("/", 3)[2] for asked in page.asked if not asked.startswith(("data", "about"))} == {host}
