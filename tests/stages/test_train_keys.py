"""What makes a run this run: every key of the recipe that training reads, the seed, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hmcli.recipe.keys import keys_of
from hmcli.recipe.sections import DataConfig, LoraConfig, Recipe, SplitConfig, TrainConfig
from hmcli.stages.training import codec, train

INPUTS = {"latents": "sha256:1", "base": "sha256:2", "memory": "sha256:3"}
FULL = Recipe(data=DataConfig(split=SplitConfig(context=5, target=5)), train=TrainConfig(lora=LoraConfig()))
RunKey = Callable[[Recipe, dict[str, str]], str]


def with_other(section: Any, path: str) -> Any:
    """The recipe with another value under one key."""
    name, _, rest = path.partition(".")
    return replace(section, **{name: with_other(getattr(section, name), rest) if rest else "another"})


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # a text in the place of a number
@pytest.mark.parametrize(
    ("run_key", "read", "decay", "may_change"),
    [
        (train.run_key, train.READS, "constant", {"train.steps", "train.checkpoint_every", "train.keep"}),
        (train.run_key, train.READS, "cosine", {"train.checkpoint_every", "train.keep"}),
        (codec.run_key, codec.READS, "constant", {"train.checkpoint_every", "train.keep"}),
    ],
)
def test_a_change_of_any_key_is_another_run_but_for_length_and_checkpoints(
    run_key: RunKey, read: tuple[str, ...], decay: str, may_change: set[str]
):
    recipe = replace(FULL, train=replace(FULL.train, decay=decay))
    paths = [key.path for key in keys_of(Recipe) if key.path.split(".")[0] in (*read, "seed")]
    assert {"seed", "train.decay", "train.betas", "data.split.target", "train.lora.rank"} <= set(paths)
    same = {path for path in paths if run_key(with_other(recipe, path), INPUTS) == run_key(recipe, INPUTS)}
    assert same == may_change


@pytest.mark.parametrize("run_key", [train.run_key, codec.run_key])
def test_another_input_is_another_run(run_key: RunKey):
    for name in INPUTS:
        assert run_key(FULL, INPUTS | {name: "sha256:4"}) != run_key(FULL, INPUTS)
        assert run_key(FULL, {key: value for key, value in INPUTS.items() if key != name}) != run_key(FULL, INPUTS)
