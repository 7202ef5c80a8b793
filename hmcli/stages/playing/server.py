"""The page of a walk: one HTML file and one WebSocket, for this machine alone.

It listens on the loopback address. Who does not know the token in the address gets an empty answer; a WebSocket must
come from the page itself (Origin), and a request must name this machine as its host, so that no page of another site
reaches it.
One page steers at a time: a later one takes over. What is said on the WebSocket stands in docs/play.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib.util
import io
import json
import re
import secrets
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hmcli.errors import HMError, MissingPartError
from hmcli.stages.playing import record
from hmcli.stages.playing.motion import KEYS, level
from hmcli.stages.playing.session import Made, Session
from hmcli.world.views.cameras import field_of_view

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection
    from starlette.responses import Response
    from starlette.websockets import WebSocket

HOST = "127.0.0.1"
PACKAGES = ("starlette", "uvicorn", "websockets")
LONGEST = 4096  # bytes of a message from the page
QUALITY = 92  # of the JPEGs that the page shows
TAKEN_OVER, NO_ENTRY = 4001, 1008  # why a WebSocket is closed
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def check_packages() -> None:
    """Raise MissingPartError unless the extra is installed."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise MissingPartError(
            f"hm play needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}", fix="pip install 'hmcli[play]'"
        )


class Server:
    """A walk behind an address: `address` is what a browser opens; `serve` answers until it is stopped."""

    def __init__(self, session: Session, out: Path, *, name: str, port: int = 0, token: str = "") -> None:
        """`port` 0: any that is free. `name` is the model's, for the page."""
        check_packages()
        self.socket = socket.create_server((HOST, port))
        self.port = int(self.socket.getsockname()[1])
        self.token, self.session = token or secrets.token_urlsafe(24), session
        self.app = application(Desk(session, out, name), self.token, self.port)
        self.saved: list[Path] = self.app.state.desk.saved
        self._running: Any = None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def serve(self) -> None:
        """Until `stop`, SIGINT or SIGTERM."""
        import uvicorn

        self._running = uvicorn.Server(
            uvicorn.Config(
                self.app, ws="websockets-sansio", ws_max_size=LONGEST, log_config=None, access_log=False,
                lifespan="off", server_header=False, timeout_graceful_shutdown=2,
            )
        )  # fmt: skip
        self._running.run(sockets=[self.socket])

    def stop(self) -> None:
        """From any thread."""
        if self._running is not None:
            self._running.should_exit = True


# --- who may come in -------------------------------------------------------------------------------------------------


def application(desk: Desk, token: str, port: int) -> Starlette:
    """The page at /, the walk at /walk; nothing else."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route, WebSocketRoute

    page = files("hmcli.stages.playing").joinpath("page.html").read_text(encoding="utf-8")

    async def show(request: HTTPConnection) -> Response:
        if not _knows(request, token, port):
            return Response(status_code=404, headers=_quiet())
        host = request.headers["host"]
        return Response(
            page, media_type="text/html", headers={**_quiet(), "content-security-policy": policy(page, host)}
        )

    async def walk(websocket: WebSocket) -> None:
        origins = [f"http://{host}" for host in _hosts(port)]
        if not _knows(websocket, token, port) or websocket.headers.get("origin") not in origins:
            await websocket.close(NO_ENTRY)  # before it is accepted: the handshake is refused
            return
        await desk.talk(websocket)

    app = Starlette(routes=[Route("/", show), WebSocketRoute("/walk", walk)])
    app.state.desk = desk
    return app


def _hosts(port: int) -> tuple[str, ...]:
    return (f"{HOST}:{port}", f"localhost:{port}")


def _knows(request: HTTPConnection, token: str, port: int) -> bool:
    """Does it bring the token, to a name of this machine?"""
    said = request.query_params.get("token", "")
    return secrets.compare_digest(said.encode(), token.encode()) and request.headers.get("host") in _hosts(port)


def _quiet() -> dict[str, str]:
    return {
        "cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff",
        "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    }  # fmt: skip


def policy(page: str, host: str) -> str:
    """The page's Content-Security-Policy: its own script and style by their hashes, its own WebSocket, nothing else."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; style-src {' '.join(hashes['style'])}; "
        f"connect-src ws://{host}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


# --- what is said ----------------------------------------------------------------------------------------------------


