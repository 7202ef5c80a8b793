"""Weights as people have them: wrapped, scaled to 8 bits, named by a variant; and what is no file of weights at all."""

from __future__ import annotations

import gzip
import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hmcli.codecs.wan_files import load_wan_vae
from hmcli.errors import DataError, UsageError
from hmcli.store.weights import load_state_dict, open_weights, weight_files
from hmcli.tensors.nested import PARTS
from hmcli.tensors.variants import only_variant

STATE = {"patch_embedding.weight": torch.arange(6.0).reshape(2, 3), "head.head.bias": torch.arange(5.0)}
OTHER = {name: tensor + 100 for name, tensor in STATE.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


# --- nested ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("part", ["module", "model_ema", "state_dict", "state_dict/module", "model/ema/state_dict"])
def test_a_state_dict_inside_others_is_found_and_told(tmp_path: Path, part: str, suffix: str):
    content: object = OrderedDict(STATE)
    for key in reversed(part.split("/")):
        content = {key: content, "epoch": 3, "lr": [0.1], "note": "x", "optimizer": {"state": {0: torch.ones(1)}}}
    torch.save(content, tmp_path / f"a{suffix}")
    opened = open_weights(tmp_path / f"a{suffix}")
    assert same(opened.state, STATE)
    assert (opened.part, opened.others) == (part, ())


def test_the_trained_weights_come_before_their_average_and_either_can_be_named(tmp_path: Path):
    file = tmp_path / "a.pt"
    torch.save({"model_ema": OTHER, "module": STATE, "step": 1}, file)
    opened = open_weights(file)
    assert same(opened.state, STATE)
    assert (opened.part, opened.others) == ("module", ("model_ema",))
    assert same(open_weights(file, "model_ema").state, OTHER)
    with pytest.raises(UsageError, match="no part 'ema'"):
        open_weights(file, "ema")
    assert all("ema" in name or "shadow" in name for name in PARTS[PARTS.index("ema_state_dict") :])
    assert not any("ema" in name for name in PARTS[: PARTS.index("ema_state_dict")])


def test_numbers_beside_tensors_are_counters_but_groups_of_tensors_are_not_passed_over(tmp_path: Path):
    torch.save(STATE | {"iteration": 7}, tmp_path / "a.pt")
    assert same(open_weights(tmp_path / "a.pt").state, STATE)
    torch.save(STATE | {"adapter": {"w": torch.ones(1)}}, tmp_path / "b.pt")
    with pytest.raises(DataError, match="adapter"):
        open_weights(tmp_path / "b.pt")


def test_what_compiling_and_sharding_put_into_names_is_cut(tmp_path: Path):
    wrapped = {f"_orig_mod._fsdp_wrapped_module.{name}": tensor for name, tensor in STATE.items()}
    save_file(wrapped, tmp_path / "a.safetensors")
    assert same(open_weights(tmp_path / "a.safetensors").state, STATE)


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, [torch.ones(1)], {"model": {"lr": 1}}, 3])
def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(DataError, match="holds no state dict"):
        open_weights(tmp_path / "a.pt")


# --- 8-bit floats ----------------------------------------------------------------------------------------------------

FP8 = torch.float8_e4m3fn


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("names", [("scale_weight", "scale_input"), ("weight_scale", "input_scale")])
@pytest.mark.parametrize("form", ["one", "scalar", "rows", "rows and 1", "blocks"])
@pytest.mark.parametrize("kind", [FP8, torch.float8_e5m2])
def test_scaled_weights_are_multiplied_out(tmp_path: Path, names: tuple[str, str], form: str, kind: torch.dtype):
    eight, norm = draw(4, 6).to(kind), draw(3).bfloat16()
    scale = {
        "one": draw(1), "scalar": draw(1)[0], "rows": draw(4), "rows and 1": draw(4, 1), "blocks": draw(4, 2, 1)
    }[form]  # fmt: skip
    state = {
        "a.q.weight": eight, f"a.q.{names[0]}": scale, f"a.q.{names[1]}": torch.ones(1), "a.norm.weight": norm,
        "a.k.weight": draw(2, 2).to(kind), "scaled_fp8": torch.zeros(2).to(kind),
    }  # fmt: skip
    save_file(state, tmp_path / "a.safetensors")
    factor = scale.repeat_interleave(3, 1).reshape(4, 6) if form == "blocks" else scale
    factor = factor.reshape(4, 1) if form == "rows" else factor
    opened = open_weights(tmp_path / "a.safetensors")
    assert opened.state.keys() == {"a.q.weight", "a.norm.weight", "a.k.weight"}
    assert torch.equal(opened.state["a.q.weight"], eight.float() * factor)
    assert torch.equal(opened.state["a.k.weight"], state["a.k.weight"].float())
    assert opened.state["a.norm.weight"].dtype == torch.bfloat16
    assert "2 weights in 8-bit floats, 1 of them scaled" in opened.scaled


