"""Recipes: YAML plus `--set key=value`, checked whole and frozen.

A recipe is one YAML file for one experiment; every stage reads the sections it needs. Every key has a default, so an
empty recipe is the embedded `mini` scale. Unknown keys, wrong types and impossible values are reported all at once.
This module imports no torch: `hm --help` and `--dry-run` stay instant.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hmcli.errors import RecipeError
from hmcli.hub import local
from hmcli.recipe.keys import section_in
from hmcli.recipe.readers import Readers, stated, without_effect
from hmcli.recipe.rules import impossible, unknown_names
from hmcli.recipe.sections import FORMAT, Recipe

_PATHS = (
    ("codec", "path"), ("text", "path"), ("eval", "backbone_path"), ("eval", "lpips_path"), ("eval", "dsc_path"),
    ("eval", "detector_path"), ("model", "base"), ("world", "captioner"),
)  # fmt: skip  # keys that take names of the hub
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _forbid_unknown_keys(kind: type) -> None:
    """Tell pydantic, once per section, that unknown keys are errors."""
    kind.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                _forbid_unknown_keys(part)


_forbid_unknown_keys(Recipe)
ADAPTER = TypeAdapter(Recipe)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain YAML/JSON values, defaults included."""
    return ADAPTER.dump_python(recipe, mode="json")


def sections(recipe: Recipe, *names: str) -> dict[str, Any]:
    """The named top-level sections as plain values: what a stage read, for its fingerprint."""
    whole = to_dict(recipe)
    return {name: whole[name] for name in names}


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to the same value."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, width=120)


def recipe_folder() -> Path:
    """Where the packaged recipes are: inside the wheel, or the checkout's recipes/ in an editable install."""
    packaged = Path(__file__).parents[1] / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def recipe_names() -> list[str]:
    """Names of the packaged recipes, such as `mini/hydra`."""
    root = recipe_folder()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """A path as it is, or a packaged recipe by name (`mini/hydra` or `mini/hydra.yaml`)."""
    path = Path(name)
    if path.is_file():
        return path
    wanted = str(name).removesuffix(".yaml").removeprefix("recipes/")
    if wanted in (known := recipe_names()):
        return recipe_folder() / f"{wanted}.yaml"
    close = difflib.get_close_matches(wanted, known, n=1)
    raise RecipeError(
        f"there is no recipe {str(name)!r}",
        fix=(f"did you mean {close[0]!r}? " if close else "") + f"packaged recipes: {', '.join(known)}",
    )


def load_recipe(
    name: str | Path | None = None,
    overrides: list[str] | None = None,
    base: dict[str, Any] | None = None,
    *,
    readers: Readers | None = None,
    command: str = "",
) -> Recipe:
    """Read, override and check a recipe. Raises RecipeError with every problem in one report.

    `name` is a YAML file or the name of a packaged recipe; None means `base` (a recipe recorded in a manifest) or all
    defaults. Each override is `section.key=value`, the value read as YAML; with `readers`, those of `command`, one
    that none of them reads is a problem, and so is a key that is set twice.
    """
    unnamed = "the model's own" if base else "the defaults"
    source = unnamed if name is None else str(path := find_recipe(name))
    values = copy.deepcopy(base or {}) if name is None else read_yaml(path)
    problems: list[str] = []
    for override in overrides or []:
        problems += _override(values, override)
    problems += _unknown_keys(values, Recipe) + _truths(values, Recipe)
    recipe: Recipe | None = None
    try:
        rest = recipe = ADAPTER.validate_python(values)
    except ValidationError as error:
        problems += [_sentence(item) for item in error.errors() if item["type"] not in _OWN_REPORT]
        rest = _rest(values, error)
    own_model = readers is None or not {"generate", "inspect"} & set(readers) or "train" in readers
    problems += impossible(rest, own_model=own_model) + unknown_names(rest)
    if readers is not None:
        problems += _without_effect(overrides or [], rest, readers, command)
    if problems or recipe is None:
        raise _refusal(problems, source)
    return _with_local_paths(recipe)


def _with_local_paths(recipe: Recipe) -> Recipe:
    """The recipe with names of the hub (hmcli.hub) as the paths where they lie in its cache."""
    for section, key in _PATHS:
        given = getattr(getattr(recipe, section), key)
        places = tuple(map(local, given)) if isinstance(given, tuple) else local(given)
        if places != given:
            recipe = dataclasses.replace(
                recipe, **{section: dataclasses.replace(getattr(recipe, section), **{key: places})}
            )
    return recipe


def check_overrides(overrides: list[str], readers: Readers, command: str) -> None:
    """Raise RecipeError for `--set` keys that no reader reads, where a command settles its recipe itself."""
    if problems := _without_effect(overrides, Recipe(), readers, command):
        raise _refusal(problems, "--set")


def _refusal(problems: list[str], source: str) -> RecipeError:
    return RecipeError(
        f"{len(problems)} problem{'s' * (len(problems) != 1)} in the recipe",
        where={"recipe": source, **{f"({i})": text for i, text in enumerate(problems, 1)}},
        fix="correct the keys above; `hm recipes show mini/hydra` prints a whole recipe",
    )


def from_dict(values: dict[str, Any]) -> Recipe:
    """A recipe from a manifest. Raises RecipeError when this version cannot read it."""
    try:
        return ADAPTER.validate_python(values)
    except ValidationError as error:
        raise RecipeError(
            "the recorded recipe does not fit this version of hm",
            where={f"({i})": _sentence(item) for i, item in enumerate(error.errors(), 1)},
            fix="make the artifact again with this version",
        ) from error


