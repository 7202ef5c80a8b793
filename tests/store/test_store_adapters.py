"""Adapters as trainers name and save them: the same numbers from every form, and everything else named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hmcli.errors import DataError
from hmcli.store.adapters import Adapter, changed, is_adapter, read_adapter
from hmcli.store.names import released_from_ours

LAYERS = {  # our name -> shape of its weight; every axis different
    "blocks.0.attn1.to_q": (6, 5),
    "blocks.0.attn2.to_out.0": (6, 5),
    "blocks.11.ffn.net.0.proj": (7, 5),
    "condition_embedder.time_proj": (8, 5),
    "patch_embedding": (6, 4, 1, 2, 2),
}
SHAPES = {f"{layer}.weight": shape for layer, shape in LAYERS.items()}
SHAPES |= {f"{layer}.bias": (shape[0],) for layer, shape in LAYERS.items()} | {"scale_shift_table": (1, 2, 5)}
RANK = 3


def matrices() -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) of each layer."""
    draw = torch.Generator().manual_seed(1)
    made = {}
    for layer, (rows, *rest) in LAYERS.items():
        up = torch.randn(rows, RANK, *[1] * (len(rest) - 1), generator=draw)
        made[layer] = torch.randn(RANK, *rest, generator=draw), up
    return made


def original(layer: str) -> str:
    return released_from_ours(layer + ".weight").removesuffix(".weight")


def flat(layer: str) -> str:
    return layer.replace(".", "_")


# By the tool that writes it so: how it calls a layer, and its two matrices.
FORMS = {
    "kohya": (lambda n: f"lora_unet_{flat(original(n))}", "lora_down.weight", "lora_up.weight"),
    "kohya, diffusers' names": (lambda n: f"lora_unet_{flat(n)}", "lora_down.weight", "lora_up.weight"),
    "Wan-Fun": (lambda n: f"lora_unet__{flat(original(n))}", "lora_down.weight", "lora_up.weight"),
    "ComfyUI": (lambda n: f"diffusion_model.{original(n)}", "lora_A.weight", "lora_B.weight"),
    "ComfyUI, down and up": (lambda n: f"diffusion_model.{original(n)}", "lora_down.weight", "lora_up.weight"),
    "peft": (lambda n: f"base_model.model.{n}", "lora_A.weight", "lora_B.weight"),
    "peft, original names": (lambda n: f"base_model.model.{original(n)}", "lora_A.weight", "lora_B.weight"),
    "DiffSynth": (lambda n: original(n), "lora_A.default.weight", "lora_B.default.weight"),
    "diffusers": (lambda n: f"transformer.{n}", "lora_A.weight", "lora_B.weight"),
    "older diffusers": (lambda n: f"transformer.{n}", "lora.down.weight", "lora.up.weight"),
    "hm": (lambda n: n, "lora_A.weight", "lora_B.weight"),
}


def state_of(form: str) -> dict[str, Tensor]:
    name, down, up = FORMS[form]
    return {
        f"{name(layer)}.{end}": part
        for layer, pair in matrices().items()
        for end, part in zip((down, up), pair, strict=True)
    }


def written(folder: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(state, folder / "a.safetensors", metadata=metadata)
    return folder / "a.safetensors"


def delta(adapter: Adapter, layer: str) -> Tensor:
    return changed(f"{layer}.weight", torch.zeros(SHAPES[f"{layer}.weight"]), adapter)


def wanted(layer: str, scale: float) -> Tensor:
    down, up = matrices()[layer]
    return scale * torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).reshape(SHAPES[f"{layer}.weight"])


@pytest.mark.parametrize("form", FORMS)
def test_every_tool_s_names_mean_the_same_change(tmp_path: Path, form: str):
    state = state_of(form)
    assert is_adapter(state)
    name = FORMS[form][0]
    alphas = {f"{name(layer)}.alpha": torch.tensor(2.0 + i) for i, layer in enumerate(LAYERS)}
    adapter = read_adapter(written(tmp_path, state | alphas), SHAPES)
    for number, layer in enumerate(LAYERS):
        torch.testing.assert_close(delta(adapter, layer), wanted(layer, (2.0 + number) / RANK), rtol=1e-6, atol=1e-6)
    assert "alpha 2 from the file's alpha keys" in adapter.told


