"""What is put around the model: adapters, caches, group offload, attention kernels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import hooks
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hmcli.core import backends, caching
from hmcli.core.flow import make_schedule
from hmcli.core.lora import FILE, add_lora, fused_model, fused_weights, has_lora, load_lora, save_lora
from hmcli.core.sampler import denoise
from hmcli.core.transformer import HydraTransformer3DModel
from hmcli.errors import UsageError

CPU, F64 = torch.device("cpu"), torch.float64
STEPS, CONTEXT, TARGET = 5, 5, 4


def model(seed: int = 0, **changes: object) -> HydraTransformer3DModel:
    """A small float64 model, every weight of which is random."""
    sizes = {
        "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 10, "ffn_dim": 24, "freq_dim": 16,
        "text_dim": 6, "in_channels": 3, "out_channels": 3, "top_k": 1, "window": 3,
    }  # fmt: skip
    made = HydraTransformer3DModel(**sizes | changes)  # type: ignore[arg-type]
    randomise(made, seed)
    for parameter in made.parameters():
        parameter.data = parameter.data.double()
    return made


def randomise(made: nn.Module, seed: int, part: str = "") -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if part in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@torch.no_grad()
def flow(made: HydraTransformer3DModel) -> Tensor:
    frames = CONTEXT + TARGET
    out: Tensor = made(
        normal(2, 3, frames, 6, 8), torch.tensor([300.0, 700.0]), normal(2, 7, 6), normal(2, frames, 12), CONTEXT
    ).sample
    return out


def sampled(made: HydraTransformer3DModel, seed: int = 1, guidance: float = 2.5) -> Tensor:
    """Target latents after a few guided steps from context `seed`."""
    return denoise(
        made, normal(2, 3, TARGET, 6, 8), schedule=make_schedule(STEPS, 5.0), guidance=guidance,
        camera=normal(2, CONTEXT + TARGET, 12, seed=seed), text=normal(2, 7, 6), negative_text=normal(2, 7, 6, seed=8),
        context=normal(2, 3, CONTEXT, 6, 8, seed=seed),
    )  # fmt: skip


# --- adapters --------------------------------------------------------------------------------------------------------


def adapted(seed: int = 5, **changes: object) -> HydraTransformer3DModel:
    made = model(**changes)
    targets = ("to_q", "tokenizer.conv", "ffn.net.2")
    add_lora(made, rank=2, alpha=6, targets=targets, generator=torch.Generator().manual_seed(3))
    randomise(made, seed, ".lora_B.")
    return made


def test_a_new_adapter_changes_nothing_and_alone_is_trained():
    made = model()
    before = flow(made)
    add_lora(made, rank=2, alpha=6, targets=("to_v", "projector"), generator=torch.Generator().manual_seed(3))
    assert torch.allclose(flow(made), before, atol=1e-12)
    trained = [name for name, p in made.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name and ("to_v" in name or "projector" in name) for name in trained)


def test_what_an_adapter_starts_from_is_the_generators_alone():
    states = []
    for seed, elsewhere in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(elsewhere)
        made = model()
        add_lora(made, rank=2, alpha=6, targets=("to_v",), generator=torch.Generator().manual_seed(seed))
        states.append(torch.cat([p.flatten() for name, p in made.named_parameters() if ".lora_A." in name]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert states[0].abs().max() <= 20**-0.5  # as torch draws a linear layer of 20 inputs


@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_an_adapter_is_saved_loaded_and_fused_without_a_difference(tmp_path: Path, how: str):
    made = adapted(context=how)
    wanted = flow(made)
    save_lora(made, tmp_path)
    assert all(".lora_" in name for name in load_file(tmp_path / FILE))
    again = model(context=how)
    assert not torch.allclose(flow(again), wanted)
    load_lora(again, tmp_path / FILE)
    assert torch.equal(flow(again), wanted)
    plain = fused_model(made)
    assert not has_lora(plain)
    assert plain.state_dict().keys() == model(context=how).state_dict().keys()
    assert torch.allclose(flow(plain), wanted, atol=1e-10)
    assert torch.equal(flow(made), wanted)  # the adapted model stays as it was


def test_fusing_adds_alpha_over_rank_times_the_product():
    made = adapted()
    state, base = made.state_dict(), model().state_dict()
    name = "blocks.1.attn1.to_q"
    product = state[f"{name}.lora_B.default.weight"] @ state[f"{name}.lora_A.default.weight"]
    fused = fused_weights(made)
    assert torch.allclose(fused[f"{name}.weight"], base[f"{name}.weight"] + 6 / 2 * product, atol=1e-12)
    assert torch.equal(fused["blocks.1.attn1.to_k.weight"], base["blocks.1.attn1.to_k.weight"])


def test_the_same_adapter_is_the_same_file(tmp_path: Path):
    for place in ("a", "b"):
        save_lora(adapted(), tmp_path / place)
    assert (tmp_path / "a" / FILE).read_bytes() == (tmp_path / "b" / FILE).read_bytes()


def test_an_adapter_on_no_layer_is_refused():
    with pytest.raises(ValueError, match="names no layer: to_qq, norm2"):
        add_lora(model(), rank=2, alpha=2, targets=("to_q", "to_qq", "norm2"), generator=torch.Generator())


# --- caches ----------------------------------------------------------------------------------------------------------


def counted(made: HydraTransformer3DModel) -> list[int]:
    """How often each block's attention has run, counting from now."""
    runs = [0] * len(made.blocks)

    def count(block: int) -> None:
        runs[block] += 1

    for number, block in enumerate(made.blocks):
        block.attn1.register_forward_hook(lambda *_, number=number: count(number))
    return runs