def test_a_scale_may_lie_in_another_shard_than_its_weight(tmp_path: Path):
    parts = {"m-1.safetensors": {"q.weight": draw(2, 3).to(FP8)}, "m-2.safetensors": {"q.scale_weight": draw(1)}}
    for name, part in parts.items():
        save_file(part, tmp_path / name)
    place = {name: file for file, part in parts.items() for name in part}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}), encoding="utf-8")
    assert torch.equal(load_state_dict(index)["q.weight"], draw(2, 3).to(FP8).float() * draw(1))


def quantised(**more: Tensor) -> dict[str, Tensor]:
    return {"q.weight": draw(4, 6).to(FP8)} | {f"q.{name}": tensor for name, tensor in more.items()}


def mark(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"q.scale_weight": torch.ones(1)}, "a scale has no weight"),
        (quantised(scale_weight=torch.ones(5)), r"scale of shape \[5\] does not fit"),
        (quantised(scale_weight=torch.ones(4, 5, 1)), "does not fit"),
        (quantised(weight_scale_inv=torch.ones(1, 1)), "quantised in a way that is not known"),
        (quantised(absmax=torch.ones(1)), "quantised in a way that is not known"),
        (quantised(comfy_quant=mark('{"format": "nvfp4"}')), "'nvfp4' cannot be read"),
        (quantised(comfy_quant=mark("{")), "mark cannot be read"),
    ],
)
def test_scales_that_cannot_be_applied_are_errors(tmp_path: Path, state: dict[str, Tensor], message: str):
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=message):
        open_weights(tmp_path / "a.safetensors")


def test_a_mark_of_a_known_format_is_no_weight(tmp_path: Path):
    state = quantised(comfy_quant=mark('{"format": "float8_e4m3fn"}'), weight_scale=torch.tensor(2.0))
    save_file(state, tmp_path / "a.safetensors")
    got = load_state_dict(tmp_path / "a.safetensors")
    assert same(got, {"q.weight": 2 * state["q.weight"].float()})


