"""Every recipe of recipes/ablations builds a model that runs on clips as long as the recipe renders."""

from __future__ import annotations

import pytest
import torch
from reference.small import camera_rows

from hmcli.contracts import TIME_STRIDE
from hmcli.core.inspection import recorded
from hmcli.core.retrieval import RetrievalInputs
from hmcli.errors import RecipeError
from hmcli.recipe.reading import load_recipe, recipe_names
from hmcli.stages.models.folders import (
    PACKAGED,
    build_model,
    check_memory_fits,
    find_base,
    find_model,
    model_arguments,
    read_otherwise,
)
from hmcli.store.files import read_json

ABLATIONS = [name for name in recipe_names() if name.startswith("ablations/")]


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_reads_what_its_name_says(name: str):
    recipe = load_recipe(name, ["model.layers=1", "model.dim=24", "model.heads=2", "model.ffn_dim=32"])
    model, memory = build_model(recipe, channels=3, text_dim=6), recipe.model.memory
    context, target = (1 + (n - 1) // TIME_STRIDE for n in (recipe.world.context_frames, recipe.world.target_frames))
    size = (recipe.data.size[0] // recipe.codec.stride, recipe.data.size[1] // recipe.codec.stride)
    check_memory_fits(model.config, "clip", context=context, target=target, size=size)
    frames, generator = context + target, torch.Generator().manual_seed(0)
    inputs = RetrievalInputs(
        intrinsics_B4=torch.tensor([[160.0, 160.0, 56.0, 32.0]]), image_size=(64, 112), near=memory.near,
        far=memory.far, visibility_BM=torch.ones(1, 2), generator=generator,
    )  # fmt: skip
    with torch.no_grad(), recorded() as readings:
        flow = model(
            torch.randn(1, 3, frames, *size), torch.tensor([500.0]), torch.randn(1, 4, 6),
            camera_rows(torch.linspace(0, 40, frames)[None], torch.zeros(1, frames, 3)).float(), context, inputs,
        ).sample  # fmt: skip
    assert flow.isfinite().all()
    last = readings[-1]
    if last.slots_BFK is not None:
        assert last.slots_BFK.shape[2] == memory.top_k > 0
        assert last.frames_FW.shape[1] == memory.window
        assert (last.span_M2[0, 1] - last.span_M2[0, 0] + 1).item() == memory.kernel[0]
    elif last.everywhere_BN is not None:
        assert last.everywhere_BN.shape[1] == memory.top_k + target


def test_the_rows_of_the_papers_tables_have_recipes():
    recipes = {name: load_recipe(name) for name in ABLATIONS}
    kernels = {r.model.memory.kernel for name, r in recipes.items() if "kernel" in name}
    assert kernels == {(2, 2, 2), (2, 4, 4), (2, 8, 8), (1, 4, 4)}
    assert {r.model.memory.top_k for name, r in recipes.items() if "top-k" in name} == {5, 10, 15}
    policies = {r.model.memory.policy for r in recipes.values()}
    assert policies == {"affinity", "fov", "random", "oracle", "none", "all", "frames-fov", "recent"}
    dfot = recipes["ablations/dfot"]
    assert (dfot.flow.noise, dfot.flow.loss) == ("per-frame", "all")
    assert dfot.sample.history_guidance > 1


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["flow.loss=all"], "clean context has no noise"),
        (["flow.loss=all", "flow.noise=per-frame"], "clean context has no noise"),  # frozen by default
        (["sample.history_guidance=2"], "never saw context masked by noise"),
        (["sample.history_level=0.4"], "has no effect: sample.history_guidance is 1"),
        (["sample.history_guidance=0.5", "flow.noise=per-frame", "model.memory.context=joint"], "at least 1"),
    ],
)  # fmt: skip
def test_settings_without_a_meaning_are_refused_by_the_recipe(overrides: list[str], reason: str):
    with pytest.raises(RecipeError, match=reason):
        load_recipe(None, overrides)


@pytest.mark.parametrize("policy", ["recent", "frames_fov"])
def test_a_policy_that_reads_frames_reads_at_least_one(policy: str):
    recipe = load_recipe(None, [f"model.memory.policy={policy}", "model.memory.top_k=0"])
    with pytest.raises(RecipeError, match="at least one context frame"):
        check_memory_fits(model_arguments(recipe, channels=4, text_dim=8), "clip", context=9, target=9, size=(8, 14))


def test_weights_saved_before_noise_was_a_setting_count_as_trained_with_shared_noise():
    """The packaged ones are such weights."""
    if not (config := PACKAGED / "transformer" / "config.json").is_file():
        pytest.skip("this checkout has no packaged weights")
    sizes = {"channels": read_json(config)["in_channels"], "text_dim": read_json(config)["text_dim"]}
    recipe = load_recipe("mini/hydra")
    assert find_base(recipe, model_arguments(recipe, **sizes)) is not None
    packaged = find_model(PACKAGED)
    assert "flow_noise" not in read_otherwise(packaged, model_arguments(recipe, **sizes))
    other = load_recipe("mini/hydra", ["flow.noise=per-frame", "model.memory.context=joint"])
    assert read_otherwise(packaged, model_arguments(other, **sizes))["flow_noise"] == "shared -> per-frame"


def test_a_model_of_another_kernel_starts_from_its_base_with_new_tokenizers():
    place = PACKAGED.with_name("nano")
    config = find_model(place).config()
    sizes = {"channels": config["in_channels"], "text_dim": config["text_dim"]}
    base = find_model(place).load(torch.float32, "cpu").state_dict()
    wider = ["codec.channels=24", f"model.base={place}", "model.memory.kernel=[2,8,8]"]
    model = build_model(load_recipe("nano/hydra", wider), **sizes)
    for name, value in model.state_dict().items():
        if ".tokenizer." not in name:
            assert torch.equal(value, base[name]), name
    kernel = model.blocks[0].attn1.tokenizer.conv.weight
    torch.testing.assert_close(kernel, torch.eye(192)[:, :, None, None, None].expand(-1, -1, 2, 2, 2) / 8)
    same = build_model(load_recipe("nano/hydra", wider[:2]), **sizes).state_dict()
    assert all(torch.equal(value, base[name]) for name, value in same.items())
