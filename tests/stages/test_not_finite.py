"""Not-a-number and infinity: no step that meets them is applied, no artifact holds them, and each is said by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from warm import WarmCommand

from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.errors import NotFiniteError
from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.latents.view import open_latents
from hmcli.stages.models import convert
from hmcli.stages.models.folders import find_model
from hmcli.stages.training import codec, train, trainer
from hmcli.stages.training.checkpoints import checkpoint_manifest, kept_steps, write_checkpoint
from hmcli.store.artifact import ArtifactWriter
from hmcli.store.manifest import is_artifact, write_manifest
from hmcli.store.names import to_released
from hmcli.store.weights import save_weights

NAN, INF = float("nan"), float("inf")


# --- training --------------------------------------------------------------------------------------------------------


def test_a_run_ends_before_a_step_that_is_not_finite_and_says_where_it_can_go_on(
    hm: WarmCommand, nano: Path, latents: Path, tmp_path: Path
):
    """At such a rate the first step leaves weights with which the second is infinite."""
    settings = ["--set", "train.lr=1e20", "--set", "train.warmup=0", "--set", "train.checkpoint_every=1"]
    ended = hm("train", nano, "--latents", latents, "--out", tmp_path / "run", *settings)
    assert ended.returncode == 3
    assert "in step 2, which is not applied" in ended.stderr
    assert any(clip in ended.stderr for clip in open_latents(latents).ids())
    assert str(tmp_path / "run" / "checkpoints" / "000001") in ended.stderr
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["000001"]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "steps.jsonl").read_text().splitlines()] == [1]
    assert not is_artifact(tmp_path / "run")


def training_of(nano: Path, latents: Path) -> tuple[trainer.Training, trainer.Prepared]:
    view = open_latents(latents)
    recipe = train.as_encoded(load_recipe(str(nano), ["train.ema=0.5"]), view, Silent())
    training = trainer.prepare_training(recipe, view, "cpu", None, Silent())
    return training, training.prepare(0, [view.clip(clip) for clip in view.ids()[:2]])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_moments_nor_average(
    nano: Path, latents: Path, value: float
):
    training, prepared = training_of(nano, latents)
    assert training.average is not None
    before = [p.detach().clone() for p in training.parameters]
    training.parameters[3].register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(NotFiniteError, match=r"gradient's norm is .* in step 1") as error:
        training.step(prepared)
    assert error.value.where["clips"] == ", ".join(clip.id for clip in prepared.clips)
    assert all(torch.equal(a, b) for a, b in zip(before, training.parameters, strict=True))
    assert not training.optimizers[0].state
    assert training.average.optimization_step == 0


@pytest.mark.parametrize("part", ["weight", "average", "moment", "weight beside an average"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_checkpoint_that_is_not_finite_is_not_written_and_the_last_one_stays(
    nano: Path, latents: Path, tmp_path: Path, part: str, value: float
):
    training, prepared = training_of(nano, latents)
    training.step(prepared)
    average = training.average if "average" in part else None
    recipe, view, model, optimizers = training.recipe, training.view, training.model, training.optimizers
    with ArtifactWriter(tmp_path / "run", "run", recipe={}, inputs={}, seed=0, reporter=Silent()) as writer:
        write_checkpoint(writer, "key", 1, recipe, view, model, optimizers, average)
        spoiled = {
            "weight": training.parameters[5], "weight beside an average": training.parameters[5],
            "average": training.average.shadow_params[5] if training.average else None,
            "moment": optimizers[0].state[training.parameters[5]]["exp_avg_sq"],
        }[part]  # fmt: skip
        spoiled.data.view(-1)[0] = value
        with pytest.raises(NotFiniteError, match=r"1 of .* weights are not finite"):
            write_checkpoint(writer, "key", 2, recipe, view, model, optimizers, average)
        assert kept_steps(writer, "key") == [1]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["000001"]


def test_training_a_codec_ends_before_a_step_that_is_not_finite(clips: Path, tmp_path: Path):
    sizes = ["data.size=[16, 32]", "train.part=codec", "train.batch=1", "train.frames=5", "train.steps=5"]
    recipe = load_recipe(None, [*sizes, "train.lr=1e20", "train.warmup=0", "train.checkpoint_every=1", "train.keep=9"])
    with pytest.raises(NotFiniteError, match="in step 2, which is not applied") as error:
        codec.run(recipe, data=clips, out=tmp_path / "codec", reporter=Silent())
    assert set(str(error.value.where["clips"]).split(", ")) <= {p.name for p in clips.iterdir()}
    assert error.value.where["last good checkpoint"] == tmp_path / "codec" / "checkpoints" / "000001"
    assert [p.name for p in (tmp_path / "codec" / "checkpoints").iterdir()] == ["000001"]


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2])
def test_weights_that_are_not_finite_are_never_written(tmp_path: Path, dtype: torch.dtype, value: float):
    good = {"a": torch.ones(9, 70).to(dtype), "b": torch.arange(3), "empty": torch.empty(0, dtype=dtype)}
    save_weights(tmp_path / "w.safetensors", good, {})
    before = (tmp_path / "w.safetensors").read_bytes()
    bad = torch.ones(9, 70)
    bad[4, 41] = value
    with pytest.raises(NotFiniteError, match=r"1 of 4 weights are not finite\n.*spoiled"):
        save_weights(tmp_path / "w.safetensors", good | {"spoiled": bad.to(dtype)}, {})
    assert (tmp_path / "w.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


SMALL = {
    "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 40, "freq_dim": 16, "text_dim": 32,
}  # fmt: skip


def spoiled(model: nn.Module, value: float) -> dict[str, Tensor]:
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    next(iter(state.values())).view(-1)[0] = value
    return state


def hydra_file(folder: Path, value: float) -> Path:
    save_file(to_released(spoiled(HydraTransformer3DModel(**SMALL), value)), folder / "hydra.safetensors")
    return folder / "hydra.safetensors"


def vae_folder(folder: Path, value: float) -> Path:
    vae = AutoencoderKLWan(base_dim=8, z_dim=16)
    vae.load_state_dict(spoiled(vae, value))
    vae.save_pretrained(folder / "vae")
    return folder / "vae"


CONVERSIONS: dict[str, tuple[Callable[[Path, float], Path], str | None, str | None, float]] = {
    "a checkpoint": (hydra_file, None, None, NAN),
    "released names": (hydra_file, "released", None, INF),
    "plain Wan": (hydra_file, "diffusers", None, NAN),
    "a VAE": (vae_folder, None, None, NAN),
    "a checkpoint beyond float16": (hydra_file, None, "float16", 7e4),
    "a VAE beyond float16": (vae_folder, None, "float16", 7e4),
}


@pytest.mark.parametrize(("made", "to", "dtype", "value"), CONVERSIONS.values(), ids=CONVERSIONS)
def test_weights_that_are_not_finite_are_not_converted(
    tmp_path: Path, made: Callable[[Path, float], Path], to: str | None, dtype: str | None, value: float
):
    source = made(tmp_path, value)
    settings = ["model.heads=2", "model.memory.policy=all"] if made is hydra_file else []
    out = tmp_path / ("out.safetensors" if to == "released" else "out")
    with pytest.raises(NotFiniteError, match=r"1 of .* weights are not finite") as error:
        convert.run(
            source, to=to, out=out, recipe=None, overrides=settings, dtype=dtype, lora=None, force=False,
            reporter=Silent(),
        )  # fmt: skip
    assert error.value.where["source"] == source
    assert not is_artifact(out)
    assert not out.is_file()


def test_a_model_with_weights_that_are_not_finite_is_not_used(nano: Path, latents: Path, run: Path, tmp_path: Path):
    """Somebody's checkpoint may be whole, as its manifest says, and yet be that."""
    shutil.copytree(find_model(run).path, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"proj_out.bias": torch.full((64,), NAN)}, file, metadata={"format": "pt"})
    training, _ = training_of(nano, latents)
    (tmp_path / "checkpoint" / "manifest.json").unlink()
    manifest = checkpoint_manifest(tmp_path / "checkpoint", 4, training.recipe, training.view, training.model)
    write_manifest(tmp_path / "checkpoint", manifest)
    with pytest.raises(NotFiniteError, match=r"1 of .*\n.*\n.*proj_out\.bias"):
        find_model(tmp_path / "checkpoint").load(torch.float32, "cpu")
    with pytest.raises(NotFiniteError, match=r"proj_out\.bias"):
        train.run(
            load_recipe(str(nano), [f"model.base={tmp_path / 'checkpoint'}"]), latents=latents, out=tmp_path / "run",
            force=False, device="cpu", reporter=Silent(),
        )  # fmt: skip
