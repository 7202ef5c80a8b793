"""Models and data sets of the Hugging Face hub by name, found in its cache on this machine and nowhere else.

Wherever a path is taken, so are

    owner/name                                    a model, unless there is something at this path here
    hf://owner/name[@revision][/file or folder]
    hf://datasets/owner/name[@revision][/file or folder]

`hm fetch` fills the cache (hmcli.stages.fetching); it is the hub's own, so its other tools find what lies there.
Nothing here speaks to a network, and the hub's library is not imported.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hmcli.errors import DataError, MissingPartError, UsageError

Kind = Literal["model", "dataset"]
_WORD = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
_BARE = re.compile(rf"{_WORD}/{_WORD}")
_FULL = re.compile(
    rf"hf:/{{1,2}}(?P<kind>datasets/)?(?P<id>{_WORD}/{_WORD})(?:@(?P<revision>[^/]+))?(?:/(?P<inner>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
RECORDS = "hm"  # folder in a repository's cache: what hm fetched, one file a commit


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository of the hub, and which state of it is meant."""

    kind: Kind
    id: str  # owner/name
    revision: str = "main"  # a branch, a tag or a commit

    @property
    def place(self) -> Path:
        """Its folder in the hub's cache."""
        return cache() / "--".join([f"{self.kind}s", *self.id.split("/")])

    @property
    def fetch(self) -> str:
        """The command that brings it here."""
        name = self.id if self.kind == "model" else f"hf://datasets/{self.id}"
        return f"hm fetch {name}" + ("" if self.revision == "main" else f" --revision {self.revision}")

    def commit(self) -> str:
        """The commit that the revision is here; empty where it is not here."""
        ref = self.place / "refs" / self.revision
        if _COMMIT.fullmatch(self.revision):
            found = self.revision
        elif ref.is_file():
            found = ref.read_text(encoding="utf-8", errors="replace").strip()
        else:
            return ""
        return found if _COMMIT.fullmatch(found) and self.snapshot(found).is_dir() else ""

    def snapshot(self, commit: str) -> Path:
        return self.place / "snapshots" / commit

    def record(self, commit: str) -> Path:
        """What `hm fetch` noted of this commit."""
        return self.place / RECORDS / f"{commit}.json"


def cache() -> Path:
    """The hub's cache, where its own library looks for it."""
    if place := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expanduser(place))
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expanduser(home)) / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "huggingface" / "hub"


def repository(text: str) -> tuple[Repository, str] | None:
    """The repository that a text names, and what inside of it; None for a text that can only be a path."""
    if match := _FULL.fullmatch(text):
        kind: Kind = "dataset" if match["kind"] else "model"
        return Repository(kind=kind, id=match["id"], revision=match["revision"] or "main"), match["inner"] or ""
    if _BARE.fullmatch(text):
        return Repository(kind="model", id=text), ""
    if re.match(r"hf:/{1,2}", text):
        raise UsageError(
            f"{text!r} names no repository of the hub",
            fix="hf://owner/name, hf://datasets/owner/name, each with @revision and /a/path where needed",
        )
    return None


def local(text: str) -> str:
    """The path of what a text names: itself, or a place in the hub's cache. Something at the path itself comes first.

    Raises MissingPartError naming the fetch command for `hf://...` that is not here, or not whole. A bare `owner/name`
    that is not here may be a misspelled path: it stays as it is, for the reader of paths to refuse (`fetch_hint`).
    """
    if not text or os.path.lexists(text) or (found := repository(text)) is None:
        return text
    repo, inner = found
    commit = repo.commit()
    if not commit:
        if _BARE.fullmatch(text):
            return text
        raise MissingPartError(
            f"{text} is not in the hub's cache, and nothing is downloaded unasked", where={"cache": cache()},
            fix=repo.fetch,
        )  # fmt: skip
    _refuse_unfinished(repo, commit)
    root = repo.snapshot(commit)
    if ".." in Path(inner).parts or not (place := root / inner).exists():
        raise MissingPartError(
            f"{repo.id} has no {inner} here", where={"commit": commit, "cache": root}, fix=f"{repo.fetch} --include '*'"
        )
    return str(place)


def fetch_hint(text: object) -> str:
    """What to do about a missing path that may be the name of a repository, as an end of a sentence."""
    return f"; if it is a repository of the hub: hm fetch {text}" if _BARE.fullmatch(str(text)) else ""


def name_of(path: Path) -> Path:
    """A path by which to name what is made of it: of a snapshot in the cache, its repository's name."""
    if path.parent.name == "snapshots" and (found := re.fullmatch(r"\w+s--.+--(.+)", path.parent.parent.name)):
        return Path(found[1])
    return path


def _refuse_unfinished(repo: Repository, commit: str) -> None:
    """What `hm fetch` began is whole, or is not used; what other tools fetched is taken as it is."""
    file = repo.record(commit)
    if not file.is_file():
        return
    try:
        names = list(json.loads(file.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the record of what was fetched cannot be read", where={"file": file}, fix=repo.fetch
        ) from error
    lacking = [name for name in names if not (repo.snapshot(commit) / name).exists()]
    if lacking:
        raise MissingPartError(
            f"{repo.id} was not fetched to its end: {len(lacking)} of {len(names)} files are missing",
            where={"first": lacking[0], "cache": repo.snapshot(commit)}, fix=repo.fetch,
        )  # fmt: skip
