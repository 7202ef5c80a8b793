"""One writer per artifact: an flock on the sibling file `<artifact>.lock`, which says who holds it.

The kernel drops the lock when the process ends, however it ends. The file is removed while the lock is still held;
after kill -9 it stays behind, unlocked, and the next writer takes it over: the file alone never means "locked".
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from hmcli.errors import DataError, HMError, LockedError, UsageError

_NOT_THE_PATH = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR}


@contextmanager
def writing_output(path: Path) -> Iterator[None]:
    """Turn what the system says about a place that cannot be written into a UsageError; a full disk stays as it is."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in _NOT_THE_PATH:
            raise
        raise UsageError(
            "the output cannot be written there",
            where={"out": path, "at": error},
            fix="choose another --out: a folder in a place where folders can be made and written",
        ) from error


def check_writable(path: Path) -> None:
    """What `writing_output` would say of an output, without writing: looks at the nearest folder that exists."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing_output(path):
        if place != path.absolute() and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


class ArtifactLock:
    """Context manager that holds the exclusive right to write `artifact`.

    Raises LockedError when another has it, UsageError when nothing can be written beside it or something else lies in
    the lock's place, and DataError when a link does.
    """

    def __init__(self, artifact: Path | str) -> None:
        self.artifact = Path(artifact).resolve()
        self.file = self.artifact.with_name(self.artifact.name + ".lock")
        self._handle: int | None = None

    def __enter__(self) -> ArtifactLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        while self._handle is None:
            with writing_output(self.artifact):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                handle = self._open()
            try:
                self._lock(handle)
                self._refuse_foreign(handle)
                if self._is_the_file(handle):  # else: its last holder removed it between our open and our lock
                    self._sign(handle)
                    self._handle = handle
            finally:
                if self._handle is None:
                    os.close(handle)
        _held.add(self)

    def release(self) -> None:
        if self._handle is None:
            return
        self.file.unlink(missing_ok=True)  # before unlocking: nobody can lock this file and then find it gone unseen
        os.close(self._handle)
        self._handle = None
        _held.discard(self)

    def _open(self) -> int:
        """The lock's file, made where it is not there; what a link leads to is never written."""
        try:
            return os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            where = {"lock": self.file, "leads to": os.readlink(self.file)}
            raise DataError("the lock of the artifact is a link", where=where, fix="remove the link") from error

    def _refuse_foreign(self, handle: int) -> None:
        """Raise UsageError when the file in the lock's place holds something that no writer of artifacts wrote."""
        try:
            ours = not (content := os.pread(handle, 1 << 16, 0)) or "pid" in json.loads(content)
        except (ValueError, TypeError):
            ours = False
        if not ours:
            raise UsageError(
                "a file that is no lock of hm lies where the artifact's lock belongs", where={"file": self.file},
                fix="choose another --out, or move the file away",
            )  # fmt: skip

    def _lock(self, handle: int) -> None:
        try:
            import fcntl
        except ImportError as error:
            raise HMError("writing artifacts needs flock, which this system does not have") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                "another process is writing this artifact",
                where={"artifact": self.artifact, "holder": _holder(handle)},
                fix="wait for it or stop it, or choose another --out",
            ) from error
        except OSError as error:
            raise HMError(
                "the file system cannot lock files",
                where={"lock": self.file, "at": error},
                fix="write the artifact (--out) on a file system that supports flock",
            ) from error

    def _is_the_file(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.file))
        except FileNotFoundError:
            return False

    def _sign(self, handle: int) -> None:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join(sys.argv),
            "start": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, (json.dumps(holder) + "\n").encode("utf-8"), 0)

    def _forget(self) -> None:
        """In a forked child: let go of the inherited handle, so that the lock ends with the process that took it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _holder(handle: int) -> str:
    """The holder's own words, in one line; it may be so fresh that it has not signed yet."""
    try:
        holder = json.loads(os.pread(handle, 1 << 16, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['start']}: {holder['command']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has only just started"


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


_held: weakref.WeakSet[ArtifactLock] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_all)
