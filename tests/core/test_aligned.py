"""Weights that come from disk stand at aligned addresses of their own, so they compute as those that were in memory."""

from __future__ import annotations

import functools
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from reference.misaligned import OFFSETS, astray, mapped, shift_data, shift_folder
from reference.small import CONTEXT, small_clip, small_model
from torch import Tensor, nn

from hmcli.aligned import own, own_weights, tensor_of
from hmcli.core.lora import FILE, add_lora, load_lora, save_lora
from hmcli.core.pipeline import HydraPipeline
from hmcli.core.transformer import HydraTransformer3DModel, load_model
from hmcli.store.weights import load_state_dict, map_state_dict

CPU = torch.device("cpu")


@pytest.fixture(params=OFFSETS)
def offset(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def model() -> HydraTransformer3DModel:
    return small_model(policy="affinity", context="joint").float()


@torch.no_grad()
def flow(made: HydraTransformer3DModel) -> Tensor:
    given = {name: value.float() for name, value in small_clip().items()}
    out: Tensor = made(**given, num_context_frames=CONTEXT).sample
    return out


def tiny_vae() -> AutoencoderKLWan:
    torch.manual_seed(2)
    return AutoencoderKLWan(
        base_dim=4, z_dim=3, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True], latents_mean=[0.0] * 3,
        latents_std=[1.0] * 3,
    )  # fmt: skip


def watch(model: nn.Module) -> list[str]:
    """From now on, which of the weights that each module computes with lie wrong when it does."""
    seen: list[str] = []
    for name, module in model.named_modules():
        place = "_old_forward" if hasattr(module, "_old_forward") else "forward"  # accelerate's hooks keep it there
        bare = getattr(module, place)

        def looking(*args: Any, _name=name, _module=module, _forward=bare, **kwargs: Any) -> Any:
            seen.extend(f"{_name}.{number}" for number in astray(*_module.parameters(recurse=False)))
            return _forward(*args, **kwargs)

        setattr(module, place, functools.update_wrapper(looking, bare))
    return seen


def test_an_array_becomes_a_contiguous_tensor_of_its_own():
    whole = np.arange(4000, dtype=np.float32).reshape(40, 100)
    for array in (whole, whole[:, 3:50], whole.T, whole[5:6, 1], np.float32(2.5), np.frombuffer(b"abcdefgh", "<u2")):
        tensor = tensor_of(np.asarray(array))
        assert not astray(tensor)
        assert np.array_equal(tensor.numpy(), array)
        assert tensor.shape == np.shape(array)
    tensor = tensor_of(whole)
    whole[:] = 0
    assert tensor[1, 1] == 101


def test_a_tensor_off_its_address_is_moved_and_shares_nothing():
    whole = torch.arange(40.0)
    assert astray(whole[1:])
    moved = own(whole[1:])
    assert not astray(moved)
    assert moved.untyped_storage().nbytes() == moved.nbytes
    whole[:] = 0
    assert moved[0] == 1


def test_tied_weights_stay_tied():
    tied = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    tied[1].weight = tied[0].weight
    own_weights(tied)
    assert tied[1].weight is tied[0].weight


def test_a_state_dict_is_read_into_memory_of_its_own(tmp_path: Path, offset: int):
    state = model().state_dict()
    half = len(state) // 2
    model().save_pretrained(tmp_path, max_shard_size=sum(t.nbytes for t in list(state.values())[:half]))
    shift_folder(tmp_path, offset)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    lazily = map_state_dict(tmp_path)
    assert astray(*lazily.values())
    assert mapped(files)
    del lazily
    read = load_state_dict(tmp_path)
    assert not astray(*read.values())
    assert not mapped(files)
    assert all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("how", ["load_model", "from_pretrained", "dispatched to disk"])
def test_a_loaded_model_computes_as_the_one_in_memory(tmp_path: Path, offset: int, how: str):
    if how == "dispatched to disk" and version("diffusers") < "0.42":
        pytest.skip("diffusers before 0.42 leaves no whole model on disk")
    made = model()
    made.save_pretrained(tmp_path / "transformer")
    shift_folder(tmp_path, offset)
    if how == "load_model":
        loaded = load_model(tmp_path / "transformer")
    elif how == "from_pretrained":
        loaded = HydraTransformer3DModel.from_pretrained(tmp_path / "transformer")
    else:
        loaded = HydraTransformer3DModel.from_pretrained(
            tmp_path / "transformer", device_map={"": "disk"}, offload_folder=tmp_path / "there"
        )
    astray_then = watch(loaded)
    assert torch.equal(flow(loaded), flow(made))
    assert not astray_then
    assert not mapped(tmp_path.rglob("*.safetensors"))


def test_every_part_of_a_loaded_pipeline_stands_right(tmp_path: Path, offset: int):
    vae = tiny_vae()
    HydraPipeline(model(), FlowMatchEulerDiscreteScheduler(shift=5.0), vae).save_pretrained(tmp_path)
    shift_folder(tmp_path, offset)
    loaded = HydraPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert not astray(loaded.transformer, loaded.vae)
    assert not mapped(tmp_path.rglob("*.safetensors"))
    assert torch.equal(flow(loaded.transformer), flow(model()))
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded.vae.encode(video).latent_dist.mode(), vae.encode(video).latent_dist.mode())


@pytest.mark.parametrize("how", ["load_lora", "assigned"])
def test_a_loaded_adapter_stands_right_beside_weights_left_alone(tmp_path: Path, offset: int, how: str):
    made = model()
    add_lora(made, rank=2, alpha=6, targets=("to_q",), generator=torch.Generator().manual_seed(3))
    save_lora(made, tmp_path)
    shift_data(tmp_path / FILE, offset)
    loaded = model()
    places = {name: weight.data_ptr() for name, weight in loaded.named_parameters()}
    if how == "load_lora":
        load_lora(loaded, tmp_path / FILE)
    else:
        loaded.load_lora_adapter(tmp_path, prefix=None, weight_name=FILE, low_cpu_mem_usage=True)
    assert not astray(loaded)
    assert not mapped([tmp_path / FILE])
    assert torch.equal(flow(loaded), flow(made))
    stayed = {name.replace(".base_layer", ""): weight.data_ptr() for name, weight in loaded.named_parameters()}
    assert all(stayed[name] == place for name, place in places.items())


@pytest.mark.parametrize("kind", [{"offload_type": "leaf_level"}, {"num_blocks_per_group": 1}])
def test_weights_fetched_from_disk_compute_as_those_in_memory(tmp_path: Path, offset: int, kind: dict[str, Any]):
    made = model()
    wanted, astray_then = flow(made), watch(made)
    made.enable_group_offload(onload_device=CPU, offload_to_disk_path=str(tmp_path), **kind)
    shift_folder(tmp_path, offset)
    assert torch.equal(flow(made), wanted)
    assert not astray_then


def test_parts_of_a_pipeline_fetched_from_disk_compute_as_those_in_memory(tmp_path: Path, offset: int):
    made, vae, video = model(), tiny_vae(), torch.rand(1, 3, 5, 16, 24) * 2 - 1
    wanted, astray_then = (flow(made), vae.encode(video).latent_dist.mode()), (watch(made), watch(vae))
    pipeline = HydraPipeline(made, FlowMatchEulerDiscreteScheduler(), vae)
    pipeline.enable_group_offload(onload_device=CPU, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    shift_folder(tmp_path, offset)
    assert torch.equal(flow(made), wanted[0])
    with torch.no_grad():
        assert torch.equal(vae.encode(video).latent_dist.mode(), wanted[1])
    assert astray_then == ([], [])
