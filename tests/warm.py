"""A warm `hm`: one process that has imported everything and run nothing, forked once per command.

A cold `hm` call spends ten seconds on imports. The warm one starts in a tenth of a second and behaves like the real
command: own working folder, environment, stdin/stdout/stderr as passed file descriptors, exit code, signals.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

READY = b"ready"


SHIM = """#!{python} -S
import json, os, socket, sys
c = socket.socket(socket.AF_UNIX)
c.connect({address!r})
socket.send_fds(c, [b"."], [0, 1, 2])
c.sendall(json.dumps(dict(args=sys.argv[1:], cwd=os.getcwd(), env=dict(os.environ))).encode() + b"\\n")
c.recv(4096)
sys.exit(os.waitstatus_to_exitcode(json.loads(c.recv(4096))["status"]))
"""


@dataclass
class Running:
    """A started command: wait for it, or send it a signal."""

    pid: int
    connection: socket.socket
    stdout: IO[bytes]
    stderr: IO[bytes]

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Exit code as subprocess has it: negative when ended by a signal."""
        self.connection.settimeout(timeout)
        status = json.loads(self.connection.recv(4096))["status"]
        self.connection.close()
        out, err = (_content(stream) for stream in (self.stdout, self.stderr))
        return subprocess.CompletedProcess([], os.waitstatus_to_exitcode(status), out, err)

    def said(self, text: str, timeout: float = 120) -> None:
        """Wait until stderr holds `text`."""
        end = time.monotonic() + timeout
        while text not in _content(self.stderr):
            assert time.monotonic() < end, f"never said {text!r}; stderr was:\n{_content(self.stderr)}"
            time.sleep(0.02)


def _content(stream: IO[bytes]) -> str:
    return Path(stream.name).read_text(encoding="utf-8", errors="replace")


class WarmCommand:
    """`hm(*args)` runs a command to its end; `hm.start(*args)` returns at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self.address = tempfile.mktemp(prefix="hm-", suffix=".sock")
        read, write = os.pipe()
        self.server = subprocess.Popen(
            [sys.executable, __file__, self.address, str(write)], pass_fds=[write], start_new_session=True
        )
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == READY, "the warm process did not start"
        self.count = 0

    def __call__(
        self,
        *args: object,
        cwd: Path | None = None,
        stdin: str = "",
        env: dict[str, str] | None = None,
        timeout: float = 240,
    ) -> subprocess.CompletedProcess[str]:
        return self.start(*args, cwd=cwd, stdin=stdin, env=env).wait(timeout)

    def start(
        self, *args: object, cwd: Path | None = None, stdin: str = "", env: dict[str, str] | None = None
    ) -> Running:
        self.count += 1
        place = self.folder / f"call-{self.count:04d}"
        place.mkdir()
        (place / "in").write_text(stdin, encoding="utf-8")
        given = (place / "in").open("rb")
        out, err = (place / "out").open("wb"), (place / "err").open("wb")
        request = {
            "args": [str(arg) for arg in args],
            "cwd": str(cwd or place),
            "env": {**os.environ, "HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), **(env or {})},
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        socket.send_fds(connection, [b"."], [given.fileno(), out.fileno(), err.fileno()])
        connection.sendall(json.dumps(request).encode() + b"\n")
        for stream in (given, out, err):
            stream.close()
        pid = json.loads(connection.recv(4096))["pid"]
        return Running(pid, connection, out, err)

    def shim(self, folder: Path) -> Path:
        """An executable `hm` in `folder` that runs the warm command, for shell scripts: put the folder on PATH."""
        script = folder / "hm"
        script.write_text(SHIM.format(python=sys.executable, address=self.address), encoding="utf-8")
        script.chmod(0o755)
        return script

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        with suppress(FileNotFoundError):
            os.unlink(self.address)


def ok(done: subprocess.CompletedProcess[str]) -> Path:
    """The artifact a command printed; fails with what it said otherwise."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    lines = done.stdout.splitlines()
    assert len(lines) == 1, f"stdout must hold one path, holds {lines}"
    assert Path(lines[0]).is_absolute()
    return Path(lines[0])


def wait_for(condition: Callable[[], object], timeout: float = 120) -> None:
    """Look until `condition` holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def _import_everything() -> None:
    import accelerate  # noqa: F401
    import av  # noqa: F401
    import diffusers
    import huggingface_hub
    import huggingface_hub.file_download
    import peft  # noqa: F401
    import rich.progress  # noqa: F401
    import skimage.feature
    import skimage.metrics  # noqa: F401
    import transformers
    import zarr  # noqa: F401

    diffusers.AutoencoderKLWan, diffusers.FlowMatchEulerDiscreteScheduler, transformers.UMT5EncoderModel  # noqa: B018
    huggingface_hub.HfApi  # noqa: B018
    with suppress(ImportError):
        import decord  # noqa: F401

    import hmcli.core.pipeline
    import hmcli.registry
    from hmcli.stages import demo  # noqa: F401
    from hmcli.stages.fetching import fetch  # noqa: F401
    from hmcli.stages.inspecting import inspect as _inspect  # noqa: F401
    from hmcli.stages.latents import encode  # noqa: F401
    from hmcli.stages.memory import tokenize as tokenize_memory  # noqa: F401
    from hmcli.stages.models import convert  # noqa: F401
    from hmcli.stages.rendering import render  # noqa: F401
    from hmcli.stages.sampling import generate  # noqa: F401
    from hmcli.stages.scoring import evaluate  # noqa: F401
    from hmcli.stages.training import train  # noqa: F401

    for kind, known in hmcli.registry.BUILT_IN.items():
        for name in known:
            hmcli.registry.find(kind, name)


def _serve(address: str, ready: int) -> None:
    _import_everything()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    waiting: dict[int, socket.socket] = {}
    os.write(ready, READY)
    os.close(ready)
    listener.settimeout(0.02)
    while True:
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            _, fds, _, _ = socket.recv_fds(connection, 1, 3)
            request = json.loads(connection.makefile("rb").readline())
            if (pid := os.fork()) == 0:
                listener.close()
                _become(request, fds)
            for fd in fds:
                os.close(fd)
            connection.sendall(json.dumps({"pid": pid}).encode())
            waiting[pid] = connection
        for pid in list(waiting):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                with suppress(OSError):
                    waiting[pid].sendall(json.dumps({"status": status}).encode())
                waiting.pop(pid).close()


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """In the forked child: be the command, and never return."""
    code = 1
    try:
        os.setsid()
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["hm", *request["args"]]
        from hmcli.cli.main import main

        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
