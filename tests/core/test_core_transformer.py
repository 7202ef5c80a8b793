"""The whole model: any size, batch independence, frozen memory, saving, checkpointing, LoRA, plain Wan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor

from hmcli.core.flow import flow_loss, make_schedule
from hmcli.core.inspection import recorded
from hmcli.core.pipeline import HydraPipeline
from hmcli.core.sampler import denoise
from hmcli.core.transformer import HydraTransformer3DModel, load_model
from hmcli.errors import DataError
from hmcli.store.names import ADDED_TO_WAN
from hmcli.store.weights import check_keys, shapes_of

SMALL = {
    "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 10, "ffn_dim": 24, "freq_dim": 16,
    "text_dim": 6, "in_channels": 3,
    "out_channels": 3, "top_k": 1, "window": 3,
}  # fmt: skip


def small(seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object) -> HydraTransformer3DModel:
    """A model whose every parameter is random, so that every path matters."""
    model = HydraTransformer3DModel(**(SMALL | changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def clip(frames: int, rows: int = 6, columns: int = 8, batch: int = 2, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "hidden_states": normal(batch, 3, frames, rows, columns),
        "timestep": 1000 * torch.rand(batch, generator=generator, dtype=torch.float64),
        "encoder_hidden_states": normal(batch, 7, 6),
        "camera": normal(batch, frames, 12),
    }


def target_of(inputs: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    return inputs | {"hidden_states": inputs["hidden_states"][:, :, n:], "camera": inputs["camera"][:, n:]}


@settings(max_examples=20)
@given(context=st.integers(2, 6), target=st.integers(1, 6), rows=st.integers(2, 5), columns=st.integers(2, 5),
       window=st.integers(1, 12), batch=st.integers(1, 3),
       how=st.sampled_from(["joint", "frozen"]),
       policy=st.sampled_from(["affinity", "none", "all"]), affinity=st.sampled_from(["pooled",
       "spatial"]))  # fmt: skip
def test_any_frame_count_size_and_batch_works(context, target, rows, columns, window, batch, how, policy, affinity):
    inputs = clip(context + target, 2 * rows, 2 * columns, batch)
    model = small(context=how, policy=policy, affinity=affinity, window=window)
    with torch.no_grad():
        out = model(**inputs, num_context_frames=context).sample
    assert out.shape == inputs["hidden_states"].shape
    assert out.isfinite().all()
    assert (out[:, :, :context] == 0).all() == (how == "frozen")


@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_samples_of_a_batch_do_not_touch_each_other(how: str):
    inputs, model = clip(9, batch=3), small(context=how)
    with torch.no_grad():
        together = model(**inputs, num_context_frames=5).sample
        for b in range(3):
            alone = model(**{name: value[b : b + 1] for name, value in inputs.items()}, num_context_frames=5).sample
            assert torch.allclose(together[b : b + 1], alone, atol=1e-10)


@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_one_timestep_per_frame_equals_one_per_sample_when_they_agree_and_differs_otherwise(how: str):
    inputs, model = clip(9), small(context=how)
    per_frame = inputs["timestep"][:, None].expand(-1, 9).clone()
    with torch.no_grad():
        plain = model(**inputs, num_context_frames=5).sample
        same = model(**(inputs | {"timestep": per_frame}), num_context_frames=5).sample
        per_frame[0, 7] += 200
        other = model(**(inputs | {"timestep": per_frame}), num_context_frames=5).sample
    assert torch.allclose(plain, same, atol=1e-12)
    assert (other[0, :, 7] - plain[0, :, 7]).abs().max() > 1e-3
    assert torch.equal(other[1], same[1])


@settings(max_examples=15)
@given(context=st.integers(3, 8), target=st.integers(1, 7), window=st.integers(1, 12), top_k=st.integers(0, 1),
       kernel=st.sampled_from([(2, 4, 4), (1, 2, 4), (3, 4, 2)]), spans=st.sampled_from(["exact", "released"]),
       policy=st.sampled_from(["affinity", "none", "all"]))  # fmt: skip
def test_kept_memory_gives_what_live_context_gives(context, target, window, top_k, kernel, spans, policy):
    inputs = clip(context + target)
    model = small(context="frozen", policy=policy, window=window, top_k=top_k, kernel=kernel, spans=spans)
    with torch.no_grad():
        live = model(**inputs, num_context_frames=context).sample[:, :, context:]
        memory = model.encode_context(inputs["hidden_states"][:, :, :context], inputs["camera"][:, :context])
        kept = model(**target_of(inputs, context), num_context_frames=0, memory=memory).sample
    assert torch.equal(live, kept)


def test_frozen_context_never_sees_target_text_or_timestep():
    inputs, model = clip(9), small(context="frozen")
    with torch.no_grad():
        before = model.encode_context(inputs["hidden_states"][:, :, :5], inputs["camera"][:, :5])
        with recorded() as readings:
            model(**inputs, num_context_frames=5)
    assert [(r.part, r.block) for r in readings] == [("context", 0), ("context", 1), ("target", 0), ("target", 1)]
    assert readings[0].frames_FW.max() == 4
    assert readings[2].frames_FW.min() == 4  # the first target window reaches one frame back
    assert readings[2].scores_BFM.shape == (2, 4, 2 + 2)  # two frozen slots and two live ones compete
    assert before.span_M2.tolist() == [[0, 1], [2, 3]]
    assert before.tail_frames == 2


def test_live_context_is_trained_through_the_memory():
    inputs, model = clip(9), small(context="frozen", policy="affinity", top_k=2)
    model(**inputs, num_context_frames=5).sample.square().sum().backward()
    assert model.blocks[0].camera.context.weight.grad.abs().max() > 0


def test_history_further_back_than_trained_sits_at_the_limit():
    inputs, far, near = clip(12), small(context="frozen", max_history=3), small(context="frozen", max_history=50)
    free = small(context="frozen")
    with torch.no_grad():
        outs = [model(**inputs, num_context_frames=8).sample for model in (free, near, far)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2])


def test_a_joint_model_refuses_memory_with_the_reason():
    inputs, frozen = clip(9), small(context="frozen")
    memory = frozen.encode_context(inputs["hidden_states"][:, :, :5], inputs["camera"][:, :5])
    joint = small(context="joint")
    with pytest.raises(ValueError, match="joint model cannot read a context memory"):
        joint(**target_of(inputs, 5), num_context_frames=0, memory=memory)
    with pytest.raises(ValueError, match="only frozen models"):
        joint.encode_context(inputs["hidden_states"], inputs["camera"])
    with pytest.raises(ValueError, match="both bring context"):
        frozen(**inputs, num_context_frames=5, memory=memory)


def test_memory_of_other_samples_or_of_another_grid_is_refused():
    inputs, frozen = clip(9), small(context="frozen")
    latents, camera = inputs["hidden_states"], inputs["camera"]
    fewer = frozen.encode_context(latents[:1, :, :5], camera[:1, :5])
    narrower = frozen.encode_context(latents[:, :, :5, :, :4], camera[:, :5])
    for memory, what in ((fewer, "memory of 1 samples"), (narrower, "memory of 2 samples")):
        with pytest.raises(ValueError, match=what):
            frozen(**target_of(inputs, 5), num_context_frames=0, memory=memory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": torch.zeros(2, 8, 12)}, "one row per latent frame"),
        ({"timestep": torch.zeros(3)}, "timestep is"),
        ({"hidden_states": torch.zeros(2, 3, 9, 5, 8)}, "not a multiple of the patch"),
        ({"hidden_states": torch.zeros(2, 4, 9, 6, 8)}, "channels"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        small()(**(clip(9) | change), num_context_frames=5)


@pytest.mark.parametrize(
    "change",
    [{"context": "both"}, {"affinity": "pool"}, {"spans": "x"}, {"flow_target": "v"}, {"tokenizer": "max"},
     {"patch_size": (2, 2, 2)}, {"kernel": (2, 3, 4)}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(change: dict[str, object]):
    with pytest.raises(ValueError):
        HydraTransformer3DModel(**(SMALL | change))


@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_gradient_checkpointing_changes_no_gradient(how: str):
    inputs, grads = clip(9), []
    for checkpointing in (False, True):
        model = small(context=how).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(**inputs, num_context_frames=5).sample.square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("how", ["joint", "frozen"])
def test_mixed_precision_trains_without_a_warning_and_close_to_float32(how: str):
    inputs, model = {name: value.float() for name, value in clip(9).items()}, small(dtype=torch.float32, context=how)
    exact = model(**inputs, num_context_frames=5).sample
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**inputs, num_context_frames=5).sample
    mixed.float().square().mean().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
    error = (mixed.float() - exact)[:, :, 5:].square().mean().sqrt()
    assert 0 < error < 0.2 * exact[:, :, 5:].square().mean().sqrt()


def test_saving_and_loading_keeps_configuration_and_output(tmp_path: Path):
    inputs = {name: value.float() for name, value in clip(9).items()}
    model = small(dtype=torch.float32, context="frozen", flow_target="clean_minus_noise", kernel=(1, 4, 2))
    model.save_pretrained(tmp_path / "transformer")
    loaded = load_model(tmp_path / "transformer")
    assert loaded.config.flow_target == "clean_minus_noise"
    with torch.no_grad():
        assert torch.equal(model(**inputs, num_context_frames=5).sample, loaded(**inputs, num_context_frames=5).sample)
    assert load_model(tmp_path / "transformer", torch.bfloat16).dtype == torch.bfloat16


def test_loading_refuses_weights_that_lack_a_part(tmp_path: Path):
    small(dtype=torch.float32).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_layers": 3}), encoding="utf-8")
    with pytest.raises(DataError, match=r"missing \(\d+\)"):
        load_model(tmp_path)


def test_lora_layers_can_be_added_and_start_without_effect():
    inputs, model = {name: value.float() for name, value in clip(9).items()}, small(dtype=torch.float32)
    with torch.no_grad():
        before = model(**inputs, num_context_frames=5).sample
        model.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "projector"]))
        after = model(**inputs, num_context_frames=5).sample
    assert torch.equal(before, after)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


@pytest.mark.parametrize("eps", [1e-6, 0.05])  # one that shows wherever it is left out
def test_reading_everything_with_fresh_memory_parts_is_plain_wan(eps: float):
    """The attention of a plain Wan model, with cameras at zero and the projector at identity."""
    shape = {k: v for k, v in SMALL.items() if k not in ("top_k", "window")} | {"eps": eps}
    torch.manual_seed(0)
    wan = WanTransformer3DModel(**shape, cross_attn_norm=True)
    model = HydraTransformer3DModel(**shape, policy="all")
    check_keys(shapes_of(model.state_dict()), shapes_of(wan.state_dict()), may_lack=ADDED_TO_WAN)
    model.load_state_dict(wan.state_dict(), strict=False)
    inputs = {name: value.float() for name, value in clip(9).items()}
    with torch.no_grad():
        wanted = wan(inputs["hidden_states"], inputs["timestep"], inputs["encoder_hidden_states"]).sample
        got = model(**inputs, num_context_frames=5).sample
    assert (got - wanted).abs().max() / wanted.abs().max() <= 1e-5


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_sampling_from_memory_equals_sampling_from_context(guidance: float):
    inputs, model = clip(9), small(context="frozen")
    settings = {
        "schedule": make_schedule(3, 5.0), "text": inputs["encoder_hidden_states"],
        "negative_text": torch.zeros(2, 7, 6, dtype=torch.float64), "guidance": guidance,
    }  # fmt: skip
    context, noise = inputs["hidden_states"][:, :, :5], inputs["hidden_states"][:, :, 5:]
    memory = model.encode_context(context, inputs["camera"][:, :5])
    live = denoise(model, noise, camera=inputs["camera"], context=context, **settings)
    kept = denoise(model, noise, camera=inputs["camera"][:, 5:], memory=memory, **settings)
    assert torch.equal(live, kept)


def test_guidance_without_a_negative_caption_is_an_error():
    inputs = clip(9)
    with pytest.raises(ValueError, match="negative caption"):
        denoise(
            small(), inputs["hidden_states"][:, :, 5:], schedule=make_schedule(2, 5.0), camera=inputs["camera"],
            text=inputs["encoder_hidden_states"], guidance=3.0, context=inputs["hidden_states"][:, :, :5],
        )  # fmt: skip


def test_both_flow_directions_lead_to_the_same_sample():
    inputs, ends = clip(9), []
    for target in ("noise_minus_clean", "clean_minus_noise"):
        model = small(flow_target=target)
        if target == "clean_minus_noise":
            with torch.no_grad():
                model.proj_out.weight.neg_()
                model.proj_out.bias.neg_()
        ends.append(
            denoise(
                model,
                inputs["hidden_states"][:, :, 5:],
                schedule=make_schedule(3, 5.0),
                camera=inputs["camera"],
                text=inputs["encoder_hidden_states"],
                context=inputs["hidden_states"][:, :, :5],
            )
        )
    assert torch.allclose(*ends, atol=1e-12)


@pytest.mark.parametrize("context", ["joint", "frozen"])
def test_a_model_that_predicts_clean_latents_hands_out_their_flow(context: str):
    inputs, timestep = clip(9), torch.tensor([250.0, 1000.0])
    clean, flow = (
        small(context=context, flow_target=target)(**(inputs | {"timestep": timestep}), num_context_frames=5)[0]
        for target in ("noise_minus_clean", "clean")
    )  # both are the same network's output
    expected = (inputs["hidden_states"] - clean) / (timestep / 1000).view(-1, 1, 1, 1, 1)
    assert torch.allclose(flow[:, :, 5:], expected[:, :, 5:], atol=1e-6)


def test_sampling_clean_latents_ends_at_the_last_prediction():
    inputs, model = clip(9), small(flow_target="clean")
    with torch.no_grad():
        model.proj_out.weight.zero_()
        model.proj_out.bias.fill_(0.25)
    ends = denoise(
        model, inputs["hidden_states"][:, :, 5:], schedule=make_schedule(3, 5.0), camera=inputs["camera"],
        text=inputs["encoder_hidden_states"], context=inputs["hidden_states"][:, :, :5],
    )  # fmt: skip
    assert torch.allclose(ends, torch.full_like(ends, 0.25), atol=1e-5)


def test_the_loss_looks_at_target_frames_only():
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.randn(2, 3, 7, 4, 6, generator=generator) for _ in range(2))
    weight = torch.tensor([1.0, 3.0])
    loss = flow_loss(prediction, target, weight, 4)
    assert loss.item() == pytest.approx(
        sum(w * (prediction[b, :, 4:] - target[b, :, 4:]).square().mean().item() for b, w in enumerate((1.0, 3.0))) / 2,
        rel=1e-5,
    )
    prediction[:, :, :4] = 99
    assert flow_loss(prediction, target, weight, 4) == loss
    assert flow_loss(prediction, target, weight[:, None].expand(2, 7), 4) == pytest.approx(loss.item())


def test_the_pipeline_saves_loads_and_samples(tmp_path: Path):
    vae = AutoencoderKLWan(base_dim=4, z_dim=3, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[True],
                           latents_mean=[0.0] * 3, latents_std=[1.0] * 3)  # fmt: skip
    pipeline = HydraPipeline(
        small(dtype=torch.float32, context="frozen"), FlowMatchEulerDiscreteScheduler(shift=5.0), vae
    )
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text(encoding="utf-8"))
    assert index["transformer"] == ["hmcli.core.transformer", "HydraTransformer3DModel"]  # frozen: weights name it
    loaded = HydraPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert type(loaded.vae) is AutoencoderKLWan
    inputs = {name: value.float() for name, value in clip(9).items()}
    ends = []
    for pipe in (pipeline, loaded):
        pipe.set_progress_bar_config(disable=True)
        ends.append(
            pipe(
                camera=inputs["camera"],
                prompt_embeds=inputs["encoder_hidden_states"],
                num_frames=4,
                generator=torch.Generator().manual_seed(3),
                context_latents=inputs["hidden_states"][:, :, :5],
                num_inference_steps=2,
                guidance_scale=1.0,
            ).frames
        )
    assert torch.equal(*ends)
    assert ends[0].shape == (2, 3, 4, 6, 8)