NEVER = {
    "first-block": hooks.FirstBlockCacheConfig(threshold=0.0),
    "mag": hooks.MagCacheConfig(threshold=0.0, mag_ratios=[0.9] * STEPS, num_inference_steps=STEPS),
    "sea": hooks.SeaCacheConfig(threshold=0.0),
    "taylor": hooks.TaylorSeerCacheConfig(
        cache_identifiers=[r"blocks\.\d+"], cache_interval=1, disable_cache_before_step=0, taylor_factors_dtype=F64
    ),
}
ALWAYS = {
    "first-block": hooks.FirstBlockCacheConfig(threshold=1e9),
    "mag": hooks.MagCacheConfig(
        threshold=1e9, max_skip_steps=9, retention_ratio=0.2, mag_ratios=[0.9] * STEPS, num_inference_steps=STEPS
    ),
    "sea": hooks.SeaCacheConfig(threshold=1e9, max_consecutive_cached=0),
    "taylor": hooks.TaylorSeerCacheConfig(use_lite_mode=True, cache_interval=9, disable_cache_before_step=1),
}


@pytest.mark.parametrize("how", ["joint", "frozen"])
@pytest.mark.parametrize("cache", NEVER)
def test_a_cache_that_never_skips_changes_nothing(cache: str, how: str):
    made = model(context=how)
    wanted, runs = sampled(made), counted(made)
    made.enable_cache(NEVER[cache])
    assert torch.equal(sampled(made), wanted)
    assert runs == [2 * STEPS + (how == "frozen")] * 3


@pytest.mark.parametrize("how", ["joint", "frozen"])
@pytest.mark.parametrize("cache", ALWAYS)
def test_a_cache_skips_blocks_but_never_of_the_context_and_starts_anew_with_every_clip(cache: str, how: str):
    made = model(context=how)
    exact, runs = sampled(made), counted(made)
    made.enable_cache(ALWAYS[cache])
    skipped = sampled(made)
    context = int(how == "frozen")
    assert context + 2 <= runs[-1] < context + 2 * STEPS  # both branches run at least once
    assert not torch.allclose(skipped, exact)
    sampled(made, seed=7)
    assert torch.equal(sampled(made), skipped)  # nothing of the other clip is left
    made.disable_cache()
    assert torch.equal(sampled(made), exact)


@pytest.mark.parametrize("name", ["first-block", "sea", "taylor"])
def test_a_cache_by_name_is_the_one_of_diffusers_with_its_number(name: str):
    made = model(context="frozen")
    exact = sampled(made)
    number = {"first-block": "1e9", "sea": "1e9", "taylor": "2"}[name]
    made.enable_cache(caching.named_config(f"{name}:{number}"))
    assert name == "taylor" or not torch.allclose(sampled(made), exact)
    assert type(caching.named_config(name)) is type(caching.named_config(f"{name}:{number}"))
    for wrong in (f"{name}:0", f"{name}:-1", f"{name}:much", "mag:0.1", ""):
        with pytest.raises(ValueError, match="known are none, first-block, sea, taylor"):
            caching.named_config(wrong)


