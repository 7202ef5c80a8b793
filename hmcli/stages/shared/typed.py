"""What an artifact says of itself, as typed values: one dataclass for the writer and the reader.

Files and attributes hold plain JSON. A field `x: LeftOut[T] = None` is not in it while it is None. What lacks a value,
or has one of another type, is refused by its place.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from hmcli.errors import DataError
from hmcli.store.hashing import hash_json

T = TypeVar("T")
LeftOut = Annotated[T | None, Field(exclude_if=lambda value: value is None)]
_SHOWN = 5  # problems named in one error


_adapters: dict[type, TypeAdapter[Any]] = {}  # making one takes longer than using it


def _adapter(kind: type) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    values: dict[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return values


def key_of(value: Any) -> str:
    """The content key of an item, from a dataclass of all that its making reads: any other value is another key."""
    return hash_json([type(value).__name__, to_json(value)])


def from_json(kind: type[T], values: Any, what: str, **where: object) -> T:
    """The dataclass that `to_json` wrote. Raises DataError: `what` (a noun) is not as this version writes it."""
    try:
        found: T = _adapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = {_place(problem["loc"]): problem["msg"].lower() for problem in error.errors()[:_SHOWN]}
        raise DataError(
            f"{what} is damaged, or was written by another version of hm", where={**where, **problems},
            fix="make the artifact again with this version of hm",
        ) from error  # fmt: skip
    return found


def _place(parts: tuple[int | str, ...]) -> str:
    return ".".join(map(str, parts)) or "as a whole"