class Desk:
    """Where a page and the walk meet. The walk goes on in one thread, a request at a time."""

    def __init__(self, session: Session, out: Path, name: str) -> None:
        self.session, self.out, self.name = session, out, name
        self.saved: list[Path] = []
        self._pictures: list[list[bytes]] = [_jpegs(session.context_frames)]  # of the context, then of each chunk
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="walk")
        self._turn = asyncio.Lock()
        self._page: WebSocket | None = None

    async def talk(self, page: WebSocket) -> None:
        """Until the page goes away, or another takes over."""
        from starlette.websockets import WebSocketDisconnect

        await page.accept()
        before, self._page = self._page, page
        try:
            if before is not None:
                await _close(before)
            async with self._turn:  # a chunk that is being made belongs to what is told
                told = (
                    hello(self.session, self.name, [self._told(made) for made in self.session.chunks]),
                    [one for pictures in self._pictures for one in pictures],
                )
            await _send(page, *told)
            while True:
                message = await page.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await self._answer(page, message)
        except (WebSocketDisconnect, RuntimeError):  # it went away while something was on its way to it
            return
        finally:
            if self._page is page:
                self._page = None

    async def _answer(self, page: WebSocket, message: Mapping[str, Any]) -> None:
        try:
            asked = _understood(message.get("text"))
        except ValueError as error:
            await _send(page, {"type": "error", "what": str(error)})
            return
        if asked["type"] == "memory":
            async with self._turn:
                self.session.memory = asked["on"]
            await _send(page, {"type": "memory", "on": asked["on"]})
            return
        work = partial(self._step, asked["keys"]) if asked["type"] == "step" else self._save
        async with self._turn:
            try:
                told, pictures = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            except HMError as error:
                told, pictures = {"type": "error", "what": error.what, "fix": error.fix}, []
        await _send(page, told, pictures)

    def _step(self, keys: list[str]) -> tuple[dict[str, Any], list[bytes]]:
        made = self.session.step(keys)
        self._pictures.append(_jpegs(made.frames))
        return self._told(made), self._pictures[-1]

    def _save(self) -> tuple[dict[str, Any], list[bytes]]:
        saved = record.save(self.session, self.out)
        self.saved.append(saved.path)
        about = {"type": "saved", "path": str(saved.path), "frames": saved.frames, "left_out": saved.left_out}
        return about, []

    def _told(self, made: Made) -> dict[str, Any]:
        return {
            "type": "chunk", "number": made.number, "frames": self.session.length, "memory": made.memory,
            "poses": _seen_from_above(made.poses), "latents": list(made.latents),
            "reads": [[asdict(read) for read in reads] for reads in made.reads], "held": list(made.held),
            "seconds": made.seconds, "took": made.took, "rate": self.session.rate,
        }  # fmt: skip


def hello(session: Session, name: str, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a page is told first: the clip, and what was walked so far. `name` is the model's."""
    clip, (height, width) = session.clip, session.on.view.size
    lens = None if clip.intrinsics is None else field_of_view(float(clip.intrinsics[0]), width)
    return {
        "type": "hello", "model": name, "clip": clip.id, "caption": clip.caption, "fps": clip.fps,
        "width": width, "height": height, "field_of_view": lens, "memory": session.memory,
        "remembers": session.on.memory.policy, "steps": session.on.sample.steps, "chunk": session.length,
        "context": {"poses": _seen_from_above(session.context_poses), "latents": clip.context},
        "subjects": [{"name": one.name, "place": np.round(one.place, 3).tolist()} for one in session.truth],
        "chunks": chunks,
    }  # fmt: skip


def _understood(text: Any) -> dict[str, Any]:
    """A message of the page. Raises ValueError for anything else, in words."""
    try:
        asked = json.loads(text) if isinstance(text, str) else None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError("a message is no JSON") from error
    wanted: dict[str, Callable[[Any], bool]] = {
        "step": lambda m: set(m) == {"type", "keys"} and _are_keys(m["keys"]),
        "memory": lambda m: set(m) == {"type", "on"} and isinstance(m["on"], bool),
        "save": lambda m: set(m) == {"type"},
    }  # fmt: skip
    kind = asked.get("type") if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or not isinstance(kind, str) or kind not in wanted or not wanted[kind](asked):
        raise ValueError("a message is none of step, memory and save")
    return asked


def _are_keys(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(key, str) and key in KEYS for key in value)


async def _send(page: WebSocket, told: dict[str, Any], pictures: list[bytes] = []) -> None:  # noqa: B006
    await page.send_text(json.dumps({**told, "pictures": len(pictures)}))
    for picture in pictures:
        await page.send_bytes(picture)


async def _close(page: WebSocket) -> None:
    from starlette.websockets import WebSocketDisconnect

    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it is gone already
        await page.close(TAKEN_OVER, "the walk was opened in another page")


def _jpegs(frames: np.ndarray) -> list[bytes]:
    from PIL import Image

    found = []
    for frame in frames:
        data = io.BytesIO()
        Image.fromarray(frame).save(data, "JPEG", quality=QUALITY, subsampling=0)
        found.append(data.getvalue())
    return found


def _seen_from_above(poses: np.ndarray) -> list[list[float]]:
    """x, y in metres and the direction of view in radians, from +x towards +y, of every pose."""
    ahead = [level(pose) for pose in poses]
    return [
        [round(float(x), 3), round(float(y), 3), round(float(np.arctan2(along[1], along[0])), 4)]
        for (x, y), along in zip(poses[:, :2, 3], ahead, strict=True)
    ]
