"""The server of hm play on a real port: who may come in, what is said, what a page that goes away leaves behind."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from play_session import opened
from warm import WarmCommand

from hmcli.stages.playing import server as serving
from hmcli.stages.playing.server import LONGEST, TAKEN_OVER, Server, policy

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in serving.PACKAGES), reason="needs hmcli[play]"
)
PATIENCE = 60  # seconds


@contextlib.contextmanager
def served(run: Path, latents: Path, place: Path) -> Iterator[Server]:
    server = Server(opened(run, latents, place / "w"), place / "walks", name="tiny")
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def server(run: Path, latents: Path, tmp_path: Path) -> Iterator[Server]:
    with served(run, latents, tmp_path) as server:
        yield server


def get(address: str, **headers: str) -> tuple[int, bytes, Any]:
    asked = urllib.request.Request(address, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


class Page:
    """What a page does on its WebSocket."""

    def __init__(self, server: Server, *, token: str | None = None, origin: str | None = "", host: str = "127.0.0.1"):
        from websockets.sync.client import connect

        own = f"http://127.0.0.1:{server.port}"
        self.opening = connect(
            f"ws://{host}:{server.port}/walk?token={server.token if token is None else token}",
            origin=own if origin == "" else origin, open_timeout=PATIENCE, proxy=None,
        )  # fmt: skip

    def __enter__(self) -> Page:
        self.wire = self.opening.__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        self.opening.__exit__(*about)

    def tell(self, **message: Any) -> None:
        self.wire.send(json.dumps(message))

    def hear(self) -> tuple[dict[str, Any], list[bytes]]:
        told = json.loads(self.wire.recv(PATIENCE))
        return told, [self.wire.recv(PATIENCE) for _ in range(told["pictures"])]

    def step(self, *keys: str) -> tuple[dict[str, Any], list[bytes]]:
        self.tell(type="step", keys=list(keys))
        return self.hear()


def test_the_page_comes_with_the_token_alone_and_may_load_nothing_else(module_server: Server):
    status, body, headers = get(module_server.address)
    assert status == 200
    assert b"<title>hm play</title>" in body
    rules = headers["content-security-policy"]
    assert rules.startswith("default-src 'none'; script-src 'sha256-")
    assert f"connect-src ws://127.0.0.1:{module_server.port};" in rules
    assert "unsafe" not in rules
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    own = module_server.address.split("?")[0]
    for address in (
        own,
        f"{own}?token=",
        f"{own}?token={module_server.token[:-1]}",
        f"{own}?token={module_server.token}x",
    ):
        assert get(address)[:2] == (404, b"")
    assert get(f"{own}page.html?token={module_server.token}")[0] == 404


def test_another_name_for_this_machine_gets_nothing(module_server: Server):
    """A page of another site whose name was made to lead here (DNS rebinding)."""
    assert get(module_server.address, Host=f"evil.example:{module_server.port}")[:2] == (404, b"")
    assert get(module_server.address, Host=f"localhost:{module_server.port}")[0] == 200


def test_it_listens_on_the_loopback_address_alone(module_server: Server):
    assert module_server.socket.getsockname()[0] == "127.0.0.1"


def test_tokens_differ(run: Path, latents: Path, tmp_path: Path):
    walk = opened(run, latents, tmp_path)
    tokens = set()
    for _ in range(2):
        server = Server(walk, tmp_path, name="tiny")
        tokens.add(server.token)
        server.socket.close()
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize(
    "how",
    [{"token": "wrong"}, {"token": ""}, {"origin": "http://evil.example"}, {"origin": None}, {"origin": "null"}],
    ids=str,
)
def test_a_foreign_page_gets_no_websocket(module_server: Server, how: dict[str, Any]):
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as refused, Page(module_server, **how):
        pass
    assert refused.value.response.status_code == 403


def test_a_walk_is_told_and_shown(server: Server, latents: Path):
    with Page(server) as page:
        about, given = page.hear()
        assert (about["type"], about["model"], about["memory"], about["chunks"]) == ("hello", "tiny", True, [])
        assert len(given) == len(about["context"]["poses"]) == 21
        made, pictures = page.step("left")
        assert (made["type"], made["number"], len(made["poses"])) == ("chunk", 0, about["chunk"])
        assert len(pictures) == about["chunk"] == made["frames"]
        assert all(picture[:3] == b"\xff\xd8\xff" for picture in pictures)
        assert made["poses"][-1][2] > made["poses"][0][2], "it turns to the left"
        assert made["rate"] > 0
        assert made["reads"][0][0].keys() == {"first", "last", "weight"}
        page.tell(type="memory", on=False)
        assert page.hear()[0]["on"] is False
        made, _ = page.step("left")
        assert (made["memory"], any(made["reads"])) == (False, False)
        page.tell(type="save")
        saved, _ = page.hear()
        assert (saved["type"], Path(saved["path"])) == ("saved", server.saved[0])
        assert (server.saved[0] / "camera.json").is_file()


@pytest.mark.parametrize(
    "message",
    [
        "not json", "[]", "{}", '"step"', '{"type": "step"}', '{"type": "step", "keys": ["up"]}',
        '{"type": "step", "keys": [1]}', '{"type": "step", "keys": "left"}', '{"type": "memory", "on": 1}',
        '{"type": "save", "path": "/etc"}', '{"type": ["save"]}', b"\x00\x01", "[" * 2000,
    ],
    ids=lambda message: str(message[:40]),
)  # fmt: skip
def test_foreign_messages_are_refused_and_the_walk_goes_on(module_server: Server, message: str | bytes):
    with Page(module_server) as page:
        page.hear()
        page.wire.send(message)
        assert page.hear()[0]["type"] == "error"
        page.tell(type="memory", on=True)
        assert page.hear()[0] == {"type": "memory", "on": True, "pictures": 0}


@pytest.fixture(scope="module")
def module_server(run: Path, latents: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(run, latents, tmp_path_factory.mktemp("served")) as server:
        yield server


def test_a_message_that_is_too_long_ends_the_page_and_not_the_server(module_server: Server):
    from websockets.exceptions import ConnectionClosedError

    with Page(module_server) as page:
        page.hear()
        page.wire.send("x" * (LONGEST + 1))
        with pytest.raises(ConnectionClosedError) as closed:
            page.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    with Page(module_server) as page:
        assert page.hear()[0]["type"] == "hello"


def test_what_cannot_be_saved_is_said(module_server: Server):
    with Page(module_server) as page:
        page.hear()
        page.tell(type="save")
        told, _ = page.hear()
    assert (told["type"], told["what"]) == ("error", "there is no walk yet to save")


def test_a_page_that_goes_away_within_a_chunk_finds_it_when_it_comes_back(server: Server):
    begun, goes_on, step = threading.Event(), threading.Event(), server.session.step

    def slow(keys: list[str]) -> Any:
        begun.set()
        assert goes_on.wait(PATIENCE)
        return step(keys)

    server.session.step = slow  # type: ignore[method-assign]
    with Page(server) as page:
        page.hear()
        page.tell(type="step", keys=["left"])
        assert begun.wait(PATIENCE)
    assert server.session.chunks == []
    with Page(server) as page:
        goes_on.set()
        about, pictures = page.hear()
        assert [made["number"] for made in about["chunks"]] == [0], (
            "it is not told without the chunk that is being made"
        )
        assert len(pictures) == 21 + about["chunk"]
        made, _ = page.step("left")
        assert made["number"] == 1


def test_a_second_page_takes_over(server: Server):
    from websockets.exceptions import ConnectionClosed

    with Page(server) as first:
        first.hear()
        first.step("left")
        with Page(server) as second:
            about, _ = second.hear()
            assert len(about["chunks"]) == 1
            with pytest.raises(ConnectionClosed) as closed:
                first.hear()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == TAKEN_OVER
            assert second.step()[0]["number"] == 1


def test_the_policy_names_the_script_and_the_style_of_the_page_as_they_are():
    page = "<style>a{}</style><script>let a;</script>"
    assert policy(page, "h:1") != policy(page.replace("let", "var"), "h:1")
    assert policy(page, "h:1").count("'sha256-") == 2


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_the_command_serves_until_it_is_ended_and_names_the_saved_walks(
    run: Path, latents: Path, tmp_path: Path, ending: signal.Signals
):
    command = [str(Path(sys.executable).with_name("hm")), "play", str(run), str(latents), "--out", "mine"]
    command += ["--set", "sample.steps=1", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = next(line for line in process.stderr if line.startswith("open http://127.0.0.1:"))
    address = told.split()[1]
    assert get(address)[0] == 200
    port, _, token = address.removeprefix("http://127.0.0.1:").partition("/?token=")
    with Page(SimpleNamespace(port=port, token=token)) as page:  # type: ignore[arg-type]
        page.hear()
        page.step("ahead")
        page.tell(type="save")
        assert page.hear()[0]["type"] == "saved"
    process.send_signal(ending)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out.strip()) == (0, str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "walk-001" / "tgt.mp4").is_file()


def test_a_dry_run_makes_nothing(hm: WarmCommand, run: Path, latents: Path, tmp_path: Path):
    done = hm("play", run, latents, "--dry-run", "--out", tmp_path / "w")
    assert (done.returncode, done.stdout) == (0, "")
    assert "chunks of 5 frames, 4 steps each" in done.stderr
    assert not (tmp_path / "w").exists()
    for override in ("world.clips=2", "eval.backbone=hog", "train.steps=3"):
        assert hm("play", run, latents, "--dry-run", "--set", override).returncode == 2