ALPHA = 6.0
CONFIGS = {
    "beside": ({"peft_type": "LORA", "lora_alpha": ALPHA}, ALPHA / RANK, "from adapter_config.json"),
    "root": ({"lora_alpha": ALPHA, "use_rslora": True}, ALPHA / RANK**0.5, "over the root of the rank"),
    "pattern": ({"lora_alpha": 1, "alpha_pattern": {r"blocks\.\d+\..*|.*": ALPHA}}, ALPHA / RANK, "alpha_pattern in"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_alpha_is_read_from_peft_s_configuration(tmp_path: Path, case: str):
    config, scale, told = CONFIGS[case]
    file = written(tmp_path, state_of("peft"))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    adapter = read_adapter(file, SHAPES)
    torch.testing.assert_close(delta(adapter, "patch_embedding"), wanted("patch_embedding", scale))
    assert told in adapter.told
    assert [path.name for path in adapter.files] == ["a.safetensors", "adapter_config.json"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 6, "transformer.r": 3})},
        {"lora_adapter_metadata": json.dumps({"lora_alpha": 6})},
        {"ss_network_alpha": "6.0", "ss_network_dim": "3"},
    ],
)
def test_alpha_is_read_from_what_the_file_says_of_itself(tmp_path: Path, metadata: dict[str, str]):
    adapter = read_adapter(written(tmp_path, state_of("diffusers"), metadata), SHAPES)
    torch.testing.assert_close(delta(adapter, "blocks.0.attn1.to_q"), wanted("blocks.0.attn1.to_q", 2.0))
    assert "metadata" in adapter.told


def test_without_an_alpha_the_change_is_as_it_is_and_this_is_said(tmp_path: Path):
    adapter = read_adapter(written(tmp_path, state_of("diffusers")), SHAPES)
    torch.testing.assert_close(delta(adapter, "blocks.0.attn1.to_q"), wanted("blocks.0.attn1.to_q", 1.0))
    assert "5 layers with rank 3, no alpha is stated: taken as 3, the rank" in adapter.told


def test_layers_with_and_without_an_alpha_are_told_apart(tmp_path: Path):
    state = state_of("kohya") | {"lora_unet_patch_embedding.alpha": torch.tensor(3.0)}
    told = read_adapter(written(tmp_path, state), SHAPES).told
    assert "1 layers with rank 3, alpha 3 from the file's alpha keys" in told
    assert "4 layers with rank 3, no alpha is stated" in told


@pytest.mark.parametrize("half", ["lora_down.weight", "lora_up.weight"])
def test_half_a_pair_is_an_error_that_names_it(tmp_path: Path, half: str):
    state = state_of("kohya")
    layer = "lora_unet_blocks_0_self_attn_q"
    del state[f"{layer}.{half}"]
    there = next(key for key in state if key.startswith(layer))
    with pytest.raises(DataError, match=f"{there} has no {half[5:].partition('.')[0]} matrix"):
        read_adapter(written(tmp_path, state), SHAPES)


def test_an_alpha_without_matrices_is_an_error(tmp_path: Path):
    state = state_of("kohya") | {"lora_unet_blocks_0_self_attn_q.alpha": torch.tensor(1.0)}
    state = {key: part for key, part in state.items() if "self_attn_q.lora" not in key}
    with pytest.raises(DataError, match=r"self_attn_q\.alpha has no matrices to it"):
        read_adapter(written(tmp_path, state), SHAPES)


def test_every_key_that_is_on_no_layer_is_listed(tmp_path: Path):
    pair = torch.ones(RANK, 5), torch.ones(6, RANK)
    lost = ("diffusion_model.blocks.0.cross_attn.k_img.lora_{}.weight", "text_encoder.layers.0.q.lora_{}.weight",
            "diffusion_model.blocks.99.self_attn.q.lora_{}.weight")  # fmt: skip
    more = {name.format(half): part.clone() for name in lost for half, part in zip("AB", pair, strict=True)}
    more["what.is.this"] = torch.ones(1)
    with pytest.raises(DataError, match="7 of 17 keys of the adapter are on no layer") as caught:
        read_adapter(written(tmp_path, state_of("ComfyUI") | more), SHAPES)
    assert all(key in str(caught.value) for key in more)


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("dora_scale", "DoRA"), ("lora_magnitude_vector.weight", "DoRA"), ("lokr_w1", "LoKr"), ("lokr_w2_a", "LoKr"),
        ("hada_w1_a", "LoHa"), ("oft_blocks", "OFT"), ("lora_mid.weight", "LoCon"),
    ],
)  # fmt: skip
def test_methods_that_are_no_plain_lora_are_named(tmp_path: Path, key: str, method: str):
    full = f"diffusion_model.blocks.0.self_attn.q.{key}"
    assert is_adapter({full: None}) == ("mid" not in key) or "mid" in key
    with pytest.raises(DataError, match=f"cannot be used: {method}") as caught:
        read_adapter(written(tmp_path, state_of("ComfyUI") | {full: torch.ones(2)}), SHAPES)
    assert full in str(caught.value)


