"""hm convert: from every released form into a checkpoint that generates and trains on, and back without a loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from reference.misaligned import mapped
from safetensors.torch import save_file
from torch import Tensor
from warm import WarmCommand, ok

from hmcli.contracts import StageResult
from hmcli.core.lora import FILE, add_lora, fused_weights, save_lora
from hmcli.core.transformer import HydraTransformer3DModel, load_model
from hmcli.errors import DataError, RecipeError, UsageError
from hmcli.recipe.reading import load_recipe
from hmcli.stages.models import convert
from hmcli.stages.models.folders import find_model
from hmcli.stages.models.sources import look
from hmcli.store.manifest import read_manifest
from hmcli.store.names import ADDED_TO_WAN, to_ours, to_released
from hmcli.store.weights import load_state_dict

SMALL = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 40, "freq_dim": 16, "text_dim": 32,
}  # fmt: skip
HEADS = ["--set", "model.heads=2"]


class Said:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    warn = note


def changed(source: Path, out: Path, *settings: str, said: Said | None = None, **options: object) -> StageResult:
    """The stage in this process; `settings` are --set values."""
    given = {"to": None, "recipe": None, "dtype": None, "lora": None, "force": False} | options
    return convert.run(source, out=out, overrides=list(settings), reporter=said or Said(), **given)  # type: ignore[arg-type]


def hydra(seed: int = 3, **changes: object) -> HydraTransformer3DModel:
    """A small model, every weight of which is random."""
    model = HydraTransformer3DModel(**SMALL | changes)  # type: ignore[arg-type]
    randomise(model, seed)
    return model


def randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def plain_wan(seed: int = 4) -> WanTransformer3DModel:
    model = WanTransformer3DModel(**SMALL, cross_attn_norm=True)  # type: ignore[arg-type]
    randomise(model, seed)
    return model


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    return load_state_dict(find_model(checkpoint).path / "transformer")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def settings_of(model: torch.nn.Module) -> dict[str, object]:
    """Its configuration, without what saving adds."""
    config: dict[str, object] = json.loads(model.to_json_string())  # type: ignore[operator]
    return {key: value for key, value in config.items() if key[0] != "_"}


def flow(model: HydraTransformer3DModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, text, camera = (torch.randn(1, *s, generator=generator) for s in ((16, 26, 8, 12), (5, 32), (26, 12)))
    with torch.no_grad():
        out: Tensor = model(latents, torch.tensor([400.0]), text, camera, 14).sample
    return out


def write_released(folder: Path, form: str, state: dict[str, Tensor]) -> Path:
    """A released checkpoint in one of the forms it comes in; `state` is under our names."""
    name, _, how = form.partition(" ")
    renamed = to_released(state)
    if how == "prefixed":
        renamed = {f"pipe.dit.{key}": value for key, value in renamed.items()}
    if name.endswith("safetensors"):
        save_file(renamed, folder / name)
    else:
        torch.save({"state_dict": renamed, "epoch": 1} if how == "inside" else renamed, folder / name)
    return folder / name


FORMS = ["hydra.ckpt", "hydra.ckpt inside", "hydra.pth", "hydra.safetensors", "hydra.safetensors prefixed",
         "hydra.pth prefixed"]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_released_hydra_checkpoint_becomes_a_model_that_behaves_as_released(tmp_path: Path, form: str):
    released = hydra(spans="released")
    said = Said()
    made = changed(write_released(tmp_path, form, released.state_dict()), tmp_path / "out", "model.heads=2", said=said)
    assert made.kind == "checkpoint"
    assert "HyDRA transformer, original names" in said.lines[0]
    assert ("pipe.dit." in said.lines[0]) == form.endswith("prefixed")
    model = load_model(tmp_path / "out" / "transformer")
    assert settings_of(model) == settings_of(released)
    assert same(weights_of(tmp_path / "out"), released.state_dict())
    assert torch.equal(flow(model), flow(released))
    assert read_manifest(tmp_path / "out").attributes["fresh"] == []


def test_there_and_back_changes_no_weight(tmp_path: Path):
    source = write_released(tmp_path, "hydra.safetensors", hydra().state_dict())
    changed(source, tmp_path / "ours", "model.heads=2")
    for name in ("back.safetensors", "back.ckpt", "back.pth"):
        made = changed(tmp_path / "ours", tmp_path / name, to="released")
        assert made.path == tmp_path / name
        assert same(load_state_dict(tmp_path / name), load_state_dict(source))


@pytest.mark.parametrize("form", ["hydra.safetensors", "hydra.pth"])
def test_weights_that_only_pass_through_stay_in_their_file(tmp_path: Path, form: str):
    source = write_released(tmp_path, form, hydra().state_dict())
    plan = convert.Plan(
        source=look(source), recipe=load_recipe(None), arguments=settings_of(hydra()), dtype=None, lora=None
    )
    model = plan.model()
    assert mapped([source])
    assert {w.data_ptr() for w in model.parameters()} == {w.data_ptr() for w in plan.source.state.values()}


def test_settings_come_from_the_recipe_and_from_set(tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra(kernel=(1, 4, 2)).state_dict())
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: {layers: 9, dim: 24, heads: 2, memory: {affinity: spatial, context: frozen, kernel: [1, 2, 4]}}\n"
        "sample: {steps: 3}\n",
        encoding="utf-8",
    )
    said = Said()
    changed(source, tmp_path / "out", "model.memory.top_k=4", recipe=str(recipe), said=said)
    config = load_model(tmp_path / "out" / "transformer").config
    assert (config.affinity, config.context, config.top_k) == ("spatial", "frozen", 4)
    assert (config.num_layers, list(config.kernel), config.num_attention_heads) == (2, [1, 4, 2], 2)
    told = " ".join(said.lines)
    assert "model.layers: 9 in the recipe, 2 in the weights" in told
    assert "model.memory.kernel: [1, 2, 4] in the recipe, [1, 4, 2] in the weights" in told
    assert find_model(tmp_path / "out").manifest.recipe["sample"]["steps"] == 3


def test_a_set_value_that_the_weights_contradict_is_refused(tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    with pytest.raises(RecipeError, match="3 in --set, 2 in the weights"):
        changed(source, tmp_path / "out", "model.heads=2", "model.layers=3")
    with pytest.raises(RecipeError, match="number of heads cannot be read"):
        changed(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_heads_of_128_channels_need_no_config(tmp_path: Path):
    wide = hydra(num_layers=1, num_attention_heads=2, attention_head_dim=128, ffn_dim=8)
    said = Said()
    changed(write_released(tmp_path, "w.safetensors", wide.state_dict()), tmp_path / "out", said=said)
    assert load_model(tmp_path / "out" / "transformer").config.num_attention_heads == 2
    assert any("2 heads of 128 channels" in line for line in said.lines)


# --- plain Wan -------------------------------------------------------------------------------------------------------


def original_wan(folder: Path, shards: int = 1) -> Path:
    """A folder like Wan2.1's own, with its other files beside the transformer."""
    folder.mkdir()
    state = to_released(plain_wan().state_dict())
    config = {"_class_name": "WanModel", "dim": 24, "num_heads": 2, "num_layers": 2, "eps": 1e-6, "model_type": "t2v"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save({"decoder.conv1.weight": torch.ones(1)}, folder / "Wan2.1_VAE.pth")
    torch.save({"token_embedding.weight": torch.ones(1)}, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    if shards == 1:
        save_file(state, folder / "diffusion_pytorch_model.safetensors")
        return folder
    place = {}
    for number in range(shards):
        part = dict(list(state.items())[number::shards])
        file = f"diffusion_pytorch_model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file)
        place |= dict.fromkeys(part, file)
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("form", ["folder", "shards", "diffusers", "pipeline", "pth"])
def test_plain_wan_is_upgraded_with_parts_that_start_as_published(tmp_path: Path, form: str):
    source = tmp_path / "wan"
    if form in ("folder", "shards"):
        original_wan(source, 1 if form == "folder" else 3)
    elif form == "pth":
        source = write_released(tmp_path, "wan.pth", plain_wan().state_dict())
    else:
        plain_wan().save_pretrained(source / "transformer" if form == "pipeline" else source)
    settings = ["codec.path=''", "model.memory.kernel=[1,4,2]", *(["model.heads=2"] if form == "pth" else [])]
    changed(source, tmp_path / "out", *settings)
    manifest, state = read_manifest(tmp_path / "out"), weights_of(tmp_path / "out")
    fresh = manifest.attributes["fresh"]
    assert same({n: t for n, t in state.items() if n not in fresh}, dict(plain_wan().state_dict()))
    assert all(any(part in name for part in ADDED_TO_WAN) for name in fresh)
    assert len(fresh) == 2 * (2 + 4 + 2)
    for name in fresh:
        if ".camera." in name or name.endswith("projector.bias"):
            assert not state[name].any()
    assert torch.equal(state["blocks.1.projector.weight"], torch.eye(24))
    conv = state["blocks.1.attn1.tokenizer.conv.weight"]
    assert conv.shape == (24, 24, 1, 2, 1)
    assert 0.5 < conv.std() * (3 * 24 * 2) ** 0.5 < 2  # torch's initialisation: uniform up to 1 / sqrt(fan in)
    assert not torch.equal(conv, state["blocks.0.attn1.tokenizer.conv.weight"])


def test_the_seed_decides_fresh_parts_and_they_may_start_as_averages(tmp_path: Path):
    source = write_released(tmp_path, "wan.pth", plain_wan().state_dict())
    name = "blocks.0.attn1.tokenizer.conv.weight"
    found = {}
    for place, settings in {
        "a": ["seed=1"],
        "b": ["seed=1"],
        "c": ["seed=2"],
        "m": ["model.memory.tokenizer=mean"],
    }.items():
        changed(source, tmp_path / place, "model.heads=2", *settings)
        found[place] = weights_of(tmp_path / place)[name]
    assert torch.equal(found["a"], found["b"])
    assert not torch.equal(found["a"], found["c"])
    assert torch.equal(found["m"][:, :, 1, 0, 1], torch.eye(24) / 8)
    assert read_manifest(tmp_path / "a").fingerprint == read_manifest(tmp_path / "b").fingerprint


def test_an_upgraded_model_that_reads_everything_is_plain_wan_and_goes_back_to_it(tmp_path: Path):
    wan = plain_wan()
    wan.save_pretrained(tmp_path / "wan")
    changed(tmp_path / "wan", tmp_path / "ours", "model.memory.policy=all")
    made = changed(tmp_path / "ours", tmp_path / "again", to="diffusers")
    assert made.kind == "weights"
    again = WanTransformer3DModel.from_pretrained(str(tmp_path / "again"), local_files_only=True)
    assert same(dict(again.state_dict()), dict(wan.state_dict()))
    assert settings_of(again) == settings_of(wan)


def test_plain_wan_changes_names_both_ways_without_memory_parts(tmp_path: Path):
    original_wan(tmp_path / "wan")
    changed(tmp_path / "wan", tmp_path / "diffusers", to="diffusers")
    changed(tmp_path / "diffusers", tmp_path / "back.safetensors", to="released")
    assert same(load_state_dict(tmp_path / "back.safetensors"), load_state_dict(tmp_path / "wan"))


def test_what_plain_wan_cannot_hold_is_refused_by_name(tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    with pytest.raises(UsageError) as caught:
        changed(source, tmp_path / "out", "model.heads=2", to="diffusers")
    text = str(caught.value)
    assert "policy=affinity" in text
    assert "trained (12)" in text
    assert "blocks.0.camera.context.bias" in text
    assert not (tmp_path / "out").exists()


def test_exporting_says_where_the_released_code_would_behave_differently(tmp_path: Path):
    said = Said()
    model = hydra(context="frozen", top_k=3)
    model.save_pretrained(tmp_path / "ours")
    changed(tmp_path / "ours", tmp_path / "out.safetensors", to="released", said=said)
    assert "context joint (here frozen), top_k 10 (here 3), spans released (here exact)" in " ".join(said.lines)


# --- what is refused, what is kept -----------------------------------------------------------------------------------


def test_missing_extra_and_misshapen_weights_are_all_listed_and_nothing_is_written(tmp_path: Path):
    state = to_released(hydra().state_dict())
    del state["blocks.0.self_attn.q.weight"], state["text_embedding.2.bias"]
    state["blocks.1.ffn.2.bias"] = torch.zeros(23)
    state["blocks.2.projector.bias"] = torch.zeros(24)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(DataError) as caught:
        changed(tmp_path / "bad.pth", tmp_path / "out", "model.heads=2")
    text = str(caught.value)
    for part in (
        "missing (",
        "blocks.0.attn1.to_q.weight",
        "misshapen (1)",
        "blocks.1.ffn.net.2.bias is [23], expected [24]",
    ):
        assert part in text
    state["mystery.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(DataError, match=r"mystery\.weight"):
        changed(tmp_path / "bad.pth", tmp_path / "out", "model.heads=2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.pth"]


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_pickled_code_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"state_dict": to_released(hydra().state_dict()), "hook": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(DataError, match="refused"):
        changed(tmp_path / "evil.ckpt", tmp_path / "out", "model.heads=2")
    assert "this ran" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"token_embedding.weight": torch.ones(1)}, "UMT5 text encoder"),
        ({"blocks.0.attn1.to_q.lora_A.weight": torch.ones(1, 1)}, "adapter"),
        ({"conv.weight": torch.ones(1)}, "no weights of a Wan or HyDRA transformer"),
    ],
)
def test_other_weights_are_told_apart(tmp_path: Path, state: dict[str, Tensor], message: str):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises((DataError, UsageError), match=message):
        changed(tmp_path / "w.pth", tmp_path / "out")


