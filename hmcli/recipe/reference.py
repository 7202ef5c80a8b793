"""docs/reference.md, made from the keys: every key with its type, default, unit, meaning and readers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen, MultipleOf

from hmcli.recipe.keys import READERS, REQUIRED, Key, section_in
from hmcli.recipe.readers import KEYS
from hmcli.recipe.sections import Recipe

_HEAD = """# Recipe reference

<!-- Made by `python -m hmcli.recipe` from hmcli/recipe/sections.py; tests/cli/test_reference.py compares. -->

Every key of a recipe. A recipe file states those that differ from their defaults; `--set section.key=value` sets one on
the command line. The last column says who reads a key. A `--set` key that a command does not read is refused, with
those who would; in a recipe *file* it is no error, so that one file serves the whole chain, and a file without any key
that the command reads is said. `hm demo` is render, encode, slots, memory, train, generate and eval in one.

`hm recipes schema` prints this as a JSON schema. Packaged recipes, and copies made by `hm recipes cp`, name it in their
first line, so that editors complete keys and names.

| reader | command |
|---|---|
"""


def reference() -> str:
    """The page."""
    rows = "".join(f"| {name} | {command} |\n" for name, command in READERS.items())
    return _HEAD + rows + "".join(_section(name, kind, keys) for name, kind, keys in _sections())


def _sections() -> Iterator[tuple[str, type, list[Key]]]:
    """Sections with keys of their own: dotted name (empty for the recipe itself), dataclass, keys."""
    by_section: dict[str, list[Key]] = {}
    for path, key in KEYS.items():
        by_section.setdefault(path.rpartition(".")[0], []).append(key)
    for name, keys in by_section.items():
        yield name, section_at(name), keys


def section_at(name: str) -> type:
    """The dataclass of a dotted section name."""
    kind: type = Recipe
    for part in name.split(".") if name else ():
        inner = section_in(get_type_hints(kind)[part])
        assert inner is not None  # a section holds keys
        kind = inner
    return kind


def _section(name: str, kind: type, keys: list[Key]) -> str:
    title = f"`{name}`" if name else "The recipe itself"
    head = "| key | type | default | unit | meaning | read by |\n|---|---|---|---|---|---|\n"
    return f"\n## {title}\n\n{_meaning(name, kind)}\n\n{head}" + "".join(map(_row, keys))


def _meaning(name: str, kind: type) -> str:
    told = " ".join((kind.__doc__ or "").split())
    optional = name and dataclasses.MISSING is not _default_of(name) and _default_of(name) is None
    return told + (" Left out (null) by default." if optional else "")


def _default_of(name: str) -> Any:
    outer, _, last = name.rpartition(".")
    return next(field.default for field in dataclasses.fields(section_at(outer)) if field.name == last)


def _row(key: Key) -> str:
    who = ", ".join(key.readers) if set(key.readers) != set(READERS) else "every command"
    default = "required" if key.default is REQUIRED else f"`{json.dumps(key.default)}`"
    cells = (f"`{key.path}`", _type(key), default, key.unit, key.meaning, who)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _type(key: Key) -> str:
    limits = [_LIMITS[type(limit)](limit) for limit in key.field.metadata if type(limit) in _LIMITS]
    text = _words(key.kind) + (f" {', '.join(limits)}" if limits else "")
    return text + (f", a {_KINDS.get(key.named, key.named)}" if key.named else "")


_KINDS = {"text": "text encoder", "move": "camera move"}  # of names, where the registry's word would not be understood


_LIMITS: dict[type, Any] = {
    Ge: lambda limit: f"≥ {limit.ge:g}", Gt: lambda limit: f"> {limit.gt:g}", Le: lambda limit: f"≤ {limit.le:g}",
    Lt: lambda limit: f"< {limit.lt:g}", MultipleOf: lambda limit: f"multiple of {limit.multiple_of:g}",
    MinLen: lambda limit: f"at least {limit.min_length}",
}  # fmt: skip


def _words(kind: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is UnionType or NoneType in parts:
        return " or ".join("null" if part is NoneType else _words(part) for part in parts)
    if origin is tuple and parts[-1] is Ellipsis:
        return f"list of {_words(parts[0])}"
    if origin is tuple:
        return f"{len(parts)} x {_words(parts[0])}"
    if hasattr(kind, "__metadata__"):
        return _words(kind.__origin__)
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}[kind]
