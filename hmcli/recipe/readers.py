"""Readers: what of a recipe a stage reads, and which `--set` keys nobody would read.

Every key says who reads it (hmcli.recipe.keys). A command is one or more of these readers, some of them only where its
inputs or the recipe say so: `Readers` maps each to the condition, or to None where it always reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hmcli.recipe.keys import READERS, Key, Reader, keys_of
from hmcli.recipe.sections import Recipe

Readers = Mapping[Reader, Callable[[Recipe], bool] | None]
KEYS = {key.path: key for key in keys_of(Recipe)}
_ASIDE = "format"  # of the file, not of what it asks for


def reads(recipe: Recipe, *readers: Reader) -> dict[str, Any]:
    """The keys that any of these readers reads, nested as in a recipe: what a manifest records and a cache key hashes.

    A section that may be left out, and is, is None.
    """
    from hmcli.recipe.reading import to_dict

    whole, found = to_dict(recipe), dict[str, Any]()
    for path, key in KEYS.items():
        if path != _ASIDE and set(readers) & set(key.readers):
            _put(found, whole, path.split("."))
    return found


def _put(found: dict[str, Any], whole: dict[str, Any], path: list[str]) -> None:
    name, *inner = path
    if not inner or whole[name] is None:
        found[name] = whole[name]
    else:
        _put(found.setdefault(name, {}), whole[name], inner)


def stated(values: Mapping[str, Any], prefix: str = "") -> Iterator[Key]:
    """The keys that nested values give a value; all of a section where it is left out by name. Others are no keys."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in KEYS:
            yield KEYS[path]
        elif isinstance(value, Mapping):
            yield from stated(value, f"{path}.")
        elif value is None:
            yield from (key for key in KEYS.values() if key.path.startswith(f"{path}."))


def without_effect(asked: Mapping[str, Any], recipe: Recipe, readers: Readers, command: str) -> list[str]:
    """What is wrong with values asked for by `--set`: keys that nobody reads here, each with those who would."""
    return [
        f"{key.path} has no effect on {command}: it is read by {'; '.join(READERS[who] for who in key.readers)}"
        + (f" ({key.hint})" if key.hint else "")
        for key in stated(asked)
        if not any(who in readers and ((when := readers[who]) is None or when(recipe)) for who in key.readers)
    ]


def says_nothing(values: Mapping[str, Any], readers: Readers) -> bool:
    """Does a recipe file state no key at all that these readers might read?"""
    return not any(set(key.readers) & set(readers) for key in stated(values) if key.path != _ASIDE)