def test_guidance_branches_do_not_share_a_cache():
    """With a threshold that lets every step but the first be skipped, each branch goes on from its own first step."""
    made = model()
    made.enable_cache(ALWAYS["mag"])
    runs = counted(made)
    sampled(made)
    assert runs[0] == 2
    sampled(made, guidance=1.0)
    assert runs[0] == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (hooks.PyramidAttentionBroadcastConfig(), "one state for both guidance branches"),
        (hooks.FasterCacheConfig(), "both guidance branches in one batch"),
        (hooks.TextKVCacheConfig(), "other models"),
        (hooks.TaylorSeerCacheConfig(), "name no part of this model"),
        (hooks.TaylorSeerCacheConfig(cache_identifiers=["nothing"]), "'nothing' names no part"),
        (hooks.TaylorSeerCacheConfig(cache_identifiers=[r"blocks\.\d\.attn\d"]), "also returns memory"),
        (object(), "no cache known"),
    ],
)  # fmt: skip
def test_caches_that_cannot_be_right_are_refused_with_the_reason(config: object, message: str):
    made = model()
    with pytest.raises(ValueError, match=message):
        made.enable_cache(config)
    assert not made.is_cache_enabled


def test_a_cache_needs_two_blocks_and_context_apart():
    with pytest.raises(ValueError, match="at least two blocks"):
        model(num_layers=1).enable_cache(NEVER["first-block"])
    frozen = model(context="frozen")
    frozen.enable_cache(NEVER["first-block"])
    with pytest.raises(ValueError, match="encode_context"):
        flow(frozen)


# --- group offload ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_weights_offloaded_to_disk_are_there_when_needed(tmp_path: Path, how: str, kind: dict[str, object]):
    """Offloaded weights hold no values until they are fetched, on a CPU too, so a forgotten one would be seen."""
    made = model(context=how)
    wanted = sampled(made)
    made.enable_group_offload(
        onload_device=CPU,
        offload_device=CPU,
        offload_to_disk_path=str(tmp_path),
        **kind,  # type: ignore[arg-type]
    )
    with torch.no_grad():
        made.patch_embedding.weight.data.zero_()
    assert torch.equal(sampled(made), wanted)


# --- attention kernels -----------------------------------------------------------------------------------------------


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1) @ value


@pytest.mark.parametrize("name", ["auto", "sdpa", "flash", "math"])
def test_every_kernel_that_is_here_computes_attention(name: str):
    parts = (normal(2, 3, 5, 8), normal(2, 3, 7, 8, seed=2), normal(2, 3, 7, 8, seed=3))
    assert torch.allclose(backends.attend(*parts, backend=name), plain(*parts), atol=1e-12)
    backends.check_backend(name, CPU, F64, 8, backward=True)


@pytest.mark.parametrize("name", ["efficient", "cudnn", "flex", "varlen", "sage", "xformers"])
def test_a_kernel_that_is_not_here_is_refused_with_those_that_are(name: str):
    with pytest.raises(UsageError, match=f"'{name}' is not available here") as caught:
        model().set_attention(name)
    assert "available here: auto, sdpa, flash, math" in str(caught.value)
    assert re.search(r"because +\w+", str(caught.value))


def test_an_unknown_kernel_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match="unknown attention backend 'fast'") as caught:
        model().set_attention("fast")
    assert "auto, sdpa, flash, efficient, cudnn, math, flex, varlen" in str(caught.value)


@pytest.mark.parametrize("policy", ["affinity", "all", "none"])
def test_the_kernel_asked_for_computes_all_attention(policy: str):
    made = model(policy=policy)
    with torch.no_grad():
        wanted = flow(made)
        assert made.set_attention("math") == "attention: math"
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            assert torch.allclose(flow(made), wanted, atol=1e-10)
    used = {event.key for event in profile.key_averages() if "attention" in event.key}
    assert "aten::_scaled_dot_product_attention_math" in used
    assert not any("flash" in kernel for kernel in used)


def test_the_automatic_choice_is_told():
    assert model().set_attention("auto") == "attention: flash, chosen for cpu and float64"


def test_half_of_a_pair_is_refused_instead_of_filled_with_random_numbers(tmp_path: Path):
    adapted = model()
    add_lora(adapted, rank=2, alpha=4, targets=("to_q",), generator=torch.Generator().manual_seed(0))
    save_lora(adapted, tmp_path)
    state = load_file(tmp_path / FILE)
    lost = next(name for name in state if ".lora_B." in name)
    del state[lost]
    save_file(state, tmp_path / FILE)
    for source, more in ((dict(state), {}), (tmp_path, {"weight_name": FILE}), (tmp_path / FILE, {})):
        with pytest.raises(ValueError, match=lost.replace("lora_B", "lora_A")):
            model().load_lora_adapter(source, prefix=None, **more)
    with pytest.raises(ValueError, match="no other half"):
        load_lora(model(), tmp_path / FILE)
