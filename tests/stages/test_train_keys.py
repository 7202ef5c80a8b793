"""What makes a run this run: every key of the recipe that training reads, the seed, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hmcli.recipe.keys import Reader
from hmcli.recipe.readers import KEYS
from hmcli.recipe.sections import DataConfig, LoraConfig, MemoryConfig, ModelConfig, Recipe, SplitConfig, TrainConfig
from hmcli.stages.training import codec, segmenter, train

INPUTS = {"latents": "sha256:1", "base": "sha256:2", "memory": "sha256:3"}
FULL = Recipe(
    data=DataConfig(split=SplitConfig(context=5, target=5)), train=TrainConfig(lora=LoraConfig()),
    model=ModelConfig(memory=MemoryConfig(policy="fov")),
)  # fmt: skip
SEEN = {f"train.{name}" for name in ("trackers", *(f"validate_{of}" for of in ("every", "clips", "steps", "metrics")))}
OTHER = {"model.memory.policy": "random"}  # where the name is looked up
# How encoding packs latents: in the fingerprint of what is trained on.
PACKED = {"data.compressor", "data.keep_bits"}
RunKey = Callable[[Recipe, dict[str, str]], str]


def with_other(section: Any, path: str, value: str) -> Any:
    """The recipe with another value under one key."""
    name, _, rest = path.partition(".")
    return replace(section, **{name: with_other(getattr(section, name), rest, value) if rest else value})


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # a text in the place of a number
@pytest.mark.parametrize(
    ("run_key", "readers", "decay", "may_change"),
    [
        (
            train.run_key,
            {"train", "views", "encode"},
            "constant",
            {
                "train.steps",
                "train.checkpoint_every",
                "train.keep",
                "train.parallel",
                "train.offload",
                "train.compile",
                *SEEN,
                *PACKED,
            },
        ),
        (
            train.run_key,
            {"train", "views", "encode"},
            "cosine",
            {
                "train.checkpoint_every",
                "train.keep",
                "train.parallel",
                "train.offload",
                "train.compile",
                *SEEN,
                *PACKED,
            },
        ),
        (codec.run_key, {"codec"}, "constant", {"train.checkpoint_every", "train.keep", "train.trackers"}),
        (segmenter.run_key, {"segmenter"}, "constant", {"train.checkpoint_every", "train.keep", "train.trackers"}),
    ],
)
def test_a_change_of_any_key_is_another_run_but_for_length_and_checkpoints(
    run_key: RunKey, readers: set[Reader], decay: str, may_change: set[str]
):
    recipe = replace(FULL, train=replace(FULL.train, decay=decay))
    paths = [key.path for key in KEYS.values() if readers & set(key.readers) and key.path != "format"]
    assert {"seed", "train.decay", "train.betas", "data.size"} <= set(paths)
    keys = {path: run_key(with_other(recipe, path, OTHER.get(path, "another")), INPUTS) for path in paths}
    same = {path for path, key in keys.items() if key == run_key(recipe, INPUTS)}
    assert same == may_change


@pytest.mark.parametrize("run_key", [train.run_key, codec.run_key, segmenter.run_key])
def test_another_input_is_another_run(run_key: RunKey):
    for name in INPUTS:
        assert run_key(FULL, INPUTS | {name: "sha256:4"}) != run_key(FULL, INPUTS)
        assert run_key(FULL, {key: value for key, value in INPUTS.items() if key != name}) != run_key(FULL, INPUTS)
