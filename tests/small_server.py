"""A web server on loopback with faults on request: it refuses, breaks off, flips a bit, or dies."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class Server:
    """Serves a folder; `faults` by path: what happens to the first so many requests for it."""

    def __init__(self, folder: Path) -> None:
        self.asked: Counter[str] = Counter()
        self.faults: dict[str, list[Any]] = {}
        self.ranges = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = unquote(self.path).lstrip("/")
                outer.asked[name.rpartition("data.zarr/")[2]] += 1
                fault = next((queue.pop(0) for end, queue in outer.faults.items() if name.endswith(end) and queue), 200)
                if not (folder / name).is_file() or fault == 404:
                    fault = 404
                if fault not in (200, "cut", "flip"):
                    self.send_response(int(fault))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = whole = (folder / name).read_bytes()
                asked = self.headers.get("Range") if outer.ranges else None
                if asked:
                    first, last = (int(side) for side in asked.removeprefix("bytes=").split("-"))
                    data = data[first : last + 1]
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{len(whole)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
                self.send_header("ETag", f'"{zlib.crc32(whole):08x}"')
                self.end_headers()
                if fault == "flip":
                    data = bytes([data[0] ^ 1]) + data[1:]
                self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
