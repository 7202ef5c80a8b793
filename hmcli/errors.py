"""Errors a user can act on, each with the exit code of the command that meets it.

An error says what is wrong, where (file, key, clip id) and what to do; `hmcli.cli.main` prints it without a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")  # what torch says on a CPU


class HMError(Exception):
    """Something went wrong that the user can act on.

    `what` is one sentence; `where` maps a short label (file, key, clip, artifact, recipe) to the place;
    `fix` is what to do, ideally a command to run.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: Mapping[str, object] | None = None, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = dict(where or {})
        self.fix = fix

    def __str__(self) -> str:
        rows = [(str(label), str(place)) for label, place in self.where.items()]
        if self.fix:
            rows.append(("fix", self.fix))
        width = max((len(label) for label, _ in rows), default=0)
        indent = "\n" + " " * (width + 4)
        return "\n".join([self.what, *(f"  {label:<{width}}  {text.replace(chr(10), indent)}" for label, text in rows)])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[HMError], what: str, where: dict[str, object], fix: str) -> HMError:
    return kind(what, where=where, fix=fix)


class UsageError(HMError):
    """Wrong usage, recipe or argument."""

    exit_code = 2


class NothingFoundError(UsageError):
    """Nothing was named, and nothing of the kind is here."""


class RecipeError(UsageError):
    """A recipe that cannot be used; the message lists everything wrong with it at once."""


class DataError(HMError):
    """Bad input data: a file, clip, pose or artifact that cannot be used as it is."""

    exit_code = 3


class NotFiniteError(DataError):
    """Numbers that are not finite where they enter or leave an artifact, or in a training step."""


class LockedError(HMError):
    """Another process is writing the same artifact."""


class MissingPartError(HMError):
    """A missing optional package or missing weights."""

    exit_code = 5


class StoppedEarly(HMError):
    """Stopped before the end, in a state from which the same command goes on."""

    exit_code = 75


EXIT_QUARANTINED = 4  # finished, but some items were quarantined: a result, not an error
EXIT_INTERRUPTED = 130


def ran_out(error: BaseException) -> bool:
    """Is this how torch, or Python, says that memory is out?"""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError) or "torch" not in sys.modules:
        return False
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)
