"""Which recipe a converted model gets: shapes from its weights, memory settings from the recipe or the source.

The most explicit statement counts: `--set`, then `--recipe`, then what lies beside the weights (a manifest, a
config.json), then the settings of the released HyDRA. Shapes of weights stand above all of them.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hmcli.codecs.places import VAE
from hmcli.contracts import Reporter
from hmcli.errors import DataError, RecipeError
from hmcli.recipe.reading import find_recipe, load_recipe, sections
from hmcli.recipe.sections import ModelConfig, Recipe
from hmcli.stages.models.sources import Source, heads_beside, read_shapes

RELEASED = "wan1.3b/hydra"  # the packaged recipe with the settings of the released weights
WAN_HEAD = 128  # channels of a head in every Wan2.1 model
_MEMORY = ("policy", "affinity", "context", "top_k", "window", "kernel", "tokenizer", "spans", "max_history")
_MODEL = ("positions",)
_FLOW = {"flow_target": "target", "flow_noise": "noise"}
_ORIGINAL_VAE = "Wan2.1_VAE.pth"


def settle(source: Source, recipe: str | None, overrides: list[str], reporter: Reporter) -> tuple[Recipe, int, int]:
    """The recipe of the converted model, its latent channels and the width of its text.

    Raises RecipeError for `--set` values that the weights contradict; a recipe file that differs is said.
    """
    shapes = read_shapes(source)
    if absent := [key for key in ("dim", "channels", "text_dim") if key not in shapes]:
        raise DataError(
            f"the weights do not tell {' and '.join(absent)}: patch_embedding.weight or the text embedding is missing",
            where={"source": source.path}, fix="fetch the weights again, or name the file with all of them",
        )  # fmt: skip
    channels, text_dim = shapes.pop("channels"), shapes.pop("text_dim")
    given, filed = _given(overrides), _filed(recipe)
    shapes["heads"] = _heads(source, shapes["dim"], given, filed, reporter)
    _compare(shapes, given, filed, reporter)
    read = [f"model.{key}={json.dumps(value)}" for key, value in shapes.items()]
    base = None if recipe is not None else _base(source)
    settled = load_recipe(recipe, [*overrides, *read, 'model.base=""'], base=base)
    settled = _with_parts(settled, source, given | filed)
    model = sections(settled, "model")["model"]
    memory = ", ".join(f"{key} {model['memory'][key]}" for key in _MEMORY)
    reporter.note(f"{model['layers']} layers of {model['dim']}, {model['heads']} heads; memory: {memory}")
    return settled, channels, text_dim


def _base(source: Source) -> dict[str, Any]:
    """The recipe's values where none is given: what the source was made with, or the released settings."""
    if source.recipe is not None:
        return copy.deepcopy(dict(source.recipe))
    values: dict[str, Any] = yaml.safe_load(find_recipe(RELEASED).read_text(encoding="utf-8"))
    if source.ours:
        values["model"] |= {key: source.config[key] for key in _MODEL if key in source.config}
        values["model"]["memory"] = {key: source.config[key] for key in _MEMORY if key in source.config}
        values["flow"] |= {ours: source.config[key] for key, ours in _FLOW.items() if key in source.config}
    return values


def _given(overrides: list[str]) -> dict[str, Any]:
    """`--set` values by dotted key; load_recipe says what is wrong with one."""
    values: dict[str, Any] = {}
    for override in overrides:
        key, _, raw = override.partition("=")
        try:
            values |= dict(_flat(yaml.safe_load(raw), key.strip().replace("-", "_")))
        except yaml.YAMLError:
            continue
    return values


def _filed(recipe: str | None) -> dict[str, Any]:
    """Values a recipe file states, by dotted key."""
    if recipe is None:
        return {}
    try:
        return dict(_flat(yaml.safe_load(find_recipe(recipe).read_text(encoding="utf-8"))))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # load_recipe says what is wrong with it


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))


def _heads(source: Source, dim: int, given: dict[str, Any], filed: dict[str, Any], reporter: Reporter) -> int:
    """The number of heads: no shape tells it."""
    if (said := given.get("model.heads") or heads_beside(source)) is not None:
        return int(said)
    if filed.get("model.dim", ModelConfig().dim) == dim and filed:
        return int(filed.get("model.heads", ModelConfig().heads))
    if dim % WAN_HEAD:
        raise RecipeError(
            "the number of heads cannot be read off the weights", where={"source": source.path, "dim": dim},
            fix="give it: --set model.heads=N, or a recipe of this dim, or put the model's config.json beside the file",
        )  # fmt: skip
    reporter.note(f"{dim // WAN_HEAD} heads of {WAN_HEAD} channels, as Wan2.1 has them (no config.json says otherwise)")
    return dim // WAN_HEAD


def _compare(shapes: dict[str, Any], given: dict[str, Any], filed: dict[str, Any], reporter: Reporter) -> None:
    wrong = {}
    for key, value in shapes.items():
        if given.get(f"model.{key}", value) != value:
            wrong[f"model.{key}"] = f"{given[f'model.{key}']} in --set, {value} in the weights"
        elif filed.get(f"model.{key}", value) != value:
            reporter.warn(f"model.{key}: {filed[f'model.{key}']} in the recipe, {value} in the weights, which count")
    if wrong:
        raise RecipeError("the weights have other shapes", where=wrong, fix="leave these keys out: weights tell them")


def _with_parts(recipe: Recipe, source: Source, stated: dict[str, Any]) -> Recipe:
    """The recipe with the paths of VAE and text encoder made absolute, or found beside the source."""
    codec, text = recipe.codec.path, recipe.text.path
    if "codec.path" not in stated:
        beside = source.parts / VAE if source.parts is not None else source.path / _ORIGINAL_VAE
        codec = str(beside) if beside.exists() else codec
    if "text.path" not in stated and source.parts is not None and (source.parts / "tokenizer").is_dir():
        text = str(source.parts)
    return dataclasses.replace(
        recipe,
        codec=dataclasses.replace(recipe.codec, path=str(Path(codec).absolute()) if codec else ""),
        text=dataclasses.replace(recipe.text, path=str(Path(text).absolute()) if text else ""),
    )