def test_the_same_conversion_is_kept_and_another_is_made_anew(tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    first = changed(source, tmp_path / "out", "model.heads=2")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    said = Said()
    assert changed(source, tmp_path / "out", "model.heads=2", said=said) == first
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert any("kept" in line for line in said.lines)
    other = changed(source, tmp_path / "out", "model.heads=2", dtype="bfloat16")
    assert other.fingerprint != first.fingerprint
    assert {t.dtype for t in weights_of(tmp_path / "out").values()} == {torch.bfloat16}
    file = tmp_path / "r.safetensors"
    changed(tmp_path / "out", file, to="released")
    stamp = file.stat().st_mtime_ns
    changed(tmp_path / "out", file, to="released")
    assert file.stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="made from something else"):
        changed(tmp_path / "out", file, to="released", dtype="float32")
    changed(tmp_path / "out", file, to="released", dtype="float32", force=True)
    assert {t.dtype for t in load_state_dict(file).values()} == {torch.float32}


def test_a_conversion_that_broke_off_is_unfinished_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    write = convert.write_diffusers_folder

    def breaks(folder: Path, *rest: object) -> None:
        write(folder, *rest)  # type: ignore[arg-type]
        (folder / "transformer" / "half.safetensors").write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(convert, "write_diffusers_folder", breaks)
    with pytest.raises(OSError, match="no space"):
        changed(source, tmp_path / "out", "model.heads=2")
    with pytest.raises(DataError, match="unfinished"):
        find_model(tmp_path / "out")
    monkeypatch.setattr(convert, "write_diffusers_folder", write)
    changed(source, tmp_path / "out", "model.heads=2")
    assert same(weights_of(tmp_path / "out"), hydra().state_dict())
    assert not (tmp_path / "out" / "transformer" / "half.safetensors").exists()