@pytest.mark.parametrize("config", [{"use_dora": True}, {"peft_type": "LOHA"}])
def test_methods_that_only_the_configuration_tells_are_named_too(tmp_path: Path, config: dict[str, object]):
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot be used: (DoRA|LOHA)"):
        read_adapter(written(tmp_path, state_of("peft")), SHAPES)


def test_two_names_of_one_matrix_are_an_error(tmp_path: Path):
    state = state_of("ComfyUI")
    again = {"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.ones(RANK, 5)}
    with pytest.raises(DataError, match="two keys of the adapter mean the same"):
        read_adapter(written(tmp_path, state | again), SHAPES)


def test_changes_without_matrices_are_added_as_they_are(tmp_path: Path):
    draw = torch.Generator().manual_seed(2)
    state = state_of("ComfyUI")
    more = {
        "diffusion_model.blocks.0.self_attn.q.diff_b": torch.randn(6, generator=draw),
        "diffusion_model.blocks.0.self_attn.q.diff": torch.randn(6, 5, generator=draw),
        "diffusion_model.head.modulation.diff": torch.randn(1, 2, 5, generator=draw),
    }
    adapter = read_adapter(written(tmp_path, state | more), SHAPES)
    bias, weight, table = more.values()
    assert torch.equal(changed("blocks.0.attn1.to_q.bias", torch.zeros(6), adapter), bias)
    torch.testing.assert_close(delta(adapter, "blocks.0.attn1.to_q"), wanted("blocks.0.attn1.to_q", 1.0) + weight)
    assert torch.equal(changed("scale_shift_table", torch.zeros(1, 2, 5), adapter), table)
    other = torch.ones(8)
    assert changed("condition_embedder.time_proj.bias", other, adapter) is other


def test_a_bias_of_peft_is_scaled_like_its_matrices(tmp_path: Path):
    bias = torch.arange(6.0)
    state = state_of("peft") | {"base_model.model.blocks.0.attn1.to_q.lora_B.bias": bias}
    state["base_model.model.blocks.0.attn1.to_q.alpha"] = torch.tensor(6.0)
    adapter = read_adapter(written(tmp_path, state), SHAPES)
    assert torch.equal(changed("blocks.0.attn1.to_q.bias", torch.ones(6), adapter), 1 + 2 * bias)


def test_the_sum_is_made_in_float32_and_keeps_the_weight_s_type(tmp_path: Path):
    adapter = read_adapter(written(tmp_path, {n: t.half() for n, t in state_of("hm").items()}), SHAPES)
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(3)).bfloat16()
    down, up = (part.half().float() for part in matrices()["blocks.0.attn1.to_q"])
    got = changed("blocks.0.attn1.to_q.weight", weight, adapter)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, (weight.float() + up @ down).bfloat16())


@pytest.mark.parametrize(
    ("key", "part"),
    [("lora_A.weight", torch.ones(RANK, 4)), ("lora_B.weight", torch.ones(5, RANK)), ("diff_b", torch.ones(7)),
     ("lora_B.weight", torch.ones(6, 2)), ("alpha", torch.ones(2))],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_listed(tmp_path: Path, key: str, part: Tensor):
    full = f"blocks.0.attn1.to_q.{key}"
    with pytest.raises(DataError, match="does not fit the model") as caught:
        read_adapter(written(tmp_path, state_of("hm") | {full: part}), SHAPES)
    assert full in str(caught.value)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_no_number_is_an_error(tmp_path: Path, alpha: float):
    state = state_of("kohya") | {"lora_unet_patch_embedding.alpha": torch.tensor(alpha)}
    with pytest.raises(DataError, match="alpha of the adapter is no number"):
        read_adapter(written(tmp_path, state), SHAPES)


@pytest.mark.parametrize("text", ["{", "[1]", '{"lora_alpha": "much"}', '{"lora_alpha": 1, "alpha_pattern": {"(": 1}}'])
def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path: Path, text: str):
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError):
        read_adapter(written(tmp_path, state_of("peft")), SHAPES)


def test_a_folder_of_peft_and_a_pickle_are_read_too(tmp_path: Path):
    folder = tmp_path / "peft"
    folder.mkdir()
    save_file(state_of("peft"), folder / "adapter_model.safetensors")
    torch.save({"state_dict": state_of("peft")}, tmp_path / "a.pt")
    for place in (folder, tmp_path / "a.pt"):
        got = delta(read_adapter(place, SHAPES), "blocks.11.ffn.net.0.proj")
        torch.testing.assert_close(got, wanted("blocks.11.ffn.net.0.proj", 1.0))


def test_a_whole_model_is_no_adapter(tmp_path: Path):
    with pytest.raises(DataError, match="this is no adapter"):
        read_adapter(written(tmp_path, {"blocks.0.attn1.to_q.weight": torch.ones(6, 5)}), SHAPES)
