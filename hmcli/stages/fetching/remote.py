"""The hub over HTTP, through its own library: what a repository holds, and the bytes of one file.

A transfer that is cut goes on where it stopped, in this process and in the next one; a file gets its name in the cache
when its hash is the one the hub states.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hmcli.errors import DataError, HMError, MissingPartError, StoppedEarly, UsageError
from hmcli.hub import Repository
from hmcli.store.files import is_plain_path

_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file as the hub states it. `hash` is sha256:... of its bytes, or git:... (sha1 of git's blob) of small ones."""

    name: str
    size: int
    hash: str

    @property
    def blob(self) -> str:
        """Its name among the cache's blobs: the hub's ETag."""
        return self.hash.partition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a repository holds at a commit."""

    commit: str
    licence: str  # empty: none is stated
    files: tuple[RemoteFile, ...]


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def look(repo: Repository) -> Listing:
    """Ask the hub. Raises as `asking`, DataError for an answer that makes no sense."""
    from huggingface_hub import HfApi

    try:
        with asking(repo):
            info: Any = HfApi(endpoint=endpoint()).repo_info(
                repo.id, repo_type=repo.kind, revision=repo.revision, files_metadata=True
            )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            "what answers is no hub", where={"hub": endpoint(), "because": repr(error)},
            fix="check HF_ENDPOINT, and whether the network wants you to sign in",
        ) from error  # fmt: skip
    files = tuple(_file(sibling, repo) for sibling in info.siblings or ())
    if not info.sha or not files:
        raise DataError("the hub lists no files", where={"repository": repo.id, "revision": repo.revision})
    return Listing(commit=info.sha, licence=_licence(info), files=files)


def _file(sibling: Any, repo: Repository) -> RemoteFile:
    lfs, name = sibling.lfs, sibling.rfilename
    stated = f"sha256:{lfs.sha256}" if lfs is not None else f"git:{sibling.blob_id}"
    if not is_plain_path(name) or sibling.size is None or not stated.partition(":")[2].isalnum():
        raise DataError("the hub describes a file in an odd way", where={"repository": repo.id, "file": str(name)})
    return RemoteFile(name=name, size=int(sibling.size), hash=stated)


def _licence(info: Any) -> str:
    card = getattr(info, "card_data", None)
    stated = None if card is None else card.get("license")
    tagged = next((tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")), "")
    return str(stated) if isinstance(stated, str) and stated else tagged


def download(repo: Repository, commit: str, file: RemoteFile, blob: Path, advance: Callable[[int], None]) -> None:
    """Bring a file to `blob`, going on with what an earlier try left beside it.

    Raises as `asking`; DataError for bytes with another hash than stated, which are deleted.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars

    disable_progress_bars()  # this project's own is on stderr
    part = blob.with_name(f"{blob.name}.hm-part")
    url = hf_hub_url(repo.id, file.name, repo_type=repo.kind, revision=commit, endpoint=endpoint())
    there = part.stat().st_size if part.is_file() else 0
    if there > file.size:
        part.unlink()
        there = 0
    _check_room(part, file.size - there)
    advance(there)
    with part.open("ab") as stream, asking(repo, file.name):
        counted: Any = _Counted(stream, advance)
        http_get(url, counted, resume_size=there, headers=build_hf_headers(), expected_size=file.size)
    if (found := hash_like(part, file.hash)) != file.hash:
        part.unlink()
        raise DataError(
            "a file did not arrive as the hub states it", where={
                "repository": repo.id, "file": file.name, "stated": file.hash, "arrived": found},
            fix="run the same command again; if it stays so, a proxy changes what passes through it",
        )  # fmt: skip
    os.replace(part, blob)


class _Counted:
    """A file that tells how much is written into it; the hub's library also starts it over when it must."""

    def __init__(self, stream: BinaryIO, advance: Callable[[int], None]) -> None:
        self._stream, self._advance = stream, advance

    def write(self, data: bytes) -> int:
        self._advance(len(data))
        return self._stream.write(data)

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, place: int) -> int:
        return self._stream.seek(place)

    def truncate(self) -> int:
        return self._stream.truncate()


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise HMError(
            f"there is no room for it: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free",
            where={"cache": part.parent}, fix="make room, or set HF_HUB_CACHE to a place on another disk",
        )  # fmt: skip


def hash_like(file: Path, stated: str) -> str:
    """The hash of a file, of the kind of a stated one."""
    digest = hashlib.sha256() if stated.startswith("sha256:") else hashlib.sha1(usedforsecurity=False)
    if stated.startswith("git:"):
        digest.update(f"blob {file.stat().st_size}\0".encode())
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"{stated.partition(':')[0]}:{digest.hexdigest()}"


@contextmanager
def asking(repo: Repository, file: str = "") -> Iterator[None]:
    """Errors of the hub and of the network, as what a person can do about them."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    where: dict[str, object] = {"repository": repo.id, "revision": repo.revision, "hub": endpoint()}
    where |= {"file": file} if file else {}
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise UsageError("HF_HUB_OFFLINE is set: nothing can be fetched", where=where, fix="unset it")
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if isinstance(error, GatedRepoError) or status in (401, 403):
            raise MissingPartError(
                "the hub does not let you read this: it is private or wants its terms accepted, or there is no such "
                "repository", where=where,
                fix=f"check the name; accept the terms at {endpoint()}/{_page(repo)}, then hf auth login",
            ) from error  # fmt: skip
        if status == 404:
            raise UsageError(
                "the hub has no such repository, revision or file", where=where, fix=f"see {endpoint()}/{_page(repo)}"
            ) from error
        raise StoppedEarly(
            f"the hub answered with status {status}", where=where, fix="run the same command again: it goes on"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "httpx2"):
            raise _network_error(error, file, where) from error
        raise


def _network_error(error: Exception, file: str, where: dict[str, object]) -> HMError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if file:
        return StoppedEarly(
            "the transfer broke off", where=where | {"because": reason}, fix="run the same command again: it goes on"
        )
    return MissingPartError(
        "the hub cannot be reached", where=where | {"because": reason},
        fix="check the network, HF_ENDPOINT and proxies; what is in the cache already needs none",
    )  # fmt: skip


def _page(repo: Repository) -> str:
    return repo.id if repo.kind == "model" else f"datasets/{repo.id}"