def test_an_adapter_is_put_into_the_weights(tmp_path: Path):
    model = hydra(spans="released")
    source = write_released(tmp_path, "hydra.pth", model.state_dict())
    add_lora(model, rank=2, alpha=3, targets=("to_v", "projector"), generator=torch.Generator().manual_seed(0))
    randomise(model, 9)
    model.load_state_dict(to_ours(load_state_dict(source)), strict=False)
    save_lora(model, tmp_path / "lora")
    for name, tensor in to_ours(load_state_dict(source)).items():
        layer = name.removesuffix(".weight").removesuffix(".bias")
        own = model.state_dict()
        own.get(name, own.get(f"{layer}.base_layer.{name.rpartition('.')[2]}")).copy_(tensor)
    changed(source, tmp_path / "out", "model.heads=2", lora=tmp_path / "lora" / FILE)
    wanted, got = fused_weights(model), weights_of(tmp_path / "out")
    assert all(torch.allclose(got[name], wanted[name], atol=1e-6) for name in wanted)
    assert not torch.equal(got["blocks.0.projector.weight"], hydra().state_dict()["blocks.0.projector.weight"])
    with pytest.raises(DataError, match="this is no adapter"):
        changed(source, tmp_path / "no", "model.heads=2", lora=source)
    with pytest.raises(UsageError, match="no such adapter"):
        changed(source, tmp_path / "no", "model.heads=2", lora=tmp_path / "none.safetensors")
    assert not (tmp_path / "no").exists()