def _rest(values: dict[str, Any], error: ValidationError) -> Recipe:
    """The recipe without what was refused, whose defaults stand in for the remaining checks."""
    for _ in range(_ROUNDS):
        # a section that lacks a key it needs goes as a whole
        places = [item["loc"][: -1 if item["type"] == "missing" else None] for item in error.errors()]
        values = _without(values, places)
        try:
            return ADAPTER.validate_python(values)
        except ValidationError as next_error:
            error = next_error
    return Recipe()


def _without(values: dict[str, Any], places: list[tuple[int | str, ...]]) -> dict[str, Any]:
    """A copy of nested values without the refused ones, so that their defaults stand in for the remaining checks."""
    rest = copy.deepcopy(values)
    for place in places:
        inner: Any = rest
        for part in place[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) and isinstance(inner.get(part), dict) else inner
        if isinstance(inner, dict):
            for part in place:
                inner.pop(part, None)
    return rest


_ROUNDS = 3  # in which everything refused is left out: keys, then sections that lack them, then what held those
_OWN_REPORT = {"unexpected_keyword_argument", "extra_forbidden"}  # reported by _unknown_keys, with a suggestion


def _without_effect(overrides: list[str], recipe: Recipe, readers: Readers, command: str) -> list[str]:
    """Keys set by `--set` that nobody reads, or that another `--set` sets too."""
    problems: list[str] = []
    seen: set[str] = set()
    for override in overrides:
        asked: dict[str, Any] = {}
        if _override(asked, override):
            continue  # reported already
        problems += without_effect(asked, recipe, readers, command)
        keys = {key.path for key in stated(asked)}
        problems += [f"{path} is set twice" for path in sorted(keys & seen)]
        seen |= keys
    return problems


class _OnceEach(yaml.SafeLoader):
    """YAML in which a key stands once: of two values the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The values a recipe file states. Raises RecipeError where it is none."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), _OnceEach)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RecipeError("the recipe is not valid YAML", where={"recipe": path, "at": str(error)}) from error
    except OSError as error:
        raise RecipeError("the recipe cannot be read", where={"recipe": path, "at": error}) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of sections", where={"recipe": path})
    return values


def _override(values: dict[str, Any], text: str) -> list[str]:
    """Set `a.b.c=value` in nested dicts; returns what is wrong with it."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        return [f"--set {text!r}: write section.key=value"]
    *folders, last = key.strip().replace("-", "_").split(".")
    place = values
    for depth, folder in enumerate(folders, 1):
        if place.get(folder) is None:
            place[folder] = {}
        if not isinstance(place[folder], dict):
            return [f"--set {text!r}: {'.'.join(folders[:depth])} is not a section"]
        place = place[folder]
    try:
        place[last] = yaml.load(raw, _OnceEach)
    except (yaml.YAMLError, RecursionError, ValueError):
        return [f"--set {text!r}: the value is not valid YAML"]
    return []


def _unknown_keys(values: dict[str, Any], kind: type, prefix: str = "") -> list[str]:
    known = {name: section_in(hint) for name, hint in get_type_hints(kind).items()}
    problems = []
    for key, value in values.items():
        if key not in known and isinstance(key, str) and value is None and ":" in key:
            problems.append(
                f"unknown key {prefix}{key}: YAML needs a space after the colon, {key.replace(':', ': ', 1)}"
            )
        elif key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f", did you mean {prefix}{close[0]}?" if close else f", known here: {', '.join(known)}"
            problems.append(f"unknown key {prefix}{key}{hint}")
        elif (inner := known[key]) is not None and isinstance(value, dict):
            problems += _unknown_keys(value, inner, f"{prefix}{key}.")
    return problems


def _truths(values: dict[str, Any], kind: type, prefix: str = "") -> list[str]:
    """true and false where a number is meant: Python would take them for 1 and 0."""
    problems = []
    for key, hint in get_type_hints(kind).items():
        value, inner = values.get(key), section_in(hint)
        if inner is not None and isinstance(value, dict):
            problems += _truths(value, inner, f"{prefix}{key}.")
        elif isinstance(value, bool) and bool not in (hint, *get_args(hint)) and {int, float} & {hint, *get_args(hint)}:
            problems.append(f"{prefix}{key}={str(value).lower()} is no number")
    return problems


_LIMITS = {  # pydantic's types of errors: (what is said, of which number)
    "greater_than_equal": ("must be at least", "ge"), "greater_than": ("must be above", "gt"),
    "less_than_equal": ("must be at most", "le"), "less_than": ("must be below", "lt"),
    "multiple_of": ("must be a multiple of", "multiple_of"),
}  # fmt: skip


def _sentence(item: Any) -> str:
    """One of pydantic's errors, as this program says it: key, value, what would do."""
    place, value = ".".join(str(part) for part in item["loc"]), item["input"]
    if item["loc"] == ("format",) and item["type"] in _LIMITS:
        return f"format={value}: this version reads format {FORMAT}"
    if item["type"] in _LIMITS:
        what, number = _LIMITS[item["type"]]
        return f"{place}={value} {what} {item['ctx'][number]:g}"
    if item["type"] == "hm":
        return f"{place}={value} {item['msg']}"
    return f"{place or 'recipe'}: {item['msg'][:1].lower()}{item['msg'][1:]}, got {value!r}"
