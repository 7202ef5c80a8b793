"""Artifacts at a URL (s3://, gs://, az://, https://), read file by file into the user's cache when they are needed.

The manifest comes first; it is sealed, and lists every other file with its size and hash. A file comes whole, and is
here under its name once it has that hash. Copies stay for later runs, and take up to half of the space that is free
without them; then the oldest go, but for those that somebody reads. Addresses and credentials of a store are taken
from the environment, as its own tools name them (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import IO, Any

from hmcli.errors import DataError, HMError, MissingPartError, UsageError
from hmcli.store.files import inside, write_text
from hmcli.store.hashing import PREFIX, cache_folder, hash_bytes
from hmcli.store.manifest import parse_manifest
from hmcli.store.records import MANIFEST

TRIES = 5
FIRST_WAIT = 0.5  # seconds before the second try; doubled before each further one
PIECE = 16 << 20  # bytes asked for at once, so that a broken connection costs no more
_TIMEOUT = "60s"  # of a piece
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_URL = re.compile(r"(?!hf:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_reads_in: int | None = None  # the process of obstore's threads; after a fork it would wait for them for ever
_SECRETS = re.compile(r"://[^/]*@")


def is_url(text: str) -> bool:
    """Does this name something at a URL? (hf:// names what lies in the hub's cache.)"""
    return _URL.match(text) is not None


def mirror(url: str) -> Path:
    """The folder that stands for the artifact at `url`: its manifest now, its other files when they are read.

    Raises MissingPartError without obstore, UsageError for a URL of no known kind, DataError when nothing is there.
    """
    url = url.rstrip("/")
    if _SECRETS.search(url):
        raise UsageError("a URL must not carry credentials: it is written into logs", fix="set them in the environment")
    data = _manifest_of(url)
    try:
        parse_manifest(data.decode(), Path(MANIFEST))
    except HMError as error:
        error.where |= {"url": url}
        raise
    except UnicodeDecodeError as error:
        raise DataError("the manifest cannot be read", where={"url": url, "at": error}) from error
    folder = _mirrors() / hash_bytes(url.encode() + b"\n" + data).removeprefix(PREFIX)[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder.with_suffix(".json"), json.dumps({"url": url}))
        write_text(folder / MANIFEST, data.decode())
    except OSError as error:
        raise UsageError(
            f"there is no place for copies of {url}", where={"cache": folder, "at": error},
            fix="set XDG_CACHE_HOME to a folder that can be written",
        ) from error  # fmt: skip
    return folder


def _manifest_of(url: str) -> bytes:
    """The bytes of the manifest, got by a process of its own while this one has read nothing: it may fork ranks yet."""
    if _reads_in is not None:
        return _Store(url).get(MANIFEST, None)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as other:
        return other.submit(_get_manifest, url).result()


def _get_manifest(url: str) -> bytes:
    return _Store(url).get(MANIFEST, None)


def _mirrors() -> Path:
    return (cache_folder() / "mirrors").resolve()


def url_of(root: Path) -> str | None:
    """What a folder is the mirror of. Only folders in the cache are: no artifact can name a URL to be fetched."""
    origin = root.resolve().with_suffix(".json")
    if origin.parent != _mirrors() or not origin.is_file():
        return None
    return str(json.loads(origin.read_text(encoding="utf-8"))["url"])


class Mirror:
    """The files of one artifact at a URL."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url
        self._store: _Store | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "url": self.url, "_store": None}

    @contextlib.contextmanager
    def holding(self, name: str, entry: Mapping[str, Any]) -> Iterator[Path]:
        """The file is here, and stays. Raises DataError when it does not come, or is not the one that is listed."""
        file = inside(self.root, name)
        while True:
            self._bring(file, name, entry)
            try:
                held = file.open("rb")
            except FileNotFoundError:
                continue  # it went in between
            with held:
                fcntl.flock(held, fcntl.LOCK_SH)
                if os.fstat(held.fileno()).st_nlink:
                    yield file
                    return

    def drop(self, name: str) -> None:
        """Let a copy go that is not as it came."""
        inside(self.root, name).unlink(missing_ok=True)

    def _bring(self, file: Path, name: str, entry: Mapping[str, Any]) -> None:
        if file.is_file():
            return
        self._store = self._store or _Store(self.url)
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file.parent / f".{file.name}.lock"):
            if file.is_file():
                return
            _make_room(int(entry["bytes"]))
            part = file.parent / f".{file.name}.part"
            for again in (True, False):
                with part.open("wb") as into:
                    found = self._store.copy(name, int(entry["bytes"]), into)
                if found == entry["hash"]:
                    break
                if not again:
                    part.unlink()
                    raise DataError(
                        "a file is not as the artifact's manifest lists it", where={"url": f"{self.url}/{name}"},
                        fix="was the artifact written anew or copied half? `hm inspect --verify` where it lies says so",
                    )  # fmt: skip
            part.replace(file)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process or thread at a time."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _make_room(size: int) -> None:
    """Let the oldest copies go that nobody reads, so that all of them have at most half of the space there is."""
    files = []
    for file in _mirrors().glob("*/**/*"):
        with contextlib.suppress(OSError):
            if file.is_file() and file.name != MANIFEST:
                files.append((file.stat().st_mtime, file.stat().st_size, file))
    held = sum(length for _, length, _ in files)
    most = (shutil.disk_usage(_mirrors()).free + held) // 2
    for _, length, file in sorted(files):
        if held + size <= most:
            return
        with contextlib.suppress(OSError), file.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
            held -= length


class _Store:
    """What lies at a URL. Every call tries several times where that may help."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise MissingPartError(
                f"reading {url} needs the package obstore", fix="pip install 'hmcli[remote]'"
            ) from error
        global _reads_in
        _reads_in = _reads_in or os.getpid()
        if _reads_in != os.getpid():
            raise HMError(f"{url} was read before this process was forked", fix="start processes before reading")
        self.url = url
        plain = any(at.lower().startswith("http://") for at in (url, *map(os.environ.get, _ENDPOINTS)) if at)
        options: Any = {"timeout": _TIMEOUT, "connect_timeout": "10s", "allow_http": plain}
        once: Any = {"max_retries": 0}  # tries are counted here
        try:
            self._store = from_url(url, client_options=options, retry_config=once)
        except (obstore.exceptions.BaseError, ValueError) as error:
            raise UsageError(
                f"a URL that cannot be read: {_first_line(error)}", where={"url": url},
                fix="use s3://bucket/path, gs://bucket/path, az://container/path or https://host/path",
            ) from error  # fmt: skip

    def get(self, name: str, length: int | None) -> bytes:
        """A whole file, of this length where it is known."""
        import obstore

        return self._trying(name, length, lambda: bytes(obstore.get(self._store, name).bytes()))

    def copy(self, name: str, length: int, into: IO[bytes]) -> str:
        """Write a file of this length; returns the hash of its bytes."""
        digest = hashlib.sha256()
        for data in self._pieces(name, length):
            into.write(data)
            digest.update(data)
        return PREFIX + digest.hexdigest()

    def _pieces(self, name: str, length: int) -> Iterator[bytes]:
        import obstore

        if length <= PIECE:
            yield self.get(name, length)
            return
        for start in range(0, length, PIECE):
            of = min(PIECE, length - start)

            def ask(start: int = start, of: int = of) -> bytes:
                return bytes(obstore.get_range(self._store, name, start=start, length=of))

            try:
                yield self._trying(name, of, ask)
            except _Whole:
                yield self.get(name, length)[start:]
                return

    def _trying(self, name: str, length: int | None, ask: Callable[[], bytes]) -> bytes:
        import obstore

        refused = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)
        where: dict[str, object] = {"url": f"{self.url}/{name}"}
        said = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
            try:
                data = ask()
            except FileNotFoundError as error:
                if name == MANIFEST:
                    fix = f"name the folder that holds {MANIFEST}: an artifact that is complete, copied whole"
                    raise DataError("there is no artifact at this URL", where=where, fix=fix) from error
                raise DataError(
                    "a file of the artifact is not there", where=where, fix="copy the artifact there once more"
                ) from error
            except refused as error:
                raise DataError(
                    "the store refuses to give a file", where=where | {"at": _first_line(error)},
                    fix="set the credentials that its own tools take from the environment",
                ) from error  # fmt: skip
            except obstore.exceptions.NotSupportedError as error:
                raise _Whole from error
            except obstore.exceptions.BaseError as error:
                said = _first_line(error)
                continue
            if length is None or len(data) == length:
                return data
            said = f"{len(data)} bytes came, {length} are listed"
        raise DataError(
            f"a file could not be read, {TRIES} times", where=where | {"at": said},
            fix="is the store there and reachable? the same command goes on from the last checkpoint",
        )  # fmt: skip


class _Whole(Exception):
    """The server gives files whole, not in pieces."""


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