def test_an_original_vae_becomes_a_folder_that_the_codec_reads(tmp_path: Path, hm: WarmCommand):
    from diffusers import AutoencoderKLWan

    from hmcli.codecs.wan_files import load_wan_vae

    vae = AutoencoderKLWan(base_dim=8, z_dim=16)
    vae.save_pretrained(tmp_path / "vae")
    out = ok(hm("convert", tmp_path / "vae", "--out", tmp_path / "half", "--dtype", "bfloat16"))
    again = load_wan_vae(out, torch.float32)
    assert same(dict(again.state_dict()), {n: t.bfloat16().float() for n, t in vae.state_dict().items()})
    refused = hm("convert", tmp_path / "vae", "--to", "released", "--out", tmp_path / "x.pth")
    assert refused.returncode == 2


# --- as users run it -------------------------------------------------------------------------------------------------


def test_a_converted_model_generates_and_trains_on(
    hm: WarmCommand, nano: Path, latents: Path, joint_run: Path, tmp_path: Path
):
    released = ok(hm("convert", joint_run, "--to", "released", "--out", tmp_path / "nano.ckpt"))
    out = ok(hm("convert", released, "--recipe", nano, "--set", "model.memory.context=joint", "--out", tmp_path / "m"))
    assert same(weights_of(out), weights_of(joint_run))
    videos = {}
    for model in (joint_run, out):
        gen = ok(hm("generate", latents, "--model", model, "--out", tmp_path / f"gen-{model.name}"))
        videos[model] = [file.read_bytes() for file in sorted((gen / "videos").iterdir())]
    assert videos[joint_run] == videos[out]
    settings = ["--set", f"model.base={out}", "--set", "model.memory.context=joint", "--set", "train.steps=1"]
    trained = ok(hm("train", nano, "--latents", latents, "--out", tmp_path / "on", *settings))
    assert read_manifest(trained).inputs["base"] == read_manifest(out).fingerprint


