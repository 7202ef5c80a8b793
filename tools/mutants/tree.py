"""The copy that mutants are put into, and hashes that say what recorded coverage and results still hold for."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mutants.changes import Mutant

_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "demo", "runs", "dist", "build", "*.egg-info")


def copied(root: Path, place: Path) -> Path:
    """A fresh copy of `root` at `place`, whatever was left there."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(root, place, ignore=_LEFT_OUT)
    return place


@contextmanager
def mutated(tree: Path, mutant: Mutant) -> Iterator[None]:
    """Within it, the copy holds the mutant. What Python compiled of the file goes: it knows sizes and seconds only."""
    file = tree / mutant.file
    whole = file.read_bytes()
    for old in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        old.unlink()
    file.write_bytes(mutant.applied(whole))
    try:
        yield
    finally:
        file.write_bytes(whole)


def hash_of(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def code_hash(root: Path) -> str:
    """Of the Python files, recipes and tables that tests run with: all but the files of tests themselves."""
    kinds = ("*.py", "*.yaml", "*.json")
    files = {file for kind in kinds for file in root.rglob(kind) if not file.name.startswith("test_")}
    hidden = {file for file in files if any(part.startswith(".") for part in file.relative_to(root).parts)}
    return hash_of((file for file in files - hidden if "tools" not in file.relative_to(root).parts), root)
