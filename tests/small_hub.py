"""A hub of one machine: a real HTTP server on loopback that answers as huggingface.co does, faults on request."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

LARGE = 1000  # bytes from which a file is kept in LFS, behind a redirect


@dataclass
class Repo:
    """A repository: its files, the commit that main is, the licence on its card."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    licence: str | None = "apache-2.0"


@dataclass
class SmallHub:
    """What it holds, what it was asked for, and what goes wrong with it."""

    repos: dict[str, Repo] = field(default_factory=dict)  # "owner/name" or "datasets/owner/name"
    asked: list[str] = field(default_factory=list)  # "GET path range"
    cuts: dict[str, list[int]] = field(default_factory=dict)  # file -> bytes after which answers are cut, one each
    altered: dict[str, bytes] = field(default_factory=dict)  # file -> what is sent in its place
    answers: dict[str, bytes] = field(default_factory=dict)  # repository -> what is said of it in place of its files
    stalls: dict[str, int] = field(default_factory=dict)  # file -> bytes after which the first answer waits
    released: threading.Event = field(default_factory=threading.Event)  # what waits then ends
    status: dict[str, list[int]] = field(default_factory=dict)  # repository or file -> answers; the last one stays
    ranges: bool = True  # does it know the Range header?
    url: str = ""

    def api(self, name: str) -> dict[str, object]:
        repo = self.repos[name]
        siblings = [{"rfilename": file, "size": len(data), **_stored(data)} for file, data in repo.files.items()]
        card = {} if repo.licence is None else {"license": repo.licence}
        return {"id": name.removeprefix("datasets/"), "sha": repo.commit, "siblings": siblings, "cardData": card,
                "tags": [], "private": False, "downloads": 0, "likes": 0}  # fmt: skip


def _stored(data: bytes) -> dict[str, object]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if len(data) < LARGE:
        return {"blobId": git}
    return {
        "blobId": "0" * 40,
        "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1},
    }


def _handler(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlparse(self.path).path)
            hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
            if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                name = match[2] if match[1] == "models" else f"datasets/{match[2]}"
                self._api(name, match[3])
            elif match := re.fullmatch(r"/(cdn/)?((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._file(match[2], match[4], behind=bool(match[1]))
            else:
                self._answer(404, b"{}")

        def _api(self, name: str, revision: str | None) -> None:
            if code := _next(hub.status, name):
                return self._answer(code, b'{"error": "no"}')
            repo = hub.repos.get(name)
            if repo is None or revision not in (None, "main", repo.commit):
                code = "RepoNotFound" if repo is None else "RevisionNotFound"
                return self._answer(404, b'{"error": "not found"}', {"X-Error-Code": code})
            return self._answer(200, hub.answers.get(name) or json.dumps(hub.api(name)).encode())

        def _file(self, name: str, file: str, behind: bool) -> None:
            if code := _next(hub.status, file):
                return self._answer(code, b'{"error": "no"}')
            data = hub.repos[name].files.get(file)
            if data is None:
                return self._answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
            if len(data) >= LARGE and not behind:
                return self._answer(302, b"", {"Location": f"{hub.url}/cdn{self.path}"})
            data = hub.altered.get(file, data)
            start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if hub.ranges else None
            sent = data[int(start[1]) :] if start else data
            more = {"Content-Range": f"bytes {start[1]}-{len(data) - 1}/{len(data)}"} if start else {}
            if self.command == "GET" and (stall := hub.stalls.pop(file, None)) is not None:
                return self._answer(206 if start else 200, sent, more, stall=stall)
            cuts = hub.cuts.get(file)
            return self._answer(206 if start else 200, sent, more, cut=cuts.pop(0) if cuts else None)

        def _answer(
            self, code: int, body: bytes, more: dict[str, str] | None = None, cut: int | None = None,
            stall: int | None = None,
        ) -> None:  # fmt: skip
            self.send_response(code)
            for key, value in {"Content-Length": str(len(body)), **(more or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                with suppress(OSError):
                    self.wfile.write(body[: cut if stall is None else stall])
            if stall is not None:
                hub.released.wait(60)
            if cut is not None or stall is not None:
                self.close_connection = True

    return Handler


def _next(answers: dict[str, list[int]], name: str) -> int | None:
    codes = answers.get(name)
    return None if not codes else codes.pop(0) if len(codes) > 1 else codes[0] or None


@contextmanager
def serving(hub: SmallHub) -> Iterator[SmallHub]:
    """Serve on a free port of loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