def test_the_command_says_what_it_found_and_leaves_nothing_behind_on_failure(hm: WarmCommand, tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    plan = hm("convert", source, *HEADS, "--dry-run", "--out", tmp_path / "out", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "HyDRA transformer, original names" in plan.stderr
    assert "2 layers of 24, 2 heads" in plan.stderr
    failed = hm("convert", source, "--out", tmp_path / "out", cwd=tmp_path)
    assert failed.returncode == 2
    absent = hm("convert", tmp_path / "none.pth", cwd=tmp_path)
    assert absent.returncode == 2
    bad = hm("convert", source, *HEADS, "--to", "released", "--out", tmp_path / "out.txt", cwd=tmp_path)
    assert bad.returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["hydra.pth"]
    made = ok(hm("convert", source, *HEADS, cwd=tmp_path))
    assert made.name == "hydra.checkpoint"
    shutil.rmtree(made)


# --- other people's files --------------------------------------------------------------------------------------------


def kohya(layer: str, alpha: float | None, seed: int = 6) -> dict[str, Tensor]:
    """An adapter of rank 2 on one layer of 24 x 24, named as kohya names it."""
    draw = torch.Generator().manual_seed(seed)
    state = {
        "lora_down.weight": torch.randn(2, 24, generator=draw),
        "lora_up.weight": torch.randn(24, 2, generator=draw),
    }
    state |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
    return {f"lora_unet_{layer}.{end}": part for end, part in state.items()}


def test_an_adapter_of_another_tool_changes_the_weights_by_its_alpha_and_this_is_recorded(tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    name, said = "blocks.1.attn1.to_q.weight", Said()
    fingerprints = set()
    for alpha, scale in ((1.0, 0.5), (None, 1.0), (8.0, 4.0)):
        state = kohya("blocks_1_self_attn_q", alpha)
        save_file(state, tmp_path / "a.safetensors")
        made = changed(source, tmp_path / f"{alpha}", "model.heads=2", lora=tmp_path / "a.safetensors", said=said)
        down, up = list(state.values())[:2]
        got = weights_of(tmp_path / f"{alpha}")
        torch.testing.assert_close(got[name], hydra().state_dict()[name] + scale * (up @ down))
        assert same(
            {n: t for n, t in got.items() if n != name}, {n: t for n, t in hydra().state_dict().items() if n != name}
        )
        fingerprints.add(made.fingerprint)
    assert len(fingerprints) == 3
    assert sum("no alpha is stated: taken as 2, the rank" in line for line in said.lines) == 1
    assert "alpha 8 from the file's alpha keys" in read_manifest(tmp_path / "8.0").attributes["source"]


def test_alpha_beside_an_adapter_is_a_part_of_what_was_made(tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    save_file(kohya("blocks_1_self_attn_q", None), tmp_path / "a.safetensors")
    found = []
    for alpha in (2, 4):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}), encoding="utf-8")
        found.append(changed(source, tmp_path / "out", "model.heads=2", lora=tmp_path / "a.safetensors").fingerprint)
    assert found[0] != found[1]


def test_half_an_adapter_is_an_error_and_writes_nothing(hm: WarmCommand, tmp_path: Path):
    source = write_released(tmp_path, "hydra.pth", hydra().state_dict())
    state = kohya("blocks_1_self_attn_q", 1.0)
    del state["lora_unet_blocks_1_self_attn_q.lora_up.weight"]
    save_file(state, tmp_path / "a.safetensors")
    done = hm("convert", source, *HEADS, "--lora", tmp_path / "a.safetensors", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "lora_unet_blocks_1_self_attn_q.lora_down.weight has no up matrix" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_adapter_on_parts_that_the_written_model_lacks_is_refused(tmp_path: Path):
    source = write_released(tmp_path, "wan.pth", plain_wan().state_dict())
    save_file(kohya("blocks_1_projector", 1.0), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"parts that plain Wan has not(.|\n)*blocks\.1\.projector"):
        changed(source, tmp_path / "x.pth", "model.heads=2", lora=tmp_path / "a.safetensors", to="released")
    changed(source, tmp_path / "out", "model.heads=2", lora=tmp_path / "a.safetensors")
    down, up = list(kohya("blocks_1_projector", 1.0).values())[:2]
    wanted = torch.eye(24) + 0.5 * up @ down
    torch.testing.assert_close(weights_of(tmp_path / "out")["blocks.1.projector.weight"], wanted)


def test_an_adapter_in_the_place_of_a_model_is_told(tmp_path: Path):
    save_file(kohya("blocks_1_self_attn_q", 1.0), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="adapter"):
        changed(tmp_path / "a.safetensors", tmp_path / "out")


def test_a_trainer_s_checkpoint_is_read_and_what_was_taken_is_said_and_recorded(tmp_path: Path):
    trained, average = (to_released(hydra(seed).state_dict()) for seed in (3, 8))
    prefixed = {f"model.{n}": t for n, t in trained.items()} | {f"model_ema.{n}": t for n, t in average.items()}
    torch.save({"module": trained, "model_ema": average, "step": 9}, tmp_path / "a.pt")
    torch.save({"state_dict": prefixed | {"vae.conv.weight": torch.ones(1)}, "epoch": 1}, tmp_path / "b.ckpt")
    fingerprints = []
    for file, part, seed, told in (
        ("a.pt", "", 3, "from 'module' in the file"),
        ("a.pt", "model_ema", 8, "from 'model_ema' in the file"),
        ("b.ckpt", "", 3, "each after 'model.', from 'state_dict' in the file"),
        ("b.ckpt", "state_dict:model_ema.", 8, "each after 'model_ema.'"),
    ):
        said = Said()
        made = changed(tmp_path / file, tmp_path / "out", "model.heads=2", part=part, said=said, force=True)
        assert same(weights_of(tmp_path / "out"), dict(hydra(seed).state_dict()))
        assert told in read_manifest(tmp_path / "out").attributes["source"]
        assert any("the file also holds" in line for line in said.lines)
        assert any("1 other weights" in line and "vae.conv" in line for line in said.lines) == (file == "b.ckpt")
        fingerprints.append(made.fingerprint)
    assert len(set(fingerprints)) == 4


def test_scaled_8_bit_weights_become_a_model(tmp_path: Path):
    state = to_released(hydra().state_dict())
    wanted = dict(hydra().state_dict())
    for name in [name for name in state if name.endswith("ffn.0.weight")]:
        scale = state[name].abs().max() / 448
        eight = (state[name] / scale).to(torch.float8_e4m3fn)
        state |= {name: eight, name.removesuffix("weight") + "scale_weight": scale}
        wanted[name.replace("ffn.0", "ffn.net.0.proj")] = eight.float() * scale
    comfy = {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()}
    save_file(comfy | {"scaled_fp8": torch.zeros(0).to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    said = Said()
    changed(tmp_path / "a.safetensors", tmp_path / "out", "model.heads=2", said=said)
    assert same(weights_of(tmp_path / "out"), wanted)
    assert "2 weights in 8-bit floats, 2 of them scaled" in said.lines[0]


def test_a_pipeline_that_holds_only_a_variant_is_converted(tmp_path: Path):
    plain_wan().half().save_pretrained(tmp_path / "wan" / "transformer", variant="fp16", max_shard_size="20KB")
    assert not (tmp_path / "wan" / "transformer" / "diffusion_pytorch_model.safetensors").exists()
    changed(tmp_path / "wan", tmp_path / "out")
    got = weights_of(tmp_path / "out")
    assert all(torch.equal(got[name], tensor) for name, tensor in plain_wan().half().state_dict().items())


def test_a_pointer_in_place_of_weights_ends_with_what_to_do(hm: WarmCommand, tmp_path: Path):
    (tmp_path / "a.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    done = hm("convert", tmp_path / "a.safetensors", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "a Git LFS pointer" in done.stderr
    assert "git lfs pull" in done.stderr
