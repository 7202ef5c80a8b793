"""`hm fetch`: a published model or data set into the hub's cache, by a short name or the hub's own.

The first fetch notes the commit and the hash of every file; a later one holds to that commit, checks every file, and
asks the hub only for what is missing or damaged. `--update` asks what the revision is now.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from hmcli.contracts import Description, Reporter, StageResult
from hmcli.errors import DataError, UsageError
from hmcli.hub import Repository, repository
from hmcli.stages.fetching.catalogue import CATALOGUE, Entry
from hmcli.stages.fetching.record import Record, read_record, write_record
from hmcli.stages.fetching.remote import Listing, RemoteFile, download, hash_like, look

_PLAIN_WEIGHTS, _PICKLES = ".safetensors", (".bin", ".bin.index.json")


def names() -> Description:
    """What there is to fetch by a short name."""
    rows = [(name, entry.repository.id, entry.licence or "not stated", entry.what) for name, entry in CATALOGUE.items()]
    text = "\n".join(f"{name:<12} {repo:<36} {licence:<13} {what}" for name, repo, licence, what in rows)
    keys = ("name", "repository", "licence", "what")
    return Description(text=text, data={"names": [dict(zip(keys, row, strict=True)) for row in rows]})


def run(
    name: str,
    *,
    revision: str,
    include: tuple[str, ...],
    update: bool,
    reporter: Reporter,
    dry_run: bool = False,
) -> StageResult:
    """Fetch `name`; see `hm fetch --help`. The result's path is the snapshot in the hub's cache."""
    entry = _entry(name, revision, include)
    repo = entry.repository
    commit = "" if update else repo.commit()
    record = read_record(repo, commit) if commit else None
    if record is None or _asked(entry) not in record.asked:
        listing = look(Repository(kind=repo.kind, id=repo.id, revision=commit or repo.revision))
        record = _record(entry, listing, read_record(repo, listing.commit))
    _say(entry, record, reporter)
    done = StageResult(
        path=repo.snapshot(record.commit), kind="weights" if repo.kind == "model" else "data set",
        counts={"files": len(record.files), "bytes": record.size}, details=_details(record, dry_run),
    )  # fmt: skip
    if dry_run:
        return done
    _bring(repo, record, reporter)
    if repo.revision != record.commit:
        _point(repo, record.commit)
    reporter.note(f"then: {entry.then.replace('PATH', str(done.path))}" if entry.then else "all there")
    return done


def _entry(name: str, revision: str, include: tuple[str, ...]) -> Entry:
    """What a name means: one of the catalogue, or a repository of the hub."""
    if (entry := CATALOGUE.get(name.lower())) is None:
        found = repository(name)
        if found is None:
            raise UsageError(
                f"{name!r} is nothing that can be fetched", where={"known": ", ".join(CATALOGUE)},
                fix="give one of these, owner/name, or hf://datasets/owner/name",
            )  # fmt: skip
        repo, inner = found
        if inner:
            raise UsageError("a repository is fetched, not a part of it", fix=f"--include '{inner}' takes a part")
        entry = Entry(repository=repo, what="", then="", licence="")
    if revision and entry.repository.revision not in ("main", revision):
        raise UsageError("two revisions are given", where={"name": name, "--revision": revision}, fix="leave one out")
    repo = entry.repository
    repo = Repository(kind=repo.kind, id=repo.id, revision=revision or repo.revision)
    return Entry(
        repository=repo, what=entry.what, then=entry.then, licence=entry.licence, include=include or entry.include,
        exclude=() if include else entry.exclude,
    )  # fmt: skip


def _asked(entry: Entry) -> str:
    """What is asked for, in words: only the hub knows which files that is."""
    return " ".join([*entry.include, *(f"not {pattern}" for pattern in entry.exclude)])


def _record(entry: Entry, listing: Listing, known: Record | None) -> Record:
    """What is to be here: the files asked for, and those that an earlier fetch of the commit brought."""
    wanted = [file for file in listing.files if _matches(file.name, entry.include, entry.exclude)]
    wanted = list(_without_twins(wanted))
    if not wanted:
        raise UsageError(
            "no file of the repository is asked for", where={
                "repository": entry.repository.id, "--include": ", ".join(entry.include),
                "it has": ", ".join(file.name for file in listing.files[:8])},
            fix="give patterns that match, as '*.safetensors'",
        )  # fmt: skip
    files = {file.name: file for file in wanted}
    if known is not None:
        changed = [name for name, file in known.files.items() if files.get(name, file) != file]
        if changed:
            raise DataError(
                "the hub states other hashes for a commit than it did when it was fetched",
                where={"repository": entry.repository.id, "commit": known.commit, "file": changed[0]},
                fix="a commit never changes: do not use this server",
            )
        files = known.files | files
    return Record(
        repository=entry.repository.id, kind=entry.repository.kind, commit=listing.commit, licence=listing.licence,
        asked=(*(() if known is None else known.asked), _asked(entry)), files=files,
    )  # fmt: skip


def _matches(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, part) for part in include) and not any(fnmatchcase(name, part) for part in exclude)


def _without_twins(files: list[RemoteFile]) -> Iterable[RemoteFile]:
    """Pickled weights that lie there as safetensors too are not fetched."""
    plain = {file.name.rpartition("/")[0] for file in files if file.name.endswith(_PLAIN_WEIGHTS)}
    for file in files:
        folder, _, last = file.name.rpartition("/")
        if not (folder in plain and last.startswith("pytorch_model") and last.endswith(_PICKLES)):
            yield file


def _say(entry: Entry, record: Record, reporter: Reporter) -> None:
    size = f"{record.size / 1e9:.2f} GB" if record.size >= 1e7 else f"{record.size / 1e3:.0f} kB"
    reporter.note(f"{record.repository} at {record.commit}: {len(record.files)} files, {size}")
    if not record.licence:
        reporter.warn("the hub states no licence: read the model's page before you use it")
        return
    reporter.note(f"licence: {record.licence} (as the hub states it)")
    if entry.licence and record.licence.lower() != entry.licence:
        reporter.warn(f"its makers stated {entry.licence} before")


def _details(record: Record, dry_run: bool) -> dict[str, object]:
    files = {name: {"bytes": file.size, "hash": file.hash} for name, file in sorted(record.files.items())}
    about = {"repository": record.repository, "commit": record.commit, "licence": record.licence, "files": files}
    return about | ({"dry_run": True} if dry_run else {})


def _bring(repo: Repository, record: Record, reporter: Reporter) -> None:
    """Every file of the record into the snapshot, whole: what is there is checked, what is not is fetched."""
    from huggingface_hub.utils import WeakFileLock

    blobs = repo.place / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    repo.snapshot(record.commit).mkdir(parents=True, exist_ok=True)
    write_record(repo, record)  # before the files: a snapshot that is not whole is known as such
    lock = repo.place.parent / ".locks" / repo.place.name / "hm.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock), reporter.progress("fetch", record.size, "byte") as advance:
        for file in record.files.values():
            pointer = repo.snapshot(record.commit) / file.name
            if _is_whole(pointer, file, reporter):
                advance(file.size)
                continue
            blob = blobs / file.blob
            if not _is_whole(blob, file, reporter):
                download(repo, record.commit, file, blob, advance)
            _link(blob, pointer)


def _is_whole(place: Path, file: RemoteFile, reporter: Reporter) -> bool:
    """Is the file there, with the bytes it should have? What is not as it should be goes, and that is said."""
    if not place.is_file():
        return False
    if place.stat().st_size == file.size and hash_like(place, file.hash) == file.hash:
        return True
    reporter.warn(f"{file.name} is not as it was published: it is fetched again")
    place.resolve().unlink()
    return False


def _link(blob: Path, pointer: Path) -> None:
    """A link as the hub's library makes it; where there are no links, the file itself."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        os.symlink(os.path.relpath(blob, pointer.parent), pointer)
    except OSError:
        os.replace(blob, pointer)


def _point(repo: Repository, commit: str) -> None:
    """Note which commit the revision is, where the hub's library looks for it."""
    ref = repo.place / "refs" / repo.revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit, encoding="utf-8")