# --- in place of weights ---------------------------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 507609880\n"
IMPOSTORS = {
    "lfs": (LFS, r"a Git LFS pointer(.|\n)*507609880 bytes(.|\n)*git lfs pull(.|\n)*hm fetch"),
    "html": (
        b"\n<!DOCTYPE html><html><head><title>Sign in\n here</title>",
        r"an HTML page(.|\n)*Sign in here(.|\n)*/resolve/",
    ),
    "html, upper": (b"<HTML><BODY>404</BODY>", "an HTML page"),
    "json": (b'{"error": "Repository not found"}', r"JSON text(.|\n)*says\s+Repository not found(.|\n)*hm fetch"),
    "json, mark": (b'\xef\xbb\xbf{"message": "rate limit"}', r"JSON text(.|\n)*rate limit"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML.*(.|\n)*AccessDenied"),
    "text": (b"Invalid username or password.", r"plain text(.|\n)*Invalid username"),
    "empty": (b"", "the file is empty"),
    "gguf": (b"GGUF\x03\0\0\0", "a GGUF file"),
    "gzip": (gzip.compress(b"x"), "a gzip archive"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("what", IMPOSTORS)
def test_what_is_no_weights_is_named_as_what_it_is(tmp_path: Path, what: str, name: str):
    content, message = IMPOSTORS[what]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_weights(tmp_path / name)
    (tmp_path / "Wan2.1_VAE.pth").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_wan_vae(tmp_path / "Wan2.1_VAE.pth", torch.float32)


def test_a_pointer_among_shards_is_named_with_its_file(tmp_path: Path):
    save_file(STATE, tmp_path / "m-1.safetensors")
    (tmp_path / "m-2.safetensors").write_bytes(LFS)
    place = dict.fromkeys(STATE, "m-1.safetensors") | {"x": "m-2.safetensors"}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": place}), encoding="utf-8")
    with pytest.raises(DataError, match=r"Git LFS pointer(.|\n)*m-2\.safetensors"):
        open_weights(tmp_path)


def test_files_under_another_format_s_name_are_named(tmp_path: Path):
    save_file(STATE, tmp_path / "a.pth")
    with pytest.raises(DataError, match=r"a safetensors file under another name(.|\n)*end in \.safetensors"):
        open_weights(tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "b.safetensors")
    with pytest.raises(DataError, match=r"a zip archive, as torch saves(.|\n)*end in \.pth"):
        open_weights(tmp_path / "b.safetensors")


@pytest.mark.parametrize("cut", [1, 7, 8, 20, -1])
def test_a_file_that_is_cut_anywhere_is_not_whole(tmp_path: Path, cut: int):
    save_file(STATE, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:cut])
    with pytest.raises(DataError):
        open_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("header", [b"\xff" * 8, (10**9).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_a_wrong_header_is_an_error(tmp_path: Path, header: bytes):
    (tmp_path / "a.safetensors").write_bytes(header + b"\0" * 64)
    with pytest.raises(DataError, match="not whole or no safetensors"):
        open_weights(tmp_path / "a.safetensors")


# --- variants --------------------------------------------------------------------------------------------------------


def shards(folder: Path, index: str, shard: str, state: dict[str, Tensor]) -> None:
    place = {}
    for number, name in enumerate(state):
        file = shard.format(number + 1, len(state))
        save_file({name: state[name]}, folder / file)
        place[name] = file
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": place}), encoding="utf-8")


OWN = "diffusion_pytorch_model"
SHARDED = [
    (f"{OWN}.safetensors.index.fp16.json", OWN + "-{:05d}-of-{:05d}.fp16.safetensors"),
    (f"{OWN}.fp16.safetensors.index.json", OWN + ".fp16-{:05d}-of-{:05d}.safetensors"),
]


@pytest.mark.parametrize(("index", "shard"), SHARDED)
def test_a_sharded_variant_is_read_by_its_index(tmp_path: Path, index: str, shard: str):
    shards(tmp_path, index, shard, STATE)
    assert same(load_state_dict(tmp_path), STATE)
    assert same(load_state_dict(tmp_path / index), STATE)
    assert len(weight_files(tmp_path)) == 3


def test_the_plain_weights_come_before_a_variant_and_two_variants_are_asked_about(tmp_path: Path):
    for name, state in ((".fp16", OTHER), ("", STATE)):
        save_file(state, tmp_path / f"{OWN}{name}.safetensors")
    assert same(load_state_dict(tmp_path), STATE)
    (tmp_path / f"{OWN}.safetensors").rename(tmp_path / f"{OWN}.bf16.safetensors")
    with pytest.raises(DataError, match=r"several variants(.|\n)*bf16, fp16"):
        load_state_dict(tmp_path)
    (tmp_path / f"{OWN}.bf16.safetensors").unlink()
    assert same(load_state_dict(tmp_path), OTHER)
    assert only_variant(tmp_path) == "fp16"


@pytest.mark.parametrize("shard_size", ["10GB", "100KB"])
def test_a_vae_folder_that_holds_only_a_variant_is_loaded(tmp_path: Path, shard_size: str):
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(base_dim=4, z_dim=16).half()
    vae.save_pretrained(tmp_path, variant="fp16", max_shard_size=shard_size)
    names = [file.name for file in tmp_path.iterdir()]
    assert all("fp16" in name or name == "config.json" for name in names)
    assert (len(names) > 2) == (shard_size == "100KB")
    again = load_wan_vae(tmp_path, torch.float32)
    assert same(dict(again.state_dict()), {name: tensor.float() for name, tensor in vae.state_dict().items()})


def test_a_pointer_in_a_vae_folder_is_named(tmp_path: Path):
    from diffusers import AutoencoderKLWan

    AutoencoderKLWan(base_dim=4, z_dim=16).save_pretrained(tmp_path)
    (tmp_path / f"{OWN}.safetensors").write_bytes(LFS)
    with pytest.raises(DataError, match="a Git LFS pointer"):
        load_wan_vae(tmp_path, torch.float32)


def test_an_original_vae_inside_other_dicts_is_loaded(tmp_path: Path):
    file = tmp_path / "vae.pth"
    torch.save({"state_dict": {"module": {"conv2.weight": torch.ones(16, 1)}}}, file)
    with pytest.raises(DataError, match=r"no Wan2\.1 VAE: it has no 'encoder\.conv1\.weight'"):
        load_wan_vae(file, torch.float32)
